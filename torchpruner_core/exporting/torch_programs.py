"""PyTorch's three kinds of program to ONNX.

An ``nn.Module`` is captured in one forward pass; where that gives no program it goes through
``torch.export``, and at last through the TorchScript exporter, which is the only way of a TorchScript
program. Constant folding stays off in both exporters, or batch norms are folded and parameter names lost.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchpruner_core.capture.assembly import PROTOBUF_LIMIT
from torchpruner_core.capture.run import ForwardError
from torchpruner_core.cut_result import TensorSpec
from torchpruner_core.errors import ExportError, InputSpecError, InvalidModelError
from torchpruner_core.exporting import captured
from torchpruner_core.exporting.captured import ON_META, TOO_LARGE
from torchpruner_core.exporting.dynamic_axes import (
    NO_DYNAMIC,
    Dynamic,
    open_axes,
    rename_symbols,
    symbols_of,
    traced_at,
)
from torchpruner_core.exporting.program import Entrance, Program
from torchpruner_core.exporting.structures import arranged, plain_outputs
from torchpruner_core.exporting.symbolics import registered
from torchpruner_core.exporting.tidying import tidy
from torchpruner_core.graph.origin import METADATA_KEY, Origin
from torchpruner_core.importing.formats import ModelFormat
from torchpruner_core.module_tree import every_path, modules_by_path
from torchpruner_core.untouched import untouched

if TYPE_CHECKING:
    import onnx
    import torch

OPSET = 20
LARGE_BYTES = 64
LOGGERS = ("torch.onnx", "torch.export", "torch.fx", "torch._subclasses", "onnxscript")
CAPTURE, TORCH_EXPORT, TORCHSCRIPT = "capture", "torch.export", "TorchScript"
ENTRANCES = (CAPTURE, TORCH_EXPORT, TORCHSCRIPT)

logger = logging.getLogger(__name__)


def export_object(
    model: Any,
    inputs: Any,
    training: bool,
    entrances: Sequence[str] = ENTRANCES,
    dynamic: Dynamic | None = None,
) -> Program:
    """Export an ``nn.Module``, a ``ScriptModule`` or an ``ExportedProgram``.

    ``entrances`` are tried for an ``nn.Module``, in this order; one with ``dynamic`` axes has one way.
    """
    import torch

    if dynamic:
        if not isinstance(model, torch.nn.Module) or isinstance(model, torch.jit.ScriptModule):
            raise ExportError(NO_DYNAMIC)
        return _from_module_with_open_axes(_unwrapped(model), inputs, training, dynamic)
    if isinstance(model, torch.export.ExportedProgram):
        return _from_program(model, entrances)
    if isinstance(model, torch.jit.ScriptModule):
        return _from_torchscript(model, inputs)
    if isinstance(model, torch.nn.Module):
        return _from_module(_unwrapped(model), inputs, training, entrances)
    raise ExportError(
        f"a model is an nn.Module, a ScriptModule, an ExportedProgram, ONNX bytes or a path, "
        f"not {type(model).__name__}"
    )


def export_file(data: bytes, kind: ModelFormat, inputs: Any) -> Program:
    """Export the bytes of a TorchScript or ``.pt2`` file. This runs code from the file."""
    import torch

    try:
        if kind == "torchscript":
            model: Any = torch.jit.load(io.BytesIO(data), map_location="cpu")
        else:
            model = torch.export.load(io.BytesIO(data))
    except Exception as error:
        raise InvalidModelError(
            f"the {kind} archive cannot be loaded: {_first_line(error)}"
        ) from error
    return export_object(model, inputs, training=False)


_NUMBER_READ = re.compile(r"Converting a tensor to a Python (number|integer|index|float|list)")
"""What PyTorch's tracer warns of where code makes a number of a tensor's value."""


def _unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return what ``torch.compile``, a data-parallel or an averaging wrapper holds, unsharded."""
    from torchpruner_core.exporting.sharded import is_sharded, stand_in
    from torchpruner_core.exporting.unwrapping import WRAPPERS

    held: Any = model
    while True:
        if isinstance(held, WRAPPERS):
            held = held.module
        elif hasattr(held, "_orig_mod"):
            held = held._orig_mod
        else:
            found: torch.nn.Module = held
            return stand_in(found) if is_sharded(found.parameters()) else found


