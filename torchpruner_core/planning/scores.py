"""Scores: one number for each slice of an axis, and higher means keep.

A score is a plain array beside the name of an axis, ``(node, dim)``, so anybody can compute some, change
them, send them as JSON, or write their own by hand. Any subset of a model's axes may have scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.planning.errors import ScoresError

Axis = tuple[str, int]
"""A node's name and one of its dimensions: ``("self.layer1.0.conv1.weight", 0)``."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of the slices of some axes.

    ``values`` maps ``(node, dim)`` to an array of shape ``(size of that dim,)``; higher means keep. ``name``
    says how they were made (``"magnitude"``), ``meta`` with what (JSON values).

    >>> scores = Scores({("self.fc1.weight", 0): [0.5, 2.0, 1.0]}, name="mine")
    >>> scores["self.fc1.weight", 0].tolist()
    [0.5, 2.0, 1.0]
    >>> Scores.from_dict(scores.to_dict()) == scores
    True

    Raises ``ScoresError`` where a key is no axis or a value is no flat array of finite numbers.
    """

    values: Mapping[Axis, NDArray[np.float64]]
    name: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise ScoresError(
                "scores map (node, dim) to one number a slice, not "
                f"{type(self.values).__name__}: {{('self.fc.weight', 0): [...]}}"
            )
        checked = {_axis(key): _numbers(key, value) for key, value in self.values.items()}
        object.__setattr__(self, "values", checked)
        object.__setattr__(self, "meta", dict(self.meta))

    def __getitem__(self, axis: Axis) -> NDArray[np.float64]:
        return self.values[axis]

    def __iter__(self) -> Iterator[Axis]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        return (
            self.name == other.name
            and self.meta == other.meta
            and self.values.keys() == other.values.keys()
            and all(np.array_equal(self[axis], other[axis]) for axis in self)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        slices = sum(map(len, self.values.values()))
        return f"Scores({self.name or 'unnamed'}: {slices} slices of {len(self)} axes)"

    @classmethod
    def read(cls, scores: Scores | Mapping[Any, Any]) -> Scores:
        """Return scores given as such, as a mapping by ``(node, dim)``, or as :meth:`to_dict`'s value."""
        if isinstance(scores, Scores):
            return scores
        if isinstance(scores, Mapping) and "axes" in scores:
            return cls.from_dict(scores)
        return cls(scores)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` gives equal scores back."""
        return {
            "name": self.name,
            "meta": dict(self.meta),
            "axes": [
                {"node": node, "dim": dim, "values": values.tolist()}
                for (node, dim), values in self.values.items()
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scores:
        """Read :meth:`to_dict`'s value; raises ``ScoresError`` for anything else."""
        try:
            values = {(entry["node"], entry["dim"]): entry["values"] for entry in data["axes"]}
            name, meta = data.get("name", ""), data.get("meta", {})
        except (KeyError, TypeError, AttributeError) as error:
            raise ScoresError(
                "scores are {'name': ..., 'axes': [{'node': ..., 'dim': ..., 'values': [...]}]}: "
                f"{error!r}"
            ) from error
        if len(values) != len(data["axes"]):
            raise ScoresError("scores give an axis twice; add them up, or leave one out")
        if not isinstance(name, str) or not isinstance(meta, Mapping):
            raise ScoresError("the name of scores is a text, and their meta a mapping")
        return cls(values, name, meta)


def _axis(key: Any) -> Axis:
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str):
        dim = key[1]
        if isinstance(dim, int | np.integer) and not isinstance(dim, bool) and dim >= 0:
            return key[0], int(dim)
    raise ScoresError(
        f"scores belong to an axis, ('self.conv1.weight', 0), not to {key!r}; a dim counts from 0",
        received=repr(key),
    )


def _numbers(key: Any, value: Any) -> NDArray[np.float64]:
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ScoresError(
            f"the scores of {key} are not numbers: {error}", axis=list(key)
        ) from error
    if numbers.ndim != 1:
        raise ScoresError(
            f"the scores of {key} are one number a slice, not an array of the shape "
            f"{list(numbers.shape)}; reduce them over the other axes",
            axis=list(key),
            received=list(numbers.shape),
        )
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if len(wrong):
        raise ScoresError(
            f"the scores of {key} hold {numbers[wrong[0]]} at slice {wrong[0]}; give every slice a "
            "finite number (np.nan_to_num), or leave the axis out",
            axis=list(key),
            slice=int(wrong[0]),
        )
    numbers.flags.writeable = False
    return numbers
