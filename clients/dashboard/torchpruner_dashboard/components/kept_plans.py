"""Plans that somebody gave a name, to open again, to remove, and to compare side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nicegui import events, ui

from torchpruner_client import AsyncRemoteModel, PlanRecord
from torchpruner_dashboard import formatting, palette
from torchpruner_dashboard.components.cost_rows import TEXTS
from torchpruner_dashboard.components.data_table import Column, DataTable
from torchpruner_dashboard.components.notices import empty_state, toast, toast_failure
from torchpruner_dashboard.plans.plan_choice import NO_IMPORTANCE, PlanChoice

COLUMNS = (
    Column("name", "Plan", "name"),
    Column("state", "State", "state", signs=palette.STATES),
    Column("flops", "FLOPs", "measure"),
    Column("params", "Parameters", "measure"),
    Column("latency", "Latency", "measure"),
    Column("kept", "Importance kept", "number"),
    Column("created_at", "Age", "number"),
    Column("action", "", "action"),
)
MOST = 4
"""Plans that fit side by side."""


class KeptPlans:
    """``on_chosen`` is awaited with the ids of the plans to compare, ``on_removed`` when one is gone."""

    def __init__(
        self,
        model: AsyncRemoteModel,
        records: Sequence[PlanRecord],
        may_write: bool,
        on_chosen: Callable[[list[str]], Awaitable[None]],
        on_removed: Callable[[], Awaitable[None]],
    ) -> None:
        self._model = model
        self._on_removed = on_removed
        with ui.element("section").classes("tp-stack").props('aria-label="Kept plans"'):
            ui.label("Plans").classes("tp-h2")
            if not records:
                empty_state(
                    "No plan is kept yet",
                    "“Keep” on the plan page keeps a plan here under its limits' name.",
                    "bookmark_add",
                )
                return
            rows = [plan_row(record, may_write) for record in records]
            self._table = DataTable(COLUMNS, rows, page_size=10, selection="multiple")
            self._table.table.on("action", self._remove)

            async def chosen() -> None:
                await on_chosen([row["id"] for row in self._table.selected][:MOST])

            self._table.table.on_select(lambda: chosen())
            ui.label(f"Tick two plans or more, at most {MOST}, to see them side by side.").classes(
                "tp-soft tp-small"
            )

    async def _remove(self, event: events.GenericEventArguments) -> None:
        try:
            await self._model.delete_plan(str(event.args[0]))
        except Exception as error:
            toast_failure(error)
        else:
            toast("The plan is removed", "info")
            await self._on_removed()


def plan_row(record: PlanRecord, may_write: bool) -> dict[str, Any]:
    """One plan as a row; its name leads to the plan page where that can show the same."""
    choice = PlanChoice.of_record(record.budget, record.importance, record.rules)
    row: dict[str, Any] = {
        "id": record.id,
        "name": record.name or "without a name",
        "name_href": choice and f"/models/{record.model}/plan?{choice.query()}",
        "name_sub": rules_text(record),
        "state": record.state,
        "state_sub": str((record.problem or {}).get("detail") or "") or None,
        "created_at": record.created_at,
        "created_at_text": formatting.age(record.created_at),
        "action": "remove",
        "action_text": "Remove" if may_write else None,
    }
    for name in ("flops", "params", "latency"):
        cost = record.costs.get(name)
        if cost is not None:
            row[name] = cost["after"]
            row[f"{name}_text"] = TEXTS[name](cost["after"])
            row[f"{name}_bar"] = formatting.share(cost["after"], cost["before"])
            row[f"{name}_sub"] = formatting.change(cost["before"], cost["after"])
    if record.score_kept is not None:
        row["kept"] = record.score_kept
        row["kept_text"] = f"{record.score_kept:.1%}"
    return row


def rules_text(record: PlanRecord) -> str:
    """The rules that are not the usual ones, in words."""
    parts = []
    if record.importance not in (None, NO_IMPORTANCE):
        parts.append(f"by {record.importance}")
    elif record.scores is not None:
        parts.append(f"by scores that were sent ({record.scores or 'unnamed'})")
    else:
        parts.append("the same ratio everywhere")
    for name, value in record.rules.items():
        if name == "round_to":
            parts.append(f"multiples of {value}")
        elif name == "protect" and value:
            parts.append(f"without {formatting.listed(map(str, value))}")
        elif name not in ("round_to", "protect"):
            parts.append(f"{name} {value}")
    return ", ".join(parts)
