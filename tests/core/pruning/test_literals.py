"""A constant in ``forward()`` that must change is found among the attributes, or refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.core.pruning import attentions
from tests.core.pruning.nets import assert_same, state
from torchpruner_core import ONNXGraph, recovery_cut, set_cut, verify_cut
from torchpruner_core.errors import LiteralInForwardError
from torchpruner_core.pruning.forward.rehearsal import Stage


def analysed(
    model: nn.Module, node: str, index: list[int], *shape: int, traced: bool = True
) -> Any:
    x = torch.randn(*shape)
    # The TorchScript exporter names everything as torch.export does, and takes a tenth of the time.
    graph = ONNXGraph(torch.jit.trace(model, x, check_trace=False) if traced else model)
    graph.build_graph((x,), fill_value=False)
    return graph.solved.cut_analysis(node, index, 0)


def check(model: nn.Module, result: Any, shape: tuple[int, ...], **options: Any) -> None:
    x = torch.randn(*shape)
    report = verify_cut(model, result, x, **options)
    assert report.equal, str(report)
    before = state(model)
    _, context = set_cut(model, result, **options)
    recovery_cut(model, result, pickle.loads(pickle.dumps(context)))
    assert_same(before, state(model))


HEAD = list(range(6, 12))

ATTRIBUTES = {
    "HeadsByAttribute": {"num_heads": 3, "head_dim": 6},
    "HiddenBehindMinusOne": {"num_heads": 3, "head_dim": 6},
    "InnerWidthToo": {"num_heads": 3, "head_dim": 6, "all_head_size": 18},
    "HeadsInATuple": {"head_shape": (3, 6)},
    "HeadsFromShapes": {},
    "ScaleFromTheSize": {"num_heads": 3, "head_dim": 6},
    "ScaleInsideTheFunction": {"num_heads": 3, "head_dim": 6},
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_the_attribute_that_counts_heads_follows_when_a_head_goes(name: str) -> None:
    model = attentions.block(getattr(attentions, name)())
    result = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
    check(model, result, (2, 7, 5))
    set_cut(model, result)
    attributes = ATTRIBUTES[name]
    assert {key: getattr(model[1], key) for key in attributes} == attributes
    assert model(torch.randn(3, 4, 5)).shape == (3, 4, 3), "another batch and length run too"


def test_a_config_object_of_a_module_follows() -> None:
    model = attentions.block(attentions.HeadsInAConfig())
    result = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
    check(model, result, (2, 7, 5))
    _, context = set_cut(model, result)
    assert model[1].config.heads == 3 and model[1].config.sizes == [6, 6]
    recovery_cut(model, result, context)
    assert model[1].config.heads == 4


def test_a_fused_projection_follows_in_heads_and_in_its_parts() -> None:
    model = attentions.block(attentions.FusedProjection())
    result = analysed(model, "self.1.qkv.weight", HEAD, 2, 7, 5)
    check(model, result, (2, 7, 5))
    set_cut(model, result)
    assert (model[1].num_heads, model[1].split_size) == (3, 18)


def test_a_key_head_takes_its_query_heads_along_and_no_attribute_changes() -> None:
    model = attentions.block(attentions.GroupedQueries())
    result = analysed(model, "self.1.k.weight", [4, 5, 6, 7], 2, 7, 5)
    check(model, result, (2, 7, 5))
    set_cut(model, result)
    assert (model[1].q.out_features, model[1].k.out_features, model[1].groups) == (24, 12, 2)


class TestALiteral:
    def test_is_refused_before_anything_changes(self) -> None:
        model = attentions.block(attentions.HeadsAsALiteral())
        result = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
        before = state(model)
        with pytest.raises(LiteralInForwardError) as caught:
            set_cut(model, result)
        assert_same(before, state(model))
        problem = caught.value.to_problem()
        assert problem["module"] == "self.1"
        assert problem["received"]["shape"] == [2, 7, 4, 6]
        assert problem["expected"]["shape"] == [2, 7, 3, 6]
        assert "module_pruner_reg.regist(HeadsAsALiteral" in str(caught.value)

    def test_is_corrected_as_it_runs_where_that_is_asked(self) -> None:
        model = attentions.block(attentions.HeadsAsALiteral())
        result = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
        check(model, result, (2, 7, 5), correct_forward=True)
        set_cut(model, result, correct_forward=True)
        assert model(torch.randn(3, 4, 5)).shape == (3, 4, 3)
        twin = pickle.loads(pickle.dumps(model))
        x = torch.randn(3, 4, 5)
        torch.testing.assert_close(twin(x), model(x))
        torch.testing.assert_close(copy.deepcopy(model)(x), model(x))

    def test_can_be_corrected_twice(self) -> None:
        model = attentions.block(attentions.HeadsAsALiteral())
        before = state(model)
        first = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
        _, one = set_cut(model, first, correct_forward=True)
        second = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
        assert verify_cut(model, second, torch.randn(2, 7, 5), correct_forward=True).equal
        _, two = set_cut(model, second, correct_forward=True)
        assert model(torch.randn(1, 4, 5)).shape == (1, 4, 3)
        recovery_cut(model, second, two)
        recovery_cut(model, first, one)
        assert_same(before, state(model))


class CallsForward(nn.Module):
    """Enters its attention by ``forward``, so that operators of the graph have this module's name."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = attentions.HeadsAsALiteral()
        self.out = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.attn.forward(x).reshape(x.shape))
        return result


