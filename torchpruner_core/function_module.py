"""Function modules: calls of ``F.relu``, ``torch.add``, ``torch.mul`` and ``torch.cat`` become modules.

While the mode is on, each such call (and each ``+`` and ``*`` of tensors) that a module's ``forward``
makes goes through an ``nn.Module`` of its own, kept in that module's ``_function_module_list``, the
k-th call through the k-th entry. What is computed stays the same. The entries can be found and
replaced like any module, which is what quantisation needs.

The mode belongs to the thread that turned it on. Calls are seen through PyTorch's own
``__torch_function__`` protocol, so nothing is patched, and code that imported ``add`` by name is seen too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

__all__ = [
    "Add",
    "Cat",
    "FunctionModule",
    "Mul",
    "Relu",
    "activate_function_module",
    "deactivate_function_module",
    "function_module",
    "function_module_activate",
    "init_function_module",
]

ModelT = TypeVar("ModelT", bound=nn.Module)


class FunctionModule(nn.Module):
    """A function in the place of a module: ``forward`` takes the function's own arguments."""

    function: Callable[..., Any]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return type(self).function(*args, **kwargs)


class Relu(FunctionModule):
    """``F.relu``."""

    function = staticmethod(F.relu)


class Add(FunctionModule):
    """``torch.add`` and ``+``."""

    function = staticmethod(torch.add)


class Mul(FunctionModule):
    """``torch.mul`` and ``*``."""

    function = staticmethod(torch.mul)


class Cat(FunctionModule):
    """``torch.cat``."""

    function = staticmethod(torch.cat)


_MODULE_OF: dict[Any, type[FunctionModule]] = {
    F.relu: Relu,
    torch.relu: Relu,
    torch.Tensor.relu: Relu,
    torch.add: Add,
    torch.Tensor.add: Add,
    torch.Tensor.__add__: Add,
    torch.Tensor.__radd__: Add,
    torch.mul: Mul,
    torch.Tensor.mul: Mul,
    torch.Tensor.__mul__: Mul,
    torch.Tensor.__rmul__: Mul,
    torch.cat: Cat,
    torch.concat: Cat,
    torch.concatenate: Cat,
}


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.mode: _Mode | None = None
        self.stack: list[tuple[nn.Module, list[int]]] = []


_state = _ThreadState()


class _Mode(TorchFunctionMode):
    """Sends the calls of one thread through function modules, while ``on``."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        kind = _MODULE_OF.get(func) if self.on and _state.stack else None
        if kind is None:
            return func(*args, **kwargs)
        caller, count = _state.stack[-1]
        # A layer that is this very function needs no second module inside it.
        if isinstance(caller, (FunctionModule, nn.ReLU, nn.ReLU6)):
            return func(*args, **kwargs)
        entry = _entry(caller, count, kind)
        if not isinstance(entry, FunctionModule):
            # F.relu says ``inplace=False`` even where the caller did not; a layer that took its
            # place (nn.ReLU6, a quantised one) takes a tensor alone.
            kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        return entry(*args, **kwargs)


def _entry(caller: nn.Module, count: list[int], kind: type[FunctionModule]) -> nn.Module:
    entries = caller._modules.get("_function_module_list")
    if not isinstance(entries, nn.ModuleList):
        entries = nn.ModuleList()
        caller.add_module("_function_module_list", entries)
        # The manual's other spelling; in __dict__, so that it is not registered a second time.
        caller.__dict__["__function_module_list"] = entries
    number, count[0] = count[0], count[0] + 1
    if number == len(entries):
        entries.append(kind())
    entry = entries[number]
    if isinstance(entry, FunctionModule) and type(entry) is not kind:
        raise RuntimeError(
            f"call {number} of {type(caller).__name__}.forward() was {type(entry).__name__} when its "
            f"function modules were made, and is {kind.__name__} now: its forward takes another path; "
            "delete its _function_module_list and run it again"
        )
    return entry


def _enter(module: nn.Module, args: Any) -> None:
    if _state.mode is not None:
        _state.stack.append((module, [0]))


def _leave(module: nn.Module, args: Any, result: Any) -> None:
    # A mode turned on in the middle of a forward sees the end of calls it did not see begin.
    if _state.stack and _state.stack[-1][0] is module:
        _state.stack.pop()


_hooks_lock = threading.Lock()
_hooks: list[Any] = []
_active_threads = 0


def activate_function_module() -> None:
    """Turn the mode on in this thread; on twice is on."""
    global _active_threads
    if _state.mode is not None:
        return
    with _hooks_lock:
        _active_threads += 1
        if not _hooks:
            _hooks.append(register_module_forward_pre_hook(_enter))
            _hooks.append(register_module_forward_hook(_leave, always_call=True))
    _state.mode = _Mode()
    _state.mode.__enter__()  # type: ignore[no-untyped-call]


def deactivate_function_module() -> None:
    """Turn the mode off in this thread: models run as they did before; off twice is off."""
    global _active_threads
    mode = _state.mode
    if mode is None:
        return
    mode.on = False
    _state.mode = None
    _state.stack.clear()
    _remove(mode)
    with _hooks_lock:
        _active_threads -= 1
        if _active_threads == 0:
            while _hooks:
                _hooks.pop().remove()


def _remove(mode: _Mode) -> None:
    """Take the mode off PyTorch's stack, also from below modes that were entered after it."""
    above = []
    while torch._C._len_torch_function_stack() > 0:
        top = torch._C._pop_torch_function_stack()
        if top is mode:
            break
        above.append(top)
    for other in reversed(above):
        torch._C._push_on_torch_function_stack(other)


def function_module_activate() -> bool:
    """Tell whether the mode is on in this thread."""
    return _state.mode is not None


@contextmanager
def function_module() -> Iterator[None]:
    """Turn the mode on for a ``with`` block, and off after it however the block ends."""
    was_on = function_module_activate()
    activate_function_module()
    try:
        yield
    finally:
        if not was_on:
            deactivate_function_module()


def init_function_module(model: ModelT, inputs: Any) -> ModelT:
    """Run the model once, so that its modules get their ``_function_module_list``, and mark it.

    ``inputs`` is a tensor, a tuple of arguments or a dict of keyword arguments. Works whether the
    mode is on or off. The model's mode (training or not) and batch statistics stay as they are. If
    the forward fails, the mode is off afterwards and the error goes on.
    """
    training = [module for module in model.modules() if module.training]
    was_on = function_module_activate()
    try:
        model.eval()
        with function_module(), torch.no_grad():
            if isinstance(inputs, Mapping):
                model(**inputs)
            elif isinstance(inputs, (tuple, list)):
                model(*inputs)
            else:
                model(inputs)
    except BaseException:
        if was_on:
            deactivate_function_module()
        raise
    finally:
        for module in training:
            module.training = True
    model.__dict__["_init_function_module_ok"] = True
    return model
