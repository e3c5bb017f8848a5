"""Half the FLOPs of a network: a plan, what it says, and the model it leaves."""

# --8<-- [start:example]
import torch
import torchvision

import torchpruner_core as tp

model = torchvision.models.resnet18().eval()
inputs = (torch.rand(1, 3, 64, 64),)
graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)

scores = tp.importance.magnitude(model, graph)
plan = tp.plan(graph, tp.Budget(flops="50%"), scores, round_to=8, max_cut=0.8)
print(plan)  # module, width before -> after, what bound it, cost, saved
print(plan.why("self.layer3.0.conv2"))

for point in plan.frontier([0.75, 0.5, 0.35]):  # everything but the widths is reused
    print(
        f"{point.costs['flops'].share:.1%} of the FLOPs, {point.costs['params'].share:.1%} of the weights"
    )

model, context = tp.set_cut(model, plan.result)  # a cut like any other: verify, derive, ONNX, undo
assert graph.solved.flops() * 0.5 >= plan.result.flops_after
print(model(*inputs).shape)
# --8<-- [end:example]
