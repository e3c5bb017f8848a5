"""A plan as a table for a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from torchpruner_core.planning.records import Cost, LatencyRound, PlannedGroup

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
REASONS = 6


def short(value: float) -> str:
    """Return a number with three digits and a prefix.

    >>> short(4_089_184_256), short(512), short(0)
    ('4.09G', '512', '0')
    """
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"


def as_table(
    costs: Mapping[str, Cost],
    groups: Sequence[PlannedGroup],
    fixed: Sequence[tuple[str, int, str]],
    rounds: Sequence[LatencyRound],
    unit: str,
) -> str:
    """Return the plan as text: costs, groups that are cut, and why the others are not."""
    lines = []
    for name, cost in costs.items():
        limit = "" if cost.limit is None else f"  (at most {short(cost.limit)})"
        seconds = " s" if name == "latency" else ""
        lines.append(
            f"{name:<8}{short(cost.before)} -> {short(cost.after)}{seconds}, {cost.share:.1%}{limit}"
        )
    for each in rounds[-1:]:
        noise = ", within noise of it" if each.within_noise else ""
        lines.append(
            f"measured {each.pruned.median:.3g} s (quartiles {each.pruned.low:.3g} to "
            f"{each.pruned.high:.3g}) beside {each.original.median:.3g} s, target {each.target:.3g} s"
            f"{noise}; {len(rounds)} rounds"
        )
    touched = [group for group in groups if group.touched]
    rows = [("module", "width", "bound by", unit, "saved")]
    rows += [
        (
            group.module + ("" if group.dim == 0 else f" [{group.dim}]"),
            f"{group.before} -> {group.after}",
            group.bound or "",
            short(group.cost),
            short(group.saved),
        )
        for group in touched
    ]
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines.append("")
    for row in rows:
        cells = [
            cell.ljust(width) if k in (0, 2) else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    for title, reasons in (
        ("groups are as they were", [g.reason or "" for g in groups if not g.touched]),
        ("axes are fixed", [reason for _, _, reason in fixed]),
    ):
        if reasons:
            lines += [
                "",
                f"{len(reasons)} {title} (plan.why(module) tells more):",
                *_counted(reasons),
            ]
    return "\n".join(lines)


def _counted(reasons: Sequence[str]) -> list[str]:
    """Return the commonest reasons, without the operator that each names."""
    counts = Counter(re.sub(r" \(self[^)]*\)", "", reason) for reason in reasons)
    lines = [f"  {count} x {reason}" for reason, count in counts.most_common(REASONS)]
    more = len(counts) - REASONS
    return lines + ([f"  and {more} more reasons"] if more > 0 else [])
