"""An optimizer trains on after a cut as if the removed entries had never been, and after recovery too."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import nn

from tests.core.pruning.nets import ConvNet, assert_same, axes, conv_net_cut, cut, state
from torchpruner_core import recovery_cut, recovery_optimizer, set_cut, set_cut_optimizer
from torchpruner_core.errors import ContextMismatchError, OptimizerStateError

CLASSES = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls)
    and issubclass(cls, torch.optim.Optimizer)
    and cls is not torch.optim.Optimizer
}

# Arguments that switch on every state the class has.
FULL_STATE: dict[str, dict[str, Any]] = {
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "SGD": {"momentum": 0.9, "lr": 0.1},
    "Adagrad": {"initial_accumulator_value": 0.1},
}
NOT_ELEMENTWISE = {"Adafactor", "Muon", "LBFGS"}
"""Their update of one entry depends on others: theirs is checked for shape and exact recovery only."""

AFFECTED = [1, 4]


class Matrix(nn.Module):
    """One matrix of parameters, which every optimizer takes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5))


ROWS = cut({"self.weight": axes(2, a0=AFFECTED, a1=[2])})
LEFT_ROWS, LEFT_COLUMNS = [0, 2, 3, 5], [0, 1, 3, 4]


def left(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[LEFT_ROWS][:, LEFT_COLUMNS]


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 5, generator=generator) for _ in range(count)]


def make(name: str, model: nn.Module, **arguments: Any) -> torch.optim.Optimizer:
    given = {**FULL_STATE.get(name, {}), **arguments}
    return CLASSES[name](model.parameters(), **given)


def step(name: str, optimizer: torch.optim.Optimizer, model: Matrix, grad: torch.Tensor) -> None:
    if name == "SparseAdam":
        grad = grad.to_sparse(1)
    model.weight.grad = grad

    def closure() -> torch.Tensor:
        return (model.weight.detach() ** 2).sum()

    optimizer.step(closure)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_optimizer_trains_on_in_the_middle(name: str) -> None:
    model = Matrix()
    untouched = copy.deepcopy(model)
    optimizer, reference = make(name, model), make(name, untouched)
    grads = gradients(9)
    for grad in grads[:3]:
        step(name, optimizer, model, grad.clone())
        step(name, reference, untouched, grad.clone())

    before, saved = state(model), copy.deepcopy(optimizer.state_dict()["state"])
    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    recovery_optimizer(model, optimizer, ROWS, pickle.loads(pickle.dumps(moments)))
    recovery_cut(model, ROWS, context)
    if name != "SparseAdam":  # a sparse gradient comes back dense
        assert_same(before, state(model))
    assert_state_equal(saved, optimizer.state_dict()["state"])

    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    for grad in grads[3:6]:
        step(name, optimizer, model, left(grad).clone())
        step(name, reference, untouched, grad.clone())
    if name not in NOT_ELEMENTWISE:
        torch.testing.assert_close(model.weight, left(untouched.weight), rtol=1e-6, atol=1e-7)

    removed = before["weight"][1]
    recovery_optimizer(model, optimizer, ROWS, moments)
    recovery_cut(model, ROWS, context)
    assert torch.equal(model.weight[AFFECTED], removed[AFFECTED])
    for grad in grads[6:]:
        step(name, optimizer, model, grad.clone())
        step(name, reference, untouched, grad.clone())
    if name not in NOT_ELEMENTWISE:
        torch.testing.assert_close(
            left(model.weight.detach()), left(untouched.weight.detach()), rtol=1e-6, atol=1e-7
        )


def assert_state_equal(before: Any, after: Any) -> None:
    if isinstance(before, torch.Tensor):
        assert before.shape == after.shape and torch.equal(before, after)
    elif isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_state_equal(before[key], after[key])
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after)
        for x, y in zip(before, after, strict=True):
            assert_state_equal(x, y)
    else:
        assert before == after


VARIANTS = [
    (name, variant)
    for name, cls in sorted(CLASSES.items())
    for variant in ("foreach", "fused", "capturable")
    if variant in inspect.signature(cls).parameters
]


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_the_variants_of_an_optimizer_train_on(name: str, variant: str) -> None:
    device = "cpu"
    if variant == "capturable":
        if not torch.cuda.is_available():
            pytest.skip("capturable optimizers need a GPU")
        device = "cuda"
    model = Matrix().to(device)
    optimizer = make(name, model, **{variant: True})
    step(name, optimizer, model, torch.randn(6, 5, device=device))
    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    step(name, optimizer, model, torch.randn(4, 4, device=device))
    recovery_optimizer(model, optimizer, ROWS, moments)
    recovery_cut(model, ROWS, context)
    step(name, optimizer, model, torch.randn(6, 5, device=device))


def test_a_real_network_with_groups_a_schedule_and_a_scaler_trains_on() -> None:
    model = ConvNet()
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 1e-4}], lr=1e-3
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    scaler = torch.amp.GradScaler("cpu")
    result = conv_net_cut([0, 7])

    def train() -> None:
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(2, 3, 9, 9)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()

    train()
    _, context = set_cut(model, result)
    _, moments = set_cut_optimizer(model, optimizer, result)
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (6, 3, 3, 3)
    train()
    assert [group["lr"] for group in optimizer.param_groups] == [2.5e-4, 2.5e-5]
    recovery_optimizer(model, optimizer, result, moments)
    recovery_cut(model, result, context)
    train()
    assert optimizer.state[model[3].weight]["exp_avg_sq"].shape == (4, 8, 3, 3)


