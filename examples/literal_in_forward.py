"""Apply a cut that a number written in ``forward()`` cannot follow."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp


class Halves(nn.Module):
    """Half of the channels pass by, the other half go through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.layer = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.stem(x).chunk(2, dim=1)
        y: torch.Tensor = self.head(torch.cat((a, self.layer(b)), dim=1))
        return y


model, x = Halves().eval(), torch.rand(1, 3, 6, 6)
graph = tp.ONNXGraph(model)
graph.build_graph((x,), fill_value=False)
result = graph.modules["self.stem"].cut_analysis("weight", index=[1], dim=0)
print(result.operator)  # {'self.Split': {'split': [1, 0]}}: three and four channels from now on

try:
    tp.set_cut(model, result)
except tp.LiteralInForwardError as error:
    print(error)  # a chunk(2) makes equal halves; nothing was changed

model, context = tp.set_cut(model, result, correct_forward=True)
print("output", tuple(model(x).shape))
model = tp.recovery_cut(model, result, context)
# --8<-- [end:example]
