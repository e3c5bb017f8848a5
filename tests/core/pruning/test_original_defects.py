"""What the original library got wrong, one test a defect, each named after what is right now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as torchpruner
from tests.core.pruning.nets import assert_same, axes, cut, state
from torchpruner_core import CutResult, merge_cut_dict, recovery_cut, set_cut, verify_cut
from torchpruner_core.errors import CutError, CutIndexError, EmptyAxisError, ProtectedIOError


def graph_of(model: nn.Module, *inputs: torch.Tensor) -> Any:
    graph = torchpruner.ONNXGraph(torch.jit.trace(model.eval(), inputs, check_trace=False))
    graph.build_graph(inputs, fill_value=False)
    return graph


class Between(nn.Module):
    """Two convolutions with a function between them."""

    def __init__(self, function: Any, after: int = 8, kind: type[nn.Module] = nn.Conv2d) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function
        self.last = kind(after, 4, 1) if kind is nn.Conv2d else kind(after, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.function(self.first(x)))


X = (1, 3, 8, 8)


def proven(
    model: nn.Module, node: str, index: list[int], dim: int = 0, x: Any = None, **options: Any
) -> CutResult:
    """Analyse, replay on a copy, compare with the masked model, restore; return the cut."""
    x = torch.randn(*X) if x is None else x
    result = graph_of(model, x).solved.cut_analysis(node, index, dim)
    report = verify_cut(model, result, x, **options)
    assert report.equal, str(report)
    return result


class TestRecovery:
    def test_a_batch_norm_comes_back_with_its_own_width(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
        x = torch.randn(*X)
        result = graph_of(model, x).modules["self.0"].cut_analysis("weight", list(range(12)), 0)
        before = state(model)
        _, context = set_cut(model, result)
        assert model[1].num_features == 52
        recovery_cut(model, result, context)
        assert model[1].num_features == 64 and model[1].weight.shape == (64,)
        assert_same(before, state(model))

    def test_the_groups_of_a_convolution_come_back(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6))
        x = torch.randn(*X)
        result = graph_of(model, x).modules["self.0"].cut_analysis("weight", [0], 0)
        _, context = set_cut(model, result)
        assert model[1].groups == 5
        recovery_cut(model, result, context)
        assert model[1].groups == 6

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_types_than_float32_come_back(self, dtype: torch.dtype) -> None:
        model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)).to(dtype)
        before = state(model)
        result = cut(
            {
                "self.0.weight": axes(2, a0=[1]),
                "self.0.bias": axes(1, a0=[1]),
                "self.1.weight": axes(2, a1=[1]),
            }
        )
        _, context = set_cut(model, result)
        recovery_cut(model, result, context)
        assert_same(before, state(model))


class TestOptimizers:
    """The rest is in ``test_optimizer.py``, for every optimizer of PyTorch."""

    RESULT = cut({"self.weight": axes(2, a0=[0]), "self.bias": axes(1, a0=[0])})

    def trained(self, kind: type[torch.optim.Optimizer], **options: Any) -> tuple[Any, Any]:
        model = nn.Linear(5, 6)
        optimizer = kind(model.parameters(), **options)
        self.step(model, optimizer)
        return model, optimizer

    @staticmethod
    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.randn(3, 5)).square().sum().backward()
        optimizer.step()

    def test_the_first_moment_is_restored_from_the_first_moment(self) -> None:
        model, optimizer = self.trained(torch.optim.Adam)
        before = {k: v.clone() for k, v in optimizer.state[model.weight].items()}
        _, context = set_cut(model, self.RESULT)
        _, moments = torchpruner.set_cut_optimizer(model, optimizer, self.RESULT)
        torchpruner.recovery_optimizer(model, optimizer, self.RESULT, moments)
        recovery_cut(model, self.RESULT, context)
        after = optimizer.state[model.weight]
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert not torch.equal(after["exp_avg"], after["exp_avg_sq"])

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (torch.optim.Adam, {"amsgrad": True}),
            (torch.optim.Adamax, {}),
            (torch.optim.RMSprop, {"centered": True}),
            (torch.optim.Rprop, {}),
        ],
    )
    def test_the_next_step_does_not_crash(self, kind: Any, options: dict[str, Any]) -> None:
        model, optimizer = self.trained(kind, **options)
        _, context = set_cut(model, self.RESULT)
        _, moments = torchpruner.set_cut_optimizer(model, optimizer, self.RESULT)
        self.step(model, optimizer)
        torchpruner.recovery_optimizer(model, optimizer, self.RESULT, moments)
        recovery_cut(model, self.RESULT, context)
        self.step(model, optimizer)


class TestLayers:
    """Every layer of ``torch.nn`` is in ``test_module_pruners.py``."""

    def test_linear_updates_its_features(self) -> None:
        model = nn.Linear(5, 6)
        set_cut(model, TestOptimizers.RESULT)
        assert (model.in_features, model.out_features) == (5, 5)

    def test_a_batch_norm_without_affine_parameters_follows(self) -> None:
        model = Between(nn.BatchNorm2d(8, affine=False))
        proven(model, "self.first.weight", [0, 3])

    def test_a_grouped_transposed_convolution_follows(self) -> None:
        model = Between(nn.ConvTranspose2d(8, 8, 3, groups=2))
        proven(model, "self.first.weight", [0, 1, 2, 3])
        proven(model, "self.function.weight", [1], dim=1)

    def test_a_subclass_of_a_convolution_updates_its_channels(self) -> None:
        class Own(nn.Conv2d):
            pass

        model = nn.Sequential(Own(3, 8, 3))
        set_cut(model, cut({"self.0.weight": axes(4, a0=[0]), "self.0.bias": axes(1, a0=[0])}))
        assert model[0].out_channels == 7

    @pytest.mark.parametrize(
        "layer", [nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)]
    )
    def test_layers_that_had_no_pruner_follow(self, layer: nn.Module) -> None:
        model = Between(layer)
        x = torch.randn(*X)
        result = graph_of(model, x).solved.cut_analysis("self.first.weight", [0, 1], 0)
        report = verify_cut(model, result, x)
        assert report.shapes_match and report.restored


class TestMerging:
    def test_overlapping_keys_are_joined(self) -> None:
        merged = merge_cut_dict(
            cut({"self.w": axes(1, a0=[0, 1])}), cut({"self.w": axes(1, a0=[1, 2])})
        )
        assert merged.terminal["self.w"][0].tolist() == [0, 1, 2]  # type: ignore[union-attr]

    def test_a_depthwise_convolution_reached_twice_loses_its_groups_once(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Conv2d(3, 6, 1)
                self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
                self.last = nn.Conv2d(6, 2, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.first(x)
                return self.last(self.depthwise(x) + x)

        model = Twice()
        result = proven(model, "self.first.weight", [0, 1])
        assert result.operator == {"self.depthwise.Conv": {"group": 2}}


class TestAsking:
    def test_a_negative_dim_counts_from_the_end(self) -> None:
        graph = graph_of(Between(F.relu), torch.randn(*X))
        module = graph.modules["self.last"]
        last = module.cut_analysis("weight", [0], -3)
        assert last == module.cut_analysis("weight", [0], 1)
        assert last.terminal["self.last.weight"][0] is None

    @pytest.mark.parametrize("index", [[], [8], [-9], 3, "0", [0.5]])
    def test_indices_that_are_none_are_refused(self, index: Any) -> None:
        graph = graph_of(Between(F.relu), torch.randn(*X))
        with pytest.raises(CutIndexError):
            graph.modules["self.first"].cut_analysis("weight", index, 0)

    def test_cutting_a_whole_axis_is_refused(self) -> None:
        graph = graph_of(Between(F.relu), torch.randn(*X))
        with pytest.raises(EmptyAxisError):
            graph.modules["self.first"].cut_analysis("weight", list(range(8)), 0)

    def test_cutting_an_input_says_so_and_can_be_refused(self) -> None:
        model = Between(F.relu)
        x = torch.randn(*X)
        graph = graph_of(model, x)
        result = graph.modules["self.first"].cut_analysis("weight", [0], 1)
        assert result.touches_inputs
        assert verify_cut(model, result, x).equal
        with pytest.raises(ProtectedIOError):
            graph.modules["self.first"].cut_analysis("weight", [0], 1, protect_io=True)


class Embeds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


class GathersConstantly(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, [6, 1, 0, 3]]


def function(body: Any) -> Any:
    """Return a module that calls ``body``, so that operators have a scope of their own."""

    class Function(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return body(x)

    return Function()


class TestSilentlyWrong:
    def test_an_embedding_hands_its_columns_on(self) -> None:
        result = proven(Embeds(), "self.embed.weight", [0, 5], dim=1, x=torch.tensor([[1, 2, 8]]))
        assert result.terminal["self.head.weight"][1].tolist() == [0, 5]  # type: ignore[union-attr]

    def test_a_pad_of_channels_shifts_the_indices(self) -> None:
        model = Between(function(lambda x: F.pad(x, (0, 0, 0, 0, 2, 1))), after=11)
        result = proven(model, "self.first.weight", [0, 5])
        assert result.terminal["self.last.weight"][1].tolist() == [2, 7]  # type: ignore[union-attr]

    def test_a_transpose_is_followed_backwards(self) -> None:
        model = Between(function(lambda x: x.permute(0, 2, 3, 1)), kind=nn.Linear)
        result = proven(model, "self.last.weight", [3], dim=1)
        assert result.terminal["self.first.weight"][0].tolist() == [3]  # type: ignore[union-attr]

    def test_a_softmax_along_the_cut_axis_says_that_it_renormalises(self) -> None:
        model = Between(nn.Softmax(dim=1))
        x = torch.randn(*X)
        result = graph_of(model, x).solved.cut_analysis("self.first.weight", [0], 0)
        assert result.renormalises
        assert verify_cut(model, result, x).ok

    def test_a_pixel_shuffle_takes_all_the_channels_of_a_pixel(self) -> None:
        model = Between(nn.PixelShuffle(2), after=2)
        result = proven(model, "self.last.weight", [1], dim=1)
        assert result.terminal["self.first.weight"][0].tolist() == [4, 5, 6, 7]  # type: ignore[union-attr]


class TestRaised:
    def test_a_slice_is_followed(self) -> None:
        model = Between(function(lambda x: x[:, 2:7]), after=5)
        # The 7 is a literal of the lambda: the local module is corrected as it runs.
        result = proven(model, "self.last.weight", [1], dim=1, correct_forward=True)
        assert result.terminal["self.first.weight"][0].tolist() == [3]  # type: ignore[union-attr]

    def test_an_unsqueeze_and_a_squeeze_are_followed_both_ways(self) -> None:
        model = Between(function(lambda x: x.unsqueeze(1).relu().squeeze(1)))
        proven(model, "self.first.weight", [1])
        proven(model, "self.last.weight", [1], dim=1)

    def test_a_reduction_without_keepdims_is_followed(self) -> None:
        model = Between(function(lambda x: x.mean(dim=(2, 3))), kind=nn.Linear)
        proven(model, "self.first.weight", [1])
        proven(model, "self.last.weight", [1], dim=1)

    def test_a_flatten_is_followed_backwards(self) -> None:
        model = Between(nn.Flatten(), after=512, kind=nn.Linear)
        result = proven(model, "self.last.weight", list(range(64, 128)), dim=1)
        assert result.terminal["self.first.weight"][0].tolist() == [1]  # type: ignore[union-attr]

    def test_a_where_is_followed(self) -> None:
        model = Between(function(lambda x: torch.where(x > 0, x, x * 0.1)))
        proven(model, "self.first.weight", [1])

    def test_a_concat_on_a_negative_axis_is_followed(self) -> None:
        model = Between(function(lambda x: torch.cat([x, x.relu()], dim=-3)), after=16)
        result = proven(model, "self.first.weight", [1])
        assert result.terminal["self.last.weight"][1].tolist() == [1, 9]  # type: ignore[union-attr]

    def test_a_group_norm_is_followed(self) -> None:
        model = Between(nn.GroupNorm(4, 8))
        x = torch.randn(*X)
        result = graph_of(model, x).solved.cut_analysis("self.first.weight", [2, 3], 0)
        assert verify_cut(model, result, x).ok
        set_cut(model, result)
        assert model.function.num_groups == 3

    @pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
    def test_recurrent_layers_are_built_and_cut(self, kind: Any) -> None:
        class Reads(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.head = kind(5, 6), nn.Linear(6, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.head(self.rnn(x)[0])

        model = Reads()
        result = proven(model, "self.head.weight", [2], dim=1, x=torch.randn(7, 2, 5))
        set_cut(model, result)
        assert model.rnn.hidden_size == 5

    def test_a_transformer_encoder_is_cut(self) -> None:
        model = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True).eval()
        x = torch.randn(2, 5, 8)
        graph = torchpruner.ONNXGraph(model)
        graph.build_graph((x,), fill_value=False)
        result = graph.modules["self.linear1"].cut_analysis("weight", [3], 0)
        assert verify_cut(model, result, x).equal
        head = graph.modules["self.self_attn"].cut_analysis("in_proj_weight", [2, 3], 0)
        assert verify_cut(model, head, x).equal


DOCUMENTED = (
    "ONNXGraph",
    "get_name_groups_by_classes",
    "get_names_by_class",
    "get_object",
    "merge_cut_dict",
    "module_pruner_reg",
    "operator_reg",
    "operator_register",
    "recovery_optimizer",
    "replace_object_by_class",
    "replace_object_by_name_groups",
    "replace_object_by_names",
    "set_cut_optimizer",
    "set_object",
)


class TestGraph:
    def test_fill_value_keeps_the_values_it_computed(self) -> None:
        graph = torchpruner.ONNXGraph(Between(nn.ReLU()).eval())
        graph.build_graph((torch.randn(*X),), fill_value=True)
        assert all(isinstance(node.data, np.ndarray) for node in graph.nodes.values())

    def test_registering_an_operator_again_replaces_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class One(torchpruner.OperatorNode):
            pass

        class Two(torchpruner.OperatorNode):
            pass

        torchpruner.operator_register.regist("OfThisTest", One)
        with caplog.at_level("WARNING", "torchpruner_core"):
            torchpruner.operator_register.regist("OfThisTest", Two)
        assert torchpruner.operator_register.get("OfThisTest") is Two
        assert "is now described by Two" in caplog.text

    @pytest.mark.parametrize("name", DOCUMENTED)
    def test_documented_names_exist_at_the_top(self, name: str) -> None:
        assert name in dir(torchpruner) and getattr(torchpruner, name) is not None

    def test_an_unknown_name_in_a_graph_is_a_cut_error(self) -> None:
        graph = graph_of(Between(nn.ReLU()), torch.randn(*X))
        with pytest.raises(CutError):
            graph.modules["self.first"].cut_analysis("wheight", [0], 0)
