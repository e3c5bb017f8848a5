"""How long a plan takes: ResNet-50, another budget for it, its recovery, a 70-billion-parameter model.

CPU time of all threads, which what else runs on the machine does not change much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import torchpruner_core as tp
from benchmarks.figures import Figure
from benchmarks.models import CASES
from torchpruner_core.exporting import export
from torchpruner_core.importing.solving import solve_onnx

ROUNDS = 5


def speed_figures() -> list[Figure]:
    """Return the figures of a plan's time, the best of a few rounds each."""
    return [*_resnet50(), *_recovery(), *_llama70b()]


def _best(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best


def _resnet50() -> list[Figure]:
    model, inputs = next(case for case in CASES if case.name == "resnet50").build()
    graph = solve_onnx(export(model, inputs).weightless())
    scores = tp.importance.magnitude(model, graph)
    plan = tp.plan(graph, tp.Budget(flops="50%"), scores)
    first = _best(lambda: tp.plan(graph, tp.Budget(flops="50%"), scores))
    again = _best(lambda: plan.frontier([0.4]))
    rounded = _best(lambda: tp.plan(graph, tp.Budget(flops="50%"), scores, round_to=8))
    return [
        Figure.at_most("ResNet-50: plan", first, 2.0, "s"),
        Figure.shown("ResNet-50: plan, round_to=8", rounded, "s"),
        Figure.at_most("ResNet-50: plan again for another budget", again, 0.2, "s"),
    ]


def _recovery() -> list[Figure]:
    """Recovery of ResNet-50 at half of its FLOPs from 512 images of 64 x 64 pixels."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, _ = next(case for case in CASES if case.name == "resnet50").build()
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(64, 3, 64, 64, generator=generator) for _ in range(8)]
    graph = solve_onnx(export(model, (images[0][:1],)).weightless())
    plan = tp.plan(graph, tp.Budget(flops="50%"), tp.importance.magnitude(model, graph))
    found = []
    for sequential, name in ((True, "in turn"), (False, "at once")):
        subject, context = tp.set_cut(model, plan.result)
        began = time.process_time()
        done = tp.recover(subject, plan, images, sequential=sequential)
        seconds = time.process_time() - began
        note = f"one thread; error of the outputs {done.error_before:.2f} -> {done.error_after:.2f}"
        title = f"ResNet-50: ridge, 512 images of 64 x 64, {name}"
        found.append(Figure.at_most(title, seconds, 60.0, "s", note))
        tp.recovery_cut(subject, plan.result, context)
    torch.set_num_threads(threads)
    return found


def _llama70b() -> list[Figure]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32_000, hidden_size=8192, intermediate_size=28_672, num_hidden_layers=80,
        num_attention_heads=64, num_key_value_heads=8,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config).eval()
    ids = torch.zeros(1, 16, dtype=torch.int64, device="meta")
    graph = solve_onnx(export(model, (ids,)).weightless())
    random = np.random.default_rng(0)
    scores = {
        (name, 0): random.random(node.shape[0])
        for name, node in graph.nodes.items()
        if node.kind == "parameter"
        and len(node.shape) == 2
        and not graph.coupling.class_frozen[graph.classes_of(name)[0]]
    }
    slices = sum(map(len, scores.values()))
    plan: list[tp.Plan] = []
    options: dict[str, Any] = {"round_to": 8, "protect": ["lm_head"]}
    seconds = _best(
        lambda: plan.append(tp.plan(graph, tp.Budget(params="70%"), scores, **options)), rounds=1
    )
    note = f"{slices:,} scores; {plan[0].costs['params'].share:.2%} of the parameters left"
    return [Figure.at_most("Llama 70B: plan with given scores", seconds, 20.0, "s", note)]
