"""What a person reads when something is asked that cannot be answered as asked."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import torchpruner_core as tp


def built(model: nn.Module, *inputs: Any) -> tp.ONNXGraph:
    return tp.ONNXGraph(model.eval()).build_graph(inputs, fill_value=False)


def convolutions() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1))


IMAGE = (torch.zeros(1, 3, 8, 8),)


@pytest.mark.parametrize(
    ("norm", "sources"),
    [
        (weight_norm, "self.0.weight_g and self.0.weight_v"),
        (spectral_norm, "self.0.weight_orig"),
        (
            parametrizations.weight_norm,
            "self.0.parametrizations.weight.original0 and self.0.parametrizations.weight.original1",
        ),
    ],
)
def test_a_computed_weight_names_the_tensors_it_is_computed_from(norm: Any, sources: str) -> None:
    graph = built(nn.Sequential(norm(nn.Conv2d(3, 8, 3)), nn.ReLU()), *IMAGE)
    with pytest.raises(tp.errors.UnknownNodeError, match=f"computed from {sources}"):
        graph.modules["self.0"].cut_analysis("weight", [0], 0)
    with pytest.raises(tp.errors.UnknownNodeError, match=f"computed from {sources}"):
        graph.nodes["self.0.weight"]


@dataclass
class Result:
    scores: torch.Tensor
    count: int


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: (y, 3),
        lambda y: (2.5, y),
        lambda y: {"scores": y, "done": True},
        lambda y: [y, None],
        lambda y: Result(y, 4),
    ],
    ids=["int", "float", "bool", "None", "dataclass"],
)
def test_outputs_that_are_no_tensors_stand_beside_those_that_are(wrap: Any) -> None:
    class Answering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return wrap(self.b(self.a(x)))

    model = Answering()
    graph = built(model, *IMAGE)
    assert [tuple(node.shape) for node in graph.outputs.values()] == [(1, 2, 6, 6)]
    result = graph.nodes["self.a.weight"].cut_analysis([1], 0)
    report = tp.verify_cut(model, result, (torch.randn(1, 3, 8, 8),))
    assert report.ok and report.equal


def test_a_cut_of_an_output_is_not_said_to_prove_little() -> None:
    model = convolutions()
    result = built(model, *IMAGE).nodes["self.3.weight"].cut_analysis([0], 0)
    report = tp.verify_cut(model, result, (torch.randn(1, 3, 8, 8),))
    assert report.effect <= report.tolerance
    assert "too little" not in str(report)
    assert f"slices of {report.touches_outputs[0]} itself" in str(report)


def test_an_axis_that_would_be_emptied_is_named_by_what_computes_it() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.a(x).relu().split(2, dim=1)
            return left.mean(1) + right.mean(1)

    graph = built(Halves(), *IMAGE)
    with pytest.raises(tp.errors.EmptyAxisError) as caught:
        graph.nodes["self.a.weight"].cut_analysis([0, 1], 0)
    assert "computes" in str(caught.value) and "Split" in str(caught.value)


@pytest.mark.parametrize("package", ["torch", "onnx", "onnxruntime", "scipy"])
def test_a_missing_package_names_the_extra_that_brings_it(package: str) -> None:
    code = f"""
        import sys
        sys.modules[{package!r}] = None  # as if it were not installed
        import torchpruner_core as tp
        for name in tp.__all__:
            try:
                getattr(tp, name)
            except ModuleNotFoundError as error:
                assert "pip install 'torchpruner-service[" in str(error), error
                assert {package!r} in str(error)
                print("told", name)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert package == "onnxruntime" or "told" in done.stdout


@pytest.mark.parametrize(
    "inputs", [{"x": [1, 3, 9, 9]}, [[1, 3, 9, 9]], [1, 3, 9, 9], [(1, 3, 9, 9)]]
)
def test_shapes_of_a_file_may_be_plain_lists(inputs: Any) -> None:
    data = tp.export_onnx(convolutions().eval(), {"input": torch.zeros(1, 3, 9, 9)})
    name = next(iter(tp.solve_onnx(data).inputs))
    if isinstance(inputs, dict):
        inputs = {name: inputs["x"]}
    solved = tp.solve_onnx(data, inputs=inputs)
    assert solved.nodes[name].shape == (1, 3, 9, 9)


@pytest.mark.parametrize("shape", ["1x3x9x9", [1, 3, "h", 9], 5, {"a": 1}])
def test_what_is_no_shape_is_refused_with_an_example(shape: Any) -> None:
    data = tp.export_onnx(convolutions().eval(), IMAGE)
    name = next(iter(tp.solve_onnx(data).inputs))
    with pytest.raises(tp.errors.InputSpecError, match=r"such as \[1, 3, 224, 224\]"):
        tp.solve_onnx(data, inputs={name: shape})


def test_a_solved_graph_prints_on_one_line() -> None:
    text = repr(built(convolutions(), *IMAGE).solved)
    assert len(text) < 120 and "parameters" in text


def test_a_mask_without_marks_is_refused() -> None:
    operator = built(convolutions(), *IMAGE).operators["self.0.Conv"]
    node = operator.in_data[0]
    with pytest.raises(tp.errors.CutIndexError, match=r"self\.0\.Conv has nothing to follow"):
        operator.analysis(node, tp.Mask(node.size()))


def test_joined_cuts_say_what_they_save_together() -> None:
    graph = built(convolutions(), *IMAGE)
    a = graph.nodes["self.0.weight"].cut_analysis([0, 1], 0)
    b = graph.nodes["self.2.weight"].cut_analysis([1, 2], 0)
    together = graph.solved.cut_analysis_many([*a.requested, *b.requested])
    assert tp.merge_cut_dict(a, b) == together
    larger = graph.nodes["self.0.weight"].cut_analysis([0, 1, 2], 0)
    read = [tp.CutResult.from_json(result.to_json()) for result in (a, larger)]
    assert tp.merge_cut_dict(*read).flops_after == larger.flops_after
    assert tp.merge_cut_dict(*read).params_removed == larger.params_removed


def test_a_result_is_plain_json_and_can_be_copied() -> None:
    result = built(convolutions(), *IMAGE).nodes["self.0.weight"].cut_analysis([0], 0)
    assert tp.CutResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
    assert copy.deepcopy(result) == result == pickle.loads(pickle.dumps(result))
