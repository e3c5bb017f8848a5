"""Running a graph in onnxruntime, every intermediate value an output of one session.

Where CUDA is asked for and not there, the CPU runs and a log line says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torchpruner_core.errors import GraphError

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

DEVICES = ("CPU", "GPU")

IR_VERSION = 10
"""What models made here declare: onnxruntime reads no newer one than it knows, onnx writes its own."""


def providers(device: str) -> list[str]:
    """Return onnxruntime's execution providers for ``'CPU'`` or ``'GPU'``, most wanted first.

    Raises ``GraphError`` for another device.
    """
    import onnxruntime

    if device not in DEVICES:
        raise GraphError(f"the device is one of {', '.join(DEVICES)}, not {device!r}")
    if device == "CPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _has_cuda_device():
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    logger.warning("no CUDA device for onnxruntime on this machine; running on the CPU")
    return ["CPUExecutionProvider"]


def _has_cuda_device() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def session(data: bytes, device: str = "CPU", threads: int = 0) -> Any:
    """Return an onnxruntime session of a model's bytes; raises ``GraphError`` where it refuses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers(device))
    except Exception as error:
        raise GraphError(
            f"onnxruntime cannot run the model: {str(error).splitlines()[0][:300]}"
        ) from error


def run_all(model: onnx.ModelProto, feeds: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return every intermediate value and output of one run, by value name.

    Raises ``GraphError`` where the model or the inputs do not run.
    """
    import onnx

    wanted = {info.name for info in model.graph.output}
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    for node in model.graph.node:
        for name in node.output:
            if (
                name
                and name not in wanted
                and node.op_type not in ("SplitToSequence", "SequenceConstruct")
            ):
                wanted.add(name)
                extended.graph.output.append(onnx.ValueInfoProto(name=name))
    return run(extended.SerializeToString(), feeds, device)


def run(data: bytes, feeds: Mapping[str, Any], device: str = "CPU") -> dict[str, Any]:
    """Return the outputs of one run by name; raises ``GraphError`` where it fails."""
    runner = session(data, device)
    names = [output.name for output in runner.get_outputs()]
    try:
        return dict(zip(names, runner.run(names, dict(feeds)), strict=True))
    except Exception as error:
        raise GraphError(f"the model did not run: {str(error).splitlines()[0][:300]}") from error
