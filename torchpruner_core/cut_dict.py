"""Reading a cut, telling two cuts apart, joining cuts.

A cut comes as a :class:`~torchpruner_core.cut_result.CutResult` or as the manual's plain dict, whose
uncut axes may be ``[]`` or ``None``. Everything after this file sees a ``CutResult``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import (
    AxisCuts,
    CutResult,
    OperatorChange,
    Renumbering,
    TensorSpec,
)
from torchpruner_core.errors import CutMismatchError, MergeError

Cut = Mapping[str, Any]
"""A ``CutResult``, or a dict with the keys ``'terminal'``, ``'iner'`` and ``'operator'``."""


def read_cut(cut: Cut) -> CutResult:
    """Return ``cut`` as a ``CutResult``.

    Raises :class:`CutMismatchError` where it is not one: a context or a model passed in its place.
    """
    if isinstance(cut, CutResult):
        return cut
    if not isinstance(cut, Mapping) or "terminal" not in cut:
        raise CutMismatchError(
            "a cut is what cut_analysis returns, a mapping with the key 'terminal', not "
            f"{type(cut).__name__}",
            expected="CutResult",
            received=type(cut).__name__,
        )
    try:
        return CutResult.from_dict(cut)
    except (TypeError, ValueError, KeyError) as error:
        raise CutMismatchError(f"the cut cannot be read: {error}", reason=str(error)) from error


def read_module_cut(cut: Cut) -> CutResult:
    """Return a cut as :func:`read_cut` does, with the axes of weights as an ``nn.Module`` has them.

    A file may store the weight of a linear transposed, as (in, out); ``cut.transposed`` says of which.
    """
    read = read_cut(cut)
    if not read.transposed:
        return read
    turned = set(read.transposed)
    return replace(
        read,
        terminal={n: axes[::-1] if n in turned else axes for n, axes in read.terminal.items()},
        added={n: axes[::-1] if n in turned else axes for n, axes in read.added.items()},
        shapes={n: shape[::-1] if n in turned else shape for n, shape in read.shapes.items()},
        transposed=(),
    )


def fingerprint(cut: CutResult) -> str:
    """Return a short hash of what the cut removes and changes, the same after a JSON round trip."""
    plain = cut.to_dict()
    kept = {key: plain[key] for key in ("terminal", "operator")}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def operator_owner(name: str) -> tuple[str, str]:
    """Return an operator's module and type.

    >>> operator_owner('self.layer1.0.conv1.Conv_1')
    ('self.layer1.0.conv1', 'Conv')
    """
    module, _, kind = name.rpartition(".")
    head, _, tail = kind.rpartition("_")
    return module or "self", head if head and tail.isdigit() else kind


def merge_cut_dict(*cuts: Cut) -> CutResult:
    """Join cuts of one model into a single cut that removes what any of them removes.

    Indices are joined an axis at a time. Where two cuts change the same operator, disjoint cuts add
    their changes up, a cut that contains another counts once, and a partial overlap of groups is
    counted from the joined indices. What the joined cut saves is counted anew while the graph of the
    cuts is there, and is that of the larger where one contains the other; of cuts read from JSON it is
    left at zero, since savings do not add up.

    Raises :class:`MergeError` where the cuts were made for different shapes, or overlap partly in an
    operator whose new constant cannot be told from the indices.
    """
    if len(cuts) == 1 and isinstance(cuts[0], (list, tuple)):
        cuts = tuple(cuts[0])
    if not cuts:
        raise MergeError("there is no cut to merge")
    merged = read_cut(cuts[0])
    for cut in cuts[1:]:
        merged = _merge_two(merged, read_cut(cut))
    return merged


def _merge_two(a: CutResult, b: CutResult) -> CutResult:
    for name in a.shapes.keys() & b.shapes.keys():
        if a.shapes[name] != b.shapes[name]:
            raise MergeError(
                f"{name} has the shape {a.shapes[name]} in one cut and {b.shapes[name]} in the other: "
                "both must be analysed on the same graph",
                node=name,
                expected=list(a.shapes[name]),
                received=list(b.shapes[name]),
            )
    terminal = _join(a.terminal, b.terminal)
    iner = _join(a.iner, b.iner)
    operator: dict[str, OperatorChange] = {k: dict(v) for k, v in a.operator.items()}
    relation = _relation(a, b)
    renumbers = _renumberings(a, b)
    renumbered = {name for each in renumbers.values() for name in each.operators}
    for name, change in b.operator.items():
        if name not in operator:
            operator[name] = dict(change)
            continue
        for key, amount in change.items():
            if key not in operator[name]:
                operator[name][key] = amount
                continue
            if key == "indices" and name in renumbered:
                del operator[name][key]  # what is subtracted follows from the joined indices
                continue
            operator[name][key] = _join_amounts(
                name, key, operator[name][key], amount, relation, a, b, terminal
            )
    return CutResult(
        **_savings(a, b, relation, {**iner, **terminal}),
        terminal=terminal,
        iner=iner,
        operator=operator,
        requested=a.requested + tuple(r for r in b.requested if r not in a.requested),
        added=_join(a.added, b.added),
        choices=a.choices + b.choices,
        renormalises=_either(a.renormalises, b.renormalises),
        touches_inputs=_either(a.touches_inputs, b.touches_inputs),
        touches_outputs=_either(a.touches_outputs, b.touches_outputs),
        literals=_either(a.literals, b.literals),
        reads_sizes=_either(a.reads_sizes, b.reads_sizes),
        unread=_either(a.unread, b.unread),
        transposed=_either(a.transposed, b.transposed),
        notes=_either(a.notes, b.notes),
        renumbers=renumbers,
        inputs=a.inputs or b.inputs,
        outputs=_outputs(a, b, iner),
        shapes={**a.shapes, **b.shapes},
    )


def _savings(
    a: CutResult, b: CutResult, relation: str, cuts: Mapping[str, AxisCuts]
) -> dict[str, Any]:
    recount = a.recount or b.recount
    counted = None if recount is None else recount(cuts)
    if counted is None and relation in ("a", "b"):
        larger = a if relation == "a" else b
        counted = larger.params_removed, larger.flops_after
    if counted is None:
        return {"recount": recount}
    params, flops = counted
    return {
        "recount": recount,
        "params_before": a.params_before,
        "params_removed": params,
        "flops_before": a.flops_before,
        "flops_after": flops,
        "macs_before": a.macs_before,
        "macs_after": flops // 2,
    }


def _renumberings(a: CutResult, b: CutResult) -> dict[str, Renumbering]:
    joined = dict(a.renumbers)
    for name, theirs in b.renumbers.items():
        ours = joined.get(name)
        if ours is not None:
            theirs = replace(
                theirs,
                removed=np.union1d(ours.removed, theirs.removed).astype(np.int64),
                operators=_either(ours.operators, theirs.operators),
            )
        joined[name] = theirs
    return joined


def _either(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a + b))


def _join(a: Mapping[str, AxisCuts], b: Mapping[str, AxisCuts]) -> dict[str, AxisCuts]:
    joined: dict[str, AxisCuts] = {name: list(axes) for name, axes in a.items()}
    for name, axes in b.items():
        if name not in joined:
            joined[name] = list(axes)
            continue
        if len(joined[name]) != len(axes):
            raise MergeError(
                f"{name} has {len(joined[name])} axes in one cut and {len(axes)} in the other",
                node=name,
                expected=len(joined[name]),
                received=len(axes),
            )
        joined[name] = [_union(x, y) for x, y in zip(joined[name], axes, strict=True)]
    return joined


def _empty(indices: Any) -> bool:
    return indices is None or len(indices) == 0


def _union(x: Any, y: Any) -> NDArray[np.int64] | None:
    if _empty(x) or _empty(y):
        return None if _empty(x) and _empty(y) else np.asarray(y if _empty(x) else x, np.int64)
    return np.union1d(x, y).astype(np.int64)


def _shared_axes(a: CutResult, b: CutResult) -> Iterator[tuple[set[int], set[int]]]:
    for x, y in ((a.terminal, b.terminal), (a.iner, b.iner)):
        for name in x.keys() & y.keys():
            for left, right in zip(x[name], y[name], strict=True):
                if not _empty(left) and not _empty(right):
                    yield set(np.asarray(left).tolist()), set(np.asarray(right).tolist())


def _relation(a: CutResult, b: CutResult) -> str:
    """Tell how the index sets of two cuts lie: ``disjoint``, ``a``, ``b`` (contains) or ``partial``."""
    pairs = list(_shared_axes(a, b))
    if all(not left & right for left, right in pairs):
        return "disjoint"
    if all(left >= right for left, right in pairs):
        return "a"
    if all(left <= right for left, right in pairs):
        return "b"
    return "partial"


def _join_amounts(
    name: str,
    key: str,
    x: int | list[int],
    y: int | list[int],
    relation: str,
    a: CutResult,
    b: CutResult,
    terminal: Mapping[str, AxisCuts],
) -> int | list[int]:
    if relation == "disjoint":
        if isinstance(x, list) or isinstance(y, list):
            return [p + q for p, q in zip(list(x), list(y), strict=True)]  # type: ignore[arg-type]
        return x + y
    if relation in "ab":
        return x if relation == "a" else y
    if x == y == 0 or (isinstance(x, list) and not any(x) and not any(y)):  # type: ignore[arg-type]
        return x
    weight = f"{operator_owner(name)[0]}.weight"
    counted = isinstance(x, int) and isinstance(y, int) and x > 0 and y > 0
    if key == "group" and counted and weight in a.terminal and weight in b.terminal:
        for left, right, joined in zip(
            a.terminal[weight], b.terminal[weight], terminal[weight], strict=True
        ):
            if left is None or right is None or joined is None:
                continue
            width, rest = divmod(len(left), int(x))  # type: ignore[arg-type]
            if rest == 0 and len(right) == width * int(y):  # type: ignore[arg-type]
                groups, rest = divmod(len(joined), width)
                if rest == 0:
                    return groups
    raise MergeError(
        f"both cuts change '{key}' of {name} and overlap partly, so the joint change cannot be told "
        "from their results: ask for both at once with cut_analysis_many",
        operator=name,
        constant=key,
        expected=x,
        received=y,
    )


def _outputs(a: CutResult, b: CutResult, iner: Mapping[str, AxisCuts]) -> tuple[TensorSpec, ...]:
    if len(a.outputs) != len(b.outputs):
        return ()
    specs = []
    for left, right in zip(a.outputs, b.outputs, strict=True):
        # Each shape is after its own cut: add that back, then take the joint cut off.
        shape = []
        for axis, size in enumerate(left.shape):
            before = size + _count(a.iner.get(left.name), axis)
            shape.append(before - _count(iner.get(left.name), axis))
        specs.append(TensorSpec(right.name, tuple(shape), right.dtype))
    return tuple(specs)


def _count(axes: AxisCuts | None, axis: int) -> int:
    indices = None if axes is None else axes[axis]
    return 0 if indices is None else len(indices)
