"""The shapes of a file's inputs: declared, given by the caller, or proposed where neither says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import InputSpecError
from torchpruner_core.graph.dtypes import dtype_name

if TYPE_CHECKING:
    import onnx

InputSpecs = Mapping[str, Any] | Sequence[Any] | None
"""By name or in order: a ``TensorSpec``, a plain shape such as ``[1, 3, 224, 224]``, or an array."""

Declared = list[int | str | None]
"""One entry an axis: a size, a symbol's name, or ``None`` where nothing is said."""

PROPOSED_IMAGE, PROPOSED_LENGTH, PROPOSED_FEATURES = 224, 16, 64


def open_inputs(model: onnx.ModelProto) -> list[Any]:
    """Return the declared inputs that are not initializers (older files list those too)."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [info for info in model.graph.input if info.name not in stored]


def declared(info: Any) -> Declared | None:
    """Return what a file declares of an input's shape; ``None`` where not even its rank is known.

    Sizes of -1 and 0 are read as open, as several converters write them.
    """
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
        for d in tensor.shape.dim
    ]


def set_input_shapes(model: onnx.ModelProto, inputs: InputSpecs) -> dict[str, TensorSpec]:
    """Write the inputs' shapes into ``model``; return what was given, by input name.

    A size that two inputs call by one symbol need be given for one of them only. Raises
    ``InputSpecError``, with proposed shapes where sizes are left open.
    """
    import onnx

    infos = open_inputs(model)
    named = _by_name(infos, inputs)
    symbols: dict[str, int] = {}
    for info in infos:
        if info.name in named:
            known = _checked(info, named[info.name])
            for dim, size in zip(known or (), named[info.name].shape, strict=False):
                if isinstance(dim, str):
                    symbols.setdefault(dim, size)
    missing = []
    for info in infos:
        if not info.type.HasField("tensor_type"):
            continue
        tensor = info.type.tensor_type
        if info.name in named:
            shape: Sequence[Any] = named[info.name].shape
        else:
            known = declared(info)
            shape = [symbols.get(d, d) if isinstance(d, str) else d for d in known or ()]
            if known is None or not all(isinstance(size, int) for size in shape):
                missing.append(info)
                continue
        info.type.CopyFrom(onnx.helper.make_tensor_type_proto(tensor.elem_type, list(shape)))
    if missing:
        raise _left_open(missing, infos, symbols)
    return named


def _left_open(missing: Sequence[Any], infos: Sequence[Any], symbols: dict[str, int]) -> Exception:
    shapes = propose(infos, symbols)
    first = missing[0]
    known = declared(first)
    said = "no shape" if known is None else f"dynamic dimensions, {_shown(known)}"
    wanted = {info.name: shapes[info.name] for info in missing}
    proposal = ", ".join(
        f"{name}={'x'.join(map(str, shape)) or 'scalar'}" for name, shape in wanted.items()
    )
    return InputSpecError(
        f"input {first.name!r} has {said}; give its shape, for example {proposal}",
        input=first.name,
        expected=None if known is None else _shown(known),
        proposed={name: list(shape) for name, shape in wanted.items()},
    )


def propose(
    infos: Sequence[Any], symbols: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Return a shape for every input, by name, with sensible sizes where the file leaves them open.

    The batch is 1, images are 224 by 224, sequences 16 long; one symbol has one size everywhere.
    """
    chosen = dict(symbols or {})
    shapes: dict[str, tuple[int, ...]] = {}
    for info in infos:
        known = declared(info)
        if known is None:
            known = [None, 3, None, None] if _is_float(info) else [None, None]
        sizes = []
        for axis, dim in enumerate(known):
            if isinstance(dim, int):
                sizes.append(dim)
                continue
            size = chosen.get(dim or "", _size(known, axis, _is_float(info)))
            if dim:
                chosen[dim] = size
            sizes.append(size)
        shapes[info.name] = tuple(sizes)
    return shapes


def _is_float(info: Any) -> bool:
    return dtype_name(info.type.tensor_type.elem_type).startswith(("float", "bfloat", "double"))


def _size(known: Declared, axis: int, is_float: bool) -> int:
    name = str(known[axis] or "").lower()
    if axis == 0 or "batch" in name:
        return 1
    if is_float and len(known) >= 4 and axis >= 2:
        return PROPOSED_IMAGE
    if is_float and len(known) == 4 and axis == 1:
        return 3
    if is_float and len(known) == 2:
        return PROPOSED_FEATURES
    return PROPOSED_LENGTH


def _checked(info: Any, spec: TensorSpec) -> Declared | None:
    """Return what the file declares of an input, which ``spec`` fits."""
    known = declared(info)
    if known is not None and not _fits(known, spec.shape):
        raise InputSpecError(
            f"input {info.name!r} has the shape {_shown(known)} in the file, and "
            f"{list(spec.shape)} was given",
            input=info.name,
            expected=_shown(known),
            received=list(spec.shape),
        )
    element = info.type.tensor_type.elem_type
    if spec.dtype and element and spec.dtype != dtype_name(element):
        raise InputSpecError(
            f"input {info.name!r} has the dtype {dtype_name(element)} in the file, "
            f"and {spec.dtype} was given",
            input=info.name,
            expected=dtype_name(element),
            received=spec.dtype,
        )
    return known


def _by_name(infos: Sequence[Any], inputs: InputSpecs) -> dict[str, TensorSpec]:
    names = [info.name for info in infos]
    if inputs is None:
        return {}
    if isinstance(inputs, Mapping):
        pairs = [(name, _spec(name, value)) for name, value in inputs.items()]
        return _known(pairs, names)
    if len(inputs) and all(isinstance(size, int) for size in inputs):
        inputs = (inputs,)  # one plain shape
    inputs = [_spec("", value) for value in inputs]
    if len(inputs) > len(names):
        raise InputSpecError(
            f"{len(inputs)} inputs were given, and the model takes {len(names)}: {', '.join(names)}",
            expected=names,
            received=len(inputs),
        )
    if any(spec.name for spec in inputs):
        return _known([(spec.name, spec) for spec in inputs], names)
    return dict(zip(names, inputs, strict=False))


def _spec(name: str, value: Any) -> TensorSpec:
    """Return a shape as a spec; a plain one leaves the dtype to the file (an empty name)."""
    if isinstance(value, TensorSpec):
        return value
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        sizes, dtype = value.shape, str(value.dtype).removeprefix("torch.")
    else:
        sizes, dtype = value, ""
    try:
        if isinstance(sizes, str | bytes | Mapping):
            raise TypeError
        return TensorSpec(name, tuple(index(size) for size in sizes), dtype)
    except TypeError:
        raise InputSpecError(
            f"the shape of an input is a list of integers such as [1, 3, 224, 224], not {value!r:.80}",
            input=name,
            received=repr(value)[:80],
        ) from None


def _known(pairs: Sequence[tuple[str, TensorSpec]], names: Sequence[str]) -> dict[str, TensorSpec]:
    unknown = [name for name, _ in pairs if name not in names]
    if unknown:
        raise InputSpecError(
            f"the model has no input called {unknown[0]!r}; its inputs are {', '.join(names)}",
            expected=names,
            received=unknown,
        )
    return dict(pairs)


def _fits(known: Declared, shape: Sequence[int]) -> bool:
    return len(known) == len(shape) and all(
        not isinstance(d, int) or d == n for d, n in zip(known, shape, strict=True)
    )


def _shown(known: Declared) -> str:
    return "[" + ", ".join(str(d) if isinstance(d, int) else "?" for d in known) + "]"
