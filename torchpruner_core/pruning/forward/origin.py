"""Whose code made the call at which a ``forward()`` failed.

The module that was running need not be the one that is wrong: a layer of PyTorch fails on what its
caller gave it, and code that is reached by ``self.attn.forward(x)``, or by another method of a module,
runs while a module above is. The frames of the exception tell.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from types import FrameType

from torch import nn


@dataclass(frozen=True)
class Origin:
    """A line of a model's own code, and the innermost module whose method led there."""

    module: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def origin_of(error: BaseException, model: nn.Module) -> Origin | None:
    """Return where the model's code raised; ``None`` where only PyTorch's own code was running."""
    names = {
        id(module): f"self.{path}" if path else "self" for path, module in model.named_modules()
    }
    module = ""
    last: tuple[FrameType, int] | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_of_a_library(frame):
            continue
        name = names.get(id(_receiver(frame)))
        if name is not None:
            module, last = name, (frame, line)
        elif module:  # a function, or a comprehension, that the module's method called
            last = frame, line
    return Origin(module, last[0].f_code.co_filename, last[1]) if last else None


def _is_of_a_library(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] in ("torch", "torchpruner_core")


def _receiver(frame: FrameType) -> object:
    """Return the object whose method runs: the first argument."""
    code = frame.f_code
    return frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
