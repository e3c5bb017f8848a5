"""Operators that change a tensor's dtype, or nothing: casts, copies, clones."""

from __future__ import annotations

from typing import Any

from torchpruner_core.capture.registry import aten
from torchpruner_core.capture.tape import Call, Value
from torchpruner_core.capture.writer import Writer


@aten("_to_copy")
def to_copy(g: Writer, call: Call, x: Value, **rest: Any) -> str:
    return g.cast(x, call.out.dtype)


@aten("clone lift_fresh_copy detach_copy alias_copy view_copy _lazy_clone")
def clone(g: Writer, call: Call, x: Value, *rest: Any, **more: Any) -> str:
    return g.name(x)


@aten("detach alias lift_fresh lift _conj resolve_conj resolve_neg _neg_view")
def same(g: Writer, call: Call, x: Value) -> str:
    if call.name == "aten::_neg_view":
        return g.op("Neg", x)
    return g.name(x)


@aten("copy")
def copy(g: Writer, call: Call, x: Value, source: Value, non_blocking: bool = False) -> str:
    """A tensor overwritten: what is left of it is its shape and dtype."""
    name = g.cast(source, x.dtype)
    return name if source.shape == x.shape else g.op("Expand", name, g.ints(x.shape))


@aten("type_as")
def type_as(g: Writer, call: Call, x: Value, like: Value) -> str:
    return g.cast(x, like.dtype)


@aten(
    "_assert_async _assert_scalar _functional_assert_async _assert_tensor_metadata",
    "sym_constrain_range sym_constrain_range_for_size",
)
def nothing(g: Writer, call: Call, *args: Any, **kwargs: Any) -> list[str]:
    return []
