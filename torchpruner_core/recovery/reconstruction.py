"""One primitive: a weight that lost inputs makes up for them with those it kept.

Where the removed features of a tensor can be written as ``x_removed ≈ A x_kept + c``, a weight that reads
it goes on giving what it gave with ``W_kept += W_removed A`` and ``b += W_removed c``. Ridge regression
finds ``A`` from the covariance of the features; bias compensation is the case ``A = 0``, folding that of
one entry a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from torchpruner_core.calibration.moments import Gram, check_finite, exact_dtype
from torchpruner_core.calibration.readings import Block, Reading

Axes = Sequence["NDArray[np.int64] | None"]
"""What a cut takes from a parameter: one entry an axis."""


@dataclass(frozen=True)
class Lost:
    """The features that one block of a reading loses and keeps, numbered as in the tensor read."""

    block: Block
    removed: NDArray[np.int64]
    kept: NDArray[np.int64]


def lost_features(reading: Reading, parameter: torch.Tensor, axes: Axes) -> list[Lost]:
    """Return the blocks of a reading that a cut takes input features from, ``parameter`` being whole."""
    found = []
    for block in reading.blocks:
        gone = np.zeros(block.sizes[0], dtype=np.bool_)
        for axis, index in block.coordinates(parameter, 0):
            cut = axes[axis]
            if cut is not None:
                gone |= np.isin(index, cut)
        if gone.any() and not gone.all():
            features = np.arange(block.sizes[0]) + block.first
            found.append(Lost(block, features[gone], features[~gone]))
    return found


def kept_outputs(reading: Reading, parameter: torch.Tensor, axes: Axes | None) -> torch.Tensor:
    """Return which outputs a cut leaves, block after block, shape ``(blocks x outputs,)``."""
    found = []
    for block in reading.blocks:
        gone = np.zeros(block.sizes[1], dtype=np.bool_)
        for axis, index in block.coordinates(parameter, 1) if axes is not None else ():
            cut = axes[axis] if axes is not None else None
            if cut is not None:
                gone |= np.isin(index, cut)
        found.append(~gone)
    return torch.from_numpy(np.concatenate(found)).to(parameter.device)


@dataclass(frozen=True)
class Fit:
    """What is missing of some features, ``sources``, in terms of the kept ones: ``change`` x kept +
    ``offset``.

    ``change`` has the shape ``(kept, sources)``, or is ``None`` for none; ``offset`` the shape
    ``(sources,)``.
    """

    sources: NDArray[np.int64]
    change: torch.Tensor | None
    offset: torch.Tensor


def ridge(gram: Gram, lost: Lost, strength: float, centred: bool) -> Fit:
    """Return the removed features in terms of the kept ones.

    ``strength`` is the regression's penalty as a share of the kept features' mean variance. Without
    ``centred`` the fit goes through zero and has no offset, for a weight without a bias. In float64
    (float32 on MPS).
    """
    moment = gram.covariance() if centred else gram.second_moment()
    kept = torch.from_numpy(lost.kept).to(moment.device)
    removed = torch.from_numpy(lost.removed).to(moment.device)
    rows = torch.searchsorted(gram.kept, kept)
    change = solved(moment[rows][:, kept], moment[rows][:, removed], strength)
    mean = gram.mean
    offset = mean[removed] - mean[kept] @ change if centred else torch.zeros_like(mean[removed])
    return Fit(lost.removed, change, offset)


def mean_only(gram: Gram, lost: Lost) -> Fit:
    """Return the removed features' means: bias compensation (FLAP)."""
    mean = gram.mean
    return Fit(lost.removed, None, mean[torch.from_numpy(lost.removed).to(mean.device)])


def regression(
    rows: torch.Tensor, gap: torch.Tensor, strength: float, centred: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what to add to a weight and to its bias so that ``gap`` closes.

    ``rows`` is what the weight reads, shape ``(n, features)``, and ``gap`` what its outputs lack, shape
    ``(n, outputs)``; the results have the shapes ``(features, outputs)`` and ``(outputs,)``, the latter
    zeros without ``centred``. The penalty draws towards the weight as it is.
    """
    dtype = exact_dtype(rows.device)
    mean, mean_gap = rows.mean(0), gap.mean(0)
    if centred:
        rows, gap = rows - mean, gap - mean_gap
    count, features = rows.shape
    if features <= count:
        among = (rows.T @ rows).to(dtype) / count
        change = solved(among, (rows.T @ gap).to(dtype) / count, strength)
    else:  # fewer rows than features: the same by way of the rows' products with one another
        among = (rows @ rows.T).to(dtype) / count
        weights = solved(among, gap.to(dtype) / count, strength * count / features)
        change = rows.T.to(dtype) @ weights
    offset = torch.zeros_like(mean_gap, dtype=dtype)
    if centred:
        offset = mean_gap.to(dtype) - mean.to(dtype) @ change
    return change, offset


def solved(among: torch.Tensor, across: torch.Tensor, strength: float) -> torch.Tensor:
    """Return ``(among + penalty)^-1 across``; zeros where the features do not vary at all."""
    size = among.diagonal().mean()
    if not bool(size > 0):
        return torch.zeros_like(across)
    unit = torch.eye(len(among), dtype=among.dtype, device=among.device)
    penalised = among + strength * size * unit
    factor, failed = torch.linalg.cholesky_ex(penalised)
    if int(failed):
        found: torch.Tensor = torch.linalg.lstsq(penalised, across).solution
        return found
    return torch.cholesky_solve(across, factor)


def give_over(
    original: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    position: int,
    lost: Lost,
    fit: Fit,
) -> None:
    """Change ``W_kept += change W_sources`` and ``b += offset W_sources`` in place, on whole tensors.

    ``original`` holds the sources' weights; ``position`` is the block's place among its reading's: that
    of its outputs in ``bias``.
    """
    view = lost.block.of(weight)
    first = lost.block.first
    kept = torch.from_numpy(lost.kept - first).to(view.device)
    sources = torch.from_numpy(fit.sources - first).to(view.device)
    taken = lost.block.of(original)[sources].to(fit.offset.dtype)
    if fit.change is not None:
        share = torch.tensordot(fit.change, taken, dims=1)
        view[kept] = (view[kept].to(fit.offset.dtype) + share).to(view.dtype)
    if bias is not None:
        moved = torch.tensordot(fit.offset, taken, dims=1)
        if moved.dim() > 1:
            moved = moved.sum(
                dim=tuple(range(1, moved.dim()))
            )  # every tap of a kernel adds its part
        part = slice(position * len(moved), (position + 1) * len(moved))
        bias[part] = (bias[part].to(moved.dtype) + moved).to(bias.dtype)


def gram_of(lost: Sequence[Lost], device: torch.device) -> Gram:
    """Return an empty Gram matrix for the features that some blocks keep."""
    kept = np.unique(np.concatenate([each.kept for each in lost]))
    return Gram(torch.from_numpy(kept).to(device))


def gram_bytes(gram: Gram, reading: Reading) -> int:
    """Return the memory that a Gram matrix will take."""
    size = torch.finfo(exact_dtype(gram.kept.device)).bits // 8
    return len(gram.kept) * reading.features * size


def check_gram(reading: Reading, gram: Gram) -> None:
    """Raise ``NotFiniteError`` where what was read was not finite."""
    check_finite(reading, gram.covariance())
