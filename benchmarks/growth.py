"""How time and memory grow with the model: a Llama of 2, 4, 8, 16 and 32 layers."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial

import torch

import torchpruner_core
from benchmarks.figures import Figure
from benchmarks.models import llama
from benchmarks.timing import timed

LAYERS = (2, 4, 8, 16, 32)
HIDDEN, HEADS, KEY_VALUE_HEADS = 256, 8, 2
LINEAR = 1.15
"""Largest accepted exponent: 1 is linear, and a short series is noisy."""


def growth_figures() -> Iterator[Figure]:
    """Measure the series; the last two figures are the exponents of time and of peak memory."""
    torch.set_num_threads(1)
    slices, seconds, peaks = [], [], []
    for layers in LAYERS:
        model, inputs = llama(layers, HIDDEN, HEADS, KEY_VALUE_HEADS)
        data = torchpruner_core.strip_weights(torchpruner_core.export_onnx(model, inputs))
        graph = torchpruner_core.solve_onnx(data)
        count = sum(sum(node.shape) for node in graph.nodes.values())
        time = timed(partial(enumerate_groups, data), budget=6.0)
        tracemalloc.start()
        enumerate_groups(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        slices.append(count)
        seconds.append(time.median)
        peaks.append(peak)
        yield Figure.shown(
            f"growth: {layers} layers",
            1e3 * time.median,
            "ms",
            f"{count:,} slices, {peak / 2**20:.1f} MiB at the peak, "
            f"{len(graph.to_bytes()) / 2**10:.0f} KiB stored",
        )
    yield Figure.at_most(
        "growth: exponent of time over slices", exponent(slices, seconds), LINEAR, "", "1 is linear"
    )
    yield Figure.at_most(
        "growth: exponent of memory over slices", exponent(slices, peaks), LINEAR, "", "1 is linear"
    )


def enumerate_groups(data: bytes) -> object:
    """From a file's bytes to every group."""
    return torchpruner_core.solve_onnx(data).groups()


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Least-squares slope of ``log(values)`` over ``log(sizes)``."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - mean_x) ** 2 for x in xs)
