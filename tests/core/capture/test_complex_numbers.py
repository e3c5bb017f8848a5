"""Complex numbers are pairs of real ones in a program: rotary positions, Fourier layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from tests.core.capture.running import captured, difference


class Rotary(nn.Module):
    """Attention's queries turned by complex numbers that are kept in a buffer and in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(32, 32), nn.Linear(32, 16)
        angles = torch.outer(torch.arange(6.0), 1 / 100 ** (torch.arange(4) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))
        self.table = torch.polar(torch.ones_like(angles), angles)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pairs = self.q(x).view(1, 6, -1, 4, 2)
        turned = torch.view_as_complex(pairs) * self.turns.view(1, 6, 1, 4)
        back = turned * self.table[:, None].conj() / (1 + self.table.abs()[:, None])
        flat = torch.view_as_real(back).flatten(2)
        return self.o(flat + turned.abs().repeat_interleave(2, -1).flatten(2))  # type: ignore[no-any-return]


class FourierOperator(nn.Module):
    """Low frequencies multiplied by a complex parameter, as Fourier neural operators do."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.weights = nn.Parameter(torch.randn(8, 8, 3, 3, dtype=torch.cfloat) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.before(x)
        spectrum = torch.fft.rfft2(h)
        low = torch.zeros_like(spectrum)
        low[:, :, :3, :3] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :3, :3], self.weights)
        return self.after(torch.fft.irfft2(low, s=h.shape[-2:]) + h)  # type: ignore[no-any-return]


class Mixing(nn.Module):
    """Tokens mixed by a transform of the whole, and a filter with learnt pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 6), nn.Linear(6, 4)
        self.filter = nn.Parameter(torch.randn(5, 3, 6, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x).view(1, 5, 5, -1)
        y = torch.fft.rfft2(h, dim=(1, 2), norm="ortho") * torch.view_as_complex(self.filter)
        z = torch.fft.irfft2(y, s=(5, 5), dim=(1, 2), norm="ortho")
        return self.b(torch.fft.fftn(z, dim=(-2, -1)).real)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (Rotary, (1, 6, 32)),
        (FourierOperator, (1, 3, 9, 8)),
        (FourierOperator, (1, 3, 8, 9)),
        (Mixing, (1, 25, 8)),
    ],
)
def test_onnxruntime_and_the_module_agree(
    kind: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(shape)
    program = captured(model, (x,))
    assert program.opaque == ()
    assert difference(program, model, (x,)) < 1e-4


def test_a_complex_parameter_is_cut_with_its_layer() -> None:
    torch.manual_seed(0)
    model, x = FourierOperator().eval(), torch.randn(1, 3, 8, 8)
    graph = tp.ONNXGraph(model).build_graph((x,))
    members = {group.members for group in graph.solved.groups()}
    assert any(
        ("self.before.weight", 0) in each and ("self.weights", 0) in each for each in members
    )
    assert graph.nodes["self.weights"].data.shape == (8, 8, 3, 3, 2)
    cut = graph.nodes["self.weights"].cut_analysis([1, 5], 0)
    model, context = tp.set_cut(model, cut, inputs=(x,))
    assert model.weights.shape[0] == model.before.out_channels == 6
    model = tp.recovery_cut(model, cut, context)
    assert model.weights.shape == (8, 8, 3, 3)
