"""Importance from gradients: what the loss would gain or lose if a slice were zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.batches import Batches, Progress, Source
from torchpruner_core.calibration.errors import BatchError, NotFiniteError, UnscorableModelError
from torchpruner_core.calibration.moments import exact_dtype
from torchpruner_core.exporting.unwrapping import unwrap
from torchpruner_core.importance.axes import prunable_axes
from torchpruner_core.planning.scores import Axis, Scores
from torchpruner_core.pruning.tensors.targets import LocalModel

Loss = Callable[[nn.Module, Any], torch.Tensor]
"""``loss(model, batch)`` gives a scalar: ``lambda model, batch: F.cross_entropy(model(batch[0]),
batch[1])``.
"""


def taylor(
    model: nn.Module,
    graph: Any,
    batches: Source,
    loss: Loss | None = None,
    *,
    progress: Progress | None = None,
) -> Scores:
    """Return ``|sum of gradient x weight|`` over each slice, the gradient being the mean over all batches.

    That is the first-order change of the loss if the slice were zero. ``loss(model, batch)`` returns a
    scalar; without one the model's own is taken (``model(**batch).loss``, as Hugging Face models have
    it). ``progress(done, total)`` is told after each batch, and stops the run by returning ``False``.
    Memory: one gradient of the model. Source: Molchanov et al. 2017, https://arxiv.org/abs/1611.06440.

    Runs on the model's device in evaluation mode; modes, gradients, buffers and random numbers are as before.
    Raises ``BatchError``, ``NotFiniteError``, ``UnscorableModelError``, ``CalibrationCancelledError``.
    """
    sums = _Sums(model, graph)
    count = 0
    run = Batches(sums.root, batches, loss or _own_loss, progress)
    with _ready(sums):
        for batch in run:
            sums.add(run, batch, square=False)
            count += 1
    return sums.scores("taylor", count, {"batches": count}, absolute=True)


def fisher(
    model: nn.Module,
    graph: Any,
    batches: Source,
    loss: Loss | None = None,
    *,
    per_sample: bool = True,
    progress: Progress | None = None,
) -> Scores:
    """Return the mean over samples of ``(sum of gradient x weight) ** 2`` over each slice.

    That is the diagonal of the empirical Fisher information for masks on the slices. With ``per_sample`` each
    batch is taken apart along the first axis of its tensors, so that every sample has its own gradient;
    without, one batch is one draw, which is as much faster and blurs the samples of a batch together.
    Arguments, memory and errors are those of :func:`taylor`. Source: Kwon et al. 2022,
    https://arxiv.org/abs/2204.09656; Theis et al. 2018, https://arxiv.org/abs/1801.05787.
    """
    sums = _Sums(model, graph)
    count = 0
    run = Batches(sums.root, batches, loss or _own_loss, progress)
    with _ready(sums):
        for batch in run:
            for sample in _samples(batch) if per_sample else (batch,):
                sums.add(run, sample, square=True)
                count += 1
    return sums.scores("fisher", count, {"draws": count, "per_sample": per_sample}, absolute=False)


class _Sums:
    """Sums of one number a slice, on the model's device."""

    def __init__(self, model: nn.Module, graph: Any) -> None:
        self.root = unwrap(model)
        tensors = LocalModel(self.root).tensors
        self.dims: dict[str, tuple[int, ...]] = {}
        self.parameters: dict[str, torch.Tensor] = {}
        for name, dims in prunable_axes(graph).items():
            tensor = tensors.get(name)
            if tensor is None:
                raise UnscorableModelError(
                    f"the graph has a parameter {name}, and the model has none of that name: is the graph "
                    "of this very model?",
                    node=name,
                )
            if tensor.is_leaf and tensor.is_floating_point():
                self.dims[name], self.parameters[name] = dims, tensor
        self.sums: dict[Axis, torch.Tensor] = {}

    def add(self, run: Batches, batch: Any, *, square: bool) -> None:
        """Add one loss's gradient times weight."""
        with torch.enable_grad():
            value = run.run(self.root, batch)
            self._check(value)
            gradients = torch.autograd.grad(
                value, list(self.parameters.values()), allow_unused=True
            )
        with torch.no_grad():
            for (name, weight), gradient in zip(self.parameters.items(), gradients, strict=True):
                if gradient is None:
                    continue
                product = (gradient.to_dense() if gradient.is_sparse else gradient) * weight
                for dim in self.dims[name]:
                    others = [axis for axis in range(product.dim()) if axis != dim]
                    found = product.sum(others, dtype=torch.float32) if others else product.float()
                    found = found.to(exact_dtype(found.device))
                    found = found.square() if square else found
                    known = self.sums.get((name, dim))
                    self.sums[name, dim] = found if known is None else known.add_(found)

    def scores(self, kind: str, count: int, meta: Mapping[str, Any], *, absolute: bool) -> Scores:
        """Return the mean of what was summed up."""
        values = {}
        for (name, dim), total in self.sums.items():
            found = total.abs() if absolute else total
            if not bool(torch.isfinite(found).all()):
                raise NotFiniteError(
                    f"the gradient of {name} is not finite: look at the loss and the batches, or "
                    "run the model "
                    "in float32",
                    node=name,
                )
            values[name, dim] = (found / count).cpu().double().numpy()
        if not values:
            raise UnscorableModelError("the loss depends on no parameter that can be shortened")
        return Scores(values, kind, meta)

    def _check(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise BatchError(
                f"loss(model, batch) returns a scalar tensor, not {shape}: reduce it with .mean()"
            )
        if not value.requires_grad:
            raise BatchError(
                "the loss depends on no parameter: it was computed without gradients "
                "(torch.no_grad, .item(), "
                ".detach())"
            )
        if not bool(torch.isfinite(value)):
            raise NotFiniteError(
                f"the loss is {float(value.detach())}: look at the batches and the weights"
            )


class _Ready:
    """The model as found afterwards, with a gradient for every parameter that has scores meanwhile."""

    def __init__(self, sums: _Sums) -> None:
        self._found = as_found(sums.root)
        self._parameters = sums.parameters
        recurrent = any(isinstance(module, nn.RNNBase) for module in sums.root.modules())
        # cuDNN's recurrent layers have a backward in training mode only.
        self._cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()

    def __enter__(self) -> None:
        self._found.__enter__()
        self._cudnn.__enter__()
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)

    def __exit__(self, *error: Any) -> None:
        self._cudnn.__exit__(*error)
        self._found.__exit__(*error)


def _ready(sums: _Sums) -> _Ready:
    return _Ready(sums)


def _own_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    if isinstance(batch, Mapping):
        loss = getattr(model(**batch), "loss", None)
        if isinstance(loss, torch.Tensor):
            return loss
    raise BatchError(
        "a gradient needs a loss: give loss=lambda model, batch: "
        "F.cross_entropy(model(batch[0]), batch[1]); only "
        "models whose output has a .loss (Hugging Face, with 'labels' in the batch) bring their own"
    )


def _samples(batch: Any) -> Iterator[Any]:
    sizes = {
        len(leaf)
        for leaf in tree_flatten(batch)[0]
        if isinstance(leaf, torch.Tensor) and leaf.dim()
    }
    if len(sizes) != 1:
        raise BatchError(
            f"the tensors of a batch differ in their first axis ({sorted(sizes)}), so it cannot "
            "be taken apart "
            "into samples: give batches of one sample with per_sample=False"
        )
    for number in range(sizes.pop()):
        yield tree_map(
            lambda leaf, n=number: (
                leaf[n : n + 1] if isinstance(leaf, torch.Tensor) and leaf.dim() else leaf
            ),
            batch,
        )
