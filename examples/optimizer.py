"""Prune in the middle of training; momentum goes on for what survives."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp

model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x, y = torch.rand(64, 16), torch.randint(4, (64,))


def step() -> float:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(5):
    step()

graph = tp.ONNXGraph(model)
graph.build_graph((x[:1],), fill_value=False)
result = graph.modules["self.0"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)

model, context = tp.set_cut(model, result)
optimizer, state_context = tp.set_cut_optimizer(model, optimizer, result)
print("training goes on, loss", step())

model = tp.recovery_cut(model, result, context)
optimizer = tp.recovery_optimizer(model, optimizer, result, state_context)
print("and again at full width, loss", step())
# --8<-- [end:example]
