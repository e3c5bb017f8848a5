"""``set_cut(..., verify=True)`` compares with the masked model on two batches, or takes the cut back."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, state
from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.errors import VerificationError

IMAGE = TensorSpec("input", (2, 3, 9, 9))


def made_for(spec: TensorSpec, result: CutResult) -> CutResult:
    """Return the result as one that remembers its inputs."""
    return CutResult.from_dict({**result.to_dict(), "inputs": [spec.to_dict()]})


def wrong_cut() -> CutResult:
    """Return a cut whose shapes fit and whose slices do not: the reader loses another channel."""
    result = conv_net_cut([0])
    result.terminal["self.3.weight"] = axes(4, a1=[1])
    return made_for(IMAGE, result)


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        torch.randn(2, 3, 9, 9),
        {"input": np.linspace(-2, 2, 243, dtype="f").reshape(1, 3, 9, 9) ** 3},
    ],
)
def test_a_right_cut_is_made_and_the_numbers_are_kept(inputs: Any) -> None:
    model = ConvNet().train()
    statistics = model[1].running_mean.clone()
    random = torch.get_rng_state()
    _, context = tp.set_cut(
        model, made_for(IMAGE, conv_net_cut([0, 5])), verify=True, inputs=inputs
    )
    assert model.training and model[0].weight.shape[0] == 6
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model[1].running_mean, statistics[[1, 2, 3, 4, 6, 7]])
    assert len(context.verified) == 2
    assert all(each.difference < 1e-5 < each.effect for each in context.verified)
    assert pickle.loads(pickle.dumps(context)).verified == context.verified


def test_a_wrong_cut_is_taken_back_with_the_numbers() -> None:
    model = ConvNet()
    loss = model(torch.randn(2, 3, 9, 9)).sum()
    before = state(model)
    with pytest.raises(VerificationError, match=r"differs by .* The model was put back") as caught:
        tp.set_cut(model, wrong_cut(), verify=True)
    assert caught.value.fields["received"] > caught.value.fields["expected"]
    assert_same(before, state(model))
    loss.backward()
    tp.set_cut(model, conv_net_cut([0]))


def test_what_the_given_batch_hides_the_second_one_shows() -> None:
    model = nn.Sequential(nn.Linear(3, 8, bias=False), nn.Linear(8, 2))
    result = CutResult(
        terminal={"self.0.weight": axes(2, a0=[0]), "self.1.weight": axes(2, a1=[4])}
    )
    before = state(model)
    with pytest.raises(VerificationError, match="on a second random batch it differs by") as caught:
        tp.set_cut(model, result, verify=True, inputs=torch.zeros(2, 3))
    assert caught.value.fields["batch"] == "a second random batch"
    assert_same(before, state(model))


def test_a_pruned_model_that_does_not_run_is_taken_back() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            if h.shape[1] != 8:
                raise ValueError("eight, please")
            return self.b(h)

    model = Picky()
    before = state(model)
    terminal = {"self.a.weight": axes(2, a0=[0]), "self.a.bias": axes(1, a0=[0])}
    result = CutResult(terminal={**terminal, "self.b.weight": axes(2, a1=[0])})
    with pytest.raises(VerificationError, match=r"does not run .* eight, please.*put back"):
        tp.set_cut(model, result, verify=True, inputs=torch.randn(4, 3))
    assert_same(before, state(model))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_have_the_tolerance_of_their_rounding(dtype: torch.dtype) -> None:
    model = ConvNet().to(dtype)
    x = torch.randn(2, 3, 9, 9, dtype=dtype)
    _, context = tp.set_cut(model, conv_net_cut([3]), verify=True, inputs=x)
    assert context.verified[0].tolerance >= 1e-4


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.table(tokens)))


def test_a_cut_that_renormalises_is_compared_with_statistics_over_the_kept_slices() -> None:
    model, tokens = Normed().eval(), torch.randint(0, 9, (2, 5))
    nn.init.normal_(model.norm.weight)
    graph = tp.ONNXGraph(model).build_graph((tokens,), fill_value=False)
    result = graph.nodes["self.table.weight"].cut_analysis([2, 3], 1)
    assert result.renormalises
    remembered = CutResult.from_json(result.to_json())
    _, context = tp.set_cut(model, remembered, verify=True)
    assert [each.difference < 1e-4 for each in context.verified] == [True, True]
    tp.recovery_cut(model, remembered, context)
    tp.set_cut(model, result, verify=True, inputs={"tokens": tokens})


@pytest.mark.parametrize(
    ("make", "inputs", "message"),
    [
        (ConvNet, None, "does not say what inputs the model takes"),
        (ConvNet, torch.randn(2, 5), "itself does not run on these inputs"),
        (lambda: ConvNet().to("meta"), torch.randn(2, 3, 9, 9), "on the meta device"),
    ],
)
def test_what_cannot_be_verified_is_refused_before_anything_is_changed(
    make: Any, inputs: Any, message: str
) -> None:
    model = make()
    with pytest.raises(VerificationError, match=message):
        tp.set_cut(model, conv_net_cut([0]), verify=True, inputs=inputs)
    assert model[0].weight.shape[0] == 8


class Routed(nn.Module):
    """Each row goes to one of two layers, as many to each as data decides; the sums are normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.gate = nn.Linear(8, 2)
        self.experts = nn.ModuleList(nn.Linear(8, 4) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.stem(x))
        chosen = self.gate(h).argmax(-1)
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=2).tolist()
        parts = h[order].split(counts)
        made = torch.cat([layer(part) for layer, part in zip(self.experts, parts, strict=True)])
        return made[order.argsort()]


def test_a_program_that_holds_for_its_own_inputs_alone_is_no_reference() -> None:
    torch.manual_seed(3)
    model, x = Routed().eval(), torch.randn(9, 6)
    graph = tp.ONNXGraph(model)
    graph.build_graph((x,))
    cut = graph.solved.cut_analysis("self.stem.weight", [1], 0)
    assert cut.renormalises
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(VerificationError, match="holds for the inputs of its export alone"):
        tp.set_cut(model, cut, inputs=(x,), verify=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
