"""Views undone: what a write through a view means for the tensor that is viewed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchpruner_core.capture.errors import CaptureError
from torchpruner_core.capture.tape import Value

Record = Callable[[str, tuple[Any, ...], Value], Value]
"""``(operator, arguments, a value of the result's shape and dtype)`` to the recorded result."""

RESHAPES = frozenset(
    "aten::" + name
    for name in (
        "view",
        "_unsafe_view",
        "reshape",
        "_reshape_alias",
        "unsqueeze",
        "squeeze",
        "flatten",
        "unflatten",
        "view_as",
        "reshape_as",
    )
)


_SAME_MEMORY = {
    "aten::view_as_real": "aten::view_as_complex",
    "aten::view_as_complex": "aten::view_as_real",
    "aten::_conj": "aten::_conj",
}
"""Views of complex numbers, and what undoes them."""


class Step:
    """One view on the way from a tensor to one that shares its memory.

    ``args`` and ``kwargs`` are the view's, without the tensor; ``position`` counts its outputs, whose
    shapes are ``shapes``.
    """

    __slots__ = ("args", "kwargs", "name", "overload", "position", "shapes")

    def __init__(
        self,
        name: str,
        overload: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        position: int,
        shapes: list[tuple[int, ...]],
    ) -> None:
        self.name = name
        self.overload = overload
        self.args = args
        self.kwargs = kwargs
        self.position = position
        self.shapes = shapes

    def _argument(self, place: int, name: str, default: Any = None) -> Any:
        if place < len(self.args):
            return self.args[place]
        return self.kwargs.get(name, default)


def written_through(step: Step, base: Value, new: Value, record: Record) -> Value:
    """Return ``base`` after ``new`` was written to what ``step`` shows of it.

    Raises ``CaptureError`` where the view has no inverse.
    """
    name, rank = step.name, base.rank
    if name in RESHAPES:
        return record("aten::reshape", (new, list(base.shape)), base)
    if name in _SAME_MEMORY:
        return record(_SAME_MEMORY[name], (new,), base)
    if name in ("aten::transpose", "aten::t", "aten::swapaxes", "aten::swapdims"):
        a, b = (0, rank - 1) if name == "aten::t" else (step.args[0], step.args[1])
        return record("aten::transpose", (new, a, b), base) if rank > 1 else new
    if name == "aten::permute":
        order = [int(d) % rank for d in step.args[0]]
        return record("aten::permute", (new, [order.index(k) for k in range(rank)]), base)
    if name == "aten::slice":
        bounds = tuple(
            step._argument(k, key, default)
            for k, (key, default) in enumerate(
                (("dim", 0), ("start", None), ("end", None), ("step", 1))
            )
        )
        return record("aten::slice_scatter", (base, new, *bounds), base)
    if name == "aten::narrow":
        dim, start, length = step.args
        return record("aten::slice_scatter", (base, new, dim, start, start + length, 1), base)
    if name == "aten::select":
        return record("aten::select_scatter", (base, new, *step.args), base)
    if name in ("aten::split", "aten::split_with_sizes", "aten::chunk", "aten::tensor_split"):
        dim = int(step._argument(1, "dim", 0)) % rank
        start = sum(shape[dim] for shape in step.shapes[: step.position])
        stop = start + step.shapes[step.position][dim]
        return record("aten::slice_scatter", (base, new, dim, start, stop, 1), base)
    if name == "aten::unbind":
        dim = int(step._argument(0, "dim", 0))
        return record("aten::select_scatter", (base, new, dim, step.position), base)
    if name == "aten::diagonal":
        bounds = tuple(
            step._argument(k, key, default)
            for k, (key, default) in enumerate((("offset", 0), ("dim1", 0), ("dim2", 1)))
        )
        return record("aten::diagonal_scatter", (base, new, *bounds), base)
    if name in ("aten::expand", "aten::expand_as") and base.shape == new.shape:
        return new
    raise CaptureError(f"forward writes in place to what {name} shows of a tensor")
