"""The numbers among a call's arguments: which are sizes, and which are part of what is computed.

``h.view(b, t, 14)`` says a size, and follows a cut; ``h / 14`` and ``avg_pool1d(h, 14)`` compute, and must
not change because the code read the number off a size. Of most functions no list tells which of
their integers is what: where those change, values decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from torchpruner_core.pruning.forward.places import ArgumentPath

MOST_ENTRIES = 64
"""An array of more numbers than this is data, which no size was written into."""

SHAPING = frozenset(
    (
        "view", "reshape", "unflatten", "flatten", "expand", "expand_as", "repeat", "tile", "split",
        "split_with_sizes", "chunk", "tensor_split", "unbind", "narrow", "__getitem__", "__setitem__",
        "slice_scatter", "unfold", "as_strided", "repeat_interleave", "view_as", "pixel_shuffle",
        "pixel_unshuffle", "channel_shuffle",
    )
)  # fmt: skip
"""Functions that say a shape; a literal in ``forward()`` ends up in one of these."""

CREATING = frozenset(
    (
        "zeros", "ones", "empty", "rand", "randn", "full", "new_zeros", "new_ones", "new_empty", "new_full",
    )
)  # fmt: skip
"""Functions that make a tensor in the sizes that they are told, whatever it will meet."""

ARITHMETIC = frozenset(
    (
        "add", "sub", "mul", "div", "true_divide", "multiply", "divide", "subtract", "rsub", "pow",
        "float_power", "floor_divide", "remainder", "add_", "sub_", "mul_", "div_", "pow_", "__rsub__",
        "__rdiv__", "__rpow__", "__rtruediv__", "__rmul__", "__radd__", "floor_divide_", "remainder_",
        "fmod", "__floordiv__", "__rfloordiv__", "__rmod__", "addmm", "baddbmm", "clamp", "clamp_",
        "clamp_min", "clamp_max", "clip", "fill_", "masked_fill", "masked_fill_", "eq", "ne", "lt", "le",
        "gt", "ge",
    )
)  # fmt: skip
"""Functions whose integers are part of what is computed, and must not change with a size.

The fractions among the arguments of any function are; no shape is one.
"""

SIZED = SHAPING | CREATING | frozenset(
    (
        "broadcast_to", "resize_", "layer_norm", "rms_norm", "pad", "constant_pad_nd",
        "multi_head_attention_forward", "scaled_dot_product_attention",
    )
)  # fmt: skip
"""Functions whose integers, but for those in :func:`scalars`, are sizes of their operands or result."""

TENSORS_OF = frozenset({"tensor", "scalar_tensor", "as_tensor", "new_tensor"})
"""Functions that make a tensor of numbers."""

_FILLS = {"full": 1, "full_like": 1, "new_full": 2, "fill": 1}
"""Functions that fill a tensor, and which argument they fill it with."""


def numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[ArgumentPath, Any]]:
    """Yield every number and flag among the arguments of a call, with its place."""
    for i, value in enumerate(args):
        yield from _numbers(("args", i), value)
    for key, value in kwargs.items():
        yield from _numbers(("kwargs", key), value)


def _numbers(path: ArgumentPath, value: Any) -> Iterator[tuple[ArgumentPath, Any]]:
    if isinstance(value, (int, float, np.number)):
        yield path, value
    elif isinstance(value, (tuple, list)):
        for i, entry in enumerate(value):
            yield from _numbers((*path, i), entry)
    elif (
        isinstance(value, np.ndarray) and value.size <= MOST_ENTRIES and value.dtype.kind in "iufb"
    ):
        for i, entry in enumerate(value.ravel().tolist()):
            yield (*path, i), entry
    elif isinstance(value, slice):
        for edge in ("start", "stop"):
            if type(getattr(value, edge)) is int:
                yield (*path, edge), getattr(value, edge)


def scalars(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the numbers of a call that are certainly part of what it computes."""
    if name == "scaled_dot_product_attention":
        scale = kwargs.get("scale", args[6] if len(args) > 6 else None)
        # Without a scale PyTorch takes the query's present size: a hidden number.
        query = kwargs.get("query", args[0] if args else None)
        return (float(scale) if scale is not None else 1 / math.sqrt(query.shape[-1]),)
    if name in _FILLS:
        place = _FILLS[name]
        chosen = [kwargs.get("fill_value", args[place] if len(args) > place else None)]
    elif name == "pad":
        chosen = [kwargs.get("value", args[3] if len(args) > 3 else None)]
    elif name in TENSORS_OF:
        chosen = [*args[:1], *args[1:2]] if name == "new_tensor" else [*args[:1]]
    elif name in ARITHMETIC:
        chosen = [*args, *kwargs.values()]
    else:
        every = (*args, *kwargs.values())
        return tuple(float(x) for x in every if isinstance(x, (float, np.floating)))
    return tuple(float(x) for x in chosen if _is_number(x))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
