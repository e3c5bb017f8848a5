"""The SDK against a real service."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from tests.service.models import ModelFile, Small, onnx_of, small_file
from tests.service.running import RunningService
from torchpruner_client import (
    AsyncClient,
    Client,
    DownloadTargetError,
    InvalidRequestError,
    ModelFailed,
    NotFoundError,
    ServiceUnreachable,
    WeightsRequired,
)
from torchpruner_core import errors as core_errors
from torchpruner_core import solve_onnx
from torchpruner_core.pruning import set_cut


@pytest.fixture
def client(service: RunningService) -> Client:
    return Client(service.url, progress=False)


def test_a_module_is_sent_without_its_weights(client: Client) -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512)
    )
    remote = client.upload(module.eval(), [torch.zeros(1, 512)])
    assert remote.info.weightless and not remote.info.has_weights
    sent, full = remote.bytes_sent or (0, 1)
    assert sent <= 0.01 * full
    result = remote.modules["self.0"].cut_analysis("weight", index=[0, 1], dim=0)
    assert list(result["terminal"]) == ["self.0.weight", "self.0.bias", "self.2.weight"]


def test_weights_are_added_when_they_are_needed(client: Client, tmp_path: Path) -> None:
    module = Small(seed=301, width=128).eval()
    remote = client.upload(module, [torch.zeros(1, 3, 8, 8)])
    result = remote.cut_analysis("self.conv1.weight", range(5))
    with pytest.raises(WeightsRequired) as caught:
        client.model(remote.id).download_pruned(result, tmp_path / "none.safetensors")
    assert "/weights" in caught.value.detail
    assert not list(tmp_path.iterdir())
    path = remote.download_pruned(result, tmp_path / "pruned.safetensors")
    assert remote.refresh().has_weights
    state = load_file(path)
    expected = module.state_dict()
    pruned, _ = set_cut(module, result)
    pruned.load_state_dict(state, strict=True)
    assert set(state) == set(expected)
    assert torch.equal(state["bn.num_batches_tracked"], expected["bn.num_batches_tracked"])


def test_marked_axes_stay_open_in_the_pruned_onnx_model(client: Client, tmp_path: Path) -> None:
    module = Small(seed=401, width=16).eval()
    remote = client.upload(module, [torch.zeros(2, 3, 8, 8)], dynamic={0: {0: "batch"}})
    result = remote.cut_analysis("self.conv1.weight", range(5))
    pruned = onnx.load(remote.download_onnx(result, tmp_path / "pruned.onnx"))
    (taken,) = pruned.graph.input
    assert [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim] == [
        "batch", 3, 8, 8,
    ]  # fmt: skip
    with pytest.raises(core_errors.ExportError, match=r"nn\.Module"):
        client.upload(onnx_of(module, torch.zeros(2, 3, 8, 8)), dynamic={0: [0]})


def test_other_weights_are_refused(client: Client, tmp_path: Path) -> None:
    one, other = Small(302).eval(), torch.nn.Sequential(torch.nn.Linear(300, 300)).eval()
    remote = client.upload(one, [torch.zeros(1, 3, 8, 8)])
    file = tmp_path / "other.onnx"
    file.write_bytes(onnx_of(other, torch.zeros(1, 300)))
    with pytest.raises(core_errors.TorchPrunerError) as caught:
        remote.add_weights(file)
    assert "differs" in str(caught.value)


def test_a_model_on_the_meta_device_is_analysed(client: Client) -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(
            torch.nn.Linear(8192, 28672), torch.nn.ReLU(), torch.nn.Linear(28672, 8192)
        )
    remote = client.upload(module.eval(), [(1, 8192)])
    result = remote.modules["self.0"].cut_analysis("weight", index=[7], dim=0)
    assert result.params_before == 2 * 8192 * 28672 + 8192 + 28672
    sent, full = remote.bytes_sent or (0, 1)
    assert sent < 100_000 < full


def test_an_onnx_file_is_stripped_and_a_torchscript_file_is_not(
    client: Client, onnx_file: ModelFile, torchscript: ModelFile, tmp_path: Path
) -> None:
    path = tmp_path / "r18.onnx"
    path.write_bytes(onnx_file.content)
    light = client.upload(path)
    assert light.info.weightless
    assert (light.bytes_sent or (1, 1))[0] < 0.01 * len(onnx_file.content)
    whole = client.upload(torchscript.content, {"x": torchscript.example})
    assert not whole.info.weightless


def test_results_are_the_core_s(client: Client, onnx_file: ModelFile) -> None:
    remote = client.upload(onnx_file.content)
    local = solve_onnx(onnx_file.content)
    node = "self.layer3.0.conv1.weight"
    assert remote.cut_analysis(node, np.array([1, 2])) == local.cut_analysis(node, [1, 2], 0)
    joint = remote.cut_analysis_many([(node, 0, [1]), ("self.layer1.0.conv1.weight", 0, [3])])
    assert len(joint.requested) == 2
    assert remote.flops().flops == local.flops()
    assert len(remote.groups()) == len(local.groups())
    assert set(remote.modules) == set(local.modules)
    assert len(remote.nodes()) == len(local.nodes)
    assert len(remote.operators()) == len(local.operators)


def test_errors_are_typed_and_also_the_core_s(client: Client, model_id: str) -> None:
    remote = client.model(model_id)
    with pytest.raises(core_errors.UnknownNodeError):
        remote.cut_analysis("self.nope", [0])
    with pytest.raises(NotFoundError):
        remote.cut_analysis("self.nope", [0])
    with pytest.raises(core_errors.CutIndexError) as caught:
        remote.cut_analysis("self.conv1.weight", [64])
    assert isinstance(caught.value, InvalidRequestError)
    assert caught.value.fields["size"] == 64
    for index in ([0.5], [True], "01", None, 3, [[0]], [2**70]):
        with pytest.raises(core_errors.CutIndexError):
            remote.cut_analysis("self.conv1.weight", index)
    for dim in ("0", None, 1.5, True):
        with pytest.raises(core_errors.CutDimError):
            remote.cut_analysis("self.conv1.weight", [0], dim)  # type: ignore[arg-type]
    for request in (3, ("self.conv1.weight", 0), {"node": "self.conv1.weight"}):
        with pytest.raises(core_errors.CutError):
            remote.cut_analysis_many([request])
    for result in ({}, 3, {"terminal": None}):
        with pytest.raises(core_errors.CutError):
            remote.download_pruned(result, "never.safetensors")  # type: ignore[arg-type]
    with pytest.raises(NotFoundError):
        client.model("no such name")
    with pytest.raises(KeyError, match="there is no module"):
        remote.modules["self.nope"]


def test_integers_of_any_library_and_dicts_of_requests_are_understood(
    client: Client, model_id: str
) -> None:
    remote = client.model(model_id)
    expected = remote.cut_analysis("self.conv1.weight", [0, 1]).to_json()
    for index, dim in ((np.array([1, 0]), np.int64(0)), (torch.tensor([0, 1]), torch.tensor(0))):
        assert remote.cut_analysis("self.conv1.weight", index, dim).to_json() == expected
    asked = [{"node": "self.conv1.weight", "dim": 0, "index": range(2)}]
    assert remote.cut_analysis_many(asked).to_json() == expected


def test_nested_arguments_and_none_at_all_are_inputs(client: Client) -> None:
    class OfDict(torch.nn.Linear):
        def forward(self, d: Any, n: int = 1) -> Any:
            return super().forward(d["x"]) * n

    class OfNothing(torch.nn.Linear):
        def forward(self) -> Any:
            return super().forward(torch.ones(2, 4))

    for model, inputs in (
        (OfDict(4, 6), ({"x": torch.rand(2, 4)}, 2)),
        (OfDict(4, 6), {"d": {"x": (2, 4)}}),
        (OfNothing(4, 6), ()),
    ):
        remote = client.upload(model, inputs)
        assert remote.cut_analysis("self.weight", [0]).touches_outputs
    with pytest.raises(core_errors.InputSpecError, match="inputs are"):
        client.upload(OfNothing(4, 6), "x")


def test_a_file_that_is_no_model_fails_here_and_now(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello" * 100_000)
    with pytest.raises(InvalidRequestError) as caught:
        client.upload(path)
    assert caught.value.code == "invalid-model"
    with pytest.raises(FileNotFoundError):
        client.upload(tmp_path / "missing.onnx")


def test_a_build_that_fails_raises_its_reason(client: Client) -> None:
    with pytest.raises(ModelFailed) as caught:
        client.upload(small_file(303).content, {"x": (1, 7, 8, 8)})
    assert caught.value.problem["type"] in {"export-failed", "invalid-inputs"}


def test_no_service_is_said_within_seconds() -> None:
    with (
        Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServiceUnreachable) as caught,
    ):
        client.models()
    assert "torchpruner-service serve" in str(caught.value)


def test_models_are_found_by_name_and_removed(client: Client) -> None:
    remote = client.upload(small_file(304).content, {"x": (1, 3, 8, 8)}, name="by name")
    assert client.model("by name").id == remote.id
    assert remote.id in [info.id for info in client.models()]
    remote.delete()
    with pytest.raises(NotFoundError):
        client.model(remote.id)


def test_a_failed_upload_does_not_shadow_a_ready_model_s_name(client: Client) -> None:
    name = "the same name"
    ready = client.upload(small_file(330).content, {"x": (1, 3, 8, 8)}, name=name)
    with pytest.raises(ModelFailed):
        client.upload(small_file(331).content, {"x": (1, 9, 8, 8)}, name=name)
    assert client.models()[0].state == "failed"
    assert client.model(name).id == ready.id
    newer = client.upload(small_file(332).content, {"x": (1, 3, 8, 8)}, name=name)
    assert client.model(name).id == newer.id


def test_cuts_in_sequence_are_a_lineage(client: Client, tmp_path: Path) -> None:
    module = Small(seed=305).eval()
    remote = client.upload(small_file(305).content, {"x": (1, 3, 8, 8)})
    first = remote.cut_analysis("self.conv1.weight", [0, 1])
    second_model = remote.derive(first, name="after one cut")
    second = second_model.cut_analysis("self.conv1.weight", [0])
    assert [entry.id for entry in second_model.lineage()] == [remote.id, second_model.id]
    assert [entry.id for entry in remote.children()] == [second_model.id]
    state = load_file(second_model.download_pruned(second, tmp_path / "w.safetensors"))
    set_cut(module, first)
    set_cut(module, second)
    module.load_state_dict(state, strict=True)
    assert state["conv1.weight"].shape == (5, 3, 3, 3)
    assert second_model.flops().flops == first.flops_after


def test_latency_of_original_and_pruned(client: Client) -> None:
    remote = client.upload(small_file(306).content, {"x": (1, 3, 8, 8)})
    measured = remote.latency(remote.cut_analysis("self.conv1.weight", [0]), runs=3, warm_up=1)
    assert measured.original["median_ms"] > 0 and measured.pruned["p95_ms"] > 0
    assert measured.provider == "CPUExecutionProvider"


def test_progress_is_told(service: RunningService) -> None:
    told: list[tuple[str, float, float]] = []

    class Listener:
        def update(self, label: str, done: float, total: float, unit: str) -> None:
            told.append((label, done, total))

        def close(self) -> None:
            told.append(("closed", 0, 0))

    with Client(service.url, progress=Listener()) as client:
        client.upload(small_file(307).content, {"x": (1, 3, 8, 8)})
    assert any(label == "uploading" and done == total for label, done, total in told)
    assert any(label.startswith("building the graph") for label, _, _ in told)
    assert told[-1][0] == "closed"


def test_the_async_client_does_the_same(service: RunningService, tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncClient(service.url, progress=False) as client:
            uploads = [
                client.upload(small_file(310 + seed).content, {"x": (1, 3, 8, 8)})
                for seed in range(3)
            ]
            remotes = await asyncio.gather(*uploads)
            assert len({remote.id for remote in remotes}) == 3
            modules = await remotes[0].modules()
            result = await modules["self.conv1"].cut_analysis("weight", index=[0])
            path = await remotes[0].download_pruned(result, tmp_path / "a.safetensors")
            assert load_file(path)["conv1.weight"].shape == (7, 3, 3, 3)
            with pytest.raises(core_errors.CutDimError):
                await remotes[0].cut_analysis("self.conv1.weight", [0], 9)

    asyncio.run(main())


def test_one_async_client_works_in_one_loop_after_another(service: RunningService) -> None:
    client = AsyncClient(service.url, progress=False)

    async def listed() -> int:
        return len(await client.models())

    assert asyncio.run(listed()) == asyncio.run(listed())
    asyncio.run(client.close())
    assert asyncio.run(listed()) >= 0, "a closed client opens again when it is used"
    asyncio.run(client.close())


def test_a_download_that_cannot_be_written_says_so_before_anything_is_made(
    service: RunningService, tmp_path: Path
) -> None:
    with Client(service.url, progress=False) as client:
        remote = client.upload(small_file(315).content, {"x": (1, 3, 8, 8)})
        for target, words in (
            (tmp_path / "none" / "a.npz", "there is no folder"),
            (tmp_path, "is a folder"),
        ):
            with pytest.raises(DownloadTargetError, match=words):
                remote.download_pruned(None, target, format="npz")
        assert not [job for job in client.jobs() if job.model == remote.id and job.kind != "build"]
        with pytest.raises(DownloadTargetError, match="cannot be written"):
            remote.download_pruned(None, Path("/proc/a.npz"), format="npz")


def test_signatures_of_both_clients_agree() -> None:
    for name in ("upload", "model", "models"):
        sync = inspect.signature(getattr(Client, name)).parameters
        asynchronous = inspect.signature(getattr(AsyncClient, name)).parameters
        assert list(sync) == list(asynchronous)
