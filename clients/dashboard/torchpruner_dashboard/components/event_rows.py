"""The audit trail in words: who did what to which model, when."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torchpruner_client import AuditEvent
from torchpruner_dashboard import formatting
from torchpruner_dashboard.components.data_table import Column

ACTIONS = {
    "model.upload": "Uploaded the model",
    "model.describe": "Changed its name, note or tags",
    "model.delete": "Deleted the model",
    "model.derive": "Derived a model from a cut",
    "weights.add": "Added weights",
    "weights.prune": "Had weights cut",
    "onnx.prune": "Had an ONNX model cut",
    "artifact.delete": "Deleted a file that was made",
    "cut.save": "Kept a cut",
    "cut.delete": "Removed a kept cut",
    "cut.analyse": "Asked what a cut takes along",
    "plan.make": "Asked for a plan",
    "plan.rename": "Named a plan",
    "plan.delete": "Removed a plan",
    "plan.retry": "Tried a plan again",
    "plan.derive": "Derived a model from a plan",
    "plan.weights": "Had weights cut by a plan",
    "plan.onnx": "Had an ONNX model cut by a plan",
    "plan.latency": "Had a plan's latency measured",
    "latency.measure": "Had a latency measured",
    "job.cancel": "Cancelled a job",
    "job.retry": "Started a job again",
    "blob.delete": "Deleted a file",
    "upload.start": "Began an upload",
    "upload.cancel": "Gave up an upload",
}
HIDDEN = {"fingerprint"}

COLUMNS = (
    Column("at", "When", "line"),
    Column("action", "What", "name"),
    Column("model", "Model", "text"),
    Column("key", "Key", "text"),
    Column("details", "Details", "line", sortable=False),
)


def event_rows(events: Sequence[AuditEvent], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row an event; ``names`` are those of models that are still there."""
    return [_row(event, names) for event in events]


def _row(event: AuditEvent, names: Mapping[str, str]) -> dict[str, Any]:
    model = event.model or ""
    return {
        "id": event.id,
        "at": event.at,
        "at_text": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at)),
        "at_sub": formatting.age(event.at),
        "action": ACTIONS.get(event.action, event.action),
        "action_sub": event.name,
        "model": names.get(model, f"{model[:9]}…" if model else ""),
        "model_href": f"/models/{model}" if model in names else None,
        "model_sub": None if model in names or not model else "no longer there",
        "key": event.key,
        "details": _details(event.details),
    }


def _details(details: Mapping[str, Any]) -> str:
    """What was asked and what it saves, in words; fingerprints tell people nothing."""
    rest = {key: value for key, value in details.items() if key not in HIDDEN and value}
    parts = [_asked(each) for each in rest.pop("asked", ())]
    for name, text in (("params", formatting.count), ("flops", formatting.flops)):
        before, after = rest.pop(f"{name}_before", None), rest.pop(f"{name}_after", None)
        if before is not None and after is not None:
            word = "parameters " if name == "params" else ""
            parts.append(f"{word}{text(before)} → {text(after)}")
    for name, value in (rest.pop("budget", None) or {}).items():
        share = isinstance(value, float) and value <= 1
        parts.append(f"{name} {f'{value:.0%}' if share else value}")
    questions = rest.pop("questions", 1)
    if questions > 1:
        parts.append(f"{questions} questions in a row")
    for name, value in rest.items():
        told = formatting.listed(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(f"{name.replace('_', ' ')}: {told}")
    return "; ".join(parts)


def _asked(cut: Mapping[str, Any]) -> str:
    slices = formatting.plural(int(cut.get("slices", 0)), "slice")
    node = str(cut.get("node", "")).removeprefix("self.")
    return f"{slices} of {node}, axis {cut.get('dim')}"
