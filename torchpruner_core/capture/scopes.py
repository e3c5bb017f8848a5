"""Which module runs: PyTorch's own hooks for every module say so, and no module is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules import module as nn_module

from torchpruner_core.capture.recorder import Recorder


@contextmanager
def followed(modules: Mapping[str, nn.Module], recorder: Recorder) -> Iterator[list[str]]:
    """Keep ``recorder.module`` at the dotted path of the module whose forward runs.

    Gives the stack of paths, whose last entry is where a forward that raises has stopped.
    """
    paths = {id(module): name for name, module in modules.items()}
    stack = [""]

    def enter(module: nn.Module, args: Any) -> None:
        stack.append(paths.get(id(module), stack[-1]))
        recorder.module = stack[-1]

    def leave(module: nn.Module, args: Any, result: Any) -> None:
        stack.pop()
        recorder.module = stack[-1]

    handles = [
        nn_module.register_module_forward_pre_hook(enter),
        nn_module.register_module_forward_hook(leave),
    ]
    try:
        yield stack
    finally:
        for handle in handles:
            handle.remove()
