"""What a person chose on the plan page, and its address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

LIMITS = {
    "flops": "FLOPs",
    "params": "Parameters",
    "latency": "Latency",
    "bytes": "Stored bytes",
    "memory": "Activation memory",
}
WITHIN = {name: word if word == "FLOPs" else word.lower() for name, word in LIMITS.items()}
"""The same within a sentence."""

NO_IMPORTANCE = "none"
IMPORTANCES = {
    NO_IMPORTANCE: "none: the same ratio everywhere",
    "magnitude": "magnitude of the weights",
    "lamp": "magnitude within each layer (LAMP)",
    "fpgm": "distance from the others (FPGM)",
    "batchnorm": "batch norm scales",
}
STEPS = tuple(range(95, 5, -5))
"""Percents of the cost that a slider offers."""

FRACTIONS = [step / 100 for step in STEPS]
"""The same as shares: planned all at once, where one cost alone is limited."""


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """``limits`` are the costs and the percent of each that may be left, all at once; the rest are the
    planner's rules. ``importance`` is empty until it is known whether weights are there."""

    limits: tuple[tuple[str, int], ...] = (("flops", 50),)
    importance: str = ""
    round_to: int = 1
    protect: tuple[str, ...] = ()

    @classmethod
    def of_query(
        cls, percents: Mapping[str, int], importance: str, round_to: int, protect: str
    ) -> PlanChoice:
        """Read an address; what is none of the choices is the usual one."""
        limits = tuple(
            (name, min(STEPS, key=lambda step: abs(step - percents[name])))
            for name in LIMITS
            if percents.get(name)
        )
        return cls(
            limits or (("flops", 50),),
            importance if importance in IMPORTANCES else "",
            round_to if 1 <= round_to <= 1024 else 1,
            tuple(filter(None, protect.split(","))),
        )

    @classmethod
    def of_record(
        cls, budget: Mapping[str, Any], importance: str | None, rules: Mapping[str, Any]
    ) -> PlanChoice | None:
        """The choice that asks for a plan on the service; ``None`` where no slider says the same."""
        percents = {}
        for name, amount in budget.items():
            share = _share(amount)
            if name not in LIMITS or share not in STEPS:
                return None
            percents[name] = share
        known = {"round_to", "protect"}
        protect, round_to = rules.get("protect", []), rules.get("round_to", 1)
        plain = all(isinstance(each, str) for each in protect) and isinstance(round_to, int)
        if not plain or rules.keys() - known or (importance or "") not in ("", *IMPORTANCES):
            return None
        limits = tuple((name, percents[name]) for name in LIMITS if name in percents)
        return cls(limits, importance or NO_IMPORTANCE, round_to, tuple(protect))

    def with_importance(self, weights: bool) -> PlanChoice:
        """The choice with the usual importance, where none was chosen: magnitude if weights are there."""
        return self if self.importance else replace(self, importance=_usual(weights))

    @property
    def single(self) -> tuple[str, int] | None:
        """The one cost that is limited, where that can be planned for all percents at once."""
        return None if self.measured or len(self.limits) > 1 else self.limits[0]

    @property
    def measured(self) -> bool:
        """Whether a worker must time the model."""
        return any(name == "latency" for name, _ in self.limits)

    @property
    def budget(self) -> dict[str, Any]:
        """The limits, as the SDK takes them."""
        return {name: f"{percent}%" for name, percent in self.limits}

    @property
    def options(self) -> dict[str, Any]:
        """The rules, as the SDK takes them."""
        found: dict[str, Any] = {"round_to": self.round_to, "protect": self.protect}
        if self.importance not in ("", NO_IMPORTANCE):
            found["importance"] = self.importance
        return found

    @property
    def question(self) -> tuple[Any, ...]:
        """What the service is asked: for one cost everything but the percentage."""
        limits = self.limits if self.single is None else self.single[0]
        return limits, self.importance, self.round_to, self.protect

    @property
    def name(self) -> str:
        """The limits in words."""
        return ", ".join(f"{percent} % of the {WITHIN[name]}" for name, percent in self.limits)

    def query(self) -> str:
        return urlencode(
            {
                **dict(self.limits),
                "importance": self.importance,
                "round_to": self.round_to,
                "protect": ",".join(self.protect),
            },
            safe=",.*",
        )


def _usual(weights: bool) -> str:
    return "magnitude" if weights else NO_IMPORTANCE


def _share(amount: Any) -> int | None:
    """An amount as percent, where it is a share."""
    if isinstance(amount, str) and amount.endswith("%"):
        try:
            return round(float(amount[:-1]))
        except ValueError:
            return None
    return round(100 * amount) if isinstance(amount, float) and amount <= 1 else None
