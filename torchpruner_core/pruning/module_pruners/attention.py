"""``nn.MultiheadAttention``: heads, head sizes and widths that its own ``forward()`` ties together.

The layer computes the width of its projections, the head size and the attention scale from one
number, the input's width. A cut rarely keeps these in step: with one of eight heads gone the
projections are narrower than the residual stream. Such a module becomes a
:class:`PrunedMultiheadAttention`, the same object with the same parameters and the same call, which
keeps each of these numbers apart; ``recovery_cut`` turns it back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from torchpruner_core.errors import ModulePrunerError
from torchpruner_core.pruning.module_pruners.base import BasePruner, LayerChange


class PrunedMultiheadAttention(nn.MultiheadAttention):
    """A ``MultiheadAttention`` whose projections need not be as wide as its input.

    ``head_dim`` is the size of a query and key head, ``v_head_dim`` that of a value head, and
    ``scale`` the factor on the scores, which a cut leaves as it was.
    """

    v_head_dim: int
    scale: float

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute what ``nn.MultiheadAttention`` does, with the same arguments and results."""
        batched = query.dim() == 3
        if is_causal and attn_mask is None:
            raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        mask = self._mask(query, key, key_padding_mask, attn_mask)

        q, k, v = self._project(query, key, value)
        batch = q.shape[0]
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(batch, 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(batch, 1, -1)], dim=1)
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            weights = F.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, dropout)
            out = weights @ v
            if average_attn_weights:
                weights = weights.mean(dim=1)
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=self.scale)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _project(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = [self.num_heads * self.head_dim] * 2 + [self.num_heads * self.v_head_dim]
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.split(rows)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.split(rows)
        q, k, v = (
            F.linear(x, weight, bias)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        return q, k, v

    def _mask(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        key_padding_mask: torch.Tensor | None,
        attn_mask: torch.Tensor | None,
    ) -> torch.Tensor | None:
        extra = int(self.bias_k is not None) + int(self.add_zero_attn)
        merged: torch.Tensor | None = None
        if attn_mask is not None:
            merged = _additive(attn_mask, query.dtype)
            if merged.dim() == 3:
                merged = merged.unflatten(0, (-1, self.num_heads))
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, query.dtype)[:, None, None, :]
            merged = padding if merged is None else merged + padding
        return merged if merged is None or not extra else F.pad(merged, (0, extra))


def _additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


class MultiheadAttentionPruner(BasePruner):
    """``MultiheadAttention``: whole heads, parts of every head, its inputs and its output.

    ``in_proj_weight`` is ``(q + k + v rows, embed_dim)``, or there are three weights
    ``{q,k,v}_proj_weight``; ``out_proj.weight`` is ``(embed_dim, v rows)``.
    """

    def attributes(self, nn_module: Any, change: LayerChange) -> dict[str, Any]:
        heads, size = nn_module.num_heads, nn_module.head_dim
        v_size = getattr(nn_module, "v_head_dim", size)
        gone = self._removed_rows(change, heads * size, heads * v_size)
        counts = [
            _per_head(rows, heads, width)
            for rows, width in zip(gone, (size, size, v_size), strict=True)
        ]
        lost = [count == width for count, width in zip(counts, (size, size, v_size), strict=True)]
        if not (np.array_equal(lost[0], lost[1]) and np.array_equal(lost[0], lost[2])):
            self._refuse(
                f"whole heads of queries, keys and values differ: {[c.tolist() for c in counts]}"
            )
        left = ~lost[0]
        inner = [count[left] for count in counts]
        if any(len(set(count.tolist())) > 1 for count in inner) or inner[0][0] != inner[1][0]:
            self._refuse(
                "take whole heads, or as many rows from every head of the queries and the keys, "
                f"not {[c.tolist() for c in counts]}"
            )
        heads, q_size = int(left.sum()), size - int(inner[0][0])
        v_size = v_size - int(inner[2][0])

        packed = change.after.get("in_proj_weight")
        embed = packed[1] if packed else change.after["q_proj_weight"][1]
        values: dict[str, Any] = {"num_heads": heads, "head_dim": q_size, "embed_dim": embed}
        values["kdim"] = embed if packed else change.after["k_proj_weight"][1]
        values["vdim"] = embed if packed else change.after["v_proj_weight"][1]
        plain = type(nn_module) is not PrunedMultiheadAttention
        in_step = heads * q_size == heads * v_size == embed and q_size == nn_module.head_dim
        if plain and in_step and self._output(nn_module, change) == embed:
            return values
        if type(nn_module).forward not in (
            nn.MultiheadAttention.forward,
            PrunedMultiheadAttention.forward,
        ):
            self._refuse(
                f"{type(nn_module).__name__} has a forward() of its own; register a pruner for it"
            )
        values.update(
            v_head_dim=v_size,
            scale=getattr(nn_module, "scale", nn_module.head_dim**-0.5),
            # The encoder layers' fused path assumes the widths that this module no longer ties.
            _qkv_same_embed_dim=False,
        )
        values["__class__"] = PrunedMultiheadAttention
        return values

    def _removed_rows(
        self, change: LayerChange, width: int, v_width: int
    ) -> list[NDArray[np.int64]]:
        if "in_proj_weight" in change.after:
            rows = change.indices("in_proj_weight", 0)
            ends = np.searchsorted(rows, [width, 2 * width])
            q, k, v = np.split(rows, ends)
            return [q, k - width, v - 2 * width]
        return [change.indices(f"{part}_proj_weight", 0) for part in "qkv"]

    def _output(self, nn_module: Any, change: LayerChange) -> int:
        # The output projection is a module of its own; the residual stream it writes to is cut with
        # the input it reads, so an input that stays says that the output stays.
        weight = change.after.get("in_proj_weight") or change.after["q_proj_weight"]
        before = change.before.get("in_proj_weight") or change.before["q_proj_weight"]
        output: int = nn_module.out_proj.weight.shape[0]
        return output if weight[1] == before[1] else weight[1]

    def _refuse(self, reason: str) -> None:
        raise ModulePrunerError(
            f"{self.name} (MultiheadAttention) cannot follow the cut: {reason}", module=self.name
        )


def _per_head(rows: NDArray[np.int64], heads: int, size: int) -> NDArray[np.int64]:
    return np.bincount(rows // size, minlength=heads)
