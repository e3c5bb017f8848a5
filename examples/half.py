"""Make a model half as expensive: the first screen of the README."""

# --8<-- [start:example]
import torch
import torchvision

import torchpruner_core as tp

model, inputs = torchvision.models.resnet18().eval(), (torch.rand(1, 3, 224, 224),)  # or yours
graph = tp.ONNXGraph(model).build_graph(inputs, fill_value=False)
plan = tp.plan(graph, tp.Budget(flops="50%"), tp.importance.magnitude(model, graph), round_to=8)
model, context = tp.set_cut(model, plan.result)  # smaller tensors; tp.recovery_cut undoes it
print(plan)  # every layer's width before and after, what bound it, what it saved
# --8<-- [end:example]

assert plan.result.flops_after <= plan.result.flops_before / 2
model(*inputs)
