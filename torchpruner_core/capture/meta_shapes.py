"""Shapes of operators whose meta kernel refuses what the real one takes, or takes its time over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

WHOLE_BYTES = 16
"""PyTorch's grouped products read rows, or columns of a transposed matrix, of a multiple of so many bytes."""

UNALIGNED = f"strides should be multiple of {WHOLE_BYTES} bytes"
"""What its CPU kernel says where they are not; kept here, so that shapes alone say the same."""


def without_values(func: Any) -> Callable[..., Any]:
    """Return what to call in place of ``func`` on tensors that have no values."""
    rule = _RULES.get(func)
    if rule is None:
        return func  # type: ignore[no-any-return]

    def call(*args: Any, **kwargs: Any) -> Any:
        found = rule(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found

    return call


def grouped_product(
    a: torch.Tensor,
    b: torch.Tensor,
    offs: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor | None:
    """Rows in groups, each with a matrix of its own; on ``meta`` PyTorch takes half precision alone.

    ``None`` where PyTorch's own kernel will do. Raises ``RuntimeError`` as the CPU kernel does.
    """
    if a.dtype in (torch.bfloat16, torch.float16) or not a.is_floating_point():
        return None
    if a.dtype is not b.dtype:
        raise RuntimeError(f"expected matrices of one dtype, got {a.dtype} and {b.dtype}")
    if (a.dim() == 3 or b.dim() == 3) and a.shape[-1] != b.shape[-2]:
        raise RuntimeError("contraction dimension of mat_a and mat_b must match")
    for matrix in (a, b):
        strides = matrix.stride()[-2:]
        if max(strides) * matrix.element_size() % WHOLE_BYTES:
            raise RuntimeError(UNALIGNED)
    if a.dim() == b.dim() == 2:
        assert offs is not None
        shape: tuple[int, ...] = (offs.shape[0], a.shape[0], b.shape[1])
    elif a.dim() == b.dim() == 3:
        shape = (*a.shape[:2], b.shape[2])
    else:
        shape = (a.shape[-2], b.shape[-1])
    return a.new_empty(shape, dtype=out_dtype or a.dtype)


def batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    """With stored statistics; PyTorch takes this apart in Python, for ten times as long as a convolution.

    ``None`` where PyTorch's own kernel will do, or shall say what is wrong.
    """
    if training or x.dim() < 2:
        return None
    stored = (running_mean, running_var, weight, bias)
    if any(each is not None and each.shape != x.shape[1:2] for each in stored):
        return None
    return torch.empty_like(x)


def activation(x: torch.Tensor, inplace: bool = False) -> torch.Tensor | None:
    """One number for each; PyTorch works out the type in Python."""
    if not x.is_floating_point():
        return None
    return x if inplace else torch.empty_like(x)


_RULES: dict[Any, Callable[..., Any]] = {
    F.batch_norm: batch_norm,
    **dict.fromkeys((F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.mish), activation),
}
if hasattr(torch, "_grouped_mm"):
    _RULES[torch._grouped_mm] = grouped_product