def _from_module(
    model: torch.nn.Module, inputs: Any, training: bool, entrances: Sequence[str]
) -> Program:
    import torch

    device = _devices(model)
    origin = _module_origin(model)
    args, kwargs = _example_inputs(inputs, device)

    def ready(values: bool) -> contextlib.AbstractContextManager[None]:
        return _ready(model, training, values)

    def by_capture() -> Program:
        # What the run computes on the host it also needs to read there, be the weights on meta.
        given = _example_inputs(inputs, "cpu") if device == "meta" else (args, kwargs)
        try:
            with _mode(model, training), torch.no_grad():
                return captured.capture(model, *given, origin)
        except ForwardError as error:
            if device != "meta" and not _runs(model, args, kwargs, ready):
                raise _Refused from error
            raise

    def by_torch_export() -> Program:
        with ready(values=False):  # nothing is computed: tensors in it have shapes alone
            exported = torch.export.export(model, args, kwargs, strict=False)
        return _from_exported(exported, origin)

    def by_torchscript() -> Program:
        with ready(values=True), warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            program = _legacy(model, args, kwargs, origin, training)
        read = [f"{w.filename}:{w.lineno}" for w in seen if _NUMBER_READ.match(str(w.message))]
        if held_fast is not None and read:
            # The program that names what it holds fast is the better one of two that do.
            raise ExportError(f"the trace holds numbers of the data fast, read at {read[0]} first")
        return program

    makers = {CAPTURE: by_capture, TORCH_EXPORT: by_torch_export, TORCHSCRIPT: by_torchscript}
    refusals: dict[str, str] = {}
    errors: list[Exception] = []
    held_fast: Program | None = None
    for name in entrances:
        try:
            program = makers[name]()
        except _Refused as refused:
            assert isinstance(refused.__cause__, ForwardError)
            raise refused.__cause__ from refused.__cause__.__cause__
        except Exception as error:
            refusals[name] = _first_line(error)
            errors.append(error)
            logger.info("%s does not take the model: %s", name, refusals[name])
            continue
        sizes = [each.name for each in program.frozen if each.sizes]
        if sizes and name != entrances[-1]:
            # A later entrance may keep them open: with other weights there are others.
            held_fast = program
            refusals[name] = f"data decides {len(sizes)} sizes in it, {sizes[0]} first"
            logger.info("%s would hold sizes fast: %s", name, refusals[name])
            continue
        program.entrance = Entrance(name, refusals)
        logger.debug("the model entered by %s", name)
        return program
    if held_fast is not None:
        del refusals[CAPTURE]
        held_fast.entrance = Entrance(CAPTURE, refusals)
        return held_fast
    told = " ".join(f"{name}: {reason}." for name, reason in refusals.items())
    raise ExportError(
        f"the model could not be exported. {told} Check that the model runs on these inputs in eval "
        "mode and that its forward has no data-dependent Python branches"
    ) from errors[0]


@contextlib.contextmanager
def _ready(model: torch.nn.Module, training: bool, values: bool) -> Iterator[None]:
    """Prepare a model for an exporter, and put it back."""
    import torch

    with (
        untouched(model, values),
        _mode(model, training),
        _quiet(),
        plain_outputs(model),
        # Whatever the caller's grad mode: a program traced with gradients holds other operators.
        torch.no_grad(),
    ):
        yield


def _from_module_with_open_axes(
    model: torch.nn.Module, inputs: Any, training: bool, dynamic: Dynamic
) -> Program:
    """Export by ``torch.export``, the entrance that proves a program for sizes it did not see."""
    import torch

    args, kwargs = _example_inputs(inputs, _devices(model))
    axes = open_axes(dynamic, args, kwargs)
    args, kwargs, shapes = traced_at(axes, args, kwargs)
    try:
        with _ready(model, training, values=False):
            exported = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ExportError(
            f"the model could not be exported with symbolic axes: {_first_line(error)}. Check that it "
            "runs on these inputs, and export it without dynamic to see whether an axis is the reason"
        ) from error
    return _from_exported(exported, _module_origin(model), symbols_of(exported, axes))


def _from_program(exported: torch.export.ExportedProgram, entrances: Sequence[str]) -> Program:
    origin = _origin(exported, exported.state_dict)
    refusals: dict[str, str] = {}
    if CAPTURE in entrances:
        try:
            return captured.capture_exported(exported, origin)
        except Exception as error:
            refusals[CAPTURE] = _first_line(error)
            logger.info("the program could not be translated here: %s", refusals[CAPTURE])
    program = _from_exported(exported, origin)
    program.entrance = Entrance(TORCH_EXPORT, refusals)
    return program


