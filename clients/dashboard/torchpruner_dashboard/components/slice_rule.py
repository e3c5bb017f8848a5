"""Which slices the slider takes first, and by what they are judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from nicegui import ui

from torchpruner_dashboard.components.notices import toast_failure
from torchpruner_dashboard.failures import failure_of
from torchpruner_dashboard.model_graphs import Axis

Orders = Mapping[tuple[str, int], tuple[int, ...]]
"""The slices of each axis, ``(node, dim)``, those that matter least in front."""

FIRST = "first"
RULES = {
    "magnitude": "Least important first: magnitude",
    "fpgm": "Most like the others first: FPGM",
    "batchnorm": "Smallest batch norm scale first",
    FIRST: "The first slices",
}
USUAL = "magnitude"


class SliceRule:
    """``load`` has the service judge the slices by an importance, where it can: without, ``why_not`` says
    why the first slices are taken. ``on_order`` is awaited when another order holds from now on."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[Orders]] | None,
        why_not: str,
        on_order: Callable[[], Awaitable[None]],
    ) -> None:
        self._load = load
        self._on_order = on_order
        self._orders: Orders = {}
        rules = {FIRST: RULES[FIRST]} if load is None else RULES
        self._rule = ui.select(rules, label="The slider takes", value=FIRST)
        self._rule.props("outlined dense options-dense").style("width: 100%")
        self._said = ui.label(why_not).classes("tp-small tp-soft")
        self._said.set_visibility(bool(why_not))
        self._rule.on_value_change(self._changed)
        if load is not None:
            ui.timer(0, self._begin, once=True)

    def take(self, axis: Axis, count: int) -> tuple[int, ...]:
        """The ``count`` slices of ``axis`` that go first, sorted."""
        order = self._orders.get((axis.node, axis.dim))
        usable = order is not None and sorted(order) == list(range(axis.width))
        return tuple(sorted(order[:count])) if order and usable else tuple(range(count))

    def say(self, axis: Axis) -> None:
        """Say by what the slices of ``axis`` are judged, where that is not what the field says."""
        if self._rule.value != FIRST and self._orders:
            missing = (axis.node, axis.dim) not in self._orders
            self._tell(
                "No plan may cut this axis, so it has no order: the first." if missing else ""
            )

    def _begin(self) -> None:
        self._rule.value = USUAL

    async def _changed(self) -> None:
        rule = str(self._rule.value or FIRST)
        if rule == FIRST or self._load is None:
            self._orders = {}
            self._tell("")
            await self._on_order()
            return
        self._tell("The service judges the slices …")
        try:
            orders = await self._load(rule)
        except Exception as error:
            toast_failure(error)
            if rule == self._rule.value:
                self._rule.value = FIRST
                self._tell(failure_of(error).detail)
            return
        if rule == self._rule.value:
            self._orders = orders
            self._tell("")
            await self._on_order()

    def _tell(self, text: str) -> None:
        self._said.text = text
        self._said.set_visibility(bool(text))
