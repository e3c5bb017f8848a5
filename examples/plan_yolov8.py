"""YOLOv8 at 60 % of its FLOPs, fine-tuned with its own loss on squares that this file draws.

The weights are random, since nothing is downloaded: ``YOLO("yolov8n.pt")`` takes trained ones.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp())

import torch
from ultralytics.cfg import get_cfg
from ultralytics.models import YOLO

import torchpruner_core as tp

torch.manual_seed(0)


# --8<-- [start:data]
def squares(count: int, size: int = 96) -> dict[str, Any]:
    """Return images with one bright square each, and where it is, as ultralytics' loss reads them."""
    images = torch.rand(count, 3, size, size) * 0.2
    boxes = torch.rand(count, 4) * 0.3 + 0.3
    for image, (x, y, w, h) in zip(images, boxes.tolist(), strict=True):
        left, top = int((x - w / 2) * size), int((y - h / 2) * size)
        image[:, top : top + int(h * size), left : left + int(w * size)] = 1
    index = torch.arange(count).float()
    return {"img": images, "batch_idx": index, "cls": torch.zeros(count, 1), "bboxes": boxes}


# --8<-- [end:data]

# --8<-- [start:plan]
model = YOLO("yolov8n.yaml", verbose=False).model.eval()
inputs = (torch.rand(1, 3, 96, 96),)

graph = tp.ONNXGraph(model)
graph.build_graph(inputs, fill_value=False)
scores = tp.importance.magnitude(model, graph)
plan = tp.plan(graph, tp.Budget(flops="60%"), scores, scope="isomorphic", round_to=8)
print(plan)
print(plan.why("self.model.0.conv"))
model, context = tp.set_cut(model, plan.result)
# --8<-- [end:plan]

# --8<-- [start:train]
model.args = get_cfg()  # the weights of ultralytics' loss
model.train()
for parameter in model.parameters():
    parameter.requires_grad_(True)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(3):
    optimizer.zero_grad()
    loss = model(squares(4))[0].sum()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.3f}")
model.eval()
# --8<-- [end:train]

found = model(squares(2)["img"])
print(f"{plan.result.flops_before:,} -> {plan.result.flops_after:,} FLOPs")
print("predictions", tuple(found[0].shape))
