"""Reads Prometheus' text form, as far as the service page needs it.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: a metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


class Metrics:
    """The samples of one reading, by name."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for line in text.splitlines():
            match = None if line.startswith("#") else _LINE.match(line)
            if match is not None:
                labels = dict(_LABEL.findall(match[2] or ""))
                sample = Sample(match[1], labels, float(match[3]))
                self._samples.setdefault(sample.name, []).append(sample)

    def samples(self, name: str) -> list[Sample]:
        return self._samples.get(name, [])

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels; 0 where there are none."""
        return sum(sample.value for sample in self.samples(name) if _has(sample, labels))

    def label_values(self, name: str, label: str) -> list[str]:
        """The values that a label takes, sorted."""
        return sorted({sample.labels.get(label, "") for sample in self.samples(name)})

    def quantile(self, name: str, fraction: float, **labels: str) -> float | None:
        """A quantile of a histogram, interpolated within its bucket; ``None`` without data."""
        edges: dict[float, float] = {}
        for sample in self.samples(f"{name}_bucket"):
            if _has(sample, labels):
                edge = float(sample.labels["le"])
                edges[edge] = edges.get(edge, 0.0) + sample.value
        return _quantile(sorted(edges.items()), fraction)


def _has(sample: Sample, labels: Mapping[str, str]) -> bool:
    return all(sample.labels.get(key) == value for key, value in labels.items())


def _quantile(buckets: Iterable[tuple[float, float]], fraction: float) -> float | None:
    found = list(buckets)
    if not found or found[-1][1] == 0:
        return None
    wanted = fraction * found[-1][1]
    low, below = 0.0, 0.0
    for edge, count in found:
        if count >= wanted:
            if edge == float("inf"):
                return low
            inside = (wanted - below) / (count - below) if count > below else 1.0
            return low + (edge - low) * inside
        low, below = edge, count
    return low
