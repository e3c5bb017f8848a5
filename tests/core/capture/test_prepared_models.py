"""Models that were made ready for something else: quantisation-aware training, training on many devices."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.capture.running import captured, difference
from torchpruner_core.errors import UnsupportedModuleError

X = (torch.rand(2, 3, 8, 8),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.last = nn.Conv2d(8, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.norm(self.conv(x))))  # type: ignore[no-any-return]


def _quantised(fused: bool) -> nn.Module:
    from torch.ao import quantization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Net().train()
        if fused:
            model = quantization.fuse_modules_qat(model, [["conv", "norm", "act"]])
        model.qconfig = quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        prepared: nn.Module = quantization.prepare_qat(model)
    return prepared


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("fused", [False, True])
def test_a_model_in_quantisation_aware_training_is_captured_with_its_grids(fused: bool) -> None:
    from torch.ao import quantization

    torch.manual_seed(0)
    model = _quantised(fused)
    model(torch.rand(4, 3, 8, 8))
    model.eval()
    before = copy.deepcopy(model.state_dict())
    program = captured(model, X)
    assert program.opaque == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.apply(quantization.disable_observer)
    assert difference(program, model, X) < 1e-5
    graph = tp.ONNXGraph(model).build_graph(X, fill_value=False)
    tp.verify_cut(model, graph.solved.cut_analysis("self.conv.weight", [1, 5], 0), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_observers_that_saw_nothing_yet_do_not_stand_in_the_way() -> None:
    graph = tp.ONNXGraph(_quantised(True).eval()).build_graph(X, fill_value=False)
    assert graph.program.entrance.name == "capture"
    result = graph.solved.cut_analysis("self.conv.weight", [0], 0)
    assert {"self.conv.bn.weight", "self.last.weight"} <= set(result["terminal"])


def test_a_model_that_is_sharded_over_processes_is_analysed_whole() -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    from torch.distributed.device_mesh import init_device_mesh

    plain = Net().eval()
    expected = tp.ONNXGraph(plain).build_graph(X, fill_value=False).solved
    model = copy.deepcopy(plain)
    torch.distributed.init_process_group(
        "gloo",
        store=torch.distributed.HashStore(),
        rank=0,
        world_size=1,  # type: ignore[attr-defined]
    )
    try:
        mesh = init_device_mesh("cpu", (1,))
        for part in (model.conv, model.last, model):
            fsdp.fully_shard(part, mesh=mesh)
        before = model(*X)
        graph = tp.ONNXGraph(model).build_graph(X, fill_value=False)
        assert graph.solved.groups() == expected.groups()
        assert graph.solved.flops() == expected.flops()
        data = graph.nodes["self.conv.weight"].data
        assert data is not None and torch.equal(torch.from_numpy(data), plain.conv.weight.detach())
        result = graph.solved.cut_analysis("self.conv.weight", [0], 0)
        with pytest.raises(UnsupportedModuleError, match="before"):
            tp.set_cut(model, result)
        assert torch.equal(model(*X), before)
    finally:
        torch.distributed.destroy_process_group()
    tp.verify_cut(plain, result, X)
