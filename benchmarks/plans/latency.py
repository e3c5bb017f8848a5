"""Budgets of latency on this CPU: what was asked for, and what a fresh measurement finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

import torchpruner_core as tp
from benchmarks.figures import Figure
from benchmarks.zoo.catalogue import every

MODELS = (
    "resnet18", "resnet50", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x1_0", "squeezenet1_1",
    "vgg11", "regnet_x_400mf",
)  # fmt: skip
SHARES = (0.75, 0.5)


def latency_figures(told: Callable[[str], None], models: tuple[str, ...] = MODELS) -> list[Figure]:
    """Return how often, and how far, measured latencies are from their targets."""
    torch.set_num_threads(1)
    misses: list[float] = []
    met: list[bool] = []
    notes: list[str] = []
    by_name = {s.name: s for s in every() if s.family == "torchvision/classification"}
    for name in models:
        model, inputs = by_name[name].build()
        graph = tp.ONNXGraph(model)
        graph.build_graph(inputs, fill_value=False)
        scores = tp.importance.magnitude(model, graph)
        for share in SHARES:
            told(f"{name} at {share:.0%}")
            budget = tp.Budget(latency=share, runtime=tp.OnnxRuntime())
            try:
                plan = tp.plan(graph, budget, scores, round_to=8)
            except tp.InfeasibleBudgetError as error:
                met.append(False)
                notes.append(f"{name} {share:.0%}: {error.fields['nearest']} s at best")
                continue
            cost = plan.costs["latency"]
            met.append(cost.after <= (cost.limit or 0))
            misses.append(abs(1 - cost.after / (cost.limit or cost.after)))
            noise = " (within noise)" if plan.rounds[-1].within_noise else ""
            notes.append(
                f"{name} {share:.0%}: {1e3 * cost.before:.1f} -> {1e3 * cost.after:.1f} ms in "
                f"{len(plan.rounds)} rounds, {plan.costs['flops'].share:.0%} of the FLOPs{noise}"
            )
    return [
        Figure.at_least(
            "latency: runs at or under their target", 100 * float(np.mean(met)), 95, "%",
            f"{len(met)} runs over {len(models)} models; " + "; ".join(notes),
        ),
        Figure.at_most(
            "latency: median miss", 100 * float(np.median(misses)) if misses else 100.0, 5, "%"
        ),
    ]  # fmt: skip
