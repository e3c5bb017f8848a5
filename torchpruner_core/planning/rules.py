"""The rules of a plan: what it may touch, how far, in which multiples, and what is ranked together."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.requests import near_names
from torchpruner_core.planning.errors import RuleError

SCOPES = ("global", "local", "isomorphic")
GRANULARITIES = ("outer", "inner")
REDUCTIONS = ("mean", "sum", "max")
NORMALISERS = ("cost", "mean", "max", "sum", "l2", "none")

Selector = Any
"""A module, a node, a pattern (``"self.layer1.*"``), a type (``"Conv2d"``, ``nn.Conv2d``), or an axis."""


@dataclass(frozen=True)
class Rules:
    """What a plan obeys.

    - ``round_to``: kept widths are multiples of it (a group whose width is none stays as it is, or is
      cut to a multiple). A mapping gives it by module, pattern or type: ``{"Linear": 64, "Conv2d": 8}``.
    - ``protect``: modules, nodes, patterns and types of which no tensor may change, and axes
      (``("self.fc.weight", 0)``) that must stay as long as they are. Inputs and outputs always stay.
    - ``min_keep``: slices that are left of an axis at least; ``max_cut``: the share of a group that may
      go at most. Numbers, or mappings as for ``round_to``; the strictest that matches holds.
    - ``scope``: ``"isomorphic"`` ranks groups of one structure together and cuts every structure by the
      same ratio (Fang et al. 2024); ``"local"`` cuts every group by the same ratio (Li et al. 2017);
      ``"global"`` ranks all units together and weighs each score against what its unit saves. With the
      first two, groups on which the budget does not depend, as most do not bear on peak memory, stay.
    - ``granularity``: the factor that goes where an axis is a product of several: ``"outer"`` (heads,
      groups) or ``"inner"`` (head dimensions, a channel of every group); or a mapping.
    - ``aggregate``: how a unit's score comes from its slices and members: ``"mean"`` or ``"sum"`` (DepGraph,
      Fang et al. 2023) or ``"max"``.
    - ``normalize``: what the scores of a group are divided by, so that groups can be compared: their
      ``"mean"``, ``"max"``, ``"sum"``, ``"l2"`` norm (Molchanov et al. 2017), or ``"none"``: then what saves
      most goes first. With ``"cost"`` they are divided by their mean and weighed by what a unit costs, so
      that all groups are alike at first and those lose most whose scores differ most: no dear layer
      is emptied for its price.

    Raises ``RuleError``.
    """

    round_to: int | Mapping[Selector, int] = 1
    protect: Sequence[Selector] = ()
    min_keep: int | Mapping[Selector, int] = 1
    max_cut: float | Mapping[Selector, float] = 1.0
    scope: str = "isomorphic"
    granularity: str | Mapping[Selector, str] = "outer"
    aggregate: str = "mean"
    normalize: str = "cost"

    def __post_init__(self) -> None:
        if isinstance(self.protect, str | type) or not isinstance(self.protect, Iterable):
            object.__setattr__(self, "protect", (self.protect,))
        object.__setattr__(self, "protect", tuple(map(_plain, self.protect)))
        for name in ("round_to", "min_keep", "max_cut", "granularity"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                value = {_plain(key): each for key, each in value.items()}
                object.__setattr__(self, name, value)
            for each in value.values() if isinstance(value, Mapping) else (value,):
                _check(name, each)
        for name, allowed in (
            ("scope", SCOPES),
            ("aggregate", REDUCTIONS),
            ("normalize", NORMALISERS),
        ):
            if getattr(self, name) not in allowed:
                raise RuleError(
                    f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}",
                    rule=name,
                    received=repr(getattr(self, name)),
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` gives equal rules back."""
        plain: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                value = [[_to_json(key), each] for key, each in value.items()]
            elif field.name == "protect":
                value = [_to_json(key) for key in value]
            plain[field.name] = value
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rules:
        """Read :meth:`to_dict`'s value; raises ``RuleError`` for anything else."""
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or not set(data) <= known:
            raise RuleError(f"rules have the names {', '.join(sorted(known))}, not {data!r:.80}")
        plain: dict[str, Any] = {}
        for name, value in data.items():
            if name == "protect":
                value = [_from_json(key) for key in value]
            elif isinstance(value, list):
                value = {_from_json(key): each for key, each in value}
            plain[name] = value
        return cls(**plain)


