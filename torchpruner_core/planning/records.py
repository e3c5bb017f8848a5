"""What a plan says of costs, groups and measurements, in plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """One cost of the model: ``before`` and ``after`` the cut, and the ``limit`` if there is one."""

    before: float
    after: float
    limit: float | None = None

    @property
    def share(self) -> float:
        """What is left, as a share of what was."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """What a plan does to one group, and why.

    ``node`` and ``dim`` are the axis that stands for the group, ``before`` and ``after`` its slices of that
    axis, ``unit`` how many of them go at once. ``members`` are all axes of parameters and buffers that
    go together. ``bound`` is what stopped the cut (``"budget"``, ``"max_cut"``, ``"min_keep"`` or
    ``"round_to"``), ``reason`` why a group that was not touched was not; one of them is ``None``.

    In the unit of the plan's first limit: ``cost`` is that of everything the group's width is a
    factor of, after the cut; ``saved`` what giving back all of this group would cost; ``next_saves``
    what its next step would save. ``least`` is the smallest width that the rules allow. Scores are
    those of units, as ranked.
    """

    node: str
    dim: int
    members: tuple[tuple[str, int], ...]
    before: int
    after: int
    unit: int
    bound: str | None = None
    reason: str | None = None
    cost: float = 0.0
    saved: float = 0.0
    next_saves: float | None = None
    least: int = 1
    score_before: float | None = None
    score_after: float | None = None
    highest_removed: float | None = None
    lowest_kept: float | None = None

    @property
    def module(self) -> str:
        """The module that the axis belongs to: ``"self.layer1.0.conv1"``."""
        return self.node.rpartition(".")[0]

    @property
    def touched(self) -> bool:
        return self.after < self.before

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PlannedGroup:
        members = tuple((str(node), int(dim)) for node, dim in data["members"])
        return cls(**{**data, "members": members})


@dataclass(frozen=True)
class Explanation:
    """Why a module is as wide as the plan leaves it; prints as text."""

    name: str
    groups: tuple[PlannedGroup, ...]
    fixed: tuple[tuple[str, int, str], ...]
    unit: str

    def __str__(self) -> str:
        lines = [f"{self.name}: {len(self.groups)} groups reach it"]
        for group in self.groups:
            lines.append(f"- dim {group.dim} of {group.node}: {group.before} -> {group.after}")
            if group.reason:
                lines.append(f"    not touched: {group.reason}")
            else:
                plural = "slice" if group.unit == 1 else "slices"
                lines.append(f"    bound by {group.bound}; one unit is {group.unit} {plural}")
            if group.score_before is not None and group.score_after is not None:
                lines.append(
                    f"    scores: {group.score_after:.4g} of {group.score_before:.4g} kept"
                    + _between(group)
                )
            if group.next_saves is not None:
                lines.append(f"    one more step would save {group.next_saves:,.6g} {self.unit}")
            others = [f"{node}[{dim}]" for node, dim in group.members]
            more = f" and {len(others) - 8} more" if len(others) > 8 else ""
            lines.append(f"    goes with {', '.join(others[:8])}{more}")
        for node, dim, reason in self.fixed:
            lines.append(f"- dim {dim} of {node} is fixed: {reason}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "unit": self.unit,
            "groups": [asdict(group) for group in self.groups],
            "fixed": [list(axis) for axis in self.fixed],
        }


def _between(group: PlannedGroup) -> str:
    if group.highest_removed is None:
        return ""
    return f"; removed up to {group.highest_removed:.4g}, kept from {group.lowest_kept:.4g}"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one forward pass: the median, and the quartiles around it."""

    median: float
    low: float
    high: float
    runs: int

    @property
    def spread(self) -> float:
        """The distance between the quartiles."""
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class LatencyRound:
    """One measurement of a latency budget: original and pruned model, alternately, in seconds.

    ``aimed`` is what the widths were solved for, ``target`` what was asked. ``within_noise`` says that
    the pruned model's median is no farther from the target than its quartiles are apart.
    """

    original: Timing
    pruned: Timing
    aimed: float
    target: float
    flops: int
    within_noise: bool

    @property
    def met(self) -> bool:
        return self.pruned.median <= self.target

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyRound:
        timings = {name: Timing(**data[name]) for name in ("original", "pruned")}
        return cls(**{**data, **timings})
