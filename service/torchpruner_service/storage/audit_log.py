"""The audit trail in the object store: an object for each event, never rewritten.

An event's name sorts the newest first and holds the model that it is about, so that a page is found
from names alone and a new event is one small write, whoever else writes. The bounds (so many events,
so many days) are kept by deleting the oldest.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

LAST = 10**19
"""Later than any time in nanoseconds: what is subtracted from it sorts backwards."""

NO_MODEL = "none"
NAME = re.compile(r"[0-9]{19}-(none|m[a-z2-7]{26})-[0-9a-f]{8}")

DAY = 86400.0


def event_name(model: str | None) -> str:
    """The name of an event that happens now."""
    return f"{LAST - time.time_ns():019d}-{model or NO_MODEL}-{secrets.token_hex(4)}"


def happened_at(name: str) -> float:
    """When an event of this name happened, in Unix seconds."""
    return (LAST - int(name[:19])) / 1e9


def page_of_events(
    objects: Objects, tenant: str, after: str, count: int, model: str | None
) -> list[dict[str, Any]]:
    """At most ``count`` events of a tenant after the one called ``after`` (empty: from the newest)."""
    folder = layout.audit(tenant)

    def wanted(key: str) -> bool:
        return model is None or f"-{model}-" in key

    start = f"{folder}{after}" if after else ""
    found = []
    for key in objects.first_keys(folder, start, count, wanted):
        event = objects.get_json(key)
        if event is not None:
            found.append({"id": key.removeprefix(folder), **event})
    return found


def trim(objects: Objects, tenant: str, *, most: int, days: float) -> int:
    """Delete a tenant's events but for the newest ``most``, and those older; return how many."""
    before = time.time() - days * DAY
    folder = layout.audit(tenant)
    names = sorted(key.removeprefix(folder) for key in objects.keys(folder))
    doomed = names[most:] + [name for name in names[:most] if happened_at(name) < before]
    for name in doomed:
        objects.delete(f"{folder}{name}")
    return len(doomed)


def trim_all(objects: Objects, *, most: int, days: float) -> int:
    """:meth:`trim` for every tenant."""
    tenants = {
        key.split("/")[1] for key in objects.keys("tenants/") if key.split("/")[2] == "audit"
    }
    return sum(trim(objects, tenant, most=most, days=days) for tenant in tenants)
