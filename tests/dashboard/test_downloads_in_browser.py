"""What leaves the cut page: files of a ResNet-50 and a ResNet-18, and code that runs."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from playwright.sync_api import Page, expect

from tests.dashboard.running import Visitor
from tests.service.models import onnx_of, torchvision_model
from tests.service.running import PATIENCE
from torchpruner_client import Client, CutResult, RemoteModel

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]
NODE = "self.layer2.0.conv3.weight"


def cut_page(window: Visitor, model: str, node: str = NODE) -> Page:
    page: Page = window.go(f"/models/{model}/cut?node={node}&dim=0&index=0-31", ".tp-picture")
    return page


def downloaded(page: Page, form: str) -> Path:
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as waiting:
        page.get_by_text(form).click()
    assert "resnet" in waiting.value.suggested_filename
    return Path(waiting.value.path())


def run_onnx(path: Path, example: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]


def test_numpy_weights_are_downloaded(
    visit: Visit, resnet_id: str, resnet50: torch.nn.Module
) -> None:
    path = downloaded(cut_page(visit(), resnet_id), "Weights, NumPy .npz")
    known = resnet50.state_dict()
    with np.load(path) as file:
        assert set(file.files) == set(known)
        kept = file["layer2.0.conv3.weight"]
    assert np.array_equal(kept, known["layer2.0.conv3.weight"][32:].numpy())


def test_a_pruned_onnx_model_is_downloaded_and_runs(visit: Visit, resnet_id: str) -> None:
    path = downloaded(cut_page(visit(), resnet_id), "Model, ONNX")
    answer = run_onnx(path, torch.zeros(1, 3, 224, 224))
    assert answer.shape == (1, 1000) and np.isfinite(answer).all()


@pytest.fixture(scope="module")
def resnet18(client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[RemoteModel, Path]:
    """A ResNet-18 that the service has without its weights, and its whole ONNX file."""
    module, example = torchvision_model("resnet18")
    path = tmp_path_factory.mktemp("onnx") / "resnet18.onnx"
    path.write_bytes(onnx_of(module, example))
    return client.upload(path, name="resnet18", weights=None), path


def test_missing_weights_are_added_where_they_are_missed(
    visit: Visit, resnet18: tuple[RemoteModel, Path], resnet_id: str, tmp_path: Path
) -> None:
    model, whole = resnet18
    assert not model.refresh().has_weights
    page = cut_page(visit(), model.id, "self.layer1.0.conv1.weight")
    page.get_by_role("button", name="Download").click()
    page.get_by_text("Model, ONNX").click()
    dialog = page.locator(".q-dialog")
    expect(dialog).to_contain_text("Add the weights")
    # A file with another ending, another network, then the right one.
    picker = dialog.locator("input[type=file]")
    (tmp_path / "notes.txt").write_text("not a network")
    picker.set_input_files(tmp_path / "notes.txt")
    expect(dialog.get_by_role("alert")).to_contain_text("Its name must end in .onnx")
    (tmp_path / "other.onnx").write_bytes(onnx_of(*torchvision_model("squeezenet1_1")))
    picker.set_input_files(tmp_path / "other.onnx")
    expect(dialog.get_by_role("alert")).not_to_contain_text("must end in")
    expect(dialog.get_by_role("alert")).to_be_visible()
    assert "Traceback" not in dialog.inner_text()
    picker.set_input_files(whole)
    expect(page.get_by_text("The weights are there")).to_be_visible()
    expect(dialog).to_be_hidden()
    assert model.refresh().has_weights
    answer = run_onnx(downloaded(page, "Model, ONNX"), torch.zeros(1, 3, 64, 64))
    assert answer.shape == (1, 1000)


def copied(page: Page, title: str) -> str:
    page.locator(".q-dialog").get_by_role("tab", name=title).click()
    page.get_by_role("button", name=f"Copy {title}").click()
    expect(page.get_by_text(f"{title} is copied")).to_be_visible()
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def test_what_is_copied_runs_and_makes_the_cut(
    visit: Visit, resnet_id: str, resnet50: torch.nn.Module, client: Client
) -> None:
    asked = client.model(resnet_id).cut_analysis(NODE, range(32))
    window = visit()
    window.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = cut_page(window, resnet_id)
    page.get_by_role("button", name="Copy as code").click()
    window.screenshot("cut-copy")

    module = copy.deepcopy(resnet50)
    scope: dict[str, Any] = {"module": module}
    exec(copied(page, "Python"), scope)
    assert scope["result"] == asked
    assert module.get_parameter("layer2.0.conv3.weight").shape[0] == 480

    command = copied(page, "curl")
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, check=True, timeout=PATIENCE
    )
    assert CutResult.from_dict(json.loads(done.stdout)) == asked

    assert CutResult.from_dict(json.loads(copied(page, "JSON"))) == asked


def test_copying_works_where_the_browser_has_no_clipboard_to_offer(
    visit: Visit, resnet_id: str
) -> None:
    """As over plain HTTP: what was copied is pasted into a field."""
    window = visit()
    window.page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page = cut_page(window, resnet_id)
    page.get_by_role("button", name="Copy as code").click()
    page.get_by_role("button", name="Copy Python").click()
    expect(page.get_by_text("Python is copied")).to_be_visible()
    page.locator(".q-dialog").get_by_role("button", name="Close").click()
    field = page.get_by_label("Search affected")
    field.focus()
    page.keyboard.press("Control+v")
    assert "cut_analysis_many" in field.input_value()
