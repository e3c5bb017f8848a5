"""``build_graph`` leaves a model, and what its code can reach, as it found them."""

from __future__ import annotations

import contextlib
import functools
import random
from collections import OrderedDict, deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import torchpruner_core as tp
from torchpruner_core.untouched import untouched

TABLES: dict[str, torch.Tensor] = {}


@functools.lru_cache
def memoised(size: int) -> torch.Tensor:
    return torch.arange(size, dtype=torch.float32)


def tree(value: Any, depth: int = 0) -> Any:
    """Return the whole ``__dict__`` tree below a value: identities, order, contents, tensors' bits."""
    if isinstance(value, torch.Tensor):
        bits = value.detach().clone().numpy().tobytes() if not value.is_meta else b""
        kind = (type(value), tuple(value.shape), value.dtype, value.requires_grad, value._version)
        grad = None if not value.is_leaf or value.grad is None else tree(value.grad)
        return (id(value), *kind, bits, grad)
    if isinstance(value, nn.Module):
        return id(value), type(value), tree(value.__dict__, depth)
    if isinstance(value, (dict, OrderedDict)):
        return id(value), [(key, tree(entry, depth + 1)) for key, entry in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return id(value), [tree(entry, depth + 1) for entry in value]
    if isinstance(value, set):
        return id(value), sorted(map(repr, value))
    if isinstance(value, (bool, int, float, str, type(None), torch.dtype)):
        return value
    if isinstance(value, type) or not hasattr(value, "__dict__") or depth > 8:
        return id(value)
    return id(value), tree(vars(value), depth + 1)


class Lazy(nn.Module):
    """Writes wherever a forward can write."""

    shared: torch.Tensor | None = None
    by_size: dict[int, torch.Tensor] = {}  # noqa: RUF012  (a table at the class, as people write it)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.register_buffer("steps", torch.zeros(1))
        self.seen: list[Any] = []
        self.cache: dict[str, Any] = {"inner": {}}
        self.options = SimpleNamespace(last=None, nested={"a": [1]})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        random.random()
        np.random.rand()
        torch.rand(1)
        if not hasattr(self, "late"):
            self.late = x.new_zeros(6)
        self.steps = self.steps + 1
        self.seen.append(x)
        self.cache["inner"]["x"] = x
        self.options.last = x
        self.options.nested["a"].append(x.shape[0])
        self.layer.extra = nn.Identity()
        if Lazy.shared is None:
            Lazy.shared = torch.ones(6)
        Lazy.by_size.setdefault(6, torch.ones(6))
        TABLES.setdefault("six", torch.ones(6))
        h = self.norm(self.layer(x)) * Lazy.shared * Lazy.by_size[6] * TABLES["six"]
        return h + self.late + memoised(6) + self.steps


class NoneAtFirst(Lazy):
    """A buffer is registered as ``None`` and filled by the first forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(6, dtype=x.dtype)
        return super().forward(x) + self.table


class Writes(Lazy):
    """Writes to its buffers and parameters in place, by ways that autograd does not count too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps.add_(1)
        self.layer.weight.data.mul_(0.5)
        with torch.no_grad():
            self.layer.bias.add_(1)
        return super().forward(x)


class Refused(Writes):
    """Cannot be exported at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        raise ValueError("no")


class OnlyTraced(Writes):
    """Takes the second way: torch.export stops at a branch on values, the tracer does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = super().forward(x)
        return (
            h * 2 if bool((h.float().sum() > -1e9).item()) and isinstance(x.tolist(), list) else h
        )


def example(model: nn.Module) -> tuple[torch.Tensor, ...]:
    return (torch.rand(1, 3, 64, 64),) if not isinstance(model, Lazy) else (torch.rand(3, 4),)


def yolo() -> nn.Module:
    return pytest.importorskip("ultralytics").YOLO("yolov8n.yaml").model


LAZY = [Lazy, NoneAtFirst, Writes, OnlyTraced, Refused]
REAL = [torchvision.models.resnet18, torchvision.models.vit_b_32, yolo]


@pytest.fixture(autouse=True)
def clean_tables() -> Iterator[None]:
    enabled = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(enabled)  # a model here switches it off
    TABLES.clear()
    Lazy.by_size.clear()
    Lazy.shared = None
    memoised.cache_clear()
    torch.set_grad_enabled(True)  # a plain call of these models flips it


def surroundings() -> Any:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        tree(np.random.get_state()[1].tolist())[1],  # type: ignore[index]
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        dict(TABLES),
        dict(Lazy.by_size),
        Lazy.shared,
    )


