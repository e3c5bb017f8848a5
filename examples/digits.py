"""Prune a small network by half, restore it, prune again and fine-tune: scikit-learn's digits.

Run it with ``python examples/digits.py``; it takes some seconds on a CPU.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import torchpruner_core as tp

torch.manual_seed(0)


# --8<-- [start:train]
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return training images and labels, then test images and labels; images are (n, 1, 8, 8)."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.3, random_state=0, stratify=labels)
    seen, unseen = (torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) for x in parts[:2])
    return seen, torch.tensor(parts[2]), unseen, torch.tensor(parts[3])


def network() -> nn.Sequential:
    """Two convolutions with batch norms, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, rate: float) -> None:
    """Plain SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Share of right answers, 0 to 1."""
    return float((model.eval()(x).argmax(1) == y).float().mean())


# --8<-- [end:train]


# --8<-- [start:choose]
def weakest_half(model: nn.Module, name: str) -> tp.CutRequest:
    """Ask for the half of a convolution's output channels whose weights are smallest."""
    weight = model.get_parameter(f"{name}.weight")
    strength = weight.detach().abs().sum(dim=(1, 2, 3))
    index = strength.argsort()[: len(strength) // 2].sort().values
    return tp.CutRequest(f"self.{name}.weight", 0, tuple(index.tolist()))


# --8<-- [end:choose]


def main() -> None:
    """Print accuracy and cost before, after and after fine-tuning."""
    x, y, x_test, y_test = digits()
    model: nn.Module = network()
    train(model, x, y, epochs=12, rate=0.05)
    before = accuracy(model, x_test, y_test)

    # --8<-- [start:prune]
    graph = tp.ONNXGraph(model)
    graph.build_graph((x_test[:1],), fill_value=False)
    requests = [weakest_half(model, name) for name in ("0", "4")]
    result = graph.solved.cut_analysis_many(requests)

    model, context = tp.set_cut(model, result)
    after = accuracy(model, x_test, y_test)
    # --8<-- [end:prune]
    print(f"parameters {result.params_before:>7,} -> {result.params_after:,}")
    print(f"FLOPs      {result.flops_before:>7,} -> {result.flops_after:,}")
    print(f"accuracy before pruning       {before:.3f}")
    print(f"accuracy after pruning        {after:.3f}")

    # --8<-- [start:restore]
    model = tp.recovery_cut(model, result, context)
    restored = accuracy(model, x_test, y_test)
    # --8<-- [end:restore]
    print(f"accuracy after restoring      {restored:.3f}")
    if restored != before:
        raise SystemExit("the restored network is not the original one")

    # --8<-- [start:finetune]
    model, context = tp.set_cut(model, result)
    train(model, x, y, epochs=6, rate=0.02)
    tuned = accuracy(model, x_test, y_test)
    # --8<-- [end:finetune]
    print(f"accuracy after fine-tuning    {tuned:.3f}")
    if tuned < before - 0.02:
        raise SystemExit("fine-tuning did not bring the accuracy back")


if __name__ == "__main__":
    main()
