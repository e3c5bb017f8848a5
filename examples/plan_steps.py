"""Pruning in steps: scores taken anew at each, the optimizer follows, and the end is on budget."""

# --8<-- [start:example]
import torch
from torch import nn

import torchpruner_core as tp

model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
optimizer = torch.optim.AdamW(model.parameters())
inputs = (torch.zeros(1, 32),)
graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)
whole = tp.plan(graph, tp.Budget(params="30%"), tp.importance.magnitude(model, graph))

for step in whole.steps(3):
    graph = tp.ONNXGraph(model)
    graph.build_graph(inputs, fill_value=False)
    plan = step.plan(graph, tp.importance.magnitude(model, graph))
    tp.set_cut(model, plan.result)
    tp.set_cut_optimizer(model, optimizer, plan.result)
    for _ in range(20):  # your own training goes here
        x = torch.randn(64, 32)
        loss = nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"step {step.number}: {plan.result.params_after} parameters, loss {loss.item():.2f}")

assert plan.result.params_after <= 0.3 * whole.result.params_before
# --8<-- [end:example]