@pytest.mark.parametrize(
    ("make", "training"),
    [*((make, mode) for make in LAZY for mode in (False, True)), *((make, False) for make in REAL)],
    ids=lambda value: getattr(value, "__name__", "training" if value else "eval"),
)
def test_the_whole_tree_of_a_model_is_as_before(make: Any, training: bool) -> None:
    size = {"image_size": 64} if "vit" in make.__name__ else {}
    model = make(**size)
    for turn, module in enumerate(model.modules()):
        module.training = bool(turn % 2)  # whatever modes there are, they stay
    parameter = next(p for p in model.parameters() if p.requires_grad)
    parameter.grad = torch.ones_like(parameter)
    inputs = example(model)
    before, around = tree(model), surroundings()
    with contextlib.suppress(tp.TorchPrunerError):  # whether or not it becomes a graph
        tp.ONNXGraph(model).build_graph(inputs, fill_value=False, training=training)
    assert tree(model) == before
    assert surroundings() == around
    with torch.no_grad():
        if make is not Refused:
            model.eval()(*inputs)  # computes with nothing of what the export left


def test_a_table_that_is_memoised_has_values_afterwards() -> None:
    model = Lazy().eval()
    expected = model(*example(model)).shape
    memoised.cache_clear()
    tp.ONNXGraph(model).build_graph(example(model), fill_value=False)
    assert type(memoised(6)) is torch.Tensor and memoised(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert model(*example(model)).shape == expected


class TestHooks:
    def test_what_they_collect_is_not_added_to(self) -> None:
        model = torchvision.models.resnet18().eval()
        features: dict[str, Any] = {}
        calls = 0

        def collect(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            nonlocal calls
            calls += 1
            features["layer1"] = output

        handle = model.layer1.register_forward_hook(collect)
        model(*example(model))
        real = features["layer1"]
        before = tree(model)
        tp.ONNXGraph(model).build_graph(example(model), fill_value=False)
        assert tree(model) == before
        assert features == {"layer1": real} and calls == 1
        handle.remove()
        assert not model.layer1._forward_hooks

    def test_tables_in_the_globals_of_a_hook_stay(self) -> None:
        def collect(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            TABLES["hooked"] = output

        model = torchvision.models.resnet18().eval()
        model.layer1.register_forward_hook(collect)
        tp.ONNXGraph(model).build_graph(example(model), fill_value=False)
        assert "hooked" not in TABLES


def test_statistics_of_a_run_on_real_tensors_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    before = tree(model)
    with untouched(model, values=True):
        model.train()(torch.randn(5, 4))
        model[0].weight.data = torch.zeros(6, 4)
        model[1].requires_grad_(False)
        model[0] = nn.Identity()
        model.__class__ = nn.ModuleList  # type: ignore[assignment]
    assert tree(model) == before


def test_an_error_inside_is_passed_on_and_all_is_put_back() -> None:
    model = nn.Linear(4, 6)
    before = tree(model)
    with pytest.raises(KeyError), untouched(model):
        model.extra = 1
        raise KeyError
    assert tree(model) == before


def test_a_program_keeps_its_mode() -> None:
    program = torch.jit.trace(nn.Linear(4, 6).train(), torch.rand(2, 4))
    program.train()
    tp.ONNXGraph(program).build_graph((torch.rand(2, 4),), fill_value=False)
    assert program.training


def test_the_rehearsal_of_a_cut_leaves_no_table_without_values() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x) * memoised(1).add(1)) / x.shape[1] ** 0.5

    model, x = Scaled().eval(), torch.rand(3, 4)
    seen: list[Any] = []
    model.layer.register_forward_hook(lambda module, args, output: seen.append(output))
    graph = tp.ONNXGraph(model).build_graph((x,), fill_value=False)
    result = graph.nodes["self.layer.weight"].cut_analysis([0], 0)
    state = torch.get_rng_state()
    _, context = tp.set_cut(model, result)
    assert torch.equal(torch.get_rng_state(), state) and not seen
    assert not memoised(1).is_meta
    pruned = model(x)
    tp.recovery_cut(model, result, context)
    assert pruned.shape == model(x).shape


def test_a_model_without_values_is_untouched_too() -> None:
    model = torchvision.models.resnet18().to("meta")
    before = tree(model)
    tp.ONNXGraph(model).build_graph((torch.rand(1, 3, 64, 64),), fill_value=False)
    assert tree(model) == before
