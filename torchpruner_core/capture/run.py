"""One forward pass of a module under the recorder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from torchpruner_core.capture.errors import CaptureError, ValuesNeeded
from torchpruner_core.capture.recorder import Recorder
from torchpruner_core.capture.registry import is_translated
from torchpruner_core.capture.scopes import followed
from torchpruner_core.capture.tape import Kind, Tape
from torchpruner_core.errors import ExportError

logger = logging.getLogger(__name__)

Leaves = Callable[[Any], Mapping[str, Any]]

_OWN_FILES = (str(Path(__file__).parent), "torch/_ops.py", "torch/utils/_python_dispatch.py")


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    inputs_of: Callable[[tuple[Any, ...], Mapping[str, Any]], Mapping[str, Any]],
    outputs_of: Leaves,
) -> Tape:
    """Run ``model`` once and return what it did.

    Contents of the model's tensors and of the inputs are as before; what the forward writes to attributes
    the caller puts back.

    ``inputs_of`` names the tensors among arguments, ``outputs_of`` those of a result. Raises
    ``CaptureError`` where the run cannot be recorded, and ``ExportError`` where ``forward`` itself
    raises.
    """
    try:
        return _recorded(model, args, kwargs, inputs_of, outputs_of, compute=False)
    except ValuesNeeded as asked:
        logger.info("forward reads values (%s): the model is run with all of them", asked)
    try:
        return _recorded(model, args, kwargs, inputs_of, outputs_of, compute=True)
    except ValuesNeeded as asked:
        raise CaptureError(
            f"forward reads the value of a tensor that has no data ({asked})"
        ) from None


def _recorded(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    inputs_of: Any,
    outputs_of: Leaves,
    *,
    compute: bool,
) -> Tape:
    tape = Tape()
    stored = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    on_meta = any(tensor.is_meta for tensor in stored.values())
    if compute and on_meta:
        raise CaptureError(
            "forward reads values that follow from the weights, which are on the meta device"
        )
    recorder = Recorder(tape, is_translated, lambda tensor: _found(model, tensor), compute=compute)
    tape.stored = stored
    for name, tensor in stored.items():
        kind: Kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
        tape.values[name] = recorder.own(tensor, kind, name)
    contents: dict[int, torch.Tensor] = {}

    def own(value: Any) -> Any:
        """A tensor object of the run's own, since one object may be given twice."""
        if not isinstance(value, torch.Tensor):
            return value
        if not on_meta or value.is_meta:
            return value.detach()
        stand_in = torch.empty_strided(
            value.shape, value.stride(), dtype=value.dtype, device="meta"
        )
        contents[id(stand_in)] = value.detach()
        return stand_in

    with torch.no_grad():
        args, kwargs = tree_map(own, (args, dict(kwargs)))
    for name, tensor in inputs_of(args, kwargs).items():
        tape.inputs.append(recorder.own(tensor, "input", name))
        if id(tensor) in contents:
            recorder.give(tensor, contents[id(tensor)])
    with followed(model, recorder) as stack:
        try:
            with _as_if_exporting(), torch._C._AutoDispatchBelowAutograd(), recorder:
                result = model(*args, **kwargs)
            outputs = dict(outputs_of(result))
        except CaptureError:
            raise
        except Exception as error:
            raise _of_forward(error, stack[-1]) from error
        finally:
            recorder.restore()
    if not outputs:
        raise ExportError(
            f"forward returns no tensor, but {type(result).__name__}; a graph ends in tensors"
        )
    tape.outputs = {name: recorder.value(tensor) for name, tensor in outputs.items()}
    return tape


@contextmanager
def _as_if_exporting() -> Iterator[None]:
    """Tell code that asks that it is traced: it then avoids what depends on data."""
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag
    torch.backends.mha.set_fastpath_enabled(False)
    compiler._is_compiling_flag = compiler._is_exporting_flag = True
    try:
        yield
    finally:
        compiler._is_compiling_flag, compiler._is_exporting_flag = before


def _found(model: nn.Module, tensor: torch.Tensor) -> tuple[str, Kind]:
    """Return where the model keeps a tensor that the run met: made meanwhile, or no parameter."""
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if value is tensor:
                return f"{path}.{name}" if path else name, "constant"
        for kind, held in (("parameter", module._parameters), ("buffer", module._buffers)):
            for name, value in held.items():
                if value is tensor:
                    return f"{path}.{name}" if path else name, kind  # type: ignore[return-value]
    return "", "constant"


class ForwardError(ExportError):
    """The model's own ``forward`` raised."""


def _of_forward(error: Exception, path: str) -> ForwardError:
    """Return an error that shows where the model's own code stopped, without the recorder's frames."""
    error.__traceback__ = _without_own(error.__traceback__)
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = ""
    if last is not None:
        place = f", at {last.tb_frame.f_code.co_filename}:{last.tb_lineno}"
    where = f"self.{path}" if path else "self"
    text = str(error).strip().splitlines() or [""]
    return ForwardError(
        f"forward raises in {where}{place}: {type(error).__name__}: {text[0][:300]}", module=where
    )


def _without_own(traceback: TracebackType | None) -> TracebackType | None:
    frames = []
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if not name.startswith(_OWN_FILES[0]) and not name.endswith(_OWN_FILES[1:]):
            frames.append(traceback)
        traceback = traceback.tb_next
    kept: TracebackType | None = None
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept
