"""Models as rows of a table."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from torchpruner_client import ModelInfo
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.data_table import Column

LONGEST_NOTE = 80

COLUMNS = (
    Column("name", "Name", "name"),
    Column("state", "State", "state", signs=palette.STATES),
    Column("format", "Format"),
    Column("size", "Size", "number"),
    Column("params", "Parameters", "number"),
    Column("flops", "FLOPs", "number"),
    Column("groups", "Groups", "number"),
    Column("parent", "Derived from", "text"),
    Column("tags", "Tags", "tags"),
    Column("owner", "Owner"),
    Column("created_at", "Age", "number"),
)


def model_rows(models: Mapping[str, ModelInfo]) -> list[dict[str, Any]]:
    """One row a model, with raw values to sort by and texts to show."""
    now = time.time()
    return [_row(info, models, now) for info in models.values()]


def display_name(info: ModelInfo) -> str:
    """The name a person gave, else the beginning of the id."""
    return info.name or f"{info.id[:9]}…"


def weights_are_here(info: ModelInfo) -> bool:
    """Whether the service has the model's weights: in its file, or added to it later."""
    return info.has_weights or not info.weightless


def _row(info: ModelInfo, models: Mapping[str, ModelInfo], now: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": info.id,
        "name": display_name(info),
        "name_href": f"/models/{info.id}",
        "format": info.format,
        # A derived model has no file of its own until somebody downloads it.
        "size": None if info.parent else info.size,
        "size_text": formatting.NOTHING if info.parent else formatting.size(info.size),
        "owner": info.owner,
        # Sorts as an age does: the larger the number, the younger.
        "created_at": info.created_at,
        "created_at_text": formatting.age(info.created_at, now),
        **state_cell(info),
    }
    if info.tags:
        row["tags"] = "\n".join(info.tags)
    if info.note:
        row["name_sub"] = (
            info.note if len(info.note) <= LONGEST_NOTE else f"{info.note[:LONGEST_NOTE]}…"
        )
    if info.counts:
        row["params"] = info.counts.get("params")
        row["params_text"] = formatting.count(info.counts.get("params"))
        row["flops"] = info.counts.get("flops")
        row["flops_text"] = formatting.flops(info.counts.get("flops"))
        row["groups"] = info.counts.get("groups")
    if info.weightless and not info.has_weights:
        row["format_sub"] = "without weights"
    if info.parent:
        parent = models.get(info.parent)
        row["parent"] = display_name(parent) if parent else f"{info.parent[:9]}…"
        row["parent_href"] = f"/models/{info.parent}"
    return row


def state_cell(info: ModelInfo) -> dict[str, Any]:
    """The keys of a ``state`` cell, with progress while the graph is being built."""
    cell: dict[str, Any] = {"state": info.state}
    if info.state in {"running", "queued"}:
        cell["state_percent"] = info.percent
        cell["state_sub"] = info.message or (info.stage if info.stage != info.state else None)
    elif info.state == "failed":
        cell["state_sub"] = str((info.problem or {}).get("title") or "")
    return cell
