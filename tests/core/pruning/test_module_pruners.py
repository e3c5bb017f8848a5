"""Each layer of ``torch.nn`` follows a cut: its attributes say its new sizes, and it still runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import assert_same, axes, cut, state
from torchpruner_core import recovery_cut, set_cut, set_zero
from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.module_pruner import PrunedMultiheadAttention, module_pruner_reg

# layer, cuts of its tensors, operator changes, attributes afterwards, input shape
CASES: dict[
    str, tuple[nn.Module, dict[str, Any], dict[str, Any], dict[str, Any], tuple[int, ...]]
] = {
    "conv1d out": (
        nn.Conv1d(3, 8, 3),
        {"weight": axes(3, a0=[1]), "bias": axes(1, a0=[1])},
        {},
        {"out_channels": 7, "in_channels": 3},
        (2, 3, 9),
    ),
    "conv2d in": (
        nn.Conv2d(6, 8, 3),
        {"weight": axes(4, a1=[0, 5])},
        {},
        {"out_channels": 8, "in_channels": 4},
        (2, 4, 9, 9),
    ),
    "conv3d out without bias": (
        nn.Conv3d(3, 8, 3, bias=False),
        {"weight": axes(5, a0=[7])},
        {},
        {"out_channels": 7},
        (1, 3, 5, 5, 5),
    ),
    "depthwise conv": (
        nn.Conv2d(6, 6, 3, groups=6),
        {"weight": axes(4, a0=[0, 1]), "bias": axes(1, a0=[0, 1])},
        {"Conv": {"group": 2}},
        {"groups": 4, "in_channels": 4, "out_channels": 4},
        (1, 4, 9, 9),
    ),
    "grouped conv, one group": (
        nn.Conv2d(8, 12, 3, groups=4),
        {"weight": axes(4, a0=[3, 4, 5]), "bias": axes(1, a0=[3, 4, 5])},
        {"Conv": {"group": 1}},
        {"groups": 3, "in_channels": 6, "out_channels": 9},
        (1, 6, 9, 9),
    ),
    "grouped conv, one channel of each group": (
        nn.Conv2d(8, 12, 3, groups=4),
        {"weight": axes(4, a0=[0, 3, 6, 9]), "bias": axes(1, a0=[0, 3, 6, 9])},
        {},
        {"groups": 4, "in_channels": 8, "out_channels": 8},
        (1, 8, 9, 9),
    ),
    "a grouped conv that runs twice loses its groups once": (
        nn.Conv2d(6, 6, 3, groups=6),
        {"weight": axes(4, a0=[0, 1]), "bias": axes(1, a0=[0, 1])},
        {"Conv": {"group": 2}, "Conv_1": {"group": 2}},
        {"groups": 4, "in_channels": 4},
        (1, 4, 9, 9),
    ),
    "transposed conv out": (
        nn.ConvTranspose2d(4, 6, 3),
        {"weight": axes(4, a1=[0]), "bias": axes(1, a0=[0])},
        {},
        {"in_channels": 4, "out_channels": 5},
        (1, 4, 5, 5),
    ),
    "transposed conv in": (
        nn.ConvTranspose1d(4, 6, 3),
        {"weight": axes(3, a0=[0])},
        {},
        {"in_channels": 3, "out_channels": 6},
        (1, 3, 5),
    ),
    "grouped transposed conv, one group": (
        nn.ConvTranspose3d(4, 6, 2, groups=2),
        {"weight": axes(5, a0=[0, 1]), "bias": axes(1, a0=[0, 1, 2])},
        {"ConvTranspose": {"group": 1}},
        {"groups": 1, "in_channels": 2, "out_channels": 3},
        (1, 2, 3, 3, 3),
    ),
    "linear": (
        nn.Linear(6, 5),
        {"weight": axes(2, a0=[0], a1=[2, 3]), "bias": axes(1, a0=[0])},
        {},
        {"in_features": 4, "out_features": 4},
        (2, 4),
    ),
    "batch norm": (
        nn.BatchNorm1d(6),
        {k: axes(1, a0=[2]) for k in ("weight", "bias", "running_mean", "running_var")},
        {},
        {"num_features": 5},
        (3, 5),
    ),
    "batch norm without affine parameters": (
        nn.BatchNorm2d(6, affine=False),
        {k: axes(1, a0=[2]) for k in ("running_mean", "running_var")},
        {},
        {"num_features": 5},
        (3, 5, 2, 2),
    ),
    "batch norm without statistics": (
        nn.BatchNorm3d(6, track_running_stats=False),
        {k: axes(1, a0=[2]) for k in ("weight", "bias")},
        {},
        {"num_features": 5},
        (3, 5, 2, 2, 2),
    ),
    "synchronised batch norm": (
        nn.SyncBatchNorm(6),
        {k: axes(1, a0=[2]) for k in ("weight", "bias", "running_mean", "running_var")},
        {},
        {"num_features": 5},
        (3, 5, 2),
    ),
    "instance norm": (
        nn.InstanceNorm2d(6, affine=True),
        {k: axes(1, a0=[0, 1]) for k in ("weight", "bias")},
        {},
        {"num_features": 4},
        (1, 4, 3, 3),
    ),
    "layer norm": (
        nn.LayerNorm(6),
        {k: axes(1, a0=[0]) for k in ("weight", "bias")},
        {},
        {"normalized_shape": (5,)},
        (2, 5),
    ),
    "layer norm over two axes": (
        nn.LayerNorm((4, 6)),
        {k: axes(2, a1=[0]) for k in ("weight", "bias")},
        {},
        {"normalized_shape": (4, 5)},
        (2, 4, 5),
    ),
    "rms norm": (
        nn.RMSNorm(6),
        {"weight": axes(1, a0=[5])},
        {},
        {"normalized_shape": (5,)},
        (2, 5),
    ),
    "group norm, a whole group": (
        nn.GroupNorm(3, 6),
        {k: axes(1, a0=[2, 3]) for k in ("weight", "bias")},
        {"Reshape": {"shape": [0, 1, 0]}},
        {"num_groups": 2, "num_channels": 4},
        (1, 4, 3, 3),
    ),
    "group norm, one channel of each group": (
        nn.GroupNorm(3, 6),
        {k: axes(1, a0=[0, 2, 4]) for k in ("weight", "bias")},
        {},
        {"num_groups": 3, "num_channels": 3},
        (1, 3, 3, 3),
    ),
    "prelu": (nn.PReLU(6), {"weight": axes(1, a0=[0])}, {}, {"num_parameters": 5}, (2, 5, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_follows_and_is_restored(case: str) -> None:
    layer, cuts, operators, attributes, shape = CASES[case]
    model = nn.ModuleDict({"layer": copy.deepcopy(layer)}).eval()
    before = state(model)
    result = cut(
        {f"self.layer.{name}": entry for name, entry in cuts.items()},
        operator={f"self.layer.{name}": change for name, change in operators.items()},
    )
    _, context = set_cut(model, result)
    assert {name: getattr(model["layer"], name) for name in attributes} == attributes
    model["layer"](torch.randn(shape))
    recovery_cut(model, result, context)
    assert_same(before, state(model))


def test_bilinear_and_embeddings_follow() -> None:
    model = nn.ModuleDict(
        {
            "b": nn.Bilinear(3, 4, 5),
            "e": nn.Embedding(9, 6, padding_idx=4),
            "g": nn.EmbeddingBag(9, 6),
        }
    )
    before = state(model)
    result = cut(
        {
            "self.b.weight": axes(3, a1=[0], a2=[1]),
            "self.e.weight": axes(2, a0=[0, 8], a1=[2]),
            "self.g.weight": axes(2, a1=[2]),
        }
    )
    _, context = set_cut(model, result)
    b, e, g = model["b"], model["e"], model["g"]
    assert (b.in1_features, b.in2_features, b.out_features) == (2, 3, 5)
    assert (e.num_embeddings, e.embedding_dim, e.padding_idx) == (7, 5, 3)
    assert g.embedding_dim == 5
    recovery_cut(model, result, context)
    assert_same(before, state(model))


def test_a_padding_row_cannot_go() -> None:
    model = nn.ModuleDict({"e": nn.Embedding(9, 6, padding_idx=0)})
    with pytest.raises(ModulePrunerError, match="padding row"):
        set_cut(model, cut({"self.e.weight": axes(2, a0=[0])}))


def test_unequal_channels_of_the_groups_of_a_group_norm_are_refused() -> None:
    model = nn.ModuleDict({"n": nn.GroupNorm(3, 6)})
    with pytest.raises(ModulePrunerError, match="whole groups, or as many"):
        set_cut(model, cut({"self.n.weight": axes(1, a0=[0]), "self.n.bias": axes(1, a0=[0])}))


def test_runs_of_one_convolution_that_disagree_are_refused() -> None:
    model = nn.ModuleDict({"c": nn.Conv2d(6, 6, 3, groups=6)})
    result = cut(
        {"self.c.weight": axes(4, a0=[0, 1]), "self.c.bias": axes(1, a0=[0, 1])},
        operator={"self.c.Conv": {"group": 2}, "self.c.Conv_1": {"group": 1}},
    )
    with pytest.raises(ModulePrunerError, match="different changes"):
        set_cut(model, result)


class StandardisedConv(nn.Conv2d):
    """A subclass whose forward repeats one of its attributes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight.reshape(self.out_channels, -1)
        weight = (weight - weight.mean(1, keepdim=True)).view_as(self.weight)
        return self._conv_forward(x, weight, self.bias)


