"""What a cut analysis returns: the slices to remove, and what that saves.

A :class:`CutResult` is a mapping with the manual's three keys, ``'terminal'``, ``'iner'`` and
``'operator'`` (that spelling is the contract), and carries the rest as attributes. It needs numpy
alone, so that a client without torch or onnx can read one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
"""Sorted, unique int64 indices along one axis, shape ``(k,)``."""

AxisCuts = list["Indices | None"]
"""One entry an axis of a tensor: ``None``, or the indices to remove."""

OperatorChange = dict[str, "int | list[int]"]
"""Attribute or constant name -> what to subtract from it."""

NAME_LISTS = (
    "renormalises",
    "touches_inputs",
    "touches_outputs",
    "literals",
    "reads_sizes",
    "unread",
    "transposed",
    "notes",
)
"""The fields of a result that are lists of names."""

SHORT_RUN = 8
"""An index list at most this long is written out; a longer one may be written as ranges."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """The name, shape and dtype (numpy's name: ``'float32'``) of one graph input or output.

    ``value``, flat, is what an input always holds (a sampling rate, a mode): conditions that follow
    from it are decided when the graph is built, and an analysis holds for that value only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    value: tuple[int | float | bool, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        found = {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}
        return found if self.value is None else {**found, "value": list(self.value)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TensorSpec:
        shape = tuple(int(size) for size in data["shape"])
        value = data.get("value")
        fixed = None if value is None else tuple(_number(item) for item in value)
        return cls(str(data["name"]), shape, str(data.get("dtype", "float32")), fixed)


def _number(item: Any) -> int | float | bool:
    if not isinstance(item, int | float):
        raise ValueError(f"an input's value is a list of numbers, not {item!r}")
    return item


@dataclass(frozen=True, slots=True)
class CutRequest:
    """One asked cut: remove ``index`` along axis ``dim`` of the node called ``node``."""

    node: str
    dim: int
    index: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"node": self.node, "dim": self.dim, "index": encode_indices(self.index)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CutRequest:
        index = tuple(int(i) for i in decode_indices(data["index"]))
        return cls(str(data["node"]), int(data["dim"]), index)


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision made where one axis splits into several that could each be pruned.

    ``operator`` is where the split happens, ``factors`` the sizes it splits into, ``taken`` and
    ``rejected`` the factors' positions by name (``'outer'``, ``'inner'``, or ``'factor 1'``), and
    the costs the parameter elements that each completion removes in all. ``other_cost`` is
    ``None`` where the other completion is impossible, and both are ``None`` where the request
    was aligned exactly or the caller's granularity decided.
    """

    operator: str
    factors: tuple[int, ...]
    taken: str
    rejected: str
    taken_cost: int | None = None
    other_cost: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "factors": list(self.factors),
            "taken": self.taken,
            "rejected": self.rejected,
            "taken_cost": self.taken_cost,
            "other_cost": self.other_cost,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Choice:
        return cls(**{**data, "factors": tuple(data["factors"])})


Recount = Callable[[Mapping[str, AxisCuts]], "tuple[int, int] | None"]
"""Parameter elements removed and FLOPs left, from the cuts of all nodes; ``None``: not known."""


@dataclass(frozen=True, slots=True)
class Renumbering:
    """How a stored tensor of positions follows a cut.

    Its entries are positions along an axis of ``size`` slices, of which ``removed`` go; a negative
    one counts from the end. ``operators`` read it, and ``whole`` says that they read all of it.
    ``values`` are the entries before the cut, flattened, of a tensor that is written in the program
    and belongs to no module.
    """

    size: int
    removed: Indices
    operators: tuple[str, ...] = ()
    whole: bool = False
    values: tuple[int, ...] | None = None

    def apply(self, entries: NDArray[Any]) -> NDArray[Any]:
        """Return the entries that stay, in any shape, as they are after the cut."""
        places = np.where(entries < 0, entries.astype(np.int64) + self.size, entries)
        shift = np.searchsorted(self.removed, places)
        shift = np.where(entries < 0, shift - len(self.removed), shift)
        renumbered: NDArray[Any] = (entries - shift).astype(entries.dtype)
        return renumbered

    def undo(self, entries: NDArray[Any]) -> NDArray[Any]:
        """Return entries as they were before the cut."""
        kept = np.setdiff1d(np.arange(self.size), self.removed)
        places = np.clip(np.where(entries < 0, entries + len(kept), entries), 0, len(kept) - 1)
        restored = kept[places.astype(np.int64)]
        found: NDArray[Any] = np.where(entries < 0, restored - self.size, restored)
        return found.astype(entries.dtype)

    def names_removed(self, entries: NDArray[Any]) -> bool:
        """Tell whether some entry is a position that goes, or none of the axis at all."""
        places = np.where(entries < 0, entries.astype(np.int64) + self.size, entries)
        outside = bool(((places < 0) | (places >= self.size)).any())
        return outside or bool(np.isin(places, self.removed).any())

    def to_dict(self) -> dict[str, Any]:
        return {
            "size": self.size,
            "removed": encode_indices(self.removed),
            "operators": list(self.operators),
            "whole": self.whole,
            "values": None if self.values is None else list(self.values),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Renumbering:
        values = data.get("values")
        return cls(
            int(data["size"]),
            decode_indices(data["removed"]),
            _decode_names(data.get("operators", ()), "operators"),
            bool(data.get("whole", False)),
            None if values is None else tuple(int(value) for value in values),
        )


@dataclass(frozen=True, eq=False)
class CutResult(Mapping[str, Any]):
    """The smallest consistent cut that contains what was asked.

    ``terminal`` and ``iner`` map a node's name to one entry an axis: ``None``, or the sorted int64
    indices to remove; ``operator`` maps an operator's name to what must be subtracted from its
    attributes or constants (``{'group': 1}``).

    ``literals`` are the terminals that are constants of the program rather than parameters or
    buffers of a module. ``renormalises`` names the operators whose statistics are computed over
    fewer slices, so that the pruned network is valid without being equal to the masked one.
    ``renumbers`` maps a terminal that holds positions along a cut axis to how its values follow.
    ``reads_sizes`` names the modules whose code may compute with a size that changes, so that only
    a rehearsal of their ``forward()`` tells whether it still does what it did. ``unread`` names the
    parameters and buffers of the model that the graph never reads, so that it cannot say whether the
    cut reaches them.
    ``transposed`` names weights of linears that the analysed file stores as (in, out), and ``notes`` says
    what that file had lost, so that a replay on the module knows.
    FLOPs follow ``torch.utils.flop_counter`` (two a multiply-accumulate); MACs are half of that.
    ``shapes`` holds the shape before the cut of every node named in ``terminal`` and ``iner``, so that
    a replay can tell a model the cut was not made for.
    """

    terminal: dict[str, AxisCuts] = field(default_factory=dict)
    iner: dict[str, AxisCuts] = field(default_factory=dict)
    operator: dict[str, OperatorChange] = field(default_factory=dict)
    requested: tuple[CutRequest, ...] = ()
    added: dict[str, AxisCuts] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    renormalises: tuple[str, ...] = ()
    touches_inputs: tuple[str, ...] = ()
    touches_outputs: tuple[str, ...] = ()
    literals: tuple[str, ...] = ()
    reads_sizes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    renumbers: dict[str, Renumbering] = field(default_factory=dict)
    params_before: int = 0
    params_removed: int = 0
    flops_before: int = 0
    flops_after: int = 0
    macs_before: int = 0
    macs_after: int = 0
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    recount: Recount | None = field(default=None, repr=False, compare=False)
    """Counts what this cut joined with another saves; goes neither to JSON nor into a copy."""

    KEYS = ("terminal", "iner", "operator")

    def __getitem__(self, key: str) -> Any:
        if key not in self.KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.KEYS)

    def __len__(self) -> int:
        return len(self.KEYS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, CutResult):
            return self.to_dict() == other.to_dict()
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def params_after(self) -> int:
        """Parameter elements left."""
        return self.params_before - self.params_removed

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` gives an equal result back."""
        return {
            "terminal": _encode_cuts(self.terminal),
            "iner": _encode_cuts(self.iner),
            "operator": {name: dict(change) for name, change in self.operator.items()},
            "requested": [request.to_dict() for request in self.requested],
            "added": _encode_cuts(self.added),
            "choices": [choice.to_dict() for choice in self.choices],
            "renormalises": list(self.renormalises),
            "touches_inputs": list(self.touches_inputs),
            "touches_outputs": list(self.touches_outputs),
            "literals": list(self.literals),
            "reads_sizes": list(self.reads_sizes),
            "unread": list(self.unread),
            "transposed": list(self.transposed),
            "notes": list(self.notes),
            "renumbers": {name: each.to_dict() for name, each in self.renumbers.items()},
            "params_before": self.params_before,
            "params_removed": self.params_removed,
            "flops_before": self.flops_before,
            "flops_after": self.flops_after,
            "macs_before": self.macs_before,
            "macs_after": self.macs_after,
            "inputs": [spec.to_dict() for spec in self.inputs],
            "outputs": [spec.to_dict() for spec in self.outputs],
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CutResult:
        """Build a result from :meth:`to_dict`'s value, or from the manual's plain three-key dict.

        Raises ``ValueError`` where it is not such a dict, or an index list is not one.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a result is a dict with the key 'terminal', not {data!r:.60}")
        plain = dict(data)
        for key in ("terminal", "iner", "added"):
            plain[key] = _decode_cuts(plain.get(key, {}), key)
        plain["operator"] = _decode_changes(plain.get("operator", {}))
        plain["requested"] = tuple(map(CutRequest.from_dict, plain.get("requested", ())))
        plain["choices"] = tuple(map(Choice.from_dict, plain.get("choices", ())))
        for key in ("inputs", "outputs"):
            plain[key] = tuple(map(TensorSpec.from_dict, plain.get(key, ())))
        for key in NAME_LISTS:
            plain[key] = _decode_names(plain.get(key, ()), key)
        plain["renumbers"] = _decode_renumberings(plain.get("renumbers") or {})
        plain["shapes"] = {
            str(name): tuple(int(size) for size in shape)
            for name, shape in (plain.get("shapes") or {}).items()
        }
        known = cls.__dataclass_fields__.keys() - {"recount"}
        return cls(**{key: value for key, value in plain.items() if key in known})

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> CutResult:
        """Read :meth:`to_json`'s text."""
        return cls.from_dict(json.loads(text))

    def __repr__(self) -> str:
        return (
            f"CutResult({len(self.terminal)} terminal, {len(self.iner)} iner, "
            f"{len(self.operator)} operator; params {self.params_before} -> {self.params_after}, "
            f"flops {self.flops_before} -> {self.flops_after})"
        )


def encode_indices(indices: Sequence[int] | Indices) -> list[int] | dict[str, Any]:
    """Write indices as a list, or as ``{'ranges': [[start, stop], ...]}`` where that is shorter.

    >>> encode_indices([1, 3])
    [1, 3]
    >>> encode_indices(range(64))
    {'ranges': [[0, 64]]}
    """
    array = np.asarray(indices, dtype=np.int64)
    if len(array) > SHORT_RUN:
        breaks = np.flatnonzero(np.diff(array) != 1) + 1
        if 2 * (len(breaks) + 1) < len(array):
            runs = np.split(array, breaks)
            return {"ranges": [[int(run[0]), int(run[-1]) + 1] for run in runs]}
    return [int(i) for i in array.tolist()]


def decode_indices(value: Any) -> Indices:
    """Read :func:`encode_indices`' value; the order is kept.

    Raises ``ValueError`` where ``value`` is neither a list of integers nor ranges.
    """
    if isinstance(value, Mapping):
        try:
            parts = [np.arange(int(a), int(b), dtype=np.int64) for a, b in value["ranges"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"index ranges look like {{'ranges': [[0, 4]]}}, not {value!r}"
            ) from error
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    array = np.asarray(value)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"indices are a flat list of integers, not {value!r}")
    return array.astype(np.int64)


def _encode_cuts(cuts: Mapping[str, AxisCuts]) -> dict[str, list[Any]]:
    # One array serves every tensor of a group: written once, however many lose it.
    written: dict[int, list[int] | dict[str, Any]] = {}

    def encode(indices: Indices) -> list[int] | dict[str, Any]:
        if id(indices) not in written:
            written[id(indices)] = encode_indices(indices)
        return written[id(indices)]

    return {
        name: [None if indices is None else encode(indices) for indices in axes]
        for name, axes in cuts.items()
    }


def _decode_cuts(cuts: Any, key: str) -> dict[str, AxisCuts]:
    if not isinstance(cuts, Mapping):
        raise ValueError(f"{key!r} maps the names of nodes to their axes; it is {cuts!r:.60}")
    decoded: dict[str, AxisCuts] = {}
    for name, axes in cuts.items():
        if not isinstance(axes, list | tuple):
            raise ValueError(
                f"{name} in {key!r} needs one entry an axis, None or a list of indices, not "
                f"{axes!r:.60}"
            )
        decoded[str(name)] = [_decode_axis(axis) for axis in axes]
    return decoded


def _decode_axis(axis: Any) -> Indices | None:
    if axis is None or (hasattr(axis, "__len__") and len(axis) == 0):
        return None
    indices = decode_indices(axis)
    indices.flags.writeable = False
    return indices


def _decode_names(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key!r} of a result is a list of names, not {value!r:.60}")
    return tuple(value)


def _decode_renumberings(found: Any) -> dict[str, Renumbering]:
    try:
        return {str(name): Renumbering.from_dict(each) for name, each in found.items()}
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"'renumbers' maps names to the size and the removed indices of an axis; it is {found!r:.60}"
        ) from error


def _decode_changes(changes: Any) -> dict[str, OperatorChange]:
    if not isinstance(changes, Mapping):
        raise ValueError(
            f"'operator' maps the names of operators to changes; it is {changes!r:.60}"
        )
    decoded: dict[str, OperatorChange] = {}
    for name, change in changes.items():
        if not isinstance(change, Mapping) or not all(map(_is_amount, change.values())):
            raise ValueError(
                f"{name} in 'operator' needs what to subtract, an integer or a list of them by "
                f"attribute, not {change!r:.60}"
            )
        decoded[str(name)] = dict(change)
    return decoded


def _is_amount(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(each, int | np.integer) for each in value)
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