def _plain(selector: Any) -> Any:
    if isinstance(selector, type):
        return selector.__name__
    if isinstance(selector, list | tuple) and list(map(type, selector)) == [str, int]:
        return tuple(selector)
    if not isinstance(selector, str) or not selector:
        raise RuleError(
            "rules name a module ('self.fc'), a pattern ('self.layer1.*'), a type ('Conv2d' or "
            f"nn.Conv2d) or an axis (('self.fc.weight', 0)), not {selector!r}",
            received=repr(selector),
        )
    return selector


def _to_json(selector: Any) -> Any:
    return list(selector) if isinstance(selector, tuple) else selector


def _from_json(selector: Any) -> Any:
    return tuple(selector) if isinstance(selector, list) else selector


def _check(name: str, value: Any) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if name == "granularity":
        if value not in GRANULARITIES:
            raise RuleError(
                f"granularity is one of {', '.join(GRANULARITIES)}, not {value!r}", rule=name
            )
    elif name == "max_cut":
        if not number or not 0 < value <= 1:
            raise RuleError(
                f"max_cut is a share of a group's slices, above 0 and at most 1, not {value!r}; "
                "to keep a group as it is, protect it",
                rule=name,
                received=repr(value),
            )
    elif not number or value != math.floor(value) or value < 1:
        raise RuleError(
            f"{name} is a whole number of slices, 1 or more, not {value!r}",
            rule=name,
            received=repr(value),
        )


class Selection:
    """What selectors mean in one graph."""

    def __init__(self, graph: GraphData) -> None:
        self.graph = graph
        self.types: dict[str, list[str]] = {}
        for name, module in graph.modules.items():
            self.types.setdefault(module.type, []).append(name)

    def axes(self, selector: Selector, rule: str) -> set[tuple[str, int]]:
        """Return the axes of stored tensors that a selector names; raises ``RuleError`` for none."""
        nodes = self.graph.nodes
        if isinstance(selector, tuple):
            node, dim = selector
            node = node if node in nodes else f"self.{node}"
            if node in nodes and -len(nodes[node].shape) <= dim < len(nodes[node].shape):
                return {(node, dim % len(nodes[node].shape))}
            raise self._unknown(selector, rule)
        roots = self._roots(selector)
        if not roots:
            raise self._unknown(selector, rule)
        below = tuple(f"{root}." for root in roots)
        return {
            (name, dim)
            for name, node in nodes.items()
            if node.kind in ("parameter", "buffer") and (name in roots or name.startswith(below))
            for dim in range(len(node.shape))
        }

    def _roots(self, selector: str) -> set[str]:
        modules, nodes = self.graph.modules, self.graph.nodes
        for name in (selector, f"self.{selector}"):
            if name in modules or name in nodes:
                return {name}
        if selector in self.types:
            return set(self.types[selector])
        if not set("*?[") & set(selector):
            return set()
        patterns = (selector, f"self.{selector}")
        return {
            name
            for name in (*modules, *nodes)
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        }

    def _unknown(self, selector: Selector, rule: str) -> RuleError:
        known = [*self.graph.modules, *self.types]
        near = near_names(selector if isinstance(selector, str) else selector[0], known)
        return RuleError(
            f"{rule} names {selector!r}, and the model has no such module, tensor, type or axis"
            f"{near}; names are those of graph.modules",
            rule=rule,
            received=_to_json(selector),
        )

    def each(self, value: Any, rule: str) -> list[tuple[set[tuple[str, int]] | None, Any]]:
        """Return ``(axes, number)`` for each entry of a rule; axes are ``None`` for all of them."""
        if not isinstance(value, Mapping):
            return [(None, value)]
        return [(self.axes(selector, rule), number) for selector, number in value.items()]
