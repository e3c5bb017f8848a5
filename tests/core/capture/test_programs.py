"""Captured programs of whole networks: true, named as before, and ready to be cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torchpruner_core as tp
from benchmarks.zoo import catalogue
from tests.core.capture.running import captured, difference
from torchpruner_core.exporting import export

SAMPLE = {f"{each.family}/{each.name}": each for each in catalogue.sample()}
TRUE = [
    "recurrent/LSTM one layer",
    "recurrent/RNN two layers, both directions",
    "torch.nn/Transformer",
    "transformers/BertModel",
    "transformers/DebertaV2Model",
    "transformers/LlamaForCausalLM",
    "transformers/T5ForConditionalGeneration",
    "transformers/MambaForCausalLM",
    "transformers/SwinModel",
    "timm/convnext/convnextv2_atto",
    "timm/vision_transformer/test_vit4",
    "torchvision/classification/mobilenet_v2",
    "torchvision/classification/squeezenet1_1",
]
ALIKE = [
    "recurrent/LSTM two layers, both directions",
    "torch.nn/TransformerEncoder",
    "transformers/BertModel",
    "transformers/Qwen3ForCausalLM",
    "torchvision/classification/resnet18",
]


@pytest.mark.parametrize("name", TRUE)
def test_onnxruntime_and_the_module_agree(name: str) -> None:
    model, inputs = SAMPLE[name].build()
    assert difference(captured(model, inputs), model, inputs) < 1e-4


def _groups(program: Any, model: torch.nn.Module) -> tuple[set[Any], float]:
    """Return width and parameters of every group, and the model's FLOPs."""
    stored = {f"self.{name}" for name in model.state_dict()}
    graph = tp.solve_onnx(program.weightless())
    found = {
        (group.width, tuple(sorted(member for member in group.members if member[0] in stored)))
        for group in graph.groups()
    }
    return found, graph.flops()


@pytest.mark.parametrize("name", ALIKE)
def test_groups_names_and_flops_are_those_of_torch_export(name: str) -> None:
    model, inputs = SAMPLE[name].build()
    exported = export(model, inputs, entrances=("torch.export",))
    assert exported.entrance.name == "torch.export"
    assert _groups(captured(model, inputs), model) == _groups(exported, model)


def test_shapes_that_the_recorder_knew_are_those_that_onnx_infers() -> None:
    model, inputs = SAMPLE["transformers/SwinModel"].build()
    program = captured(model, inputs)
    assert program.parsed is not None
    inferred = tp.ONNXGraph(program.with_weights()).build_graph(fill_value=False)
    direct = tp.ONNXGraph(model).build_graph(inputs, fill_value=False)
    assert [(n.name, n.shape, n.dtype) for n in direct.nodes.values()] == [
        (n.name, n.shape, n.dtype) for n in inferred.nodes.values()
    ]


def test_a_captured_program_is_pruned_as_onnx() -> None:
    model, inputs = SAMPLE["torchvision/classification/resnet18"].build()
    assert isinstance(inputs, tuple)
    (image,) = inputs
    program = captured(model, inputs)
    graph = tp.solve_onnx(program.weightless())
    cut = graph.cut_analysis("self.layer1.0.conv1.weight", [0, 3], 0)
    data = program.with_weights()
    pruned, masked = tp.prune_onnx(data, cut), tp.masked_onnx(data, cut)
    import onnxruntime

    outputs = [
        onnxruntime.InferenceSession(each).run(None, {"x": image.numpy()})[0]
        for each in (pruned, masked)
    ]
    assert np.abs(outputs[0] - outputs[1]).max() <= 1e-4 * np.abs(outputs[1]).max()


def test_weights_are_read_when_they_are_asked_for() -> None:
    model = torch.nn.Linear(64, 3)
    program = captured(model, (torch.zeros(1, 64),))
    with torch.no_grad():
        model.weight.fill_(1.0)
    assert difference(program, model, (torch.ones(1, 64),)) < 1e-6


def test_a_module_that_was_cut_since_gives_no_file_of_mixed_shapes() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    program = captured(model, (torch.zeros(1, 64),))
    cut = tp.solve_onnx(program.weightless()).cut_analysis("self.0.weight", [1], 0)
    model, context = tp.set_cut(model, cut)
    with pytest.raises(tp.errors.ExportError, match="build the graph again"):
        program.with_weights()
    model = tp.recovery_cut(model, cut, context)
    assert difference(program, model, (torch.ones(1, 64),)) < 1e-6
