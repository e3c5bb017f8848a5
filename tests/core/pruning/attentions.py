"""Attention layers that hold their sizes in every way a ``forward()`` can."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    """Four heads of size 6 over a width of 24, projections apart; subclasses say the sizes."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.o = nn.Linear(width, width)
        self.scale = (width // heads) ** -0.5

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        return (scores @ v).transpose(1, 2)


class HeadsByAttribute(Attention):
    """``view(b, t, heads, head_dim)``, both attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 6

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.attend(self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x)))
        return self.o(out.flatten(2))


class HiddenBehindMinusOne(HeadsByAttribute):
    """``view(b, t, heads, -1)``: with one head less it runs, as four thinner heads."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], self.num_heads, -1).transpose(1, 2)


class InnerWidthToo(HeadsByAttribute):
    """Three attributes in step: heads, head size and their product."""

    def __init__(self) -> None:
        super().__init__()
        self.all_head_size = 24

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.attend(self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x)))
        return self.o(out.reshape(x.shape[0], x.shape[1], self.all_head_size))


class HeadsInAConfig(Attention):
    """The heads are in a config object of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(heads=4, sizes=[6, 6])

    def split(self, x: torch.Tensor) -> torch.Tensor:
        shape = (x.shape[0], x.shape[1], self.config.heads, self.config.sizes[0])
        return x.view(shape).transpose(1, 2)

    forward = HeadsByAttribute.forward


class HeadsInATuple(Attention):
    """The shape of a head is one tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.head_shape = (4, 6)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], *self.head_shape).transpose(1, 2)

    forward = HeadsByAttribute.forward


class HeadsFromShapes(Attention):
    """The number of heads is what is left over: nothing has to change."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], -1, 6).transpose(1, 2)

    forward = HeadsByAttribute.forward


class HeadsAsALiteral(Attention):
    """A four in the code."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], 4, 6).transpose(1, 2)

    forward = HeadsByAttribute.forward


class FusedProjection(nn.Module):
    """One matrix for queries, keys and values, split by attributes of an ancestor's making."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(24, 72), nn.Linear(24, 24)
        self.num_heads, self.split_size, self.scale = 4, 24, 6**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).split(self.split_size, dim=-1)
        shape = (x.shape[0], x.shape[1], self.num_heads, -1)
        q, k, v = (p.reshape(shape).transpose(1, 2) for p in parts)
        scores = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        return self.o((scores @ v).transpose(1, 2).flatten(2))


class GroupedQueries(nn.Module):
    """Eight query heads over four key and value heads, repeated by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(24, 32), nn.Linear(24, 16), nn.Linear(24, 16)
        self.o = nn.Linear(32, 24)
        self.head_dim, self.groups, self.scale = 4, 2, 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (x.shape[0], x.shape[1], -1, self.head_dim)
        q, k, v = (p(x).view(shape).transpose(1, 2) for p in (self.q, self.k, self.v))
        k, v = (self.repeat(t) for t in (k, v))
        scores = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)
        return self.o((scores @ v).transpose(1, 2).flatten(2))

    def repeat(self, x: torch.Tensor) -> torch.Tensor:
        b, heads, t, size = x.shape
        x = x[:, :, None].expand(b, heads, self.groups, t, size)
        return x.reshape(b, heads * self.groups, t, size)


class ScaleFromTheSize(HeadsByAttribute):
    """The scale is computed from the head size at every run, and must not follow it."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        scores = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, dim=-1)
        return (scores @ v).transpose(1, 2)


class ScaleInsideTheFunction(HeadsByAttribute):
    """PyTorch takes the scale from the query's present size."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def block(attention: nn.Module) -> nn.Sequential:
    """Return the layer between two others, so that it is not the whole model."""
    return nn.Sequential(nn.Linear(5, 24), attention, nn.Linear(24, 3))


class SizeFromTheWidth(nn.Module):
    """Takes its head size from the width of what comes in, as if the two were one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.o = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, t, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-2, -1) * (width // 4) ** -0.5, dim=-1)
        return self.o((scores @ v).transpose(1, 2).reshape(b, t, width))
