"""A pruned ONNX model is held against the masked one on two batches."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import VerificationError
from torchpruner_core.onnx_pruning.verification import verify_onnx


@pytest.fixture(scope="module")
def model() -> bytes:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    return tp.export_onnx(network.eval(), (torch.randn(2, 4),))


def cut_of(model: bytes, *index: int) -> CutResult:
    return tp.solve_onnx(model).cut_analysis_many([CutRequest("self.0.weight", 0, index)])


def test_a_right_model_is_told_so_with_numbers(model: bytes) -> None:
    cut = cut_of(model, 0, 5)
    first, second = verify_onnx(model, tp.prune_onnx(model, cut), cut)
    assert (first.batch, second.batch) == ("a random batch", "a second random batch")
    assert all(each.difference < 1e-5 < each.effect for each in (first, second))


def test_the_inputs_given_come_first(model: bytes) -> None:
    cut = cut_of(model, 2)
    name = cut.inputs[0].name
    given = {name: np.ones((2, 4), np.float32)}
    assert verify_onnx(model, tp.prune_onnx(model, cut), cut, given)[0].batch == "the inputs given"


def test_a_model_that_lost_other_slices_is_refused_with_the_numbers(model: bytes) -> None:
    other = tp.prune_onnx(model, cut_of(model, 3))
    with pytest.raises(
        VerificationError, match="does not give what the masked one gives"
    ) as caught:
        verify_onnx(model, other, cut_of(model, 0))
    assert caught.value.fields["received"] > caught.value.fields["expected"]


def test_a_model_that_does_not_run_is_said_to_be_unverifiable(model: bytes) -> None:
    cut = cut_of(model, 0)
    name = cut.inputs[0].name
    with pytest.raises(VerificationError, match="does not run on the inputs given"):
        verify_onnx(model, tp.prune_onnx(model, cut), cut, {name: np.ones((2, 5), np.float32)})


OUTPUTS = """
<ir_version: 8, opset_import: ["" : 17]>
shown (float[2,2] x) => (float[2,2] y, float[2,4] w, seq(float[2,2]) parts)
<float[2,4] w = {1, -2, 3, 1, 2, 1, -1, 2}, float[4,2] v = {1, 2, -1, 1, 2, 1, 1, -2}>
{
  h = MatMul (x, w)
  r = Relu (h)
  y = MatMul (r, v)
  parts = SequenceConstruct (y, y)
}
"""
"""A stored tensor and a sequence among the outputs."""


def test_outputs_that_are_stored_or_sequences_are_compared_too() -> None:
    data = onnx.parser.parse_model(OUTPUTS).SerializeToString()
    cut = tp.solve_onnx(data).cut_analysis_many([CutRequest("self.v", 0, (1, 2))])
    assert cut.touches_outputs == ("self.w",)
    compared = verify_onnx(data, tp.prune_onnx(data, cut), cut)
    assert all(each.difference < 1e-5 < each.effect for each in compared)
