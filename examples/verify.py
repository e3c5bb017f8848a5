"""Ask the oracle whether a cut is right, before training on its result."""

# --8<-- [start:example]
import torch
import torchvision

import torchpruner_core as tp

model = torchvision.models.resnet18().eval()
inputs = (torch.rand(1, 3, 64, 64),)

graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)
result = graph.modules["self.layer1.0.conv1"].cut_analysis("weight", index=[0, 1, 2, 3], dim=0)

verdict = tp.verify_cut(model, result, inputs)
print(verdict)
# --8<-- [end:example]
if not verdict.ok:
    raise SystemExit(1)
