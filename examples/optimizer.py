"""Prune in the middle of training; momentum goes on for what survives."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp

model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
x, y = torch.rand(64, 16), torch.randint(4, (64,))
cuts = []

for epoch in range(6):
    for batch in torch.randperm(64).split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
    scheduler.step()
    print(f"epoch {epoch}: {model[0].out_features} hidden units, loss {loss.item():.3f}")

    if epoch in (1, 3):  # in the middle of training, with the last loss still alive
        graph = tp.ONNXGraph(model)
        graph.build_graph((x[:1],), fill_value=False)
        result = graph.modules["self.0"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
        model, context = tp.set_cut(model, result)
        optimizer, state_context = tp.set_cut_optimizer(model, optimizer, result)
        cuts.append((result, context, state_context))

for result, context, state_context in reversed(cuts):  # the newest cut is undone first
    model = tp.recovery_cut(model, result, context)
    optimizer = tp.recovery_optimizer(model, optimizer, result, state_context)

optimizer.zero_grad()
loss = nn.functional.cross_entropy(model(x), y)
loss.backward()
optimizer.step()
print(f"and again with {model[0].out_features} hidden units, loss {loss.item():.3f}")
# --8<-- [end:example]
