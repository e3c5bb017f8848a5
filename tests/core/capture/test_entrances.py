"""What may be captured, which entrance was taken, and why an earlier one was not."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.capture.running import captured, difference, operators
from torchpruner_core.capture import register_translation
from torchpruner_core.errors import ExportError
from torchpruner_core.exporting import export

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def names(program: Any) -> set[str]:
    graph = tp.solve_onnx(program.weightless())
    return {name for name, node in graph.nodes.items() if node.kind in ("parameter", "buffer")}


def test_a_module_enters_by_capture_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "torchpruner_core"):
        graph = tp.ONNXGraph(Net().eval()).build_graph((X,), fill_value=False)
    assert graph.program.entrance.name == "capture"
    assert graph.program.entrance.refusals == {}
    assert "the model entered by capture" in caplog.text


def test_the_next_entrance_says_why_the_first_was_not_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Listed(Net):
        def forward(self, x: torch.Tensor) -> Any:
            y = super().forward(x)
            values, indices = torch.empty(0), torch.empty(0, dtype=torch.int64)
            torch.sort(y, dim=1, out=(values, indices))  # writes to two tensors at once
            return y + values

    with caplog.at_level(logging.INFO, "torchpruner_core"):
        program = export(Listed().eval(), (X,))
    assert program.entrance.name == "torch.export"
    assert "writes to several tensors" in program.entrance.refusals["capture"]
    assert "writes to several tensors" in caplog.text


class Choosing(nn.Module):
    """Keeps the rows whose first feature is positive, and counts them in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 8), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.layer(x)[x[:, 0] > 0]
        result: torch.Tensor = self.head(kept.reshape(2 * kept.shape[0], 4))
        return result


