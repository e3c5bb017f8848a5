"""What a forward does to tensors, and what the program makes of it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.core.capture.running import captured, difference, operators
from torchpruner_core.errors import ExportError

X = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    """A function of one tensor, beside a weight of its width."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(6, 1))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self.weight)


def _write_through_views(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x * w
    y[:, 1:3] = 2 * x[:, 1:3]
    y[:, 4].add_(1)
    y.transpose(1, 2)[:, :, 0].mul_(3)
    y.view(2, 30)[:, ::7] = 0
    return y.relu_()


def _read_a_view_after_a_write(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x * w
    part = y[:, 2:5]
    y.mul_(2)
    return part + 1


def _fill_a_new_tensor(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(2, 6, 5)
    table[:, ::2] = x[:, ::2] * w[::2]
    table[0, 0, 0] = 7
    return table


def _constants_that_are_written(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(6, 1)
    before = x * mask
    mask[1:4] = 1
    return before + x * mask * w


def _several_parts(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x * w
    a, b, c = y.chunk(3, dim=1)
    b.zero_()
    first, *_ = y.unbind(2)
    return torch.cat([a, c, first[:, :2, None].expand(2, 2, 5)], 1) + y[:, :6]


def _index(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x * w)[:, [1, 3, 5]]


def _index_of_several_axes(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    rows = torch.tensor([[0], [1]])
    return (x * w)[rows, [0, 2]] + (x * w)[:, [0, 1], [1, 2]].sum()


def _put_at_indices(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = (x * w).clone()
    y[:, [0, 2]] = 1.5
    y[y < 0] = 0
    y.index_add_(1, torch.tensor([1, 1]), torch.ones(2, 2, 5))
    return y.masked_fill(y > 2, -1.0)


def _roll_and_flip(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return torch.roll((x * w).flip(2), (2, -1), (1, 2))


def _turned_in_place(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = x * w
    row = y[:, 0]
    row.unsqueeze_(1)
    both = torch.cat([row, y], 1)
    both.transpose_(1, 2)
    both += 1
    first = both[0]
    both.unsqueeze_(0)
    first.mul_(3)
    constant = torch.arange(7.0)
    constant.unsqueeze_(0)
    return both[0] * constant


def _by_strides(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = (x * w).transpose(0, 1)  # (6, 2, 5) in the memory of (2, 6, 5)
    return y.as_strided((4, 2, 2, 5), (5, 30, 5, 1)) + (x * w).as_strided((5,), (7,), 2)


def _statistics(x: torch.Tensor, w: torch.Tensor) -> Any:
    y = x * w
    return {
        "std": y.std(1),
        "var": y.var((1, 2), unbiased=False, keepdim=True),
        "norm": y.norm(dim=-1),
        "top": y.topk(2, dim=1).values,
        "order": y.argsort(dim=2),
        "sum": y.cumsum(1),
        "soft": y.softmax(-1).logsumexp(1),
    }


def _mixed_dtypes(x: torch.Tensor, w: torch.Tensor) -> Any:
    whole = (x * 10).to(torch.int64)
    return whole // 3 + whole % 3, (whole > 2) & (x * w < 1), whole / 4, whole * 0.5 * w


CASES = [
    _write_through_views,
    _read_a_view_after_a_write,
    _fill_a_new_tensor,
    _constants_that_are_written,
    _several_parts,
    _index,
    _index_of_several_axes,
    _put_at_indices,
    _roll_and_flip,
    _turned_in_place,
    _by_strides,
    _statistics,
    _mixed_dtypes,
]


@pytest.mark.parametrize("function", CASES, ids=lambda case: case.__name__.strip("_"))
def test_a_forward_and_its_program_compute_the_same(function: Any) -> None:
    model = Function(function)
    assert difference(captured(model, (X,)), model, (X,)) < 1e-5


def test_constant_indices_become_one_gather() -> None:
    assert operators(captured(Function(_index), (X,))) == ["Mul", "Gather"]


def test_what_nothing_reads_is_left_out() -> None:
    def forward(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        torch.matmul(x, x.transpose(1, 2)).softmax(-1)
        return x * w

    assert operators(captured(Function(forward), (X,))) == ["Mul"]


def test_attention_stays_one_operator() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    program = captured(layer, (x,))
    assert operators(program).count("Attention") == 1
    assert difference(program, layer, (x,)) < 1e-5


def test_grouped_query_attention_has_fewer_key_heads_in_the_program_too() -> None:
    class Grouped(nn.Module):
        def forward(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            return functional.scaled_dot_product_attention(
                q, kv, kv, is_causal=True, enable_gqa=True
            )

    inputs = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    program = captured(Grouped(), inputs)
    assert operators(program) == ["Attention"]
    assert difference(program, Grouped(), inputs) < 1e-5


def _resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_nothing_large_is_computed() -> None:
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)] + [
        layer for _ in range(4) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.SiLU())
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.LogSoftmax(1)).eval()
    image = torch.zeros(1, 3, 1, 1).expand(1, 3, 2048, 2048)
    captured(model, (image,))
    before = _resident()
    program = captured(model, (image,))  # 12 activations of a gibibyte
    assert operators(program)[-1] == "LogSoftmax"
    assert _resident() - before < 2**27


class Scaled(nn.Module):
    """Python code asks for a number of a parameter, and for one of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.layer = nn.Linear(300, 300)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.scale.item()
        if float(self.layer(x).abs().max()) > 0:  # large: the quick run does not compute it
            x = x * factor
        result: torch.Tensor = self.layer(x)
        return result


def test_values_that_python_read_are_frozen_and_named() -> None:
    model, x = Scaled(), torch.randn(20, 300)
    program = captured(model, (x,))
    assert [frozen.name for frozen in program.frozen] == ["self.item(scale)", "self.item(max)"]
    assert program.frozen[0].value == 2.0
    assert difference(program, model, (x,)) < 1e-5


def test_values_of_weights_on_meta_cannot_be_read() -> None:
    with pytest.raises(ExportError, match="meta device"):
        captured(Scaled().to("meta"), (torch.randn(20, 300),))


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(5, 5), Function(lambda x, w: x @ w))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        result: torch.Tensor = self.inner(x)
        return result


def test_a_forward_that_raises_says_where_and_leaves_the_model() -> None:
    model = Failing()
    before = dict(model.__dict__)
    with pytest.raises(ExportError, match=r"self\.inner\.1, at .*test_recording\.py:\d+") as raised:
        captured(model, (X,))
    assert "seen" not in model.__dict__
    assert model.__dict__ == before
    frames = []
    traceback = raised.value.__cause__.__traceback__ if raised.value.__cause__ else None
    while traceback is not None:
        frames.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    assert not any("torchpruner_core/capture" in name for name in frames[1:])


def test_a_forward_without_tensors_is_refused() -> None:
    with pytest.raises(ExportError, match="returns no tensor, but int"):
        captured(Function(lambda x, w: 3), (X,))


@pytest.mark.parametrize("size", [(5, 7), (17, 20)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_an_antialiased_resize_weighs_only_what_is_inside(mode: str, size: tuple[int, int]) -> None:
    class Resized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.interpolate(self.conv(x), size, mode=mode, antialias=True)

    torch.manual_seed(0)
    model, image = Resized().eval(), torch.rand(1, 3, 12, 12)
    assert difference(captured(model, (image,)), model, (image,)) < 1e-5