class _Refused(Exception):
    """The model itself does not run on the inputs, which its cause says: no exporter can help."""


def _runs(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    ready: Callable[[bool], contextlib.AbstractContextManager[None]],
) -> bool:
    """Return whether the model runs on these inputs without anybody watching."""
    try:
        with ready(True):
            model(*args, **kwargs)
    except Exception:
        return False
    return True


def _from_exported(
    exported: torch.export.ExportedProgram,
    origin: Origin,
    symbols: Mapping[str, str] | None = None,
) -> Program:
    import torch

    with _quiet():
        try:
            exported = _taken_apart(exported)
            program = torch.onnx.export(
                exported, dynamo=True, optimize=False, verbose=False, opset_version=OPSET
            )
            assert program is not None
            tidy(program.model)
        except Exception as error:
            raise ExportError(
                f"torch.onnx could not translate the program: {_first_line(error)}"
            ) from error
    model = program.model
    if symbols:
        rename_symbols(model, symbols)
    model.metadata_props.clear()
    model.metadata_props[METADATA_KEY] = origin.to_json()

    def weightless() -> bytes:
        return _serialise(model, stripped=True)

    def with_weights() -> bytes:
        return _serialise(model, stripped=False)

    return Program(
        weightless=weightless, with_weights=with_weights, entrance=Entrance(TORCH_EXPORT)
    )