def test_a_subclass_inherits_the_pruner_of_its_layer() -> None:
    assert StandardisedConv in module_pruner_reg
    model = nn.Sequential(StandardisedConv(3, 8, 3))
    set_cut(model, cut({"self.0.weight": axes(4, a0=[0]), "self.0.bias": axes(1, a0=[0])}))
    assert model(torch.randn(1, 3, 5, 5)).shape == (1, 7, 3, 3)


def gates(hidden: int, unit: int, count: int) -> list[int]:
    return [gate * hidden + unit for gate in range(count)]


@pytest.mark.parametrize(("kind", "count"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_hidden_units_of_every_layer_and_direction_go_together(
    kind: str, count: int, bidirectional: bool
) -> None:
    hidden = 5
    rnn = getattr(nn, kind)(3, hidden, num_layers=2, bidirectional=bidirectional, batch_first=True)
    model = nn.ModuleDict({"rnn": rnn})
    before = state(model)
    rows = gates(hidden, 2, count)
    terminal: dict[str, Any] = {}
    for layer in range(2):
        for suffix in ("", "_reverse") if bidirectional else ("",):
            name = f"l{layer}{suffix}"
            inputs = [2, 2 + hidden] if bidirectional else [2]
            terminal[f"self.rnn.weight_ih_{name}"] = (
                axes(2, a0=rows) if layer == 0 else axes(2, a0=rows, a1=inputs)
            )
            terminal[f"self.rnn.weight_hh_{name}"] = axes(2, a0=rows, a1=[2])
            terminal[f"self.rnn.bias_ih_{name}"] = axes(1, a0=rows)
            terminal[f"self.rnn.bias_hh_{name}"] = axes(1, a0=rows)
    result = cut(terminal, operator={f"self.rnn.{kind}": {"hidden_size": 1}})
    x = torch.randn(2, 7, 3)
    masked, _ = set_zero(copy.deepcopy(model), result)
    expected = masked["rnn"](x)[0]
    _, context = set_cut(model, result)
    assert rnn.hidden_size == 4 and rnn.input_size == 3
    kept = [i for i in range(expected.shape[-1]) if i % hidden != 2]
    torch.testing.assert_close(rnn(x)[0], expected[..., kept])
    recovery_cut(model, result, context)
    assert_same(before, state(model))


def test_a_projected_lstm_follows_in_its_cell_and_in_its_output() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 6, proj_size=4)})
    rows = gates(6, 1, 4)
    result = cut(
        {
            "self.rnn.weight_ih_l0": axes(2, a0=rows),
            "self.rnn.weight_hh_l0": axes(2, a0=rows, a1=[3]),
            "self.rnn.bias_ih_l0": axes(1, a0=rows),
            "self.rnn.bias_hh_l0": axes(1, a0=rows),
            "self.rnn.weight_hr_l0": axes(2, a0=[3], a1=[1]),
        }
    )
    set_cut(model, result)
    assert (model["rnn"].hidden_size, model["rnn"].proj_size) == (5, 3)
    assert model["rnn"](torch.randn(7, 2, 3))[0].shape == (7, 2, 3)


