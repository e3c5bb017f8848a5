"""Budgets: how much of what a pruned model may cost, absolute or as a share of what it costs now."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from torchpruner_core.planning.errors import BudgetError

Amount = str | int | float

_COUNTS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12, "p": 1e15}
_BYTES = {
    "": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g", "t"))},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_UNITS: dict[str, tuple[Mapping[str, float], str]] = {
    "flops": (_COUNTS, "flops?"),
    "macs": (_COUNTS, "macs?"),
    "params": (_COUNTS, "param(?:eter)?s?"),
    "bytes": (_BYTES, ""),
    "memory": (_BYTES, ""),
    "latency": (_SECONDS, ""),
}
_EXAMPLES = {
    "flops": "'50%', '2 GFLOPs' or 2e9",
    "macs": "'50%', '1 GMACs' or 1e9",
    "params": "'50%', '12M' or 12_000_000",
    "bytes": "'50%', '48 MB' or 48_000_000",
    "memory": "'50%', '64 MiB' or 64_000_000",
    "latency": "'50%' or '5 ms'",
}
_WRITTEN = re.compile(r"\s*([-+]?[\d_]*\.?\d+(?:e[-+]?\d+)?)\s*(%|[a-zµ]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """What a pruned model may cost at most; several at once all hold.

    - ``flops``, ``macs``: of one forward pass, as ``torch.utils.flop_counter`` counts;
    - ``params``: elements of parameters;
    - ``bytes``: the parameters and buffers as stored;
    - ``memory``: bytes of the activations alive at once, at the step where most are: a tensor lives from
      its operator to its last reader, reshapes share storage, the weights are not in it;
    - ``latency``: seconds of one forward pass, measured by ``runtime`` (``tp.OnnxRuntime()``).

    Each is a share of what the model costs (``"50%"``, or a float up to 1), a number, or a text with a
    unit (``"2 GFLOPs"``, ``"48 MB"``, ``"5 ms"``).

    >>> Budget(flops="50%", params="12M").limits({"flops": 1001, "params": 20_000_000})
    {'flops': 500, 'params': 12000000}

    Raises ``BudgetError`` for an amount that means nothing.
    """

    flops: Amount | None = None
    macs: Amount | None = None
    params: Amount | None = None
    bytes: Amount | None = None
    memory: Amount | None = None
    latency: Amount | None = None
    runtime: Any = None

    def __post_init__(self) -> None:
        if not self.amounts:
            raise BudgetError(
                f"a budget limits at least one of {', '.join(_UNITS)}: Budget(flops='50%')"
            )
        for name, amount in self.amounts.items():
            _read(name, amount)
        if self.latency is not None and not hasattr(self.runtime, "session"):
            raise BudgetError(
                "a latency is measured, so it needs what to measure on: "
                "Budget(latency='50%', runtime=tp.OnnxRuntime())",
                received=repr(self.runtime),
            )

    @property
    def amounts(self) -> dict[str, Amount]:
        """The limits that are set, by name, as they were given."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "runtime"}
        return {name: amount for name, amount in given.items() if amount is not None}

    def limits(self, before: Mapping[str, float]) -> dict[str, int | float]:
        """Return each limit as a number of its unit, for a model that costs ``before``.

        Counts are integers; a latency is in seconds.
        """
        found: dict[str, int | float] = {}
        for name, amount in self.amounts.items():
            number, relative = _read(name, amount)
            limit = number * before[name] if relative else number
            found[name] = limit if name == "latency" else math.floor(limit)
        return found

    def scaled(self, fraction: float) -> Budget:
        """Return a budget of ``fraction`` of the model's cost, in everything this one limits."""
        return replace(self, **dict.fromkeys(self.amounts, float(fraction)))

    def to_dict(self) -> dict[str, Amount]:
        """Return plain JSON values; a runtime is not among them."""
        return self.amounts


def _read(name: str, amount: Any) -> tuple[float, bool]:
    """Return an amount as a number, and whether it is a share of the model's own cost."""
    if isinstance(amount, str):
        number, relative = _read_text(name, amount)
    elif isinstance(amount, int | float | np.number) and not isinstance(amount, bool | np.bool_):
        number = float(amount)
        relative = isinstance(amount, float | np.floating) and 0 < number <= 1
        if name == "latency" and not relative:
            raise _refused(name, amount, "says no unit of time")
    else:
        raise _refused(name, amount, "is no amount")
    if not math.isfinite(number):
        raise _refused(name, amount, "is no finite number")
    if number <= 0:
        raise _refused(name, amount, "leaves nothing of the model; ask for more than 0")
    if isinstance(amount, float) and number > 1 and number != math.floor(number):
        raise _refused(name, amount, "is neither a share nor a whole number")
    if relative and number > 1:
        raise _refused(name, amount, "is more than the model costs; ask for at most 100%")
    if not relative and name != "latency" and number < 1:
        raise _refused(name, amount, "is less than one")
    return number, relative


def _read_text(name: str, text: str) -> tuple[float, bool]:
    units, suffix = _UNITS[name]
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise _refused(name, text, "is no amount")
    number, unit = float(found[1]), found[2].lower()
    if unit == "%":
        return number / 100, True
    if suffix:
        unit = re.sub(f"{suffix}$", "", unit)
    if unit not in units:
        raise _refused(name, text, f"has no unit of {name}")
    return number * units[unit], False


def _refused(name: str, amount: Any, problem: str) -> BudgetError:
    return BudgetError(
        f"{name}={amount!r} {problem}; a budget of {name} is {_EXAMPLES[name]}",
        budget=name,
        received=repr(amount),
    )
