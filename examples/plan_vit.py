"""A ViT at half its FLOPs by isomorphic scope: layers of one structure are ranked together.

The network is timm's, small and untrained; it learns scikit-learn's digits before and after.
"""

from __future__ import annotations

import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

import torchpruner_core as tp

torch.manual_seed(0)

# --8<-- [start:data]
images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
labels = torch.tensor(labels)
batches = [(images[i : i + 64], labels[i : i + 64]) for i in range(0, 768, 64)]
x_test, y_test = images[1280:], labels[1280:]
# --8<-- [end:data]


# --8<-- [start:train]
def train(model: nn.Module, epochs: int, rate: float) -> None:
    """Plain AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()


def accuracy(model: nn.Module) -> float:
    """Share of right answers, 0 to 1."""
    with torch.no_grad():
        return float((model.eval()(x_test).argmax(1) == y_test).float().mean())


# --8<-- [end:train]

model = timm.create_model(
    "vit_tiny_patch16_224",
    img_size=8,
    patch_size=2,
    in_chans=1,
    num_classes=10,
    depth=2,
    embed_dim=64,
    num_heads=4,
)
train(model, epochs=12, rate=2e-3)
print(f"accuracy before pruning       {accuracy(model):.3f}")

# --8<-- [start:plan]
graph = tp.ONNXGraph(model)
graph.build_graph((x_test[:1],), fill_value=False)
scores = tp.importance.taylor(
    model,
    graph,
    batches,
    lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
)
plan = tp.plan(graph, tp.Budget(flops="50%"), scores, scope="isomorphic")
print(plan)
model, context = tp.set_cut(model, plan.result)
print(f"accuracy after pruning        {accuracy(model):.3f}")
print(tp.recover(model, plan, [x for x, _ in batches]))
print(f"accuracy after recovery       {accuracy(model):.3f}")
# --8<-- [end:plan]
train(model, epochs=3, rate=3e-4)
print(f"accuracy after fine-tuning    {accuracy(model):.3f}")
print(f"{plan.result.flops_before:,} -> {plan.result.flops_after:,} FLOPs")
