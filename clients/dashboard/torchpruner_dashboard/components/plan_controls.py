"""The left side of the plan page: what may be left of what, and the rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from torchpruner_dashboard.plans.plan_choice import FRACTIONS, IMPORTANCES, LIMITS, PlanChoice


class PlanControls:
    """Calls ``on_change`` with the new choice whenever the person changes something."""

    def __init__(
        self, start: PlanChoice, on_change: Callable[[PlanChoice], Awaitable[None]]
    ) -> None:
        self._on_change = on_change
        with ui.element("section").classes("tp-card tp-stack").props('aria-label="Plan"'):
            self._limit = ui.select(LIMITS, label="Make cheaper in", value=start.limit)
            with ui.column().style("width: 100%; gap: 0"):
                self._said = ui.label().classes("tp-small")
                self._percent = ui.slider(
                    min=round(100 * FRACTIONS[-1]),
                    max=round(100 * FRACTIONS[0]),
                    step=5,
                    value=start.percent,
                )
                self._percent.props('aria-label="Percent that may be left"').classes("tp-slider")
            self._importance = ui.select(
                IMPORTANCES, label="Importance", value=start.importance
            ).props("outlined dense options-dense")
            ui.label("An importance needs the model's weights on the service.").classes(
                "tp-small tp-soft"
            )
            self._round = ui.select(
                {1: "any width", 4: "multiples of 4", 8: "multiples of 8", 16: "multiples of 16",
                 32: "multiples of 32"},
                label="Kept widths",
                value=start.round_to,
            )  # fmt: skip
            self._protect = ui.input(
                "Leave alone", value=", ".join(start.protect), placeholder="self.fc, self.layer1.*"
            ).props('debounce="400"')
        for field in (self._limit, self._importance, self._round, self._protect):
            field.props("outlined dense").style("width: 100%")
        for control in (
            self._limit, self._percent, self._importance, self._round, self._protect,
        ):  # fmt: skip
            control.on_value_change(self._tell)
        self._say()

    def choice(self) -> PlanChoice:
        """What the controls say."""
        names = str(self._protect.value or "").split(",")
        return PlanChoice(
            str(self._limit.value),
            int(self._percent.value or 50),
            str(self._importance.value or ""),
            int(self._round.value or 1),
            tuple(filter(None, (name.strip() for name in names))),
        )

    async def _tell(self) -> None:
        self._say()
        await self._on_change(self.choice())

    def _say(self) -> None:
        self._said.text = f"At most {int(self._percent.value or 50)} % may be left"
