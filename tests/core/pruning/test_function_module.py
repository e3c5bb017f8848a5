"""The function-module mode: of one thread, never left on, and harmless to what it does not know."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchpruner_core.function_module import (
    activate_function_module,
    deactivate_function_module,
    function_module,
    function_module_activate,
    init_function_module,
)


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    yield
    deactivate_function_module()


class Adds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.wrong_at = -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.inner(x)) + x
        if x.shape[0] == 7:
            y = y * y
        return torch.cat([y, y * 2], dim=-1)


def kinds(model: nn.Module) -> list[str]:
    return [type(entry).__name__ for entry in model._function_module_list]


def test_the_context_manager_turns_it_off_however_the_block_ends() -> None:
    with function_module():
        assert function_module_activate()
    assert not function_module_activate()
    with pytest.raises(RuntimeError), function_module():
        Adds()(torch.randn(2, 5))
    assert not function_module_activate()


def test_a_failing_initialisation_leaves_it_off() -> None:
    activate_function_module()
    with pytest.raises(RuntimeError):
        init_function_module(Adds(), torch.randn(2, 5))
    assert not function_module_activate()


def test_a_nested_block_leaves_it_on() -> None:
    activate_function_module()
    with function_module():
        pass
    assert function_module_activate()


def test_turning_it_off_below_a_later_mode_takes_away_only_itself() -> None:
    activate_function_module()
    with torch.device("meta"):
        deactivate_function_module()
        assert torch.ones(1).is_meta
    assert not torch.ones(1).is_meta


def test_it_belongs_to_its_thread() -> None:
    model, x = Adds(), torch.randn(2, 4)
    seen: list[bool] = []

    def run() -> None:
        seen.append(function_module_activate())
        model(x)
        seen.append(hasattr(model, "_function_module_list"))

    activate_function_module()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [False, False]
    model(x)
    assert kinds(model) == ["Relu", "Add", "Mul", "Cat"]


def test_many_threads_at_once_keep_to_themselves() -> None:
    failures: list[BaseException] = []

    def run(on: bool) -> None:
        try:
            for _ in range(20):
                model, x = Adds(), torch.randn(2, 4)
                if on:
                    with function_module():
                        model(x)
                else:
                    model(x)
                assert hasattr(model, "_function_module_list") is on
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i % 2 == 0,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_no_hook_is_left_on_modules_when_nobody_uses_the_mode() -> None:
    from torch.nn.modules import module as hooks

    with function_module():
        assert hooks._global_forward_pre_hooks
    assert not hooks._global_forward_pre_hooks and not hooks._global_forward_hooks


def test_training_mode_and_batch_statistics_stay() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.frozen = nn.BatchNorm1d(4), nn.Dropout().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.frozen(self.norm(x)) + x

    model = Normed()
    init_function_module(model, {"x": torch.randn(3, 4)})
    assert model.norm.training and model.training and not model.frozen.training
    assert model.norm.num_batches_tracked == 0
    assert kinds(model) == ["Add"]


def test_a_forward_that_takes_another_path_is_told() -> None:
    model = init_function_module(Adds(), torch.randn(2, 4))
    with function_module(), pytest.raises(RuntimeError, match="takes another path"):
        model(torch.randn(7, 4))


def test_a_model_with_function_modules_is_copied_and_pickled() -> None:
    model, x = init_function_module(Adds(), torch.randn(2, 4)), torch.randn(2, 4)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert kinds(twin) == kinds(model)
        assert getattr(twin, "__function_module_list") is twin._function_module_list
        torch.testing.assert_close(twin(x), model(x))


def test_gradients_flow_through_function_modules() -> None:
    model, x = Adds(), torch.randn(2, 4)
    model(x).sum().backward()
    expected = model.inner[0].weight.grad.clone()
    model.zero_grad()
    with function_module():
        model(x).sum().backward()
    torch.testing.assert_close(model.inner[0].weight.grad, expected)
