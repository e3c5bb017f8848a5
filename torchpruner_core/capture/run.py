"""One forward pass of a module under the recorder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from torchpruner_core.module_tree import modules_by_path
from torchpruner_core.untouched import untouched

logger = logging.getLogger(__name__)

Leaves = Callable[[Any], Mapping[str, Any]]

_OWN_FILES = (str(Path(__file__).parent), "torch/_ops.py", "torch/utils/_python_dispatch.py")


def _tensors_of(modules: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return parameters, then buffers, each under its first name."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for kind in ("_parameters", "_buffers"):
        for path, module in modules.items():
            for name, tensor in getattr(module, kind).items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{path}.{name}" if path else name, tensor))
    return dict(found.values())


_TORCH = str(Path(torch.__file__).parent)


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    inputs_of: Callable[[tuple[Any, ...], Mapping[str, Any]], Mapping[str, Any]],
    outputs_of: Leaves,
) -> Tape:
    """Run ``model`` once and return what it did; the model is as it was afterwards.

    ``inputs_of`` names the tensors among arguments, ``outputs_of`` those of a result. Raises
    ``CaptureError`` where the run cannot be recorded, and ``ExportError`` where ``forward`` itself
    raises.
    """
    refused: ExportError | None = None
    # Code that asks whether it is traced then avoids what depends on data; some of it fails, though.
    for traced in (True, False):
        try:
            return _with_values(_Run(model, args, kwargs, inputs_of, outputs_of, traced))
        except (ForwardError, CaptureError) as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _with_values(run: _Run) -> Tape:
    try:
        return run.recorded(compute=False)
    except ValuesNeeded as asked:
        logger.info("forward reads values (%s): the model is run with all of them", asked)
    try:
        return run.recorded(compute=True)
    except ValuesNeeded as asked:
        raise CaptureError(
            f"forward reads the value of a tensor that has no data ({asked})"
        ) from None


@dataclass(frozen=True, slots=True)
class _Run:
    """A forward pass to record; ``traced`` says whether the model's code is told that it is traced."""

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs_of: Callable[[tuple[Any, ...], Mapping[str, Any]], Mapping[str, Any]]
    outputs_of: Leaves
    traced: bool

    def recorded(self, *, compute: bool) -> Tape:
        model = self.model
        tape = Tape()
        modules = modules_by_path(model)
        stored = _tensors_of(modules)
        on_meta = any(tensor.is_meta for tensor in stored.values())
        if compute and on_meta:
            raise CaptureError(
                "forward reads values that follow from the weights, which are on the meta device"
            )
        names = {id(tensor): name for name, tensor in stored.items()}

        def find(tensor: torch.Tensor) -> tuple[str, Kind]:
            name = names.get(id(tensor))
            if name is None:
                return _found(model, tensor)
            return name, "parameter" if isinstance(tensor, nn.Parameter) else "buffer"

        recorder = Recorder(tape, is_translated, find, compute=compute)
        tape.stored = stored
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
            args, kwargs = tree_map(own, (self.args, dict(self.kwargs)))
        for name, tensor in self.inputs_of(args, kwargs).items():
            tape.inputs.append(recorder.own(tensor, "input", name))
            if id(tensor) in contents:
                recorder.give(tensor, contents[id(tensor)])
        with untouched(model), followed(modules, recorder) as stack:
            try:
                with _told(self.traced), torch._C._AutoDispatchBelowAutograd(), recorder:
                    result = model(*args, **kwargs)
                outputs = dict(self.outputs_of(result))
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
def _told(traced: bool) -> Iterator[None]:
    """Tell code that asks whether it is traced; fused operators that ONNX lacks are off either way."""
    compiler: Any = torch.compiler
    before = compiler._is_compiling_flag, compiler._is_exporting_flag
    torch.backends.mha.set_fastpath_enabled(False)
    compiler._is_compiling_flag = compiler._is_exporting_flag = traced
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
    place, frame = "", error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        if not name.startswith(_TORCH):
            place = f", at {name}:{frame.tb_lineno}"
        frame = frame.tb_next
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
