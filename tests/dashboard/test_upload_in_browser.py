"""Uploading with the browser: a real ResNet-50, and files that the service refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.dashboard.running import Visitor
from tests.service.models import small_file

pytestmark = pytest.mark.browser

Visit = Callable[..., Visitor]


def test_a_resnet50_is_uploaded_waited_for_and_opened(visit: Visit, resnet50_file: Path) -> None:
    window = visit()
    page = window.go("/", ".tp-title")
    page.get_by_role("button", name="Upload a model").first.click()
    page.get_by_label("Name").fill("my-resnet50")
    page.get_by_label("Input shapes").fill("1x3x224x224")
    window.screenshot("upload")
    page.locator("input[type=file]").set_input_files(resnet50_file)
    page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    name = page.locator("td.tp-cell-name", has_text="my-resnet50")
    row = page.locator(".tp-table tbody tr", has=name)
    expect(row).to_be_visible()
    expect(row).to_contain_text("ready")
    expect(row).to_contain_text("25.6 M")
    expect(row).to_contain_text("8.18 GFLOPs")
    name.get_by_role("link").click()
    expect(page.get_by_role("heading", name="my-resnet50")).to_be_visible()
    expect(page.locator(".tp-table tbody tr").first).to_contain_text("conv")


def test_a_file_that_is_no_model_is_refused_in_plain_words(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "notes.onnx"
    path.write_bytes(b"this is not a network\n" * 100)
    window = visit()
    page = window.go("/", ".tp-title")
    page.get_by_role("button", name="Upload a model").first.click()
    page.locator("input[type=file]").set_input_files(path)
    page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    alert = page.locator(".q-dialog [role=alert]")
    expect(alert).to_contain_text("not a")
    assert "Traceback" not in alert.inner_text()
    window.screenshot("upload-refused")


def test_torchscript_without_shapes_says_how_to_give_them(
    visit: Visit, resnet50_file: Path
) -> None:
    window = visit()
    page = window.go("/", ".tp-title")
    page.get_by_role("button", name="Upload a model").first.click()
    page.locator("input[type=file]").set_input_files(resnet50_file)
    expect(page.get_by_label("Input shapes")).to_have_value("1x3x224x224")
    expect(page.get_by_label("Name")).to_have_value("resnet50")
    page.get_by_label("Input shapes").fill("")
    page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    alert = page.locator(".q-dialog [role=alert]")
    expect(alert).to_contain_text(re.compile("input|shape", re.IGNORECASE))
    expect(
        page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True)
    ).to_be_enabled()


def test_a_misspelt_shape_is_named(visit: Visit, resnet50_file: Path) -> None:
    window = visit()
    page = window.go("/", ".tp-title")
    page.get_by_role("button", name="Upload a model").first.click()
    page.get_by_label("Input shapes").fill("1x3xtwox224")
    page.locator("input[type=file]").set_input_files(resnet50_file)
    page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator(".q-dialog [role=alert]")).to_contain_text("1x3xtwox224")


def test_a_model_whose_build_fails_shows_the_reason(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(small_file(2).content)
    window = visit()
    page = window.go("/", ".tp-title")
    page.get_by_role("button", name="Upload a model").first.click()
    page.get_by_label("Name").fill("broken")
    page.get_by_label("Input shapes").fill("1x5x8x8")
    page.locator("input[type=file]").set_input_files(path)
    page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    row = page.locator(".tp-table tbody tr", has_text="broken")
    expect(row).to_contain_text("failed")
    row.get_by_role("link", name="broken").click()
    alert = page.locator("main [role=alert]")
    expect(alert).to_be_visible()
    assert len(alert.inner_text()) > 30
    window.screenshot("model-failed")
    page.get_by_label("Input shapes").fill("1x3x8x8")
    page.get_by_role("button", name="Build it").click()
    expect(page.locator(".tp-table tbody tr").first).to_contain_text("conv")


DRAGGED = """name => {
  const data = new DataTransfer();
  data.items.add(new File(["this is not a network\\n"], name));
  return data;
}"""


@pytest.mark.parametrize(
    ("name", "said"),
    [("notes.txt", "Names of models end in .pt"), ("notes.onnx", "is not a")],
    ids=["another-ending", "another-content"],
)
def test_a_dropped_file_that_is_no_model_is_refused_in_plain_words(
    visit: Visit, name: str, said: str
) -> None:
    window = visit()
    page = window.go("/", ".tp-title")
    data = page.evaluate_handle(DRAGGED, name)
    page.locator(".tp-page").dispatch_event("dragenter", {"dataTransfer": data})
    uploader = page.locator(".q-dialog .q-uploader")
    expect(uploader).to_be_visible()
    uploader.dispatch_event("dragover", {"dataTransfer": data})
    uploader.locator(".q-uploader__dnd").dispatch_event("drop", {"dataTransfer": data})
    if name.endswith(".onnx"):
        page.locator(".q-dialog").get_by_role("button", name="Upload", exact=True).click()
    alert = page.locator(".q-dialog [role=alert]")
    expect(alert).to_contain_text(said)
    assert "Traceback" not in alert.inner_text()
    expect(page.locator(".q-dialog")).to_contain_text("Drop a file here")


def test_a_file_that_misses_its_field_does_not_replace_the_page(visit: Visit) -> None:
    window = visit()
    page = window.go("/", ".tp-title")
    stopped = page.evaluate(
        """() => ["dragover", "drop"].every(kind => {
          const event = new DragEvent(kind, {bubbles: true, cancelable: true});
          document.querySelector("main, .tp-page").dispatchEvent(event);
          return event.defaultPrevented;
        })"""
    )
    assert stopped
