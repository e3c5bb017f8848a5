"""The left side of the plan page: what may be left of what, and the rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from torchpruner_dashboard.components.hand_slider import HandSlider
from torchpruner_dashboard.plans.plan_choice import (
    IMPORTANCES,
    LIMITS,
    NO_IMPORTANCE,
    STEPS,
    WITHIN,
    PlanChoice,
)

ROUNDING = {
    1: "any width",
    2: "multiples of 2",
    4: "multiples of 4",
    8: "multiples of 8",
    16: "multiples of 16",
    32: "multiples of 32",
    64: "multiples of 64",
}
RARE = ("bytes", "memory")
"""Costs that few limit: their sliders are folded away."""


class PlanControls:
    """Calls ``on_change`` with the new choice whenever the person changes something. ``weights`` says
    whether the service has them: an importance is computed from them."""

    def __init__(
        self, start: PlanChoice, weights: bool, on_change: Callable[[PlanChoice], Awaitable[None]]
    ) -> None:
        self._on_change = on_change
        given = dict(start.limits)
        self._limits: dict[str, _Limit] = {}
        with ui.element("section").classes("tp-card tp-stack").props('aria-label="Plan"'):
            with ui.column().style("width: 100%; gap: 6px"):
                ui.label("What may be left").classes("tp-h2")
                for name in LIMITS:
                    if name not in RARE:
                        self._limits[name] = _Limit(name, given.get(name), self._tell)
                rare = ui.expansion("More limits", value=any(name in given for name in RARE))
                with rare.props("dense").classes("tp-more").style("width: 100%"):
                    for name in RARE:
                        self._limits[name] = _Limit(name, given.get(name), self._tell)
            importances = IMPORTANCES if weights else {NO_IMPORTANCE: IMPORTANCES[NO_IMPORTANCE]}
            chosen = start.importance if start.importance in importances else NO_IMPORTANCE
            self._importance = ui.select(importances, label="Importance", value=chosen)
            if not weights:
                ui.label(
                    "The model's weights are not on the service, so no slice matters more."
                ).classes("tp-small tp-soft")
            steps = {
                **ROUNDING,
                start.round_to: ROUNDING.get(start.round_to, f"multiples of {start.round_to}"),
            }
            self._round = ui.select(steps, label="Kept widths", value=start.round_to)
            self._protect = ui.input(
                "Leave alone", value=", ".join(start.protect), placeholder="self.fc, self.layer1.*"
            ).props('debounce="400" hint="Modules, patterns or types, with commas between"')
        for field in (self._importance, self._round, self._protect):
            field.props("outlined dense options-dense").style("width: 100%")
            field.on_value_change(self._tell)

    def choice(self) -> PlanChoice:
        """What the controls say."""
        names = str(self._protect.value or "").split(",")
        limits = tuple((name, each.percent) for name, each in self._limits.items() if each.is_on)
        return PlanChoice(
            limits,
            str(self._importance.value or NO_IMPORTANCE),
            int(self._round.value or 1),
            tuple(filter(None, (name.strip() for name in names))),
        )

    def choose(self, percent: int) -> None:
        """Move the slider of the one cost that is limited."""
        (only,) = [each for each in self._limits.values() if each.is_on]
        only.choose(percent)

    async def _tell(self) -> None:
        if any(each.is_on for each in self._limits.values()):
            await self._on_change(self.choice())
        else:  # A plan limits something.
            self._limits["flops"].tick()


class _Limit:
    """A box to tick and the slider that it brings to life."""

    def __init__(
        self, name: str, percent: int | None, on_change: Callable[[], Awaitable[None]]
    ) -> None:
        self._on_change = on_change
        with ui.row().classes("tp-row").style("flex-wrap: nowrap; gap: 4px"):
            self._box = ui.checkbox(LIMITS[name], value=percent is not None).props("dense")
            ui.element("div").classes("tp-grow")
            self._said = ui.label().classes("tp-small tp-soft")
        self._slider = HandSlider(min=STEPS[-1], max=STEPS[0], step=5, value=percent or 50)
        self._slider.props(f'aria-label="Percent of the {WITHIN[name]} that may be left"')
        self._slider.classes("tp-slider").style("padding: 0 10px")
        self._box.on_value_change(self._changed)
        self._slider.on_value_change(self._changed)
        self._say()

    @property
    def is_on(self) -> bool:
        return bool(self._box.value)

    @property
    def percent(self) -> int:
        return int(self._slider.value or 50)

    def choose(self, percent: int) -> None:
        self._slider.value = percent

    def tick(self) -> None:
        self._box.value = True

    async def _changed(self) -> None:
        self._say()
        await self._on_change()

    def _say(self) -> None:
        self._slider.set_visibility(self.is_on)
        self._said.text = f"at most {self.percent} %" if self.is_on else "no limit"