def test_sizes_that_data_decides_stay_open() -> None:
    model, x = Choosing().eval(), torch.randn(40, 6)
    other = torch.cat((x[:, :1].abs(), x[:, 1:]), 1)
    x[:20, 0] = -1
    program = export(model, (x,))
    assert program.entrance.name != "capture"
    assert "data decides 1 sizes" in program.entrance.refusals["capture"]
    session = onnxruntime.InferenceSession(program.with_weights())
    (found,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    assert len(found) > len(model(x))
    torch.testing.assert_close(torch.from_numpy(found), model(other))


def test_sizes_that_no_entrance_keeps_open_are_held_fast_and_named() -> None:
    class Branching(Choosing):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("this model cannot be traced")
            if len(torch.nonzero(x[:, 0] > 0)) > 30:
                x = -x
            return super().forward(x)

    model, x = Branching().eval(), torch.randn(40, 6)
    program = export(model, (x,))
    assert program.entrance.name == "capture"
    assert set(program.entrance.refusals) == {"torch.export", "TorchScript"}
    assert program.frozen[0].sizes
    assert difference(program, model, (x,)) < 1e-5


def test_a_torch_export_program_and_its_file_take_the_same_way() -> None:
    model = Net().eval()
    exported = torch.export.export(model, (X,))
    file = io.BytesIO()
    torch.export.save(exported, file)
    for program in (export(exported), export(file.getvalue())):
        assert program.entrance.name == "capture"
        assert difference(program, model, (X,)) < 1e-5
        assert names(program) == names(captured(model, (X,)))


def test_a_torch_export_program_with_open_sizes_goes_to_the_exporter() -> None:
    batch = torch.export.Dim("batch")
    exported = torch.export.export(Net().eval(), (X,), dynamic_shapes=({0: batch},))
    program = export(exported)
    assert program.entrance.name == "torch.export"
    assert "sizes open" in program.entrance.refusals["capture"]


@pytest.fixture
def process_group() -> Iterator[None]:
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_data_parallel_model_is_captured_under_its_own_names(process_group: None) -> None:
    model = Net().eval()
    wrapped = nn.parallel.DistributedDataParallel(model)
    program = export(wrapped, (X,))
    assert program.entrance.name == "capture"
    assert names(program) == names(captured(model, (X,)))
    wrapped.train()(X).sum().backward()


def test_a_compiled_model_is_captured_under_its_own_names() -> None:
    model = Net().eval()
    program = export(torch.compile(model, backend="eager"), (X,))
    assert program.entrance.name == "capture"
    assert names(program) == names(captured(model, (X,)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_float_dtype_is_captured(dtype: torch.dtype) -> None:
    model = Net().eval().to(dtype)
    graph = tp.ONNXGraph(model).build_graph((X.to(dtype),), fill_value=False)
    assert graph.nodes["self.conv.weight"].dtype == str(dtype).removeprefix("torch.")
    assert len(graph.solved.groups()) == 3


def test_a_model_on_meta_is_captured_with_real_inputs() -> None:
    model = Net().eval()
    real, shapes = captured(model, (X,)), captured(model.to("meta"), (X,))
    assert operators(real) == operators(shapes)
    assert shapes.frozen == ()
    with pytest.raises(ExportError, match="meta device"):
        shapes.with_weights()


def test_a_low_rank_wrapper_is_captured() -> None:
    class LowRank(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base_layer = base
            self.lora_A = nn.Linear(base.in_features, 2, bias=False)
            self.lora_B = nn.Linear(2, base.out_features, bias=False)

        def forward(self, x: torch.Tensor) -> Any:
            return self.base_layer(x) + self.lora_B(self.lora_A(x)) * 0.5

    model = Net().eval()
    model.head = LowRank(model.head)  # type: ignore[assignment]
    program = captured(model, (X,))
    assert difference(program, model, (X,)) < 1e-5
    assert {"self.head.lora_A.weight", "self.head.base_layer.weight"} <= names(program)


def test_quantisation_in_training_is_captured() -> None:
    class Rounded(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.full((8,), 0.02))
            self.register_buffer("zero", torch.zeros(8, dtype=torch.int32))

        def forward(self, x: torch.Tensor) -> Any:
            weight = torch.fake_quantize_per_channel_affine(
                self.conv.weight, self.get_buffer("scale"), self.get_buffer("zero"), 0, -128, 127
            )
            y = nn.functional.conv2d(x, weight, self.conv.bias)
            return torch.fake_quantize_per_tensor_affine(y, 0.05, 3, 0, 255)

    model = Rounded().eval()
    assert difference(captured(model, (X,)), model, (X,)) < 1e-5


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: torch.Tensor | None
    extra: dict[str, Any]


def test_structured_arguments_and_results_keep_their_names() -> None:
    class Structured(Net):
        def forward(self, batch: Any, scale: float = 1.0, mask: Any = None) -> Any:
            y = super().forward(batch["image"])
            if mask is not None:
                y = y * mask
            return Answer(y * scale, None, {"bias": batch["bias"] + y, "count": 3})

    model = Structured().eval()
    inputs = {"batch": {"image": X, "bias": torch.ones(4)}, "scale": 2.0, "mask": None}
    graph = tp.ONNXGraph(model).build_graph(inputs)
    assert list(graph.inputs) == ["batch_image", "batch_bias"]
    assert list(graph.outputs) == ["logits", "extra_bias"]
    assert graph.program.entrance.name == "capture"
    assert torch.allclose(
        torch.from_numpy(graph.outputs["logits"].data), model(**inputs).logits, atol=1e-5
    )


@torch.library.custom_op("capture_tests::halved", mutates_args=())
def halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


@halved.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(Net):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(halved(torch.relu(self.conv(x)).mean((2, 3))))


def test_a_custom_operator_is_opaque_by_name_and_not_fatal() -> None:
    graph = tp.ONNXGraph(Custom().eval()).build_graph((X,), fill_value=False)
    assert graph.program.entrance.name == "capture"
    assert graph.program.opaque == ("capture_tests::halved",)
    assert "self.halved" in graph.operators
    with pytest.raises(tp.errors.OpaqueAxisError, match="halved"):
        graph.solved.cut_analysis("self.conv.weight", [0], 0)
    assert graph.solved.cut_analysis("self.head.weight", [0], 0)["terminal"]


def test_a_registered_translation_gives_a_custom_operator_its_meaning() -> None:
    @register_translation("capture_tests::halved")
    def translate(g: Any, call: Any, x: Any) -> Any:
        return g.op("Div", x, g.scalar(2, x.dtype))

    from torchpruner_core.capture import registry

    try:
        model = Custom().eval()
        program = captured(model, (X,))
        assert program.opaque == ()
        assert difference(program, model, (X,)) < 1e-5
        tp.solve_onnx(program.weightless()).cut_analysis("self.conv.weight", [0], 0)
    finally:
        del registry._TRANSLATIONS["capture_tests::halved"]


def test_a_translation_is_registered_under_a_namespace() -> None:
    with pytest.raises(ValueError, match="namespace"):
        register_translation("relu")


def test_an_autograd_function_is_what_its_forward_does() -> None:
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * x.sigmoid()

    class Model(Net):
        def forward(self, x: torch.Tensor) -> Any:
            return Swish.apply(super().forward(x))

    model = Model().eval()
    assert difference(captured(model, (X,)), model, (X,)) < 1e-5


def test_a_captured_model_trains_on() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = model(X).square().sum()
    state = torch.get_rng_state()
    tp.ONNXGraph(model).build_graph((X,), fill_value=False)
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    loss.backward()
    optimizer.step()
    model(X).sum().backward()
