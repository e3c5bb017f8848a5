"""A model larger than one file is pruned from files to files, and is what the whole would be."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.core.operators.brute_force import model, node
from torchpruner_core import errors, prune_onnx, prune_onnx_file, solve_onnx
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.importing import external_data
from torchpruner_core.onnx_pruning import onnx_magnitudes


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """One file holds 10 kB here, where it holds 2 GB elsewhere."""
    monkeypatch.setattr(external_data, "ONE_FILE", 10_000)


def whole() -> bytes:
    """A chain of layers: a weight as it is, one behind a Transpose, one in a Constant, an index."""
    random = np.random.default_rng(3)

    def weights(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    nodes = [
        node("MatMul", "x a", "h"),
        node("Add", "h bias", "g"),
        node("Transpose", "b", "bt", perm=[1, 0]),
        node("MatMul", "g bt", "k"),
        node("Gather", "k order", "permuted", axis=1),
        node("Constant", "", "c", value=onnx.numpy_helper.from_array(weights(40, 5))),
        node("MatMul", "permuted c", "y"),
    ]
    stored = {
        "a": weights(30, 50), "bias": weights(50), "b": weights(40, 50),
        "order": random.permutation(40).astype(np.int64),
    }  # fmt: skip
    return model(nodes, {"x": (2, 30)}, ["y"], stored)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "whole.onnx"
    path.parent.mkdir()
    onnx.save(
        onnx.load_model_from_string(whole()), path, save_as_external_data=True,
        location="weights.bin", size_threshold=0, convert_attribute=True,
    )  # fmt: skip
    return path


def zipped(path: Path) -> Path:
    target = path.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for part in path.parent.glob("*.[ob]*n*"):
            archive.write(part, f"inside/{part.name}")
    return target


def solved(path: Path) -> SolvedGraph:
    return solve_onnx(external_data.unpacked(path, weights=False))


def cuts_of(graph: SolvedGraph) -> CutResult:
    requests = [CutRequest("self.a", 1, (1, 7, 30)), CutRequest("self.c", 0, (3, 39))]
    return graph.cut_analysis_many(requests)


def ran(model: bytes | Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 30)).astype(np.float32)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("packed", [False, True], ids=["beside", "zip"])
def test_what_is_pruned_in_parts_gives_what_the_whole_gives(source: Path, packed: bool) -> None:
    given = zipped(source) if packed else source
    result = cuts_of(solved(given))
    target = source.parent.parent / "pruned.onnx"
    written = prune_onnx_file(given, result, target)
    assert sorted(part.name for part in written) == ["pruned.onnx", "pruned.onnx.data"]
    np.testing.assert_array_equal(ran(target), ran(prune_onnx(whole(), result)))
    assert sorted(part.name for part in target.parent.iterdir()) == [
        "given", "pruned.onnx", "pruned.onnx.data"
    ]  # fmt: skip


def test_the_parts_are_a_model_that_is_pruned_again(source: Path) -> None:
    first, second = source.with_name("first.onnx"), source.with_name("second.onnx")
    prune_onnx_file(source, cuts_of(solved(source)), first)
    again = solved(first).cut_analysis("self.a", [0], 1)
    prune_onnx_file(first, again, second)
    expected = prune_onnx(prune_onnx(whole(), cuts_of(solved(source))), again)
    np.testing.assert_array_equal(ran(second), ran(expected))


def test_magnitudes_are_those_of_the_whole(source: Path) -> None:
    graph = solved(source)
    found, expected = onnx_magnitudes(source, graph), onnx_magnitudes(whole(), graph)
    assert found.keys() == expected.keys()
    for axis, scores in expected.items():
        np.testing.assert_array_equal(found[axis], scores)


def test_a_model_that_fits_is_one_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external_data, "ONE_FILE", 1 << 20)
    result = cuts_of(solved(source))
    target = tmp_path / "pruned.onnx"
    assert prune_onnx_file(source, result, target) == [target]
    assert target.read_bytes() == prune_onnx(external_data.unpacked(source), result)


def test_nothing_is_written_where_a_file_is_cut_short(source: Path, tmp_path: Path) -> None:
    result = cuts_of(solved(source))
    with source.with_name("weights.bin").open("r+b") as file:
        file.truncate(1000)
    target = tmp_path / "out" / "pruned.onnx"
    target.parent.mkdir()
    with pytest.raises(errors.InvalidModelError, match="cut short"):
        prune_onnx_file(source, result, target)
    assert not list(target.parent.iterdir())


def test_nothing_is_written_where_the_check_raises(source: Path, tmp_path: Path) -> None:
    seen: list[np.ndarray] = []

    def refuse(made: Path) -> None:
        seen.append(ran(made))
        raise errors.VerificationError("not today")

    with pytest.raises(errors.VerificationError):
        prune_onnx_file(source, cuts_of(solved(source)), tmp_path / "pruned.onnx", refuse)
    assert len(seen) == 1
    assert [part.name for part in tmp_path.iterdir()] == ["given"]


def test_a_folder_that_is_not_there_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="its folder is not there"):
        prune_onnx_file(source, cuts_of(solved(source)), tmp_path / "no" / "pruned.onnx")
