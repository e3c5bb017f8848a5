"""Tell the library about a module whose attributes repeat a size."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.module_pruner import BasePruner, LayerChange, module_pruner_reg


class Gate(nn.Module):
    """Scales features; checks the width it was made for, as many layers do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == self.width
        return x * self.scale


class GatePruner(BasePruner):
    """``width`` is the length of ``scale``; what is said here is undone by ``recovery_cut``."""

    def attributes(self, nn_module: nn.Module, change: LayerChange) -> dict[str, int]:
        return {"width": change.after["scale"][0]}


module_pruner_reg.regist(Gate, GatePruner)

model = nn.Sequential(nn.Linear(8, 16), Gate(16), nn.Linear(16, 4))
x = torch.rand(2, 8)
graph = tp.ONNXGraph(model)
graph.build_graph((x,), fill_value=False)
result = graph.modules["self.0"].cut_analysis("weight", index=[0, 5], dim=0)

model, context = tp.set_cut(model, result)
print("width", model[1].width, "output", tuple(model(x).shape))
model = tp.recovery_cut(model, result, context)
print("width", model[1].width)
# --8<-- [end:example]
