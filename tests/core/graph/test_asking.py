"""Odd ways to ask: what is legal is understood, what is not is met with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.errors import (
    CutDimError,
    CutError,
    CutIndexError,
    InvalidModelError,
    ReplayError,
    TorchPrunerError,
    UnknownModuleError,
    UnknownNodeError,
)


@pytest.fixture(scope="module")
def graph() -> tp.ONNXGraph:
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    return tp.ONNXGraph(model).build_graph((torch.rand(2, 4),), fill_value=False)


@pytest.mark.parametrize(
    "index",
    [
        np.array([7, 6], np.uint8),
        torch.tensor([6, 7], dtype=torch.int32),
        [torch.tensor(6), np.int64(7)],
        [np.array(6), 7],
        range(6, 8),
        {7, 6},
        {6: "a", 7: "b"}.keys(),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("dim", [0, -2, np.int8(0), torch.tensor(-2)], ids=repr)
def test_integers_of_any_library_are_integers(graph: tp.ONNXGraph, index: Any, dim: Any) -> None:
    result = graph.modules["self.0"].cut_analysis("weight", index, dim)

    assert result.requested == (tp.CutRequest("self.0.weight", 0, (6, 7)),)


@pytest.mark.parametrize(
    "index",
    [
        None,
        3,
        "01",
        b"\x01",
        {0: 1},
        slice(0, 2),
        torch.tensor(3),
        torch.tensor([1.0]),
        torch.tensor([True] * 8),
        torch.tensor([[0]]),
        np.array([[0], [1]]),
        np.array([1.0]),
        np.array([True, False]),
        [True],
        [None],
        ["1"],
        [float("nan")],
        [2**70],
        ...,
    ],
    ids=repr,
)
def test_what_is_no_list_of_integers_is_refused(graph: tp.ONNXGraph, index: Any) -> None:
    node = graph.nodes["self.0.weight"]
    with pytest.raises(CutIndexError, match="0 to 7"):
        node.cut_analysis(index, 0)


@pytest.mark.parametrize("dim", [True, 1.0, "0", None, [0], 2**70, torch.tensor([0, 1])], ids=repr)
def test_what_is_no_axis_is_refused(graph: tp.ONNXGraph, dim: Any) -> None:
    with pytest.raises(CutDimError, match="from -2 to 1"):
        graph.solved.cut_analysis("self.0.weight", [0], dim)


def test_joint_requests_may_be_dicts_or_one_alone(graph: tp.ONNXGraph) -> None:
    request = tp.CutRequest("self.0.weight", 0, (0,))
    expected = graph.solved.cut_analysis_many([request]).to_json()

    assert graph.solved.cut_analysis_many(request).to_json() == expected
    assert graph.solved.cut_analysis_many([request.to_dict()]).to_json() == expected
    for wrong in (None, "self.0.weight", ["a"], [("self.0.weight", 0, [0])], [{"node": "x"}], 3):
        with pytest.raises(CutError, match="CutRequest"):
            graph.solved.cut_analysis_many(wrong)


def test_a_name_that_is_not_there_is_a_key_error_with_the_near_ones(graph: tp.ONNXGraph) -> None:
    with pytest.raises(UnknownModuleError, match=r"did you mean self\.2") as caught:
        graph.modules["self.22"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value).startswith("there is no module")
    with pytest.raises(UnknownNodeError, match=r"self\.0\.weight"):
        graph.nodes["self.0.wieght"]
    with pytest.raises(UnknownNodeError, match="operator"):
        graph.operators["self.0.Conv"]
    with pytest.raises(UnknownModuleError, match="build_graph"):
        tp.ONNXGraph(nn.ReLU()).modules["self"]
    assert graph.modules.get("self.22") is None and "self.22" not in graph.modules


def test_paths_that_cannot_be_read_and_results_that_are_none(
    graph: tp.ONNXGraph, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(InvalidModelError, match="cannot be read"):
            tp.solve_onnx(path)
    data = graph.program.with_weights()
    for wrong in ({}, None, graph.solved):
        with pytest.raises(ReplayError, match="what cut_analysis returns"):
            tp.prune_onnx(data, wrong)  # type: ignore[arg-type]
        with pytest.raises(TorchPrunerError):
            tp.masked_onnx(data, wrong)  # type: ignore[arg-type]
