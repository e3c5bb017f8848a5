"""The recorder: what PyTorch's dispatcher sees of one forward pass, as a :class:`Tape`.

It stands below autograd, where an operator such as ``aten::linear`` is still one call. Nothing large
is computed: a call gives back an empty tensor of the right shape, whose memory is never touched.
What follows from literals alone is computed, and so is what is small, since Python code may ask
for it; where it asks for more, :class:`ValuesNeeded` ends the run, and a second one computes all.

Views share memory as they really do, so every tensor knows the one it is a view of (its *root*)
and the steps that lead there. A write in place gives the root a new value, and each view of it takes
its value anew when it is next read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from torchpruner_core.capture.aliases import Step, written_through
from torchpruner_core.capture.aten import RUNNING_STATISTICS, Operator, operator
from torchpruner_core.capture.errors import CaptureError, ValuesNeeded
from torchpruner_core.capture.held import Held, contents_of, plain, plain_names
from torchpruner_core.capture.outputs import device_of, empty_outputs
from torchpruner_core.capture.tape import Call, Frozen, Kind, Tape, Value

SMALL_FLOATS = 1 << 10
SMALL_INTEGERS = 1 << 20
"""What depends on inputs or parameters is computed up to so many elements."""

_ASK_METADATA = frozenset(
    "aten::" + name
    for name in ("size", "stride", "dim", "numel", "is_complex", "is_floating_point")
) | {"aten::is_contiguous", "aten::storage_offset", "aten::is_same_size", "aten::can_cast"}

_NUMBERS = frozenset({int, float, bool, type(None), str})


class Recorder(TorchDispatchMode):
    """Records calls while it is entered; ``module`` is the path of the module that runs.

    ``translated`` says which operators are recorded whole; others are taken apart where PyTorch can.
    ``compute`` computes everything. ``find`` names a tensor that the run reads and nobody gave.
    """

    def __init__(
        self,
        tape: Tape,
        translated: Callable[[Operator], bool],
        find: Callable[[torch.Tensor], tuple[str, Kind]],
        *,
        compute: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape
        self.module = ""
        self.compute = compute
        self._translated = translated
        self._find = find
        self._held: dict[int, Held] = {}
        self._saved: dict[int, tuple[torch.Tensor, torch.Tensor, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to be skipped, the compiler would have to be imported first

    # What the tape knows of a tensor

    def value(self, tensor: torch.Tensor) -> Value:
        """Return the value that a tensor holds now."""
        held = self._get(tensor)
        self._publish(held)
        return held.value

    def own(self, tensor: torch.Tensor, kind: Kind, name: str) -> Value:
        """Tell of a tensor that is not computed in the run: an input, or the model's own."""
        value = Value(0, tuple(tensor.shape), tensor.dtype, kind, name)
        held = Held(tensor, value, exact=not tensor.is_meta)
        held.borrowed = True
        self._held[id(tensor)] = held
        value.fixed = kind == "constant" and held.exact
        return value

    def give(self, tensor: torch.Tensor, contents: torch.Tensor) -> None:
        """Tell the contents of a tensor that has none itself."""
        held = self._held[id(tensor)]
        held.shadow, held.exact = contents, True

    def _new(self, shape: Any, dtype: torch.dtype) -> Value:
        return Value(0, tuple(shape), dtype, "computed")

    def _get(self, tensor: torch.Tensor) -> Held:
        held = self._held.get(id(tensor))
        if held is None:
            name, kind = self._find(tensor)
            value = self.own(tensor, kind, name)
            own = self.tape.stored.get(name, tensor)  # a run may put another in a parameter's place
            if name and kind != "constant" and own is tensor:
                self.tape.values.setdefault(name, value)
            return self._held[id(tensor)]
        root = held.root
        if root is not held and held.version != root.version:
            self._refresh(held)
        return held

    def _refresh(self, held: Held) -> None:
        """Take a view's value anew after a write to what it shows."""
        value = held.root.value
        if value.fixed:
            fixed = self._new(held.tensor.shape, held.tensor.dtype)
            fixed.fixed = True
            value = fixed
        else:
            for step in held.steps:
                value = self._view_value(step, value)
        held.value, held.version = value, held.root.version

    def _view_value(self, step: Step, base: Value) -> Value:
        call = Call(step.name, step.overload, (base, *step.args), step.kwargs, self.module)
        outputs = [self._new(shape, base.dtype) for shape in step.shapes]
        self._record(call, outputs)
        return outputs[step.position]

    def _publish(self, held: Held) -> None:
        """Let the tape hold a fixed value's contents."""
        value = held.value
        if value.fixed and value.data is None:
            value.data = held.contents
            held.root.published.append(value)

    def _record(self, call: Call, outputs: list[Value]) -> None:
        call.outputs = outputs
        for value in outputs:
            value.call = call
        self.tape.calls.append(call)

    def _values(self, args: Any, helds: list[Held]) -> list[Any]:
        """Return arguments with values for tensors; what is known of the tensors goes to ``helds``."""
        found: list[Any] = []
        for arg in args:
            if isinstance(arg, torch.Tensor):
                held = self._get(arg)
                helds.append(held)
                found.append(held)
            elif type(arg) in (list, tuple):
                found.append(self._values(arg, helds))
            else:
                found.append(arg)
        return found

    def _read_arguments(self, args: Any, helds: list[Held]) -> list[Any]:
        """Return arguments as the tape has them; what is known of the tensors goes to ``helds``."""
        found: list[Any] = []
        for arg in args:
            kind = type(arg)
            if kind in _NUMBERS:
                found.append(arg)
            elif isinstance(arg, torch.Tensor):
                held = self._held.get(id(arg))
                if held is None or held.root is not held:
                    held = self._get(arg)
                helds.append(held)
                found.append(held.value)
            elif kind is list or kind is tuple:
                found.append(self._read_arguments(arg, helds))
            else:
                found.append(arg)
        return found

    # The dispatcher's calls

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        op = operator(func)
        given = dict(kwargs) if kwargs else {}
        special = _SPECIAL.get(op.name)
        if special is not None and (not op.writes or special is Recorder._observed):
            result = special(self, op, args, given)
            if result is not NotImplemented:
                return result
        if op.inplace_view and self._translated(op):
            return self._turn(op, args, given)
        if op.writes or op.writes_names:
            return self._write(op, args, given)
        if op.reads_data:
            if op.name in _ASK_METADATA:
                return func(*args, **given)
            return self._read(op, args, given)
        if op.view and self._translated(op):
            return self._view(op, args, given)
        if op.composite and not self._translated(op):
            with self:
                result = func.decompose(*args, **given)
            if result is not NotImplemented:
                return result
        if op.view:
            return self._view(op, args, given)
        if not op.composite and not self._translated(op):
            simpler = _decomposition(func)
            if simpler is not None:
                with self:
                    result = simpler(*args, **given)
                if result is not NotImplemented:
                    return result
        return self._pure(op, args, given)

    def _pure(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        helds: list[Held] = []
        values = self._read_arguments(args, helds)
        named = (
            dict(zip(kwargs, self._read_arguments(kwargs.values(), helds), strict=True))
            if kwargs
            else {}
        )
        exact = fixed = True
        for held in helds:
            exact = exact and held.root.exact
            fixed = fixed and held.value.fixed
        fixed = fixed and exact and not op.draws
        if op.keeps_statistics and exact:
            self._save_statistics(op, args)
        computed = True
        if (
            fixed
            or (self.compute and exact)
            or (exact and helds and not op.draws and op.open_shape)
        ):
            result = self._executed(op, args, kwargs)
        elif op.open_shape and self._needs_values(op, args):
            raise ValuesNeeded(op.name)
        elif self.compute and not exact:
            raise CaptureError(f"{op.name} reads a tensor that has no data")
        else:
            result, computed = empty_outputs(op, args, kwargs), False
            if exact and helds and not op.draws and _is_small(result):
                result, computed = self._executed(op, args, kwargs), True
        outputs = _tensors(result)
        shadows: list[Any] = [None] * len(outputs)
        if computed and device_of(args, kwargs).type == "meta":
            shadows = outputs
            outputs, result = _as_meta(result)
        given = {id(held.tensor) for held in helds}
        fresh = [id(tensor) not in given for tensor in outputs]
        if outputs and not any(fresh):
            return result
        found = []
        for tensor, shadow, is_fresh in zip(outputs, shadows, fresh, strict=True):
            value = Value(0, tuple(tensor.shape), tensor.dtype, "computed")
            value.fixed = fixed
            found.append(value)
            if is_fresh:  # an operator may give back what it was given
                held = self._held[id(tensor)] = Held(tensor, value, exact=computed)
                held.shadow = shadow
        if not fixed:
            for held in helds:
                self._publish(held)
            self._record(Call(op.name, op.overload, tuple(values), named, self.module), found)
            if op.open_shape and computed and self._needs_values(op, args):
                self._freeze(op, helds, [tuple(t.shape) for t in outputs], sizes=True)
        return result

    def _executed(self, op: Operator, args: Any, kwargs: Any) -> Any:
        """Compute an operator on contents."""
        values = self._values(args, [])
        named = dict(zip(kwargs, self._values(kwargs.values(), []), strict=True))
        shadowed = self._has_shadow(values) or self._has_shadow(named.values())
        given = {k: contents_of(v) for k, v in named.items()} if shadowed else dict(kwargs)
        if given.get("device") is not None and torch.device(given["device"]).type == "meta":
            given["device"] = torch.device("cpu")
        return op.function(*(map(contents_of, values) if shadowed else args), **given)

    def _has_shadow(self, values: Any) -> bool:
        return any(
            (isinstance(v, Held) and v.shadow is not None)
            or (type(v) is list and self._has_shadow(v))
            for v in values
        )

    def _needs_values(self, op: Operator, args: tuple[Any, ...]) -> bool:
        """Return whether the size of what comes out depends on data."""
        if op.name == "aten::index":
            return any(
                isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)
                for i in args[1]
            )
        return True

    def _view(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        base = self._get(args[0])
        rest: list[Held] = []
        values = self._values(args[1:], rest)
        result = op.function(*args, **kwargs)
        outputs = _tensors(result)
        if len(outputs) == 1 and outputs[0] is args[0]:
            return result
        shadows = (
            [None] * len(outputs)
            if base.shadow is None
            else _tensors(op.function(base.shadow, *args[1:], **kwargs))
        )
        root, fixed = base.root, base.value.fixed
        shapes = [tuple(t.shape) for t in outputs]
        rest_of = tuple(plain(values))
        found: list[Value] = []
        if op.identity:
            found = [base.value]
        else:
            found = [self._new(t.shape, t.dtype) for t in outputs]
            if not fixed:
                call = Call(op.name, op.overload, (base.value, *rest_of), kwargs, self.module)
                self._record(call, found)
        for position, (tensor, shadow, value) in enumerate(
            zip(outputs, shadows, found, strict=True)
        ):
            held = Held(tensor, value, exact=False)
            held.root, held.shadow, held.version = root, shadow, root.version
            held.steps = (
                base.steps
                if op.identity
                else (*base.steps, Step(op.name, op.overload, rest_of, kwargs, position, shapes))
            )
            value.fixed = fixed
            self._held[id(tensor)] = held
        return result

    def _turn(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Give a tensor another shape in place: from here on it is a view of what it was."""
        held = self._get(args[0])
        if held.root is held:
            self._set_apart(held)
        base, target = held.value, held.tensor
        op.function(*args, **kwargs)
        if held.shadow is not None:
            held.shadow = held.shadow.view(held.shadow.shape)  # what the tape has keeps its own
            op.function(held.shadow, *args[1:], **kwargs)
        shape = tuple(target.shape)
        held.steps = (*held.steps, Step(op.name, op.overload, args[1:], kwargs, 0, [shape]))
        if base.fixed:
            held.value = self._new(shape, base.dtype)
            held.value.fixed = True
        else:
            held.value = self._view_value(held.steps[-1], base)
        return args[0]

    def _set_apart(self, held: Held) -> None:
        """Let another tensor object be the root of what shares memory with a tensor."""
        same = held.tensor.view(held.tensor.shape)
        root = Held(same, held.value, held.exact)
        root.version, root.shadow, root.borrowed = held.version, held.shadow, held.borrowed
        root.published, held.published = held.published, []
        for value in root.published:
            if value.data is held.tensor:
                value.data = same
        for each in self._held.values():
            if each.root is held:
                each.root = root
        self._held[id(same)] = root

    # Writes in place

    def _write(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(op.writes) + len(op.writes_names) != 1 or op.name in ("aten::set", "aten::resize"):
            if op.composite:
                with self:
                    return op.function.decompose(*args, **kwargs)
            return self._write_apart(op, args, kwargs)
        place = op.writes[0] if op.writes else None
        target = args[place] if place is not None else kwargs[op.writes_names[0]]
        if not isinstance(target, torch.Tensor):
            return self._write_apart(op, args, kwargs)
        if op.composite and not self._translated(op):
            with self:
                result = op.function.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        helds: list[Held] = []
        values = self._values(args, helds)
        named = dict(zip(kwargs, self._values(kwargs.values(), helds), strict=True))
        held = self._get(target)
        root = held.root
        exact = all(h.root.exact for h in helds)
        if place is None:
            named.pop(op.writes_names[0])
            exact = all(h.root.exact for h in helds if h is not held)
        fixed = exact and not op.draws and root.value.fixed and all(h.value.fixed for h in helds)
        if not fixed:
            for each in (*helds, root):
                self._publish(each)
        if exact and not op.draws and (self.compute or fixed or _is_small(root.tensor)):
            self._execute_write(op, root, values, args, kwargs)
        else:
            if self.compute and not op.draws:
                raise CaptureError(f"{op.name} reads a tensor that has no data")
            if self.compute:
                self._execute_write(op, root, values, args, kwargs)
            else:
                root.exact = False
        value = self._new(target.shape, target.dtype)
        value.fixed = fixed
        if not fixed:
            call = Call(op.name, op.overload, tuple(plain(values)), plain_names(named), self.module)
            self._record(call, [value])
        self._assign(held, value)
        return target

    def _execute_write(
        self, op: Operator, root: Held, values: list[Any], args: Any, kwargs: Any
    ) -> None:
        for value in root.published:
            if value.data is not None:
                value.data = value.data.clone()
        root.published.clear()
        if root.borrowed:
            self._save(root.tensor)
        if self._has_shadow(values):
            op.function(*map(contents_of, values), **kwargs)
        if not root.tensor.is_meta:
            op.function(*args, **kwargs)

    def _assign(self, held: Held, value: Value) -> None:
        """Give a tensor a new value, and with it what it is a view of."""
        root = held.root
        if root is not held and held.steps and not value.fixed:
            bases = [root.value]
            for step in held.steps[:-1]:
                bases.append(self._view_value(step, bases[-1]))
            new = value
            for step, base in zip(reversed(held.steps), reversed(bases), strict=True):
                new = written_through(step, base, new, self._recorded)
            root.value = new
        elif root is not held and value.fixed:
            root.value = self._new(root.tensor.shape, root.tensor.dtype)
            root.value.fixed = True
        else:
            root.value = value
        root.version += 1
        held.value, held.version = value, root.version

    def _recorded(self, name: str, args: tuple[Any, ...], like: Value) -> Value:
        out = self._new(like.shape, like.dtype)
        self._record(Call(name, "", args, {}, self.module), [out])
        return out

    def _write_apart(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write to a list of tensors one by one, where the operator is the same for each."""
        raise CaptureError(
            f"forward calls {op.name}.{op.overload}, which writes to several tensors"
        )

    def _save_statistics(self, op: Operator, args: tuple[Any, ...]) -> None:
        flag = RUNNING_STATISTICS[op.name]
        if len(args) > flag and args[flag]:
            for tensor in args[3:5]:
                if isinstance(tensor, torch.Tensor):
                    self._save(tensor)

    def _save(self, tensor: torch.Tensor) -> None:
        if id(tensor) not in self._saved:
            self._saved[id(tensor)] = tensor, tensor.detach().clone(), tensor._version

    def restore(self) -> None:
        """Put back what was written to tensors that are not the run's own; called after it."""
        with torch._C._AutoDispatchBelowAutograd():
            for tensor, before, version in self._saved.values():
                tensor.copy_(before)
                torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))
        self._saved.clear()

    # Reads of data by Python

    def _read(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        helds: list[Held] = []
        values = self._values(args, helds)
        if not all(held.root.exact for held in helds):
            raise ValuesNeeded(op.name)
        result = op.function(*map(contents_of, values), **kwargs)
        if not all(held.value.fixed for held in helds):
            self._freeze(op, helds, result)
        return result

    def _freeze(self, op: Operator, helds: list[Held], result: Any, *, sizes: bool = False) -> None:
        source = next((h.value for h in helds if not h.value.fixed), helds[0].value)
        short = op.name.rpartition("::")[2].lstrip("_")
        name = "item" if short == "local_scalar_dense" else short
        module = f"self.{self.module}" if self.module else "self"
        self.tape.frozen.append(Frozen(module, name, describe(source), result, sizes))

    def _seen_by_python(self, op: Operator, args: tuple[Any, ...], kwargs: Any) -> Any:
        """``numpy()`` and ``tolist()`` resolve a tensor before they read its memory."""
        held = self._get(args[0])
        if args[0].is_complex():
            return NotImplemented
        if not held.root.exact:
            raise ValuesNeeded(op.name)
        if not held.value.fixed and op.name == "aten::resolve_conj":
            self._freeze(op, [held], "its contents")
        return held.contents

    def _observed(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An observer of quantisation-aware training rests: what is recorded rounds as it is set now."""
        x, _, rounds = args[:3]
        held = self._get(rounds)
        if held.root.exact and not int(held.contents):
            return x
        scale, zero, _, low, high, axis = args[5:11]
        by_channel = len(args) > 11 and args[11] and scale.shape == x.shape[axis : axis + 1]
        with self:
            if by_channel:  # it has one number until it has seen a tensor
                return torch.fake_quantize_per_channel_affine(x, scale, zero, axis, low, high)
            return torch.fake_quantize_per_tensor_affine(x, scale, zero, low, high)

    # Operators that often give back what they were given

    def _unless(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Dropout outside training is its input."""
        training = args[2] if len(args) > 2 else kwargs.get("train", kwargs.get("training"))
        if training and (len(args) < 2 or args[1] != 0):
            return NotImplemented
        return args[0]

    def _projected(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An LSTM with projections goes step by step: ONNX's operator has none."""
        if op.overload != "input" or args[1][0].shape[-1] == args[1][1].shape[-1]:
            return NotImplemented
        from torch._decomp import get_decompositions

        with self:
            return get_decompositions([op.function])[op.function](*args, **kwargs)

    def _contiguous(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layout = kwargs.get("memory_format", torch.contiguous_format)
        if args[0].is_contiguous(memory_format=layout):
            return args[0]
        with self:
            return torch.ops.aten.clone.default(args[0], memory_format=layout)

    def _strided(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A view by strides is one of the memory, whatever the tensor it is asked of shows of it."""
        memory = self._get(args[0]).root.tensor
        order = sorted(range(memory.dim()), key=memory.stride, reverse=True)
        result = op.function(*args, **kwargs)
        if memory.storage_offset() or not memory.permute(order).is_contiguous():
            raise CaptureError("forward views memory with gaps by strides")
        if order != sorted(order):
            memory = self._view(operator(torch.ops.aten.permute.default), (memory, order), {})
        place = (memory, list(result.shape), list(result.stride()), result.storage_offset())
        return self._view(op, place, {})

    def _reshaped(self, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, shape = args
        try:
            return self._view(operator(torch.ops.aten.view.default), args, {})
        except RuntimeError:
            pass
        with self:
            flat = torch.ops.aten.clone.default(x, memory_format=torch.contiguous_format)
        return self._view(operator(torch.ops.aten.view.default), (flat, shape), {})


def describe(value: Value) -> str:
    """Return how a person calls a value: its name, or the operator that computed it."""
    if value.name:
        return value.name
    return value.call.name.rpartition("::")[2] if value.call is not None else "a constant"


def _decomposition(function: Any) -> Callable[..., Any] | None:
    from torch._decomp import decomposition_table

    found: Callable[..., Any] | None = decomposition_table.get(function)
    return found


def _is_small(result: Any) -> bool:
    total_floats = total_integers = 0
    for tensor in _tensors(result):
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            total_floats += tensor.numel()
        else:
            total_integers += tensor.numel()
    return total_floats <= SMALL_FLOATS and total_integers <= SMALL_INTEGERS


def _tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if type(result) in (list, tuple):
        return [each for each in result if isinstance(each, torch.Tensor)]
    return []


def _as_meta(result: Any) -> tuple[list[torch.Tensor], Any]:
    def meta(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        return torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device="meta")

    if isinstance(result, torch.Tensor):
        one = meta(result)
        return [one], one
    made = type(result)(meta(each) for each in result)
    return _tensors(made), made


_SPECIAL: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(
        (
            "aten::dropout",
            "aten::alpha_dropout",
            "aten::feature_dropout",
            "aten::feature_alpha_dropout",
        ),
        Recorder._unless,
    ),
    "aten::contiguous": Recorder._contiguous,
    "aten::as_strided": Recorder._strided,
    "aten::reshape": Recorder._reshaped,
    "aten::lstm": Recorder._projected,
    "aten::fused_moving_avg_obs_fake_quant": Recorder._observed,
    "aten::resolve_conj": Recorder._seen_by_python,
    "aten::resolve_neg": Recorder._seen_by_python,
}
