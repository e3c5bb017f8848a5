"""The constants of operators after a cut: group counts, shapes, bounds, sizes, indices.

Each rule computes the new constant from the old one and from what goes along the operator's axes,
whether the old one was a literal or computed. It is written down where the program would not come
to it by itself: numbers computed from the sizes of tensors often follow a cut, but not always.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.cut_result import Renumbering
from torchpruner_core.onnx_pruning.sliced import OpenModel, cut_array
from torchpruner_core.operators.base import OperatorNode
from torchpruner_core.operators.registry import STANDARD_DOMAINS

NewConstants = dict[int | str, Any]
"""Input position or attribute name -> the new value."""

Rule = Callable[[OpenModel, OperatorNode], NewConstants]
Int = NDArray[np.int64]


def new_constants(
    opened: OpenModel, operator: OperatorNode, change: dict[str, Any]
) -> NewConstants:
    """Return what must be rewritten at ``operator``; ``change`` is the cut's entry for it."""
    if not all(node.is_shaped for node in (*operator.in_data, *operator.out_data) if node):
        return {}
    domain = operator.proto.domain
    rule = _RULES.get(operator.type if domain in STANDARD_DOMAINS else f"{domain}::{operator.type}")
    found: NewConstants = {} if rule is None else rule(opened, operator)
    for key, amount in change.items():
        if isinstance(amount, int):
            found[key] = int(operator.params.get(key, 1)) - amount
    wanted = {k: value for k, value in found.items() if not _follows(opened, operator, k, value)}
    return _with_open_sizes(opened, operator, wanted) if opened.is_open else wanted


def _with_open_sizes(
    opened: OpenModel, operator: OperatorNode, found: NewConstants
) -> NewConstants:
    """Write down only what the cut changes of an operand that the program computes.

    The rest may follow the sizes that the file leaves open.
    """
    mended: NewConstants = dict(found)
    for key, value in found.items():
        node = operator.input(key) if isinstance(key, int) else None
        if node is None or node.in_operator is None or isinstance(value, Mended):
            continue
        assert isinstance(key, int)
        computed = _computed(opened, operator, key)
        if computed is None or computed.ndim != 1 or computed.shape != np.shape(value):
            continue
        if operator.type == "Reshape":
            sizes = opened.shape_after(operator.out_data[0])
            value = np.where(computed == sizes, sizes, value)
        known = np.asarray(computed != value)
        if not known.any():
            del mended[key]
            continue
        if operator.type == "Reshape" and known.sum() == 1 and -1 not in computed:
            value = np.where(known, -1, value)
        mended[key] = Mended(known, np.asarray(value, dtype=computed.dtype))
    return mended


def _follows(opened: OpenModel, operator: OperatorNode, key: int | str, value: Any) -> bool:
    """Return whether the program comes to ``value`` by itself."""
    if isinstance(value, Mended):
        return False
    if isinstance(key, str):
        return key in operator.params and np.array_equal(operator.params[key], value)
    found = _computed(opened, operator, key)
    return found is not None and np.array_equal(found, value)


def _computed(opened: OpenModel, operator: OperatorNode, position: int) -> NDArray[Any] | None:
    """Return an operand's value as the edited model comes to it."""
    node = operator.input(position)
    if node is None or opened.computed is None:
        return None
    return opened.replaced.get(node.value_name, opened.computed.known(node.value_name))


def _touched(opened: OpenModel, operator: OperatorNode) -> bool:
    """Return whether a cut reaches the operator, or sizes that its constants are computed from."""
    nodes = [operator.in_data[0], *operator.out_data]
    if any(node is not None and node.value_name in opened.cuts for node in nodes):
        return True
    for position in range(1, len(operator.in_data)):
        adapts = operator.adapts(position)
        if adapts is not None and adapts.any():
            old, new = operator.value(position), _computed(opened, operator, position)
            if new is None or not np.array_equal(old, new):  # type: ignore[arg-type]
                return True
    return False


