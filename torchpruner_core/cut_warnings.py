"""What a person should know before a cut is made: plain records that go to JSON, and Python's warnings.

A cut that is asked for here warns when it is applied. A service answers instead, and whoever asked may
be a program: so the same words are in its answer, and a client warns with them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import (
    ChangedStatisticsWarning,
    FixedSizesWarning,
    StaleStateWarning,
)

CLASSES: dict[str, type[Warning]] = {
    "changed-statistics": ChangedStatisticsWarning,
    "fixed-sizes": FixedSizesWarning,
    "stale-state": StaleStateWarning,
}
"""The warnings' classes by the slug that stands for them in JSON."""

SHOWN = 5
"""So many names are spelled out in a warning."""

CutWarning = dict[str, str]
"""``{"type": slug, "detail": words}``"""


def cut_warnings(result: CutResult) -> list[CutWarning]:
    """Return what to know about a cut: statistics that change, state that no graph shows."""
    found = []
    if result.renormalises:
        found.append(
            {
                "type": "changed-statistics",
                "detail": f"{named(result.renormalises)} normalise over an axis that is cut: their "
                "statistics are those of the slices that stay, so the pruned model is valid and not "
                "equal to the masked one; fine-tune or recover it",
            }
        )
    if result.unread:
        found += unread_warnings(result.unread)
    return found


def unread_warnings(unread: Sequence[str]) -> list[CutWarning]:
    """Return what to know about parameters and buffers that a graph never reads."""
    if not unread:
        return []
    return [
        {
            "type": "stale-state",
            "detail": f"the graph never reads {named(unread)}: state of a part that did not run, such as "
            "auxiliary heads or mask tokens. A cut leaves it as it is here; set_cut on the module follows "
            "what a run in training mode reads",
        }
    ]


def caught(seen: Iterable[warnings.WarningMessage]) -> list[CutWarning]:
    """Return those of Python's warnings that are of this package, as records."""
    slugs = {kind: slug for slug, kind in CLASSES.items()}
    return [
        {"type": slugs[each.category], "detail": str(each.message)}
        for each in seen
        if each.category in slugs
    ]


def warn_of(records: Iterable[Mapping[str, Any]] | None, package: str) -> None:
    """Warn with each record's class and words, at the line of code that called into ``package``."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    for each in records or ():
        kind = CLASSES.get(str(each.get("type")), UserWarning)
        warnings.warn(str(each.get("detail")), kind, stacklevel=level)


def named(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
