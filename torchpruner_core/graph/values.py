"""The small constants that shapes and indices are computed from, evaluated where they are asked for.

Nothing here runs the model: a value is known where it follows from stored constants and from
shapes. Beside each value stands where its entries come from: sizes of other tensors and their
products follow by themselves when those are cut; numbers computed from sizes in another way (half
of a width) change too, but perhaps not as the cut needs it; the others are literals of the program.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.graph.dtypes import np_dtype
from torchpruner_core.graph.written import WrittenNode, WrittenTensor

Array = NDArray[Any]

SIZE_LIMIT = 1 << 20
"""Larger constants (elements) are never evaluated."""


MOVES_IN_A_ROW = 200
"""Where an entry was copied from is not followed further back than this."""

LITERAL, COMPUTED, SIZE = 0, 1, 2
"""Where an entry comes from: the program, a computation with sizes, a size or a product of sizes."""


@dataclass(frozen=True, slots=True)
class Known:
    """A value, and where each of its entries comes from (same shape, int8)."""

    value: Array
    source: NDArray[np.int8]


_PENDING = Known(np.empty(0), np.empty(0, dtype=np.int8))


@dataclass(slots=True)
class Values:
    """Constants of one graph, by value name.

    ``stored`` gives a stored tensor's contents or ``None``; ``producers`` the operator of a
    computed value; ``shapes`` and ``dtypes`` what is known of each value's shape and dtype.
    """

    stored: Callable[[str], Array | None]
    producers: dict[str, Any] = field(default_factory=dict)
    shapes: MutableMapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    opsets: Sequence[Any] = ()
    _memo: dict[str, Known | None] = field(default_factory=dict)
    _copied: dict[str, NDArray[np.int64] | None] = field(default_factory=dict)
    _ranges: list[tuple[str, str]] = field(default_factory=list)

    def known(self, name: str) -> Array | None:
        """Return the value called ``name``, or ``None`` where only running the model tells it."""
        found = self._find(name)
        return None if found is None else found.value

    def constants(self, names: Iterable[str]) -> dict[str, Array]:
        """Return those of ``names`` that follow from stored constants alone.

        To be asked before any shape is known; what needs one can still be found afterwards.
        """
        found = {name: self._find(name) for name in names}
        self._memo = {name: known for name, known in self._memo.items() if known is not None}
        return {name: known.value for name, known in found.items() if known is not None}

    def partial(self, name: str) -> list[int] | None:
        """Return a list of sizes, -1 where an entry is not known; ``None`` if even its length is not.

        Follows concatenations, and the ``Where(sizes == -1, 1, sizes)`` that exporters put around them.
        """
        known = self.known(name)
        if known is not None:
            return [int(size) for size in known.ravel().tolist()]
        producer = self.producers.get(name)
        if producer is not None and producer.op_type == "Where":
            return self.partial(producer.input[2])
        if producer is not None and producer.op_type in _SAME_NUMBERS:
            same = self.partial(producer.input[0])
            if same is not None:
                return same
        if producer is not None and producer.op_type == "Gather":
            source, index = self.producers.get(producer.input[0]), self.known(producer.input[1])
            shape = (
                self.shapes.get(source.input[0]) if source is not None and source.input else None
            )
            if (
                source is not None
                and source.op_type == "Shape"
                and shape is not None
                and index is not None
            ):
                return [shape[int(at)] for at in index.ravel().tolist()]
        if producer is None or producer.op_type != "Concat":
            shape = self.shapes.get(name)
            return (
                [-1] * shape[0] if shape is not None and len(shape) == 1 and shape[0] > 0 else None
            )
        parts = [self.partial(part) for part in producer.input]
        return [size for part in parts for size in part or ()] if all(parts) else None

    def adapts(self, name: str) -> NDArray[np.bool_] | None:
        """Return which entries of a known value depend on other tensors' shapes."""
        found = self._find(name)
        return None if found is None else found.source > LITERAL

    def follows(self, name: str) -> NDArray[np.bool_] | None:
        """Return which entries of a known value are sizes of other tensors, or products of them."""
        found = self._find(name)
        return None if found is None else found.source == SIZE

    def stored_in(self, name: str) -> tuple[str, ...] | None:
        """Return the stored tensors that every entry of a known value was copied from, unchanged.

        ``None`` where some entry was computed, or is the size of a tensor.
        """
        found = self._places(name)
        if found is None or not found.size or (found < 0).any():
            return None
        places = [self._ranges[int(k)] for k in np.unique(found // SIZE_LIMIT)]
        return None if any(kind == "size" for kind, _ in places) else tuple(n for _, n in places)

    def sizes_in(self, name: str) -> list[tuple[str, int] | None]:
        """Return, for each entry of a known list, the tensor and axis whose very size it is."""
        found = self._places(name)
        sizes: list[tuple[str, int] | None] = []
        for number in () if found is None else found.ravel().tolist():
            kind, tensor = self._ranges[number // SIZE_LIMIT] if number >= 0 else ("", "")
            sizes.append((tensor, number % SIZE_LIMIT) if kind == "size" else None)
        return sizes

    def _places(self, name: str, depth: int = 0) -> NDArray[np.int64] | None:
        """Return where each entry of a value was copied from: a number, or -1 where it was computed.

        Entry ``k`` of stored tensor or shape ``r`` has the number ``r * SIZE_LIMIT + k``.
        """
        if name not in self._copied:
            self._copied[name] = None if depth > MOVES_IN_A_ROW else self._trace(name, depth)
        return self._copied[name]

    def _trace(self, name: str, depth: int) -> NDArray[np.int64] | None:
        known, producer = self.known(name), self.producers.get(name)
        if known is None:
            return None
        if self.stored(name) is not None or producer is None or producer.op_type == "Constant":
            return self._numbers("stored", name, known.shape)
        if producer.op_type == "Shape":
            given = attributes(producer)
            rank = len(self.shapes[producer.input[0]] or ())
            numbers = self._numbers("size", producer.input[0], (rank,))
            return numbers[given.get("start", 0) : given.get("end", rank)]
        if producer.op_type in _CONVERSIONS:
            return self._places(producer.input[0], depth + 1)
        moves, rule = _RULES.get(producer.op_type, (None, None))
        if moves is None or moves == "all" or rule is None:
            return None
        read: list[Any] = []
        for k, value in enumerate(producer.input):
            operand = self.known(value) if value else None
            if operand is not None and (k in moves or -1 in moves):
                places = self._places(value, depth + 1)
                operand = np.full(operand.shape, -1, np.int64) if places is None else places
            read.append(operand)
        try:
            found = rule(attributes(producer), *read)
        except (ValueError, TypeError, IndexError, KeyError):
            return None
        if isinstance(found, list):
            found = found[list(producer.output).index(name)]
        places = np.asarray(found)
        return places.astype(np.int64) if places.shape == known.shape else None

    def _numbers(self, kind: str, name: str, shape: tuple[int, ...]) -> NDArray[np.int64]:
        self._ranges.append((kind, name))
        first = (len(self._ranges) - 1) * SIZE_LIMIT
        return first + np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)

    def _find(self, name: str) -> Known | None:
        """Evaluate ``name`` and what it needs, without recursion: graphs may be deep, or read themselves."""
        pending, begun = [name], set[str]()
        while pending:
            current = pending[-1]
            if current in self._memo:
                pending.pop()
                continue
            stored = self.stored(current)
            producer = self.producers.get(current)
            if stored is not None or producer is None:
                self._memo[current] = _literal(stored)
                pending.pop()
                continue
            if producer.op_type in ("Shape", "Size"):
                self._memo[current] = self._shape_of(producer)
                pending.pop()
                continue
            if producer.op_type not in _RULES or not self._is_small(current):
                for output in producer.output:
                    self._memo.setdefault(output, None)
                continue
            needed = _operands(producer)
            if any(self._memo.get(i, _PENDING) is None for i in needed):
                for output in producer.output:
                    self._memo[output] = None
                continue
            missing = [i for i in needed if i not in self._memo]
            if not missing:
                self._evaluate(producer)
            elif current in begun:
                for output in producer.output:
                    self._memo[output] = None  # what it needs needs it
            else:
                begun.add(current)
                pending.extend(i for i in missing if i not in begun)
        return self._memo[name]

    def edited(
        self,
        shapes: Mapping[str, tuple[int, ...] | None],
        stored: Callable[[str], Array | None] | None = None,
    ) -> Values:
        """Return the constants as they are when some tensors have other shapes, or other contents."""
        return replace(
            self,
            stored=stored or self.stored,
            shapes=ChainMap(dict(shapes), self.shapes),
            _memo={},
            _copied={},
            _ranges=[],
        )

    def _is_small(self, name: str) -> bool:
        shape = self.shapes.get(name)
        return shape is None or int(np.prod([max(n, 1) for n in shape])) <= SIZE_LIMIT

    def _shape_of(self, producer: Any) -> Known | None:
        shape = self.shapes.get(producer.input[0])
        if shape is None or any(size < 0 for size in shape):
            return None
        if producer.op_type == "Size":
            value = np.array(np.prod(shape, dtype=np.int64))
        else:
            given = attributes(producer)
            value = np.array(shape, dtype=np.int64)[
                given.get("start", 0) : given.get("end", len(shape))
            ]
        return Known(value, np.full(value.shape, SIZE, dtype=np.int8))

    def _evaluate(self, producer: Any) -> None:
        if producer.op_type == "CastLike":
            self._cast_like(producer)
            return
        inputs = [self._memo[i] if i else None for i in producer.input]
        outputs: Sequence[Known] | None = None
        if all(
            known is not None or not name
            for known, name in zip(inputs, producer.input, strict=True)
        ):
            try:
                outputs = _run(producer, inputs)
            except (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError):
                outputs = None
        for position, output in enumerate(producer.output):
            self._memo[output] = outputs[position] if outputs and position < len(outputs) else None

    def _cast_like(self, producer: Any) -> None:
        """A cast to the dtype of a tensor whose contents do not matter."""
        known, dtype = self._memo[producer.input[0]], self.dtypes.get(producer.output[0])
        if known is None or not dtype or dtype == "undefined":
            self._memo[producer.output[0]] = None
        else:
            self._memo[producer.output[0]] = Known(
                known.value.astype(np_dtype(dtype)), known.source
            )


_PRODUCTS = frozenset({"Mul", "ReduceProd"})
_CONVERSIONS = frozenset({"Cast", "CastLike"})
_SAME_NUMBERS = frozenset({"Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze"})


def _operands(producer: Any) -> list[str]:
    """Return the inputs whose contents an operator reads."""
    return [i for i in producer.input[: 1 if producer.op_type == "CastLike" else None] if i]


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    if type(node) is WrittenNode:
        return dict(node.settings)
    from onnx.helper import get_attribute_value

    found = {}
    for attribute in node.attribute:
        read = _READERS.get(attribute.type)
        if read is not None and not attribute.ref_attr_name:
            found[attribute.name] = read(attribute)
        else:
            found[attribute.name] = get_attribute_value(attribute)
    return found


_READERS: dict[int, Callable[[Any], Any]] = {
    1: attrgetter("f"),
    2: attrgetter("i"),
    3: lambda attribute: attribute.s.decode(),
    6: lambda attribute: list(attribute.floats),
    7: lambda attribute: list(attribute.ints),
}
"""How an attribute is read, by ``AttributeProto.type``, where it is a number, a text or a list of numbers."""


def tensor_value(tensor: Any) -> Array | None:
    """Return a stored tensor's contents, or ``None`` where they were stripped."""
    if type(tensor) is WrittenTensor:
        return tensor.array()
    from onnx import numpy_helper

    expected = int(np.prod(tensor.dims)) if tensor.dims else 1
    if expected and not (
        tensor.raw_data
        or tensor.float_data
        or tensor.int32_data
        or tensor.int64_data
        or tensor.double_data
        or tensor.uint64_data
        or tensor.string_data
    ):
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        return None


def _literal(value: Array | None) -> Known | None:
    if value is None or value.size > SIZE_LIMIT:
        return None
    return Known(value, np.zeros(value.shape, dtype=np.int8))


def _run(node: Any, inputs: Sequence[Known | None]) -> list[Known]:
    given = attributes(node)
    moves, rule = _RULES[node.op_type]
    values = [None if known is None else known.value for known in inputs]
    with np.errstate(all="ignore"):
        results = rule(given, *values)
        results = results if isinstance(results, list) else [results]
        results = [np.asarray(result) for result in results]
        if moves is None:
            sources = [np.zeros(result.shape, dtype=np.int8) for result in results]
        elif moves == "all":
            operands = [known for known in inputs if known is not None]
            sources = [_arithmetic(node.op_type, operands, result) for result in results]
        else:
            moved = [
                None
                if known is None
                else known.source
                if k in moves or -1 in moves
                else known.value
                for k, known in enumerate(inputs)
            ]
            found = rule(given, *moved)
            sources = [
                np.asarray(f).astype(np.int8)
                for f in (found if isinstance(found, list) else [found])
            ]
    return [Known(value, source) for value, source in zip(results, sources, strict=True)]


def _arithmetic(operator: str, operands: Sequence[Known], result: Array) -> NDArray[np.int8]:
    """Return where the entries of an arithmetic result come from."""
    touched = np.zeros(result.shape, dtype=np.bool_)
    plain = np.ones(result.shape, dtype=np.bool_)
    for known in operands:
        sized = (known.source == SIZE) | ((known.value == 1) & (operator in _PRODUCTS))
        try:
            touched |= known.source > LITERAL
            plain &= sized
        except ValueError:  # a reduction: its shape is not that of its operand
            touched |= bool((known.source > LITERAL).any())
            plain &= bool(sized.all())
    plain &= operator in _PRODUCTS or operator in _CONVERSIONS
    return np.where(touched, np.where(plain, SIZE, COMPUTED), LITERAL).astype(np.int8)


def _constant(given: dict[str, Any]) -> Array:
    if "value" in given:
        value = tensor_value(given["value"])
        if value is None:
            raise ValueError("stripped")
        return value
    for key, dtype in (
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        if key in given:
            return np.array(given[key], dtype=dtype)
    raise ValueError("not a numeric constant")


def _axes(given: dict[str, Any], axes: Array | None) -> tuple[int, ...] | None:
    found = given.get("axes") if axes is None else axes.ravel().tolist()
    return None if found is None else tuple(int(axis) for axis in found)


def _slice(
    given: dict[str, Any],
    x: Array,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> Array:
    starts = given.get("starts") if starts is None else starts.tolist()
    ends = given.get("ends") if ends is None else ends.tolist()
    where = _axes(given, axes) or tuple(range(len(starts)))
    steps = [1] * len(starts) if steps is None else steps.tolist()
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, starts, ends, steps, strict=True):
        size = x.shape[axis]
        stop = None if step < 0 and end < -size else end
        index[axis] = slice(start, stop, step)
    return x[tuple(index)]


def _reshape(given: dict[str, Any], x: Array, shape: Array) -> Array:
    wanted = [int(n) for n in shape.tolist()]
    if not given.get("allowzero"):
        wanted = [x.shape[k] if n == 0 else n for k, n in enumerate(wanted)]
    return x.reshape(wanted)


def _unsqueeze(given: dict[str, Any], x: Array, axes: Array | None = None) -> Array:
    where = _axes(given, axes) or ()
    rank = x.ndim + len(where)
    for axis in sorted(axis % rank for axis in where):
        x = np.expand_dims(x, axis)
    return x


def _squeeze(given: dict[str, Any], x: Array, axes: Array | None = None) -> Array:
    return np.squeeze(x, axis=_axes(given, axes))


def _cast(given: dict[str, Any], x: Array) -> Array:
    from onnx.helper import tensor_dtype_to_np_dtype

    return (
        x
        if x.dtype == np.bool_ and given.get("keep")
        else x.astype(tensor_dtype_to_np_dtype(given["to"]))
    )


def _split(given: dict[str, Any], x: Array, split: Array | None = None) -> list[Array]:
    axis = given.get("axis", 0)
    sizes = given.get("split") if split is None else split.tolist()
    if sizes is None:
        return list(np.array_split(x, given["num_outputs"], axis=axis))
    return np.split(x, np.cumsum(sizes)[:-1], axis=axis)


def _div(given: dict[str, Any], a: Array, b: Array) -> Array:
    if np.issubdtype(a.dtype, np.integer):
        whole: Array = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))
        return whole.astype(a.dtype)
    quotient: Array = np.divide(a, b)
    return quotient


def _expand(given: dict[str, Any], x: Array, shape: Array) -> Array:
    target = np.broadcast_shapes(x.shape, tuple(int(n) for n in shape.tolist()))
    if np.prod(target) > SIZE_LIMIT:
        raise ValueError("large")
    return np.broadcast_to(x, target)


def _constant_of_shape(given: dict[str, Any], shape: Array) -> Array:
    value = tensor_value(given["value"]) if "value" in given else np.zeros(1, np.float32)
    if value is None or np.prod(shape) > SIZE_LIMIT:
        raise ValueError("large")
    return np.full(tuple(shape.tolist()), value.ravel()[0])


def _range(given: dict[str, Any], start: Array, limit: Array, delta: Array) -> Array:
    if abs((float(limit) - float(start)) / float(delta)) > SIZE_LIMIT:
        raise ValueError("large")
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


def _clip(given: dict[str, Any], x: Array, low: Any = None, high: Any = None) -> Array:
    low, high = (given.get("min", low), given.get("max", high))
    return x if low is None and high is None else np.clip(x, low, high)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(given: dict[str, Any], x: Array, axes: Array | None = None) -> Any:
        where = _axes(given, axes)
        return function(x, axis=where, keepdims=bool(given.get("keepdims", 1)))

    return rule


def _on_values(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda given, *values: function(*values)


_MOVES = frozenset({0})
_ALL_MOVE = frozenset({-1})

_RULES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "Constant": (None, _constant),
    "ConstantOfShape": (None, _constant_of_shape),
    "Range": (None, _range),
    "Identity": (_MOVES, _on_values(lambda x: x)),
    "Cast": ("all", _cast),
    "CastLike": ("all", _on_values(lambda x: x)),
    "Reshape": (_MOVES, _reshape),
    "Unsqueeze": (_MOVES, _unsqueeze),
    "Squeeze": (_MOVES, _squeeze),
    "Transpose": (_MOVES, lambda given, x: np.transpose(x, given.get("perm"))),
    "Flatten": (
        _MOVES,
        lambda given, x: x.reshape(int(np.prod(x.shape[: given.get("axis", 1)])), -1),
    ),
    "Slice": (_MOVES, _slice),
    "Gather": (
        _MOVES,
        lambda given, x, i: np.take(x, i.astype(np.int64), axis=given.get("axis", 0)),
    ),
    "Concat": (_ALL_MOVE, lambda given, *parts: np.concatenate(parts, axis=given["axis"])),
    "Split": (_MOVES, _split),
    "Expand": (_MOVES, _expand),
    "Tile": (_MOVES, _on_values(lambda x, repeats: np.tile(x, repeats.tolist()))),
    "Add": ("all", _on_values(np.add)),
    "Sub": ("all", _on_values(np.subtract)),
    "Mul": ("all", _on_values(np.multiply)),
    "Div": ("all", _div),
    "Mod": ("all", lambda given, a, b: np.fmod(a, b) if given.get("fmod") else np.mod(a, b)),
    "Pow": ("all", _on_values(lambda a, b: np.power(a, b).astype(a.dtype))),
    "Min": ("all", _on_values(lambda *v: np.minimum.reduce(v))),
    "Max": ("all", _on_values(lambda *v: np.maximum.reduce(v))),
    "Clip": ("all", _clip),
    "Relu": ("all", _on_values(lambda x: np.maximum(x, 0))),
    "Sign": ("all", _on_values(np.sign)),
    "Neg": ("all", _on_values(np.negative)),
    "Abs": ("all", _on_values(np.abs)),
    "Sqrt": ("all", _on_values(np.sqrt)),
    "Reciprocal": ("all", _on_values(np.reciprocal)),
    "Floor": ("all", _on_values(np.floor)),
    "Ceil": ("all", _on_values(np.ceil)),
    "Round": ("all", _on_values(np.round)),
    "Equal": (None, _on_values(np.equal)),
    "Greater": (None, _on_values(np.greater)),
    "GreaterOrEqual": (None, _on_values(np.greater_equal)),
    "Less": (None, _on_values(np.less)),
    "LessOrEqual": (None, _on_values(np.less_equal)),
    "Not": (None, _on_values(np.logical_not)),
    "And": (None, _on_values(np.logical_and)),
    "Or": (None, _on_values(np.logical_or)),
    "Where": (frozenset({1, 2}), _on_values(np.where)),
    "ReduceProd": ("all", _reduce(np.prod)),
    "ReduceSum": ("all", _reduce(np.sum)),
    "ReduceMax": ("all", _reduce(np.max)),
    "ReduceMin": ("all", _reduce(np.min)),
    "CumSum": (None, lambda given, x, axis: np.cumsum(x, axis=int(axis))),
    "NonZero": (None, _on_values(lambda x: np.array(np.nonzero(x), dtype=np.int64))),
}
