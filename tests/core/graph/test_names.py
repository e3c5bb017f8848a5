"""Three entrances, one set of names."""

from __future__ import annotations

import pytest
import torch
import torchvision

from torchpruner_core import ONNXGraph, solve_onnx


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v2"])
def entrances(request, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    model, x = getattr(torchvision.models, request.param)().eval(), torch.zeros(1, 3, 32, 32)
    torch.jit.save(torch.jit.trace(model, x), folder / "model.pt")
    torch.onnx.export(
        model, (x,), folder / "model.onnx", dynamo=False, do_constant_folding=False,
        training=torch.onnx.TrainingMode.PRESERVE, keep_initializers_as_inputs=False,
    )  # fmt: skip

    def solved(source):
        return ONNXGraph(source).build_graph((x,), fill_value=False).solved

    graphs = {
        "module": solved(model),
        "torchscript": solved(str(folder / "model.pt")),
        "onnx": solve_onnx(folder / "model.onnx"),
    }
    return model, graphs


def state(graph, kinds=("parameter", "buffer")):
    return {name: node.shape for name, node in graph.nodes.items() if node.kind in kinds}


def test_parameters_are_those_of_the_module(entrances):
    model, graphs = entrances
    expected = {f"self.{name}": tuple(p.shape) for name, p in model.named_parameters()}
    for entrance, graph in graphs.items():
        assert state(graph, ("parameter",)) == expected, entrance


def test_buffers_agree(entrances):
    model, graphs = entrances
    found = [state(graph, ("buffer",)) for graph in graphs.values()]
    assert found[0] == found[1] == found[2]
    known = {f"self.{name}" for name, _ in model.named_buffers()}
    assert found[0].keys() <= known


def test_modules_with_parameters_agree(entrances):
    model, graphs = entrances
    expected = {"self"} | {f"self.{name}" for name, _ in model.named_modules() if name}
    for entrance, graph in graphs.items():
        with_parameters = {name for name, module in graph.modules.items() if module.params}
        assert with_parameters - state(graph).keys() <= expected, entrance
        owners = {name.rpartition(".")[0] for name in state(graph, ("parameter",))}
        assert owners <= graph.modules.keys(), entrance


def test_operators_of_a_layer_have_its_name(entrances):
    _, graphs = entrances
    for kind in ("Conv", "Gemm"):
        found = [
            {name for name, op in graph.operators.items() if op.type == kind}
            for graph in graphs.values()
        ]
        assert found[0] == found[1] == found[2] and found[0]


def test_counts_agree(entrances):
    model, graphs = entrances
    params = sum(p.numel() for p in model.parameters())
    assert {g.params() for g in graphs.values()} == {params}
    assert len({g.flops() for g in graphs.values()}) == 1


def test_flops_are_those_that_torch_counts(entrances):
    from torch.utils.flop_counter import FlopCounterMode

    model, graphs = entrances
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert {g.flops() for g in graphs.values()} == {counter.get_total_flops()}


def test_groups_agree(entrances):
    _, graphs = entrances
    found = [
        sorted((group.width, sorted(m for m in group.members if m[0] in state(graph)))
               for group in graph.groups())
        for graph in graphs.values()
    ]  # fmt: skip
    assert found[0] == found[1] == found[2]
