"""ResNet-50 at half its FLOPs, recovered without labels, fine-tuned, and written as ONNX.

The weights are random, since nothing is downloaded: put your own checkpoint in their place. The data are
scikit-learn's digits.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import onnxruntime
import torch
import torchvision
from sklearn.datasets import load_digits
from torch import nn

import torchpruner_core as tp

torch.manual_seed(0)

# --8<-- [start:data]
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
images = nn.functional.interpolate(images, size=64).expand(-1, 3, -1, -1)
labels = torch.tensor(labels)
batches = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 32, 16)]
# --8<-- [end:data]

# --8<-- [start:plan]
model = torchvision.models.resnet50(num_classes=10)
inputs = (images[:1],)

graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)
scores = tp.importance.magnitude(model, graph)
plan = tp.plan(
    graph, tp.Budget(flops="50%"), scores, scope="isomorphic", round_to=8, protect=["self.fc"]
)
print(plan)

model, context = tp.set_cut(model, plan.result)
print(tp.recover(model, plan, [x for x, _ in batches]))
# --8<-- [end:plan]

# --8<-- [start:train]
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
model.train()
for x, y in batches:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}")
model.eval()
# --8<-- [end:train]

# --8<-- [start:export]
file = Path(mkdtemp()) / "resnet50-half.onnx"
file.write_bytes(tp.export_onnx(model, inputs))
session = onnxruntime.InferenceSession(file)
received = session.run(None, {session.get_inputs()[0].name: inputs[0].numpy()})[0]
expected = model(*inputs).detach().numpy()
print(f"{plan.result.flops_before:,} -> {plan.result.flops_after:,} FLOPs")
print(
    f"{file.stat().st_size:,} bytes of ONNX, largest difference {abs(received - expected).max():.1e}"
)
# --8<-- [end:export]
