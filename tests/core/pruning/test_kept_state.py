"""What a forward keeps from its first run: in the width of that run, whichever that was."""

from __future__ import annotations

import pytest
import torch

from benchmarks.zoo.adversarial import numbers
from torchpruner_core import ONNXGraph, recovery_cut, set_cut
from torchpruner_core.errors import LiteralInForwardError, UnknownNodeError

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def analysed(model, **options):
    graph = ONNXGraph(model)
    graph.build_graph((X,), fill_value=False, **options)
    return graph.nodes["self.stem.weight"].cut_analysis([1, 5], 0)


@pytest.mark.parametrize(
    "network", [numbers.KeptFromTheFirstRun, numbers.KeptInADict], ids=lambda n: n.__name__
)
@pytest.mark.parametrize("run_before", [False, True], ids=["fresh", "has run"])
def test_it_is_made_anew_after_a_cut_and_after_its_recovery(network, run_before) -> None:
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
