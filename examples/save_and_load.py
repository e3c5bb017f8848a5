"""A pruned model on disk: the plan as JSON, the weights as safetensors, and both read back."""

# --8<-- [start:example]
import tempfile
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

import torchpruner_core as tp

folder = Path(tempfile.mkdtemp())
inputs = (torch.rand(1, 3, 64, 64),)
model = torchvision.models.resnet18().eval()
graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)
plan = tp.plan(graph, tp.Budget(flops="50%"), round_to=8)
model, _ = tp.set_cut(model, plan.result)

plan.save(folder / "plan.json")
save_file(model.state_dict(), folder / "weights.safetensors")

# In another process, on another machine: a fresh model of the same class.
fresh = torchvision.models.resnet18()
loaded = tp.load_pruned(fresh, folder / "plan.json", folder / "weights.safetensors").eval()
assert torch.allclose(loaded(*inputs), model(*inputs), atol=1e-5)
# --8<-- [end:example]
print(f"{plan.costs['flops'].share:.1%} of the FLOPs, loaded on a fresh model")
