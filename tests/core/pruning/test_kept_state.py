"""What a forward keeps from its first run: in the width of that run, whichever that was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.zoo.adversarial import numbers
from torchpruner_core import ONNXGraph, recovery_cut, set_cut, verify_cut
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import LiteralInForwardError, UnknownNodeError

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def analysed(model: nn.Module) -> CutResult:
    graph = ONNXGraph(model)
    graph.build_graph((X,), fill_value=False)
    return graph.nodes["self.stem.weight"].cut_analysis([1, 5], 0)


@pytest.mark.parametrize(
    "network", [numbers.KeptFromTheFirstRun, numbers.KeptInADict], ids=lambda n: n.__name__
)
@pytest.mark.parametrize("run_before", [False, True], ids=["fresh", "has run"])
def test_it_is_made_anew_after_a_cut_and_after_its_recovery(
    network: type[nn.Module], run_before: bool
) -> None:
    model = network().train()
    result = analysed(model)
    if run_before:
        loss = model(X).sum()
    expected = model(X) if run_before else None
    _, context = set_cut(model, result)
    loss = model(X).sum()
    loss.backward()
    recovery_cut(model, result, context)
    loss = model(X).sum()
    loss.backward()
    if expected is not None:
        assert torch.equal(model(X), expected)


def test_a_correction_that_holds_for_one_batch_size_is_refused() -> None:
    model = numbers.PartsTimesBatch().eval()
    graph = ONNXGraph(model)
    graph.build_graph((X,), fill_value=False)
    result = graph.nodes["self.kernels"].cut_analysis([1, 5], 1)
    with pytest.raises(LiteralInForwardError, match="a batch of this size only"):
        set_cut(model, result, correct_forward=True)


def test_a_parameter_that_the_graph_never_read_is_named_as_such() -> None:
    model = numbers.KeptInADict().eval()
    model(X)
    graph = ONNXGraph(model)
    with pytest.warns(UserWarning, match="never reads"):
        graph.build_graph((X,), fill_value=False)
    with pytest.raises(UnknownNodeError, match=r"self\.mix has no node.*training=True"):
        graph.solved.cut_analysis("self.mix", index=[0], dim=0)


class HeadsOfAWidth(nn.Module):
    """Heads by an attribute that also divides the width; a table beside them has as many entries."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.mix = nn.Linear(16, 16)
        self.level = nn.Linear(3, 4)
        self.out = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        heads = self.mix(x).reshape(batch, length, self.num_heads, width // self.num_heads)
        result: torch.Tensor = self.out((heads * self.level(place)[..., None]).flatten(2))
        return result


def test_an_attribute_beside_a_corrected_call_is_tried_on_the_corrected_copy() -> None:
    model = HeadsOfAWidth().eval()
    inputs = (torch.randn(2, 7, 16), torch.randn(2, 7, 3))
    graph = ONNXGraph(model)
    graph.build_graph(inputs, fill_value=False)
    result = graph.nodes["self.level.weight"].cut_analysis([1], 0)
    report = verify_cut(model, result, inputs, correct_forward=True)
    assert report.equal and report.restored, report