def test_layers_of_one_rnn_cannot_have_hidden_sizes_of_their_own() -> None:
    model = nn.ModuleDict({"rnn": nn.RNN(3, 5, num_layers=2)})
    before = state(model)
    result = cut(
        {
            "self.rnn.weight_ih_l0": axes(2, a0=[0]),
            "self.rnn.weight_hh_l0": axes(2, a0=[0], a1=[0]),
            "self.rnn.bias_ih_l0": axes(1, a0=[0]),
            "self.rnn.bias_hh_l0": axes(1, a0=[0]),
            "self.rnn.weight_ih_l1": axes(2, a1=[0]),
        }
    )
    with pytest.raises(ModulePrunerError, match="share one hidden size"):
        set_cut(model, result)
    assert_same(before, state(model))


@pytest.mark.parametrize(("kind", "count"), [("LSTMCell", 4), ("GRUCell", 3), ("RNNCell", 1)])
def test_recurrent_cells_follow(kind: str, count: int) -> None:
    model = nn.ModuleDict({"cell": getattr(nn, kind)(3, 5)})
    rows = gates(5, 0, count)
    result = cut(
        {
            "self.cell.weight_ih": axes(2, a0=rows, a1=[1]),
            "self.cell.weight_hh": axes(2, a0=rows, a1=[0]),
            "self.cell.bias_ih": axes(1, a0=rows),
            "self.cell.bias_hh": axes(1, a0=rows),
        }
    )
    set_cut(model, result)
    assert (model["cell"].input_size, model["cell"].hidden_size) == (2, 4)
    model["cell"](torch.randn(2, 2))