def _taken_apart(exported: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Write out operators whose translation would lose something, in the terms of other operators.

    ONNX's LSTM has no projections, so those are written step by step; and the mean of ``var_mean``
    becomes a sum over a number, which no longer says what it counts.
    """
    import torch
    from torch._decomp import get_decompositions

    table: dict[Any, Any] = {}
    lstm = torch.ops.aten.lstm.input
    states = [n.args[1] for n in exported.graph.nodes if n.target is lstm]
    if any(h.meta["val"].shape[2] != c.meta["val"].shape[2] for h, c in states):
        table.update(get_decompositions([lstm]))
    if any(str(node.target).startswith("aten.var_mean.") for node in exported.graph.nodes):
        table.update({getattr(torch.ops.aten.var_mean, name): f for name, f in _VAR_MEAN.items()})
    if not table:
        return exported
    decomposed: torch.export.ExportedProgram = exported.run_decompositions(table)
    return decomposed


def _var_and_mean(
    x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> tuple[Any, Any]:
    import torch

    variance = torch.ops.aten.var.correction(x, dim, correction=correction, keepdim=keepdim)
    return variance, torch.ops.aten.mean.dim(x, dim or list(range(x.ndim)), keepdim)


_VAR_MEAN: dict[str, Any] = {
    "correction": _var_and_mean,
    "dim": lambda x, dim, unbiased=True, keepdim=False: _var_and_mean(
        x, dim, correction=int(unbiased), keepdim=keepdim
    ),
    "default": lambda x, unbiased=True: _var_and_mean(x, correction=int(unbiased)),
}
"""The forms of ``var_mean``, by the name of their overload."""


def _serialise(model: Any, *, stripped: bool) -> bytes:
    """Return an onnx_ir model as bytes; its large tensors lose their data when ``stripped``."""
    import onnx
    import onnx_ir as ir

    from torchpruner_core.importing.wire import strip_weights

    values = list(model.graph.initializers.values())
    originals = [value.const_value for value in values]
    if not stripped:
        if any(map(_has_no_data, originals)):
            raise ExportError(ON_META)
        if sum(tensor.nbytes for tensor in originals) > PROTOBUF_LIMIT:
            raise ExportError(TOO_LARGE)
    try:
        if stripped:
            for value, tensor in zip(values, originals, strict=True):
                large = tensor.nbytes > LARGE_BYTES and tensor.dtype.is_floating_point()
                if large or _has_no_data(tensor):
                    header = onnx.TensorProto(
                        name=value.name,
                        dims=list(tensor.shape.numpy()),
                        data_type=int(tensor.dtype),
                    )
                    value.const_value = ir.serde.TensorProtoTensor(header)
        data: bytes = ir.to_proto(model).SerializeToString()
    finally:
        for value, tensor in zip(values, originals, strict=True):
            value.const_value = tensor
    return strip_weights(data) if stripped else data


def _has_no_data(tensor: Any) -> bool:
    """Return whether an onnx_ir tensor stands on the ``meta`` device, or is a fake of one."""
    raw = getattr(tensor, "raw", None)
    return bool(getattr(raw, "is_meta", False)) or type(raw).__name__ == "FakeTensor"


def _from_torchscript(model: torch.jit.ScriptModule, inputs: Any) -> Program:
    import torch

    from torchpruner_core.untouched import untouched

    names = [value.debugName().split(".")[0] for value in model.graph.inputs()][1:]
    args, kwargs = _example_inputs(inputs, _devices(model))
    if kwargs:
        unknown = sorted(set(kwargs) - set(names))
        if unknown:
            raise InputSpecError(
                f"the program has no input called {unknown[0]!r}; its inputs are {', '.join(names)}",
                received=unknown,
                expected=names,
            )
        args, kwargs = tuple(kwargs[name] for name in names if name in kwargs), {}
    if len(args) > len(names):
        raise InputSpecError(
            f"{len(args)} inputs were given, and the program takes {len(names)}: {', '.join(names)}",
            received=len(args),
            expected=names,
        )
    with untouched(model, values=True), _mode(model, False), _quiet(), torch.no_grad():
        try:
            return _legacy(model, args, kwargs, _module_origin(model), training=False)
        except (ExportError, InputSpecError):
            raise
        except Exception as error:
            raise ExportError(
                f"the TorchScript program could not be exported: {_first_line(error)}. Check the "
                "input shapes and dtypes; a program that returns a dict, or uses operators that "
                "ONNX lacks, can be uploaded as ONNX or as a torch.export archive instead"
            ) from error


def _legacy(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    origin: Origin,
    training: bool,
) -> Program:
    import torch

    modes = torch.onnx.TrainingMode
    target = io.BytesIO()
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    fits = sum(tensor.nbytes for tensor in stored.values()) <= PROTOBUF_LIMIT
    with registered(OPSET):
        torch.onnx.export(
            model,
            args,
            target,  # type: ignore[arg-type]  # the TorchScript exporter takes file objects
            kwargs=kwargs or None,
            dynamo=False,
            do_constant_folding=False,
            export_params=fits,
            training=modes.TRAINING if training else modes.PRESERVE,
            opset_version=OPSET,
            input_names=_input_names(model, args, kwargs),
        )
    import onnx

    proto: onnx.ModelProto = onnx.load_from_string(target.getvalue())
    proto.metadata_props.add(key=METADATA_KEY, value=origin.to_json())
    if fits:
        return Program.from_bytes(proto.SerializeToString(), Entrance(TORCHSCRIPT))
    _declare_stored(proto, stored)
    weightless = proto.SerializeToString()
    return Program(
        weightless=lambda: weightless,
        with_weights=_refuse_large,
        entrance=Entrance(TORCHSCRIPT),
    )


def _declare_stored(proto: onnx.ModelProto, stored: Mapping[str, torch.Tensor]) -> None:
    """Turn inputs that are a model's own tensors into initializers, large ones without their data."""
    import onnx

    inputs = list(proto.graph.input)
    del proto.graph.input[:]
    proto.graph.input.extend(info for info in inputs if info.name not in stored)
    for info in inputs:
        tensor = stored.get(info.name)
        if tensor is None:
            continue
        if tensor.is_floating_point() and tensor.nbytes > LARGE_BYTES:
            element = info.type.tensor_type.elem_type
            proto.graph.initializer.add(name=info.name, dims=list(tensor.shape), data_type=element)
        else:
            data = tensor.detach().cpu().numpy()
            proto.graph.initializer.append(onnx.numpy_helper.from_array(data, info.name))


def _refuse_large() -> bytes:
    raise ExportError(TOO_LARGE)


def _input_names(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[str]:
    """Return the names of ``forward``'s arguments for the inputs given."""
    import inspect

    import torch

    if isinstance(model, torch.jit.ScriptModule):
        names = [value.debugName().split(".")[0] for value in model.graph.inputs()][1:]
    else:
        names = list(inspect.signature(model.forward).parameters)
    flat = all(isinstance(value, torch.Tensor) for value in args)
    return [*names[: len(args)], *kwargs] if flat else []


def _origin(exported: Any, state: Mapping[str, Any]) -> Origin:
    signature = exported.graph_signature
    types: dict[str, str] = {}
    for node in exported.graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            types.setdefault(
                path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            )
    return Origin(
        aliases=_aliases(state),
        parameters=tuple(signature.parameters),
        buffers=tuple(signature.buffers),
        module_types=types,
        scalars=tuple(name for name, tensor in state.items() if tensor.dim() == 0),
    )


def _module_origin(model: torch.nn.Module) -> Origin:
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    types: dict[str, str] = {}
    seen: set[int] = set()
    for path, module in every_path(model):
        if id(module) not in seen:
            seen.add(id(module))
            types[path] = _type_name(module)
        prefix = f"{path}." if path else ""
        for own, found in ((module._parameters, parameters), (module._buffers, buffers)):
            for name, tensor in own.items():
                if tensor is not None:
                    found[prefix + name] = tensor
    state = {**parameters, **buffers}
    return Origin(
        aliases=_aliases(state),
        parameters=tuple(parameters),
        buffers=tuple(buffers),
        module_types=types,
        scalars=tuple(name for name, tensor in state.items() if tensor.dim() == 0),
    )


def _type_name(module: torch.nn.Module) -> str:
    return getattr(module, "original_name", None) or type(module).__name__


def _aliases(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return which names share one storage with an earlier name, offset and shape the same."""
    first: dict[Any, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state.items():
        address = tensor.data_ptr() if tensor.numel() and not tensor.is_meta else id(tensor)
        key = (address, tensor.shape, tensor.dtype)
        if key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
    return aliases


def _devices(model: torch.nn.Module) -> str:
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return "cpu" if tensor is None else str(tensor.device)


def _example_inputs(inputs: Any, device: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return example arguments; a ``TensorSpec`` becomes a tensor of zeros, an array a tensor."""
    import numpy as np
    import torch
    from torch.utils._pytree import tree_map

    def tensor(value: Any) -> Any:
        if isinstance(value, TensorSpec):
            try:
                dtype = getattr(torch, value.dtype)
                return torch.zeros(value.shape, dtype=dtype, device=device)
            except (AttributeError, TypeError, RuntimeError) as error:
                raise InputSpecError(
                    f"input {value.name!r} cannot have shape {list(value.shape)} and dtype "
                    f"{value.dtype!r}: {_first_line(error)}",
                    name=value.name,
                ) from error
        if isinstance(value, np.ndarray | np.generic):
            value = torch.as_tensor(value)
        if isinstance(value, torch.Tensor):
            return value.to("meta") if device == "meta" else value
        return value

    def prepared(value: Any) -> Any:
        return tree_map(tensor, value)

    if inputs is None:
        raise InputSpecError("the model needs inputs: give their shapes, or example tensors")
    inputs = arranged(inputs)
    if isinstance(inputs, Mapping):
        return (), {name: prepared(value) for name, value in inputs.items()}
    if (
        isinstance(inputs, Sequence)
        and inputs
        and all(isinstance(value, TensorSpec) and value.name for value in inputs)
    ):
        return (), {value.name: tensor(value) for value in inputs}
    return tuple(prepared(value) for value in inputs), {}


@contextlib.contextmanager
def _mode(model: torch.nn.Module, training: bool) -> Iterator[None]:
    """Put every module in one mode, and each back in its own afterwards."""
    modes = [(module, module.training) for module in modules_by_path(model).values()]
    if any(was != training for _, was in modes):
        model.train(training)
    try:
        yield
    finally:
        for module, was in modes:
            if module.training != was:
                module.training = was


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' warnings and prints, which speak of their internals."""
    import torch

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        # The TorchScript exporter prints whole graphs from C++, and switches that on by itself.
        native: Any = torch._C
        log = native._jit_onnx_log
        native._jit_onnx_log = lambda *parts: None
        levels = {name: logging.getLogger(name).level for name in LOGGERS}
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            native._jit_onnx_log = log
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _first_line(error: BaseException) -> str:
    cause = error
    while cause.__cause__ is not None and type(error).__module__.startswith("torch.onnx"):
        cause = cause.__cause__  # the exporter's own text only says at which step it stopped
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(cause)).strip()
    lines = text.splitlines() or [type(cause).__name__]
    # TorchScript begins with the place in the code and ends with what went wrong there.
    interpreted = lines[0].startswith("The following operation failed in the TorchScript")
    return lines[-1 if interpreted else 0][:300]
