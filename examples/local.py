"""Prune a model without a service, check it, undo it."""

# --8<-- [start:example]
import torch
import torchvision

import torchpruner_core as tp

model = torchvision.models.resnet50().eval()
inputs = (torch.rand(1, 3, 224, 224),)
graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)

result = graph.modules["self.layer1.0.conv3"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)
model, context = tp.set_cut(model, result)
print(model(*inputs).shape, f"{result.flops_before:,} -> {result.flops_after:,} FLOPs")
model = tp.recovery_cut(model, result, context)
# --8<-- [end:example]