class Called(CallsForward):
    """Calls its attention, as is usual."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.attn(x).reshape(x.shape))
        return result


class Narrowed(nn.Module):
    """Gives a layer a number of channels that is written in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 1)
        self.body = nn.Sequential(nn.Conv2d(16, 8, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.body(self.stem(x)[:, :16])
        return result


class Padded(nn.Module):
    """Gives a layer as many channels as it once had, with a number that no call holds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.body = nn.Sequential(nn.Conv2d(16, 8, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        result: torch.Tensor = self.body(F.pad(x, (0, 0, 0, 0, 0, 16 - x.shape[1])))
        return result


class Insists(nn.Module):
    """A layer of a person's own that refuses another width than the one in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).reshape(x.shape[0], -1)
        if y.shape[-1] != 8:
            raise ValueError("eight are asked")
        result: torch.Tensor = self.out(y)
        return result


def entered(how: str, model: nn.Module, node: str, index: list[int], *shape: int) -> Any:
    x = torch.randn(*shape)
    source: Any = model.eval()
    if how == "export":
        source = torch.export.export(model, (x,))
    if how == "trace":
        source = torch.jit.trace(model, x, check_trace=False)
    graph = ONNXGraph(source).build_graph((x,), fill_value=False)
    return graph.solved.cut_analysis(node, index, 0)


@pytest.mark.parametrize("how", ["capture", "export", "trace"])
class TestARefusalNames:
    @pytest.mark.parametrize("cls", [Called, CallsForward])
    def test_the_module_that_holds_the_literal_and_the_constant_that_fails(
        self, cls: type[nn.Module], how: str
    ) -> None:
        result = entered(how, cls(), "self.attn.q.weight", HEAD, 2, 7, 24)
        with pytest.raises(LiteralInForwardError, match=r"attentions\.py:\d+") as caught:
            set_cut(cls(), result)
        fields = caught.value.fields
        scope = "self" if cls is CallsForward else "self.attn"
        assert (fields["module"], fields["operator"]) == ("self.attn", f"{scope}.Reshape")
        assert fields["received"]["shape"] == [2, 7, 4, 6]
        assert fields["expected"]["shape"] == [2, 7, 3, 6]
        assert "forward() of self.attn (HeadsAsALiteral)" in str(caught.value)

    def test_the_caller_whose_slice_a_layer_cannot_take(self, how: str) -> None:
        result = entered(how, Narrowed(), "self.stem.weight", [3], 1, 3, 9, 9)
        with pytest.raises(LiteralInForwardError, match=r"test_literals\.py:\d+") as caught:
            set_cut(Narrowed(), result)
        assert caught.value.fields == {
            "module": "self",
            "operator": "self.Slice",
            "constant": "ends",
            "received": {"ends": [16]},
            "expected": {"ends": [15]},
        }


@pytest.mark.parametrize("correct_forward", [False, True])
def test_a_layer_of_pytorch_is_not_blamed_for_what_its_caller_gave_it(
    correct_forward: bool,
) -> None:
    # A trace keeps the padding as a number, where the code counts it.
    result = entered("trace", Padded(), "self.stem.weight", [3], 1, 3, 9, 9)
    with pytest.raises(LiteralInForwardError, match=r"regist\(Padded") as caught:
        set_cut(Padded(), result, correct_forward=correct_forward)
    assert caught.value.fields["module"] == "self"
    assert "Conv2d" not in str(caught.value)


def test_what_could_not_be_corrected_is_said_where_corrections_were_asked() -> None:
    result = entered("trace", Padded(), "self.stem.weight", [3], 1, 3, 9, 9)
    with pytest.raises(LiteralInForwardError) as caught:
        set_cut(Padded(), result)
    assert "let set_cut correct the call as it runs (correct_forward=True)" in str(caught.value)
    with pytest.raises(LiteralInForwardError) as caught:
        set_cut(Padded(), result, correct_forward=True)
    said = str(caught.value)
    assert "let set_cut correct" not in said
    assert "correct_forward=True could not mend it, since neither the call of conv2d" in said
    assert "Make the number an attribute" in said and "or use the pruned ONNX model" in said


def test_a_check_in_the_code_is_refused_with_its_line_and_its_words() -> None:
    result = entered("trace", Insists(), "self.stem.weight", [3], 4, 5)
    for correct_forward in (False, True):
        with pytest.raises(LiteralInForwardError, match=r"eight are asked \(.*:\d+\)") as caught:
            set_cut(Insists(), result, correct_forward=correct_forward)
        assert caught.value.fields["module"] == "self"
    assert "no call holds a number" in str(caught.value)


def test_a_width_taken_for_the_head_size_is_kept_apart_where_corrections_are_asked() -> None:
    model = attentions.block(attentions.SizeFromTheWidth()).eval()
    result = analysed(model, "self.0.weight", [0, 5], 2, 7, 5, traced=False)
    assert not any("shape" in change for change in result.operator.values())
    with pytest.raises(LiteralInForwardError):
        set_cut(model, result)
    check(model, result, (2, 7, 5), correct_forward=True)
    set_cut(model, result, correct_forward=True)
    assert model(torch.randn(3, 4, 5)).shape == (3, 4, 3)


class TestANumberComputedFromASize:
    """Half of every head goes: the scale that the network was trained with must stay."""

    HALVES: ClassVar = [head * 6 + i for head in range(4) for i in range(3)]

    @pytest.mark.parametrize("name", ["ScaleFromTheSize", "ScaleInsideTheFunction"])
    def test_does_not_follow_silently(self, name: str) -> None:
        model = attentions.block(getattr(attentions, name)())
        result = analysed(model, "self.1.q.weight", self.HALVES, 2, 7, 5)
        with pytest.raises(LiteralInForwardError):
            set_cut(model, result)

    @pytest.mark.parametrize("name", ["ScaleFromTheSize", "ScaleInsideTheFunction"])
    def test_is_kept_where_corrections_are_asked(self, name: str) -> None:
        model = attentions.block(getattr(attentions, name)())
        # The scale inside the function is a computation in the one exporter, a constant in the other.
        result = analysed(model, "self.1.q.weight", self.HALVES, 2, 7, 5, traced=False)
        check(model, result, (2, 7, 5), correct_forward=True)


class Halves(nn.Module):
    """Twice, one half of the channels passes by and the other goes through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.first = nn.Conv2d(6, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        b, a = torch.cat((a, self.first(b)), dim=1).chunk(2, dim=1)
        result: torch.Tensor = self.head(torch.cat((a, self.second(b)), dim=1))
        return result


def test_halves_that_become_unequal_are_split_where_corrections_are_asked() -> None:
    model = Halves().eval()
    before = state(model)
    # A trace computes half of the width as it runs, which is not what is left of either half.
    computed = analysed(model, "self.first.weight", [1, 4], 2, 3, 5, 5)
    with pytest.raises(LiteralInForwardError, match="ends"):
        set_cut(model, computed)
    result = analysed(model, "self.first.weight", [1, 4], 2, 3, 5, 5, traced=False)
    assert [change["split"] for change in result.operator.values()] == [[0, 2]]
    with pytest.raises(LiteralInForwardError, match="chunk"):
        set_cut(model, result)
    assert_same(before, state(model))
    check(model, result, (2, 3, 5, 5), correct_forward=True)
    set_cut(model, result, correct_forward=True)
    second = analysed(model, "self.stem.weight", [7], 2, 3, 5, 5, traced=False)
    check(model, second, (2, 3, 5, 5), correct_forward=True)


class LooksAtValues(nn.Module):
    """A forward that cannot run without values."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = attentions.HeadsByAttribute()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if bool((x.abs() >= 0).all()) else x


def test_a_forward_that_looks_at_values_is_rehearsed_with_values() -> None:
    inner = attentions.HeadsByAttribute()
    result = analysed(inner, "self.q.weight", HEAD, 2, 7, 24)
    model = LooksAtValues()
    renamed = {
        key: {k.replace("self", "self.inner", 1): v for k, v in result[key].items()}
        for key in ("terminal", "iner", "operator")
    }
    shapes = {k.replace("self", "self.inner", 1): v for k, v in result.shapes.items()}
    from torchpruner_core import CutResult

    moved = CutResult(**renamed, shapes=shapes, inputs=result.inputs, outputs=result.outputs)
    set_cut(model, moved)
    assert model.inner.num_heads == 3


def test_cuts_without_operator_changes_are_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a convolutional cut must not run the model")

    monkeypatch.setattr(Stage, "__init__", never)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=8))
    result = analysed(model, "self.0.weight", [0], 1, 3, 9, 9)
    assert result.operator
    set_cut(model, result)


