"""Files that other tools write: PyTorch's exporters by default, onnxruntime's quantisation and
optimisers, other operator sets and dtypes, and graphs in the dialects of tf2onnx and PaddlePaddle.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from benchmarks.zoo.wild import dialects
from benchmarks.zoo.wild.wild_file import WildFile

Builder = Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]

LOOSE = 2e-3
"""Integers that a rounding moves by one, and half precision."""


def files() -> Iterator[WildFile]:
    """Yield every made file."""
    read: Callable[[], bytes]
    for name, build in NETWORKS.items():
        yield WildFile(f"torch.onnx {name}", partial(default_export, build))
        yield WildFile(f"TorchScript {name}", partial(folded_export, build))
    for name, build in NETWORKS.items():
        for kind in ("dynamic", "dynamic per channel", "QDQ", "QOperator"):
            read = partial(quantised, kind, build)
            yield WildFile(f"quantised {kind} {name}", read, tolerance=LOOSE)
    yield WildFile("int4 MatMulNBits transformer", int4, tolerance=LOOSE)
    for name in ("bert", "vit"):
        yield WildFile(f"transformers optimizer {name}", partial(optimised, name))
    for name in ("convolutions", "transformer"):
        yield WildFile(f"onnxruntime extended {name}", partial(extended, NETWORKS[name]))
    read = partial(dialects.retyped, "float16", partial(folded_export, NETWORKS["convolutions"]))
    yield WildFile("dtype float16", read, tolerance=2e-2)
    yield WildFile("dtype float64", partial(dialects.retyped, "float64", dialects.unnamed))
    for opset in (7, 9, 11, 13, 16):
        read = partial(folded_export, NETWORKS["convolutions"], opset)
        yield WildFile(f"operator set {opset}", read)
    for opset in (18, 20, 22, 24, 26):
        read = partial(dialects.converted, opset, partial(folded_export, NETWORKS["convolutions"]))
        yield WildFile(f"operator set {opset}", read)
    for name, read in dialects.DIALECTS.items():
        yield WildFile(name, read)


def _convolutions() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish(),
        nn.Conv2d(16, 32, 1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip
    return model.eval(), (torch.randn(1, 3, 16, 16),)


def _transformer() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.norm2 = nn.LayerNorm(64), nn.LayerNorm(64)
            self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)
            self.mlp = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batch, length, _ = x.shape
            heads = self.qkv(self.norm(x)).reshape(batch, length, 3, 4, 16).permute(2, 0, 3, 1, 4)
            scores = (heads[0] @ heads[1].transpose(-1, -2) / 4.0).softmax(-1)
            x = x + self.out((scores @ heads[2]).transpose(1, 2).reshape(batch, length, 64))
            result: torch.Tensor = x + self.mlp(self.norm2(x))
            return result

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), Block(), Block(), nn.LayerNorm(64), nn.Linear(64, 7))
    return model.eval(), (torch.randn(1, 6, 20),)


def _recurrent() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(50, 24)
            self.lstm = nn.LSTM(24, 16, 2, batch_first=True, bidirectional=True)
            self.head = nn.Sequential(nn.Linear(32, 20), nn.Tanh(), nn.Linear(20, 9))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            tags: torch.Tensor = self.head(self.lstm(self.embedding(ids))[0])
            return tags

    torch.manual_seed(0)
    return Tagger().eval(), (torch.randint(0, 8, (1, 12)),)


NETWORKS: dict[str, Builder] = {
    "convolutions": _convolutions,
    "transformer": _transformer,
    "recurrent": _recurrent,
}


@cache
def default_export(build: Builder) -> bytes:
    """Return what ``torch.onnx.export`` writes by default: optimised, weights folded."""
    model, inputs = build()
    with redirect_stdout(io.StringIO()):
        program = torch.onnx.export(model, inputs, dynamo=True, verbose=False)
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


@cache
def folded_export(build: Builder, opset: int | None = None) -> bytes:
    """Return what the TorchScript exporter writes by default: batch norms folded, linears transposed."""
    model, inputs = build()
    stream: Any = io.BytesIO()
    torch.onnx.export(
        model, inputs, stream, dynamo=False, input_names=["x"], output_names=["y"],
        opset_version=opset,
    )  # fmt: skip
    data: bytes = stream.getvalue()
    return data


def quantised(kind: str, build: Builder) -> bytes:
    """Return the output of onnxruntime's quantisation tool."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    logging.getLogger().setLevel(logging.ERROR)
    _, inputs = build()
    generator = torch.Generator().manual_seed(1)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = 4

        def get_next(self) -> dict[str, Any] | None:
            self.left -= 1
            if self.left < 0:
                return None
            if inputs[0].dtype == torch.int64:
                return {"x": inputs[0].numpy()}
            return {"x": torch.randn(inputs[0].shape, generator=generator).numpy()}

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        before.write_bytes(folded_export(build))
        if kind.startswith("dynamic"):
            per_channel = kind.endswith("channel")
            weights = QuantType.QInt8 if per_channel else QuantType.QUInt8
            quantize_dynamic(before, after, per_channel=per_channel, weight_type=weights)
        else:
            quantize_static(
                before,
                after,
                Reader(),
                quant_format=QuantFormat.QDQ if kind == "QDQ" else QuantFormat.QOperator,
                per_channel=kind == "QDQ",
                weight_type=QuantType.QInt8,
            )
        return after.read_bytes()


def int4() -> bytes:
    """Return the transformer with its products in blocks of four bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load_model_from_string(folded_export(NETWORKS["transformer"]))
    quantizer = MatMulNBitsQuantizer(model, block_size=16, is_symmetric=True)
    quantizer.process()
    data: bytes = quantizer.model.model.SerializeToString()
    return data


def optimised(name: str) -> bytes:
    """Return a Hugging Face model after onnxruntime's transformer optimiser."""
    from onnxruntime.transformers.optimizer import optimize_model

    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before.onnx"
        before.write_bytes(_hugging_face(name))
        logging.getLogger().setLevel(logging.ERROR)
        done = optimize_model(
            str(before), model_type=name, num_heads=4, hidden_size=32, opt_level=0, use_gpu=False
        )
        data: bytes = done.model.SerializeToString()
        return data


def _hugging_face(name: str) -> bytes:
    import transformers

    torch.manual_seed(0)
    common: Any = {"attn_implementation": "eager"}
    config: Any
    inputs: tuple[torch.Tensor, ...]
    if name == "bert":
        config = transformers.BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            vocab_size=60, **common,
        )  # fmt: skip
        model: nn.Module = transformers.BertModel(config)
        inputs = (torch.randint(0, 50, (1, 8)), torch.ones(1, 8, dtype=torch.int64))
    else:
        config = transformers.ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            image_size=32, patch_size=8, **common,
        )  # fmt: skip
        model = transformers.ViTModel(config)
        inputs = (torch.randn(1, 3, 32, 32),)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.inner(*given, return_dict=False)[0]
            return hidden

    with redirect_stdout(io.StringIO()):
        program = torch.onnx.export(First().eval(), inputs, dynamo=True, verbose=False)
    assert program is not None
    data: bytes = program.model_proto.SerializeToString()
    return data


def extended(build: Builder) -> bytes:
    """Return the graph that an onnxruntime session saves after its extended optimisations."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "after.onnx")
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
        onnxruntime.InferenceSession(
            folded_export(build), options, providers=["CPUExecutionProvider"]
        )
        return Path(options.optimized_model_filepath).read_bytes()