def test_recovery_may_come_before_or_after_that_of_the_model() -> None:
    for optimizer_first in (True, False):
        model = Matrix()
        optimizer = make("Adam", model)
        step("Adam", optimizer, model, torch.randn(6, 5))
        saved = copy.deepcopy(optimizer.state_dict()["state"])
        _, context = set_cut(model, ROWS)
        _, moments = set_cut_optimizer(model, optimizer, ROWS)
        if not optimizer_first:
            recovery_cut(model, ROWS, context)
        recovery_optimizer(model, optimizer, ROWS, moments)
        if optimizer_first:
            recovery_cut(model, ROWS, context)
        assert_state_equal(saved, optimizer.state_dict()["state"])


def test_state_that_came_after_the_cut_grows_from_where_such_state_starts() -> None:
    model = Matrix()
    optimizer = make("Rprop", model, lr=0.25)
    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    step("Rprop", optimizer, model, torch.randn(4, 4))
    recovery_optimizer(model, optimizer, ROWS, moments)
    recovery_cut(model, ROWS, context)
    assert optimizer.state[model.weight]["step_size"].shape == (6, 5)
    assert torch.all(optimizer.state[model.weight]["step_size"][AFFECTED] == 0.25)
    assert torch.all(optimizer.state[model.weight]["prev"][AFFECTED] == 0)


def test_factored_statistics_follow_their_own_axis() -> None:
    model = Matrix()
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.state[model.weight] = {
        "exp_avg_sq_row": torch.arange(6.0),
        "exp_avg_sq_col": torch.arange(5.0),
        "row_var": torch.arange(6.0).reshape(6, 1),
        "flat": torch.arange(30.0),
        "step": 3,
    }
    set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    followed = optimizer.state[model.weight]
    assert followed["exp_avg_sq_row"].tolist() == [0, 2, 3, 5]
    assert followed["exp_avg_sq_col"].tolist() == [0, 1, 3, 4]
    assert followed["row_var"].flatten().tolist() == [0, 2, 3, 5]
    assert torch.equal(followed["flat"], left(torch.arange(30.0).reshape(6, 5)).flatten())
    recovery_optimizer(model, optimizer, ROWS, moments)
    assert optimizer.state[model.weight]["flat"].tolist() == list(range(30))


def test_a_square_matrix_tells_rows_from_columns_by_name_or_refuses() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(4, 4))
    result = cut({"self.weight": axes(2, a0=[0])})
    optimizer = torch.optim.SGD(model.parameters())
    optimizer.state[model.weight] = {
        "exp_avg_sq_row": torch.arange(4.0),
        "exp_avg_sq_col": torch.arange(4.0),
    }
    set_cut(model, result)
    set_cut_optimizer(model, optimizer, result)
    assert optimizer.state[model.weight]["exp_avg_sq_row"].tolist() == [1, 2, 3]
    assert optimizer.state[model.weight]["exp_avg_sq_col"].tolist() == [0, 1, 2, 3]


def test_a_state_tensor_of_another_shape_is_refused_and_nothing_changes() -> None:
    model = Matrix()
    optimizer = make("Adam", model)
    step("Adam", optimizer, model, torch.randn(6, 5))
    optimizer.state[model.weight]["odd"] = torch.zeros(7)
    set_cut(model, ROWS)
    with pytest.raises(OptimizerStateError, match=r"'odd' of self\.weight"):
        set_cut_optimizer(model, optimizer, ROWS)
    assert optimizer.state[model.weight]["exp_avg"].shape == (6, 5)


def test_a_wrong_context_is_refused() -> None:
    model = Matrix()
    optimizer = make("Adam", model)
    step("Adam", optimizer, model, torch.randn(6, 5))
    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    with pytest.raises(ContextMismatchError, match="fourth argument"):
        recovery_optimizer(model, optimizer, ROWS, context)  # type: ignore[arg-type]
    with pytest.raises(ContextMismatchError, match="another cut"):
        recovery_optimizer(model, optimizer, cut({"self.weight": axes(2, a0=[0])}), moments)
    recovery_optimizer(model, optimizer, ROWS, moments)
    with pytest.raises(ContextMismatchError, match="already"):
        recovery_optimizer(model, optimizer, ROWS, moments)


def test_a_pruned_model_and_its_optimizer_go_through_a_checkpoint() -> None:
    model = Matrix()
    optimizer = make("Adam", model)
    step("Adam", optimizer, model, torch.randn(6, 5))
    _, context = set_cut(model, ROWS)
    _, moments = set_cut_optimizer(model, optimizer, ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model2, optimizer2, context2, moments2 = pickle.loads(
            pickle.dumps((model, optimizer, context, moments))
        )
    recovery_optimizer(model2, optimizer2, ROWS, moments2)
    recovery_cut(model2, ROWS, context2)
    step("Adam", optimizer2, model2, torch.randn(6, 5))
    assert model2.weight.shape == (6, 5)


def test_an_optimizer_of_another_model_is_refused() -> None:
    model = Matrix()
    set_cut(model, ROWS)
    for wrong, words in ((None, "not NoneType"), (make("Adam", Matrix()), "no parameter of this")):
        with pytest.raises(OptimizerStateError, match=words):
            set_cut_optimizer(model, wrong, ROWS)  # type: ignore[type-var]