def _resolved(shape: list[int], x: tuple[int, ...], allow_zero: bool) -> tuple[int, ...]:
    """Return what a ``Reshape`` to ``shape`` makes of ``x``."""
    sizes = [
        x[k] if size == 0 and not allow_zero and k < len(x) else size
        for k, size in enumerate(shape)
    ]
    rest = max(prod(size for size in sizes if size != -1), 1)
    return tuple(prod(x) // rest if size == -1 else size for size in sizes)


@dataclass(frozen=True)
class Mended:
    """A constant that data decides in part: ``value`` where ``known`` says so, else what is computed."""

    known: NDArray[np.bool_]
    value: Int


def _partial(opened: OpenModel, operator: OperatorNode, position: int) -> NewConstants:
    """Return the sizes, of a shape that data decides in part, which the cut changes."""
    node, out = operator.input(position), operator.out_data[0]
    sizes = None if node is None else operator.values.partial(node.value_name)
    if sizes is None:
        return {}
    after = opened.shape_after(out)
    first = out.rank - len(sizes)
    value = np.array(
        [after[first + k] if first + k >= 0 else -1 for k in range(len(sizes))], dtype=np.int64
    )
    known = np.array(
        [size > 0 and new > 0 and size != new for size, new in zip(sizes, value, strict=True)]
    )
    broadcast = np.array(sizes) == 1
    known &= ~broadcast
    return {position: Mended(known, value)} if known.any() else {}


def _shape(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    old, out, x = operator.value(1), operator.out_data[0], operator.in_data[0]
    if old is None:
        return _partial(opened, operator, 1)
    if x is None or not _touched(opened, operator):
        return {}
    after, before = opened.shape_after(out), opened.shape_after(x)
    computed = _computed(opened, operator, 1)
    allow_zero = bool(operator.params.get("allowzero"))
    if computed is not None and _resolved(computed.tolist(), before, allow_zero) == after:
        return {}
    new = old.copy()
    for k, size in enumerate(old.tolist()):
        if size > 0 and k < len(after):
            passes = k < x.rank and x.shape[k] == out.shape[k] and before[k] == after[k] != 0
            new[k] = 0 if passes and not allow_zero else after[k]
    return {1: new}


def _expand(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    old, out = operator.value(1), operator.out_data[0]
    if old is None:
        return _partial(opened, operator, 1)
    if not _touched(opened, operator):
        return {}
    after = opened.shape_after(out)
    first = out.rank - len(old)
    new = np.array(
        [s if s == 1 else after[first + k] for k, s in enumerate(old.tolist())], dtype=np.int64
    )
    return {1: new}


def _filled(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    if operator.value(0) is None:
        return _partial(opened, operator, 0)
    if not _touched(opened, operator):
        return {}
    return {0: np.array(opened.shape_after(operator.out_data[0]), dtype=np.int64)}


def _split(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    axis = int(operator.params.get("axis", 0))
    x = operator.in_data[0]
    if x is None or not (operator.input(1) or len(opened.removed(x, axis % x.rank))):
        return {}
    if not _touched(opened, operator):
        return {}
    sizes = np.array([opened.shape_after(out)[axis] for out in operator.out_data], dtype=np.int64)
    return {"split" if operator.opset < 13 else 1: sizes}


def _slice(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    x = operator.in_data[0]
    starts, ends = operator.integers(1, "starts"), operator.integers(2, "ends")
    if x is None or starts is None or ends is None or not _touched(opened, operator):
        return {}
    axes = operator.integers(3, "axes") or list(range(len(starts)))
    steps = operator.integers(4) or [1] * len(axes)
    new_starts, new_ends = list(starts), list(ends)
    for k, axis in enumerate(axes):
        removed, size = opened.removed(x, axis % x.rank), x.shape[axis]
        if len(removed) and steps[k] == 1:
            new_starts[k] = _bound(starts[k], removed, size)
            new_ends[k] = _bound(ends[k], removed, size)
        elif len(removed):
            # Whole strides go, so what is counted from the near end stays.
            near, far = (new_starts, new_ends) if steps[k] > 0 else (new_ends, new_starts)
            if near[k] < 0:
                near[k] += len(removed) if steps[k] > 0 and near[k] >= -size else 0
            if 0 <= far[k] < size:
                far[k] -= len(removed)
    keys: tuple[int | str, int | str] = (
        (1, 2) if operator.input(1) is not None else ("starts", "ends")
    )
    return {
        keys[0]: np.array(new_starts, dtype=np.int64),
        keys[1]: np.array(new_ends, dtype=np.int64),
    }


def _bound(bound: int, removed: Int, size: int) -> int:
    if 0 < bound <= size:
        return bound - int(np.searchsorted(removed, bound))
    if -size < bound < 0:
        left = bound + len(removed) - int(np.searchsorted(removed, size + bound))
        return left if left < 0 else size - len(removed)
    return bound


def _pad(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    x, out = operator.in_data[0], operator.out_data[0]
    pads = operator.integers(1, "pads")
    if x is None or pads is None or not _touched(opened, operator):
        return {}
    axes = operator.integers(3) or list(range(x.rank))
    new = list(pads)
    for k, axis in enumerate(axes):
        for position, at_end in ((k, False), (len(axes) + k, True)):
            amount = pads[position]
            node = out if amount > 0 else x
            removed, size = opened.removed(node, axis % x.rank), node.shape[axis]
            width = abs(amount)
            gone = (
                int(np.sum(removed >= size - width))
                if at_end
                else int(np.searchsorted(removed, width))
            )
            new[position] -= int(np.sign(amount)) * gone
    return {1 if operator.input(1) is not None else "pads": np.array(new, dtype=np.int64)}


def _tile(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    x, out, repeats = operator.in_data[0], operator.out_data[0], operator.integers(1)
    if x is None or repeats is None or not _touched(opened, operator):
        return {}
    before, after = opened.shape_after(x), opened.shape_after(out)
    new = [a // b for a, b in zip(after, before, strict=True)]
    return {1: np.array(new, dtype=np.int64)}


def _sizes(position: int) -> Rule:
    """Return the rule of a constant that holds the output's size along ``axes`` (all)."""

    def rule(opened: OpenModel, operator: OperatorNode) -> NewConstants:
        sizes, out = operator.integers(position), operator.out_data[0]
        if not sizes or not _touched(opened, operator):
            return {}
        axes = operator.params.get("axes") or list(range(out.rank))
        after = opened.shape_after(out)
        return {position: np.array([after[axis] for axis in axes], dtype=np.int64)}

    return rule


def _squeeze(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    """Name the axes that were squeezed where an axis cut to one slice would follow them."""
    x = operator.in_data[0]
    if x is None or operator.integers(1, "axes") is not None or not _touched(opened, operator):
        return {}
    if all(old == 1 or new != 1 for old, new in zip(x.shape, opened.shape_after(x), strict=True)):
        return {}
    axes = np.array([dim for dim, size in enumerate(x.shape) if size == 1], dtype=np.int64)
    return {1 if operator.opset >= 13 else "axes": axes}


def _affine_grid(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    sizes = operator.integers(1)
    if not sizes or not _touched(opened, operator):
        return {}
    return {1: np.array([opened.shape_after(operator.out_data[0])[0], *sizes[1:]], dtype=np.int64)}


def _attention(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    """Write down the scale that follows from the size of a head, which a cut may change."""
    query = operator.in_data[0]
    if query is None or float(operator.params.get("scale", 0.0)) or not _touched(opened, operator):
        return {}
    packed = query.rank == 3
    size = query.shape[-1] // (int(operator.params["q_num_heads"]) if packed else 1)
    return {"scale": float(1 / np.sqrt(size))}


def _fused_attention(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    """As for ONNX's attention; the widths of a packed weight's parts are written down too."""
    query = operator.in_data[0]
    nodes = (*operator.in_data, *operator.out_data)
    if query is None or not any(node.value_name in opened.cuts for node in nodes if node):
        return {}
    heads = int(operator.params["num_heads"])
    found: NewConstants = {}
    size = query.shape[4] if query.rank == 5 else query.shape[2] // heads
    if operator.type in ("Attention", "QAttention"):
        weight, out = operator.in_data[1], operator.out_data[0]
        stated = operator.params.get("qkv_hidden_sizes")
        assert weight is not None
        widths = [int(w) for w in stated] if stated else [weight.shape[1] // 3] * 3
        size = widths[0] // heads
        if stated:
            gone = opened.removed(weight, 1)
            edges = np.cumsum([0, *widths])
            before = np.searchsorted(gone, edges)
            found["qkv_hidden_sizes"] = [
                int(w - n) for w, n in zip(widths, np.diff(before), strict=True)
            ]
            assert opened.shape_after(out)[-1] == found["qkv_hidden_sizes"][2]
    elif operator.type == "GroupQueryAttention" and operator.input(1) is None:
        size = query.shape[2] // (heads + 2 * int(operator.params["kv_num_heads"]))
    if not float(operator.params.get("scale", 0.0)):
        found["scale"] = float(1 / np.sqrt(size))
    return found


def _indices(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    """Renumber constant indices into one axis: the first of a tuple, or that of the attribute."""
    x, indices = operator.in_data[0], operator.in_data[1]
    old = operator.value(1)
    if x is None or indices is None or old is None:
        return {}
    axis = int(operator.params.get("axis", 0)) % x.rank
    removed = opened.removed(x, axis)
    cuts = opened.cuts.get(indices.value_name)
    if not len(removed) and cuts is None:
        return {}
    left = cut_array(old, cuts or [])
    return {1: Renumbering(x.shape[axis], removed).apply(left)}


def _compress(opened: OpenModel, operator: OperatorNode) -> NewConstants:
    x, condition = operator.in_data[0], operator.value(1)
    if x is None or condition is None or "axis" not in operator.params:
        return {}
    removed = opened.removed(x, int(operator.params["axis"]) % x.rank)
    return {1: np.delete(condition, removed[removed < len(condition)])} if len(removed) else {}


_RULES: dict[str, Rule] = {
    "Reshape": _shape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Split": _split,
    "Slice": _slice,
    "Pad": _pad,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Resize": _sizes(3),
    "CenterCropPad": _sizes(1),
    "MaxUnpool": _sizes(2),
    "AffineGrid": _affine_grid,
    "Attention": _attention,
    "LinearAttention": _attention,
    **{
        f"com.microsoft::{name}": _fused_attention
        for name in ("Attention", "QAttention", "MultiHeadAttention", "GroupQueryAttention")
    },
    "Gather": _indices,
    "GatherND": _indices,
    "GatherElements": _indices,
    "ScatterElements": _indices,
    "ScatterND": _indices,
    "Compress": _compress,
}