class TestMultiheadAttention:
    """Four heads of size 2; rows of the packed projection are 8 of queries, keys and values each."""

    @staticmethod
    def packed(rows: list[int], output_columns: list[int]) -> Any:
        return cut(
            {
                "self.attn.in_proj_weight": axes(2, a0=rows),
                "self.attn.in_proj_bias": axes(1, a0=rows),
                "self.attn.out_proj.weight": axes(2, a1=output_columns),
            },
            operator={"self.attn.Reshape": {"shape": [0, 0, 1, 0]}},
        )

    @pytest.mark.parametrize("need_weights", [True, False])
    @pytest.mark.parametrize("batch_first", [True, False])
    @pytest.mark.parametrize(
        ("rows", "columns", "sizes"),
        [
            ([2, 3, 10, 11, 18, 19], [2, 3], (3, 2, 2)),  # the second head
            ([0, 2, 4, 6, 8, 10, 12, 14], [], (4, 1, 2)),  # half of every query and key head
            ([17, 19, 21, 23], [1, 3, 5, 7], (4, 2, 1)),  # half of every value head
        ],
    )
    def test_equals_the_masked_layer(
        self,
        rows: list[int],
        columns: list[int],
        sizes: tuple[int, int, int],
        batch_first: bool,
        need_weights: bool,
    ) -> None:
        model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 4, batch_first=batch_first)}).eval()
        nn.init.normal_(model["attn"].in_proj_bias)
        before = state(model)
        result = self.packed(rows, columns)
        x = torch.randn(2, 5, 8)
        padding = torch.zeros(x.shape[:2] if batch_first else x.shape[1::-1], dtype=torch.bool)
        padding[0, -1] = True
        length = x.shape[1] if batch_first else x.shape[0]
        causal = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        arguments = {
            "key_padding_mask": padding,
            "attn_mask": causal,
            "need_weights": need_weights,
        }
        masked, _ = set_zero(copy.deepcopy(model), result)
        expected, _ = masked["attn"](x, x, x, **arguments)
        _, context = set_cut(model, result)
        attn = model["attn"]
        assert isinstance(attn, PrunedMultiheadAttention)
        assert (attn.num_heads, attn.head_dim, attn.v_head_dim) == sizes
        received, weights = attn(x, x, x, **arguments)
        torch.testing.assert_close(received, expected)
        assert (weights is not None) is need_weights
        recovery_cut(model, result, context)
        assert type(attn) is nn.MultiheadAttention
        assert_same(before, state(model))

    def test_separate_projections_biases_and_a_zero_key(self) -> None:
        attn = nn.MultiheadAttention(8, 4, kdim=6, vdim=7, add_bias_kv=True, add_zero_attn=True)
        model = nn.ModuleDict({"attn": attn}).eval()
        nn.init.normal_(attn.in_proj_bias)
        head = [2, 3]
        result = cut(
            {
                **{f"self.attn.{p}_proj_weight": axes(2, a0=head) for p in "qkv"},
                "self.attn.in_proj_bias": axes(1, a0=[2, 3, 10, 11, 18, 19]),
                "self.attn.bias_k": axes(3, a2=head),
                "self.attn.bias_v": axes(3, a2=head),
                "self.attn.out_proj.weight": axes(2, a1=head),
            }
        )
        inputs = torch.randn(5, 2, 8), torch.randn(6, 2, 6), torch.randn(6, 2, 7)
        masked, _ = set_zero(copy.deepcopy(model), result)
        expected, _ = masked["attn"](*inputs)
        set_cut(model, result)
        assert attn.num_heads == 3
        torch.testing.assert_close(attn(*inputs)[0], expected)

    def test_the_fused_path_of_an_encoder_layer_is_not_taken_by_a_pruned_one(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True, dropout=0.0)
        model = nn.ModuleDict({"layer": layer}).eval()
        rows = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]  # two heads: an even number is left
        result = cut(
            {
                "self.layer.self_attn.in_proj_weight": axes(2, a0=rows),
                "self.layer.self_attn.in_proj_bias": axes(1, a0=rows),
                "self.layer.self_attn.out_proj.weight": axes(2, a1=[0, 1, 2, 3]),
            }
        )
        x = torch.randn(2, 5, 8)
        masked, _ = set_zero(copy.deepcopy(model), result)
        set_cut(model, result)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), masked["layer"](x))

    def test_heads_of_queries_and_values_that_differ_are_refused(self) -> None:
        model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 4)})
        with pytest.raises(ModulePrunerError, match="queries, keys and values differ"):
            set_cut(model, self.packed([0, 1, 10, 11, 18, 19], [2, 3]))

    def test_a_pruned_layer_can_be_pruned_again(self) -> None:
        model = nn.ModuleDict({"attn": nn.MultiheadAttention(8, 4)})
        before = state(model)
        first, second = (
            self.packed([2, 3, 10, 11, 18, 19], [2, 3]),
            self.packed([0, 1, 6, 7, 12, 13], [0, 1]),
        )
        _, one = set_cut(model, first)
        _, two = set_cut(model, second)
        assert model["attn"].num_heads == 2
        assert model["attn"](*(torch.randn(3, 1, 8),) * 3)[0].shape == (3, 1, 8)
        recovery_cut(model, second, two)
        recovery_cut(model, first, one)
        assert_same(before, state(model))
