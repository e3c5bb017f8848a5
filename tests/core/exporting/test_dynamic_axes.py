"""Axes that a caller marks stay symbolic in the exported program, and in what is pruned from it."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.cut_result import CutRequest, CutResult, TensorSpec
from torchpruner_core.errors import ExportError, FixedSizesWarning, InputSpecError
from torchpruner_core.onnx_pruning import masked_onnx

BATCH = {0: {0: "batch"}}
BATCH_AND_SEQUENCE = {0: {0: "batch", 1: "sequence"}}


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = nn.Conv2d(before, after, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.layers = nn.Sequential(Residual(8, 8, 1), Residual(8, 16, 2))
        self.fc = nn.Linear(16 * 4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.adaptive_avg_pool2d(self.layers(self.stem(x)), 2)
        return self.fc(y.flatten(1))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        self.positions = nn.Parameter(torch.randn(64, 32))
        self.norm = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        b, t = ids.shape
        parts = (y.view(b, t, 4, -1).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        y = nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(b, t, -1)
        x = x + self.out(y)
        return self.head(x + self.down(torch.relu(self.up(x))))


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x).view(3, 2, 2).flatten(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(4, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.lstm(self.gru(x)[0])[0][:, -1])


class WithSteps(nn.Module):
    """Counts through the batch and the channels of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.up(x))
        steps = torch.arange(x.shape[0] * 8).view(x.shape[0], 8)
        return self.down(y + steps)


