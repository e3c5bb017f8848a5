"""What a person chose on the plan page, and its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

LIMITS = {
    "flops": "FLOPs",
    "params": "Parameters",
    "bytes": "Stored bytes",
    "memory": "Activation memory",
}
IMPORTANCES = {
    "": "none: the same ratio everywhere",
    "magnitude": "magnitude of weights",
    "lamp": "LAMP",
    "fpgm": "geometric median (FPGM)",
    "batchnorm": "batch norm scales",
}
FRACTIONS = [round(1 - step / 20, 2) for step in range(1, 19)]
"""Shares of the cost that are planned at once: 95 % down to 10 %."""


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """``percent`` of ``limit`` may be left; the rest are the planner's rules."""

    limit: str = "flops"
    percent: int = 50
    importance: str = ""
    round_to: int = 1
    protect: tuple[str, ...] = ()

    @classmethod
    def of_query(
        cls, limit: str, percent: int, importance: str, round_to: int, protect: str
    ) -> PlanChoice:
        """Read an address; what is none of the choices is the usual one."""
        steps = [round(100 * fraction) for fraction in FRACTIONS]
        return cls(
            limit if limit in LIMITS else "flops",
            min(steps, key=lambda step: abs(step - percent)),
            importance if importance in IMPORTANCES else "",
            round_to if 1 <= round_to <= 1024 else 1,
            tuple(filter(None, protect.split(","))),
        )

    @property
    def fraction(self) -> float:
        return self.percent / 100

    @property
    def options(self) -> dict[str, Any]:
        """The rules, as the SDK takes them."""
        found: dict[str, Any] = {"round_to": self.round_to, "protect": self.protect}
        if self.importance:
            found["importance"] = self.importance
        return found

    @property
    def question(self) -> tuple[Any, ...]:
        """What a frontier depends on: everything but the percentage."""
        return self.limit, self.importance, self.round_to, self.protect

    def query(self) -> str:
        return urlencode(
            {
                "limit": self.limit,
                "percent": self.percent,
                "importance": self.importance,
                "round_to": self.round_to,
                "protect": ",".join(self.protect),
            },
            safe=",.*",
        )
