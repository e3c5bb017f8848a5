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


def ridge(
    gram: Gram, lost: Lost, strength: float, centred: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``A``, shape ``(removed, kept)``, and ``c``, shape ``(removed,)``.

    ``strength`` is the regression's penalty as a share of the kept features' mean variance. Without
    ``centred`` the fit goes through zero and ``c`` is zero, for a weight without a bias. Both have
    float64 (float32 on MPS).
    """
    moment = gram.covariance() if centred else gram.second_moment()
    kept = torch.from_numpy(lost.kept).to(moment.device)
    removed = torch.from_numpy(lost.removed).to(moment.device)
    rows = torch.searchsorted(gram.kept, kept)
    among = moment[rows][:, kept]
    across = moment[rows][:, removed]
    size = among.diagonal().mean()
    mean = gram.mean
    if not bool(size > 0):
        solution = torch.zeros_like(across.T)
    else:
        penalised = among + strength * size * torch.eye(
            len(kept), dtype=among.dtype, device=among.device
        )
        factor, failed = torch.linalg.cholesky_ex(penalised)
        if int(failed):
            solution = torch.linalg.lstsq(penalised, across).solution.T
        else:
            solution = torch.cholesky_solve(across, factor).T
    offset = mean[removed] - solution @ mean[kept] if centred else torch.zeros_like(mean[removed])
    return solution, offset


def mean_only(gram: Gram, lost: Lost) -> tuple[None, torch.Tensor]:
    """Return no ``A``, and ``c`` as the removed features' mean: bias compensation (FLAP)."""
    return None, gram.mean[torch.from_numpy(lost.removed).to(gram.mean.device)]


def give_over(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    position: int,
    lost: Lost,
    solution: torch.Tensor | None,
    offset: torch.Tensor,
) -> None:
    """Change ``W_kept += W_removed A`` and ``b += W_removed c`` in place, on whole tensors.

    ``position`` is the block's place among its reading's: that of its outputs in ``bias``.
    """
    view = lost.block.of(weight)
    first = lost.block.first
    kept = torch.from_numpy(lost.kept - first).to(view.device)
    removed = torch.from_numpy(lost.removed - first).to(view.device)
    taken = view[removed].to(offset.dtype)
    if solution is not None:
        share = torch.tensordot(solution.T, taken, dims=1)
        view[kept] = (view[kept].to(offset.dtype) + share).to(view.dtype)
    if bias is not None:
        moved = torch.tensordot(offset, taken, dims=1)
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