def test_operator_changes_without_inputs_ask_for_them() -> None:
    model = attentions.block(attentions.HeadsByAttribute())
    result = analysed(model, "self.1.q.weight", HEAD, 2, 7, 5)
    plain = {key: result[key] for key in ("terminal", "iner", "operator")}
    with pytest.raises(LiteralInForwardError, match="pass inputs= to set_cut"):
        set_cut(model, plain)
    set_cut(model, plain, inputs=torch.randn(2, 7, 5))
    assert model[1].num_heads == 3


class NormWithoutParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = (
            nn.Linear(5, 8),
            nn.LayerNorm(8, elementwise_affine=False),
            nn.Linear(8, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.norm(self.a(x)))


def test_a_layer_norm_without_parameters_follows() -> None:
    model = NormWithoutParameters()
    result = analysed(model, "self.a.weight", [0, 3], 4, 5)
    set_cut(model, result)
    assert model.norm.normalized_shape == (6,)
    assert model(torch.randn(4, 5)).shape == (4, 3)


class OwnNorm(nn.Module):
    """An unregistered layer that repeats its weight's shape in an attribute."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width))
        self.normalized_shape = (width,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight)


def test_an_unregistered_layer_that_repeats_a_size_follows() -> None:
    model = nn.Sequential(nn.Linear(5, 8), OwnNorm(8), nn.Linear(8, 3))
    result = analysed(model, "self.0.weight", [0, 3], 4, 5)
    set_cut(model, result)
    assert model[1].normalized_shape == (6,)
    assert model(torch.randn(4, 5)).shape == (4, 3)