class RelativePositions(nn.Module):
    """Attention with a table of relative positions, as wide as the sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Embedding(16, 4)
        self.qkv, self.out = nn.Linear(8, 48), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        steps = torch.arange(k.shape[2])
        apart = (steps[:, None] - steps[None]).clamp(-8, 7) + 8
        scores = q @ k.transpose(-1, -2) / 2 + self.bias(apart).permute(2, 0, 1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def declared(data: bytes) -> list[list[Any]]:
    graph = onnx.load_model_from_string(data).graph
    return [
        [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in (*graph.input, *graph.output)
    ]


def cut(data: bytes, example: torch.Tensor, node: str, *indices: int, dim: int = 0) -> CutResult:
    spec = TensorSpec("", tuple(example.shape), str(example.dtype).removeprefix("torch."))
    return tp.solve_onnx(data, [spec]).cut_analysis_many([CutRequest(node, dim, indices)])


def run(data: bytes, x: torch.Tensor) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def pruned_both(
    model: nn.Module, example: torch.Tensor, dynamic: Any, *requests: tuple[str, int, int]
) -> tuple[bytes, nn.Module]:
    """Cut one slice at each of ``requests`` out of the file and out of a copy of the module."""
    data = tp.export_onnx(model, (example,), dynamic=dynamic)
    local = copy.deepcopy(model)
    for node, dim, slice_ in requests:
        result = cut(data, example, node, slice_, dim=dim)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FixedSizesWarning)
            data = tp.prune_onnx(data, result)
        tp.set_cut(local, result, correct_forward=True)
    return data, local


@pytest.mark.parametrize("batch", [1, 2])
def test_a_pruned_convolutional_network_takes_any_batch(batch: int) -> None:
    torch.manual_seed(0)
    model = ResNet().eval()
    requests = [
        ("self.stem.weight", 0, 3),
        ("self.layers.0.conv1.weight", 0, 1),
        ("self.layers.1.conv2.weight", 0, 5),
    ]
    data, local = pruned_both(model, torch.randn(batch, 3, 16, 16), BATCH, *requests)
    assert declared(data) == [["batch", 3, 16, 16], ["batch", 10]]
    assert local.fc.in_features == 15 * 4
    for other in (1, 3, 7):
        x = torch.randn(other, 3, 16, 16)
        np.testing.assert_allclose(run(data, x), local(x).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 7), (2, 7), (4, 4)])
def test_a_pruned_transformer_takes_any_batch_and_sequence(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Transformer().eval()
    requests = [
        ("self.qkv.weight", 0, 2),
        ("self.up.weight", 0, 9),
        ("self.embedding.weight", 1, 4),
    ]
    ids = torch.randint(0, 50, shape)
    data, local = pruned_both(model, ids, BATCH_AND_SEQUENCE, *requests)
    assert declared(data) == [["batch", "sequence"], ["batch", "sequence", 10]]
    for other in ((1, 12), (3, 5), (5, 1)):
        ids = torch.randint(0, 50, other)
        np.testing.assert_allclose(run(data, ids), local(ids).detach().numpy(), atol=1e-4)


@pytest.mark.parametrize("weight", ["self.gru.weight_hh_l0", "self.lstm.weight_hh_l0"])
def test_the_first_state_of_a_pruned_recurrent_network_is_as_large_as_the_batch(
    weight: str,
) -> None:
    torch.manual_seed(0)
    model = Recurrent().eval()
    data, local = pruned_both(model, torch.randn(2, 5, 4), BATCH, (weight, 1, 3))
    for other in (1, 2, 4):
        x = torch.randn(other, 5, 4)
        np.testing.assert_allclose(run(data, x), local(x).detach().numpy(), atol=1e-4)


def older_export(model: nn.Module, example: torch.Tensor, axes: dict[int, str]) -> bytes:
    """Return what the TorchScript exporter writes."""
    stream: Any = io.BytesIO()
    torch.onnx.export(
        model, (example,), stream, dynamo=False, input_names=["x"], dynamic_axes={"x": axes}
    )
    data: bytes = stream.getvalue()
    return data


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_states_of_several_layers_are_parts_of_one_and_follow_the_batch(
    kind: type[nn.RNNBase], batch: int
) -> None:
    class Stacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(4, 8, 2, batch_first=True, bidirectional=True)
            self.head = nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(self.rnn(x)[0][:, -1])
            return y

    torch.manual_seed(0)
    model, example = Stacked().eval(), torch.randn(batch, 5, 4)
    data = older_export(model, example, {0: "batch"})
    result = cut(data, example, "self.head.weight", 3, dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FixedSizesWarning)
        pruned = tp.prune_onnx(data, result)
    masked = masked_onnx(data, result)
    for other in (1, 3):
        x = torch.randn(other, 5, 4)
        np.testing.assert_allclose(run(pruned, x), run(masked, x), atol=1e-4)


def test_a_table_of_relative_positions_is_as_wide_as_the_sentence_after_heads_went() -> None:
    torch.manual_seed(0)
    model, example = RelativePositions().eval(), torch.randn(1, 6, 8)
    data = older_export(model, example, {0: "batch", 1: "sequence"})
    result = cut(data, example, "self.out.weight", 4, 5, 6, 7)
    assert not result.touches_outputs
    with warnings.catch_warnings():
        warnings.simplefilter("error", FixedSizesWarning)
        pruned = tp.prune_onnx(data, result)
    masked = masked_onnx(data, result)
    for other in ((1, 3), (2, 11)):
        x = torch.randn(*other, 8)
        np.testing.assert_allclose(run(pruned, x), run(masked, x), atol=1e-4)


def test_an_open_size_that_is_one_in_the_analysis_is_squeezed_by_nobody_else() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.down(torch.relu(self.up(x)).unsqueeze(1).squeeze())
            return y

    torch.manual_seed(0)
    model, example = Squeezed().eval(), torch.randn(1, 4)
    data = older_export(model, example, {0: "batch"})
    result = cut(data, example, "self.up.weight", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FixedSizesWarning)
        pruned = tp.prune_onnx(data, result)
    masked = masked_onnx(data, result)
    for other in (1, 3):
        x = torch.randn(other, 4)
        np.testing.assert_allclose(run(pruned, x), run(masked, x), atol=1e-4)


def test_a_tensor_given_twice_has_the_axes_of_each_place() -> None:
    class Products(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a @ b.T

    x = torch.randn(3, 5)
    data = tp.export_onnx(Products(), (x, x), dynamic={0: {0: "rows"}})
    assert declared(data) == [["rows", 5], [3, 5], ["rows", 3]]


def test_without_dynamic_every_size_is_a_number() -> None:
    assert declared(tp.export_onnx(ResNet().eval(), (torch.randn(2, 3, 16, 16),))) == [
        [2, 3, 16, 16],
        [2, 10],
    ]


def test_inputs_by_name_are_marked_by_name_and_axes_without_names_get_one() -> None:
    ids = torch.randint(0, 50, (2, 7))
    data = tp.export_onnx(Transformer().eval(), {"ids": ids}, dynamic={"ids": [0, -1]})
    assert declared(data) == [["ids_0", "ids_1"], ["ids_0", "ids_1", 10]]


def test_a_graph_has_the_sizes_of_its_inputs_and_its_program_the_symbols() -> None:
    ids = torch.randint(0, 50, (2, 7))
    graph = tp.ONNXGraph(Transformer().eval()).build_graph((ids,), dynamic=BATCH_AND_SEQUENCE)
    assert [node.shape for node in graph.outputs.values()] == [(2, 7, 10)]
    assert declared(graph.program.with_weights())[0] == ["batch", "sequence"]


def test_an_axis_that_the_model_fixes_is_refused_by_name() -> None:
    with pytest.raises(
        ExportError, match=r"axis 0 of input 0 cannot stay symbolic.*at 3"
    ) as caught:
        tp.export_onnx(FixedBatch().eval(), (torch.randn(3, 4),), dynamic=BATCH)
    assert (caught.value.fields["input"], caught.value.fields["axis"]) == (0, 0)


@pytest.mark.parametrize(
    ("dynamic", "said"),
    [
        ({"y": {0: "batch"}}, "dynamic names the input 'y'"),
        ({0: {4: "batch"}}, "no axis 4"),
        ({0: {0: "a batch"}}, "a name is an identifier"),
        ({0: "batch"}, "or a list of axes"),
        ([0], "dynamic maps an input's name or position"),
    ],
)
def test_what_is_not_an_axis_of_an_input_is_refused(dynamic: Any, said: str) -> None:
    with pytest.raises(InputSpecError, match=said):
        tp.export_onnx(ResNet().eval(), (torch.randn(2, 3, 16, 16),), dynamic=dynamic)


def test_a_file_says_itself_which_sizes_are_open() -> None:
    example = (torch.randn(2, 3, 16, 16),)
    data = tp.export_onnx(ResNet().eval(), example)
    with pytest.raises(ExportError, match="dynamic axes are those of an nn"):
        tp.export_onnx(data, example, dynamic=BATCH)


def test_a_count_that_reads_the_batch_alone_is_computed_as_before() -> None:
    torch.manual_seed(0)
    model, x = WithSteps().eval(), torch.randn(3, 4)
    data = older_export(model, x, {0: "batch"})
    result = cut(data, x, "self.up.weight", 1)
    pruned = tp.prune_onnx(data, result)
    assert declared(pruned) == declared(data) == [["batch", 4], ["batch", 2]]
    with torch.no_grad():
        model.down.weight[:, 1] = 0
    for other in (3, 5):
        x = torch.randn(other, 4)
        np.testing.assert_allclose(run(pruned, x), model(x).detach().numpy(), atol=1e-4)


COUNTED = """
<ir_version: 8, opset_import: ["" : 17]>
counted (float[batch,4] x) => (float[batch,2] y)
<float[8,4] up = {UP}, float[2,8] down = {DOWN}, float zero = {0}, float one = {1}>
{
  a = Gemm <transB = 1> (x, up)
  sizes = Shape (a)
  entries = ReduceProd <keepdims = 0> (sizes)
  count = Cast <to = 1> (entries)
  steps = Range (zero, count, one)
  table = Reshape (steps, sizes)
  b = Add (a, table)
  y = Gemm <transB = 1> (b, down)
}
"""
"""Counts through the batch and the channels that are left: only a stored table does as before."""


def counted() -> bytes:
    rng = np.random.default_rng(0)
    text = COUNTED
    for name, size in (("UP", 32), ("DOWN", 16)):
        text = text.replace(name, ", ".join(map(str, rng.standard_normal(size).round(3))))
    data: bytes = onnx.parser.parse_model(text).SerializeToString()
    return data


def test_a_model_whose_constants_become_fixed_declares_the_sizes_it_holds_for() -> None:
    data = counted()
    x = torch.randn(3, 4)
    result = cut(data, x, "self.up", 1)
    with pytest.warns(FixedSizesWarning, match="the input sizes of the analysis only"):
        pruned = tp.prune_onnx(data, result)
    assert declared(pruned) == [[3, 4], [3, 2]]
    np.testing.assert_allclose(run(pruned, x), run(masked_onnx(data, result), x), atol=1e-4)
