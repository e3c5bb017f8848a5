"""Captured programs, and how far onnxruntime's answer is from the module's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from torchpruner_core.exporting import Program, export
from torchpruner_core.exporting.structures import named_outputs, tensors_of_inputs


def captured(model: nn.Module, inputs: Any, **options: Any) -> Program:
    """Return the program of ``model``, by capture and no other way."""
    return export(model, inputs, entrances=("capture",), **options)


def difference(program: Program, model: nn.Module, inputs: Any) -> float:
    """Return the largest difference between both outputs, over the largest output; the file is checked."""
    data = program.with_weights()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        result = model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)
    wanted = named_outputs(result)
    given = tensors_of_inputs(inputs)
    tensors = list(given.values() if isinstance(given, Mapping) else given)
    model_inputs = [value.name for value in onnx.load_from_string(data).graph.input]
    feeds = dict(zip(model_inputs, (t.numpy() for t in tensors), strict=True))
    needed = {node.name for node in session.get_inputs()}
    found = session.run(None, {name: feeds[name] for name in feeds if name in needed})
    assert [output.name for output in session.get_outputs()] == list(wanted)
    worst = 0.0
    for mine, theirs in zip(found, wanted.values(), strict=True):
        reference = theirs.detach().numpy()
        assert mine.shape == reference.shape
        assert mine.dtype == reference.dtype
        if mine.size:
            distance = np.abs(mine.astype(np.float64) - reference.astype(np.float64)).max()
            worst = max(worst, float(distance) / max(1e-6, float(np.abs(reference).max())))
    return worst


def operators(program: Program) -> list[str]:
    """Return the types of a program's operators, in order."""
    return [node.op_type for node in onnx.load_from_string(program.weightless()).graph.node]
