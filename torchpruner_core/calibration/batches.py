"""A stream of batches through a model: on its device, counted, cancellable, with errors that help."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from torchpruner_core.calibration.as_found import device_of
from torchpruner_core.calibration.errors import (
    BatchError,
    CalibrationCancelledError,
    NotFiniteError,
)
from torchpruner_core.errors import TorchPrunerError

Forward = Callable[[nn.Module, Any], Any]
"""How a batch goes through the model: ``lambda model, batch: model(batch[0])``."""

Progress = Callable[[int, "int | None"], Any]
"""Told after each batch how many are done, and of how many if that is known; it returns ``False`` to stop."""

Source = Iterable[Any] | Callable[[], Iterable[Any]]


def call(model: nn.Module, batch: Any) -> Any:
    """Call a model with a tensor, with a tuple or list of arguments, or with a dict of keywords."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return model(*batch)
    return model(batch)


class Batches:
    """Batches of inputs for one model.

    ``source`` is a list, a ``DataLoader``, an iterator, or a function that returns one of these. A batch is a
    tensor, a tuple or list of arguments, or a dict of keyword arguments; where it holds more than the
    model takes (labels), ``forward`` says how the two meet.
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source,
        forward: Forward | None = None,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(source, torch.Tensor | Mapping | str | bytes):
            raise BatchError(
                f"batches are a list or loader of batches, not one {type(source).__name__}: for a single "
                "batch give [batch]",
                received=type(source).__name__,
            )
        if not callable(source) and not isinstance(source, Iterable):
            raise BatchError(
                f"batches are a list, a DataLoader or a function that returns one, not {source!r:.60}",
                received=type(source).__name__,
            )
        if not isinstance(model, nn.Module):
            raise BatchError(
                f"the model is a torch.nn.Module, not {type(model).__name__}",
                received=type(model).__name__,
            )
        self.model = model
        self.source = source
        self.forward = forward or call
        self.progress = progress
        self.passes = 1
        self._done = 0
        self._total: int | None = None
        self.device = device_of(model)
        if self.device.type == "meta":
            raise BatchError(
                "the model's weights are on the meta device, so it cannot run: load its weights first"
            )

    @property
    def can_repeat(self) -> bool:
        """Whether the stream can be read more than once."""
        return callable(self.source) or iter(self.source) is not self.source

    def __iter__(self) -> Iterator[Any]:
        """Yield each batch on the model's device, and report it when the next one is asked for.

        Raises ``BatchError`` where there is none, ``NotFiniteError`` for NaN in one,
        ``CalibrationCancelledError`` where ``progress`` returns ``False``.
        """
        source = self.source() if callable(self.source) else self.source
        if not isinstance(source, Iterable) or isinstance(source, torch.Tensor | str):
            raise BatchError(
                f"the function that is to return batches returned {source!r:.60}; let it return a list, a "
                "DataLoader or an iterator",
                received=type(source).__name__,
            )
        total = len(source) if isinstance(source, Sized) else None
        empty = True
        for number, batch in enumerate(source):
            moved = tree_map(self._moved, batch)
            self._check(moved, number)
            yield moved
            empty = False
            self._done += 1
            self._total = total
            self.ask()
        if empty:
            raise BatchError(
                "there was no batch: an empty list, or an iterator that was read before; give a list, a "
                "DataLoader, or a function that returns a new iterator each time"
            )

    def ask(self) -> None:
        """Tell ``progress`` where it stands; raises ``CalibrationCancelledError`` where that says stop."""
        total = None if self._total is None else self._total * self.passes
        if self.progress is not None and self.progress(self._done, total) is False:
            of = "" if total is None else f" of {total}"
            raise CalibrationCancelledError(f"stopped by progress after {self._done}{of} batches")

    def run(self, model: nn.Module, batch: Any) -> Any:
        """Return what ``model`` makes of ``batch``; raises ``BatchError`` where it takes no such batch."""
        try:
            return self.forward(model, batch)
        except TorchPrunerError:
            raise
        except Exception as error:
            raise BatchError(
                f"the model does not run on this batch ({_described(batch)}): "
                f"{type(error).__name__}: {str(error)[:300]}. A tensor is passed as it is, a "
                "tuple or list as "
                "positional arguments, a dict as keywords; where a batch holds labels too, say "
                "which part the "
                "model takes: forward=lambda model, batch: model(batch[0])",
                error=type(error).__name__,
            ) from error

    def run_all(self, model: nn.Module) -> int:
        """Run every batch through ``model`` without gradients; return how many there were."""
        count = 0
        with torch.no_grad():
            for batch in self:
                self.run(model, batch)
                count += 1
        return count

    def _moved(self, value: Any) -> Any:
        if hasattr(value, "__array__") and not isinstance(value, torch.Tensor):
            value = torch.as_tensor(value)
        return value.to(self.device) if isinstance(value, torch.Tensor) else value

    def _check(self, batch: Any, number: int) -> None:
        leaves = tree_flatten(batch)[0]
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        if tensors and not any(tensor.numel() for tensor in tensors):
            raise BatchError(f"batch {number} is empty: {_described(batch)}", batch=number)
        for leaf in leaves:
            if (
                isinstance(leaf, torch.Tensor)
                and leaf.is_floating_point()
                and bool(leaf.isnan().any())
            ):
                raise NotFiniteError(
                    f"batch {number} holds NaN in a tensor of the shape {tuple(leaf.shape)}: find out where "
                    "the data come from, or leave that batch out",
                    batch=number,
                )


def _described(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return (
            f"a {str(batch.dtype).removeprefix('torch.')} tensor of the shape {tuple(batch.shape)}"
        )
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{k}: {_described(v)}" for k, v in batch.items()) + "}"
    if isinstance(batch, tuple | list):
        return f"{type(batch).__name__} of {len(batch)}: " + "; ".join(map(_described, batch[:4]))
    return type(batch).__name__
