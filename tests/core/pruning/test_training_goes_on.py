"""Cutting in the middle of a training loop, as people write it: the last step's tensors are alive."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import ConvNet, conv_net_cut
from torchpruner_core.errors import CutMismatchError, StaleGraphError

HIDDEN = 12


class Conv(nn.Module):
    """conv - norm - conv - linear."""

    cut = ("self.first.weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, HIDDEN, 3, padding=1)
        self.norm = nn.BatchNorm2d(HIDDEN)
        self.second = nn.Conv2d(HIDDEN, 8, 3)
        self.head = nn.Linear(8, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 3, 8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(F.relu(self.norm(self.first(x))))
        return self.head(x.mean((2, 3)))


class Linear(nn.Module):
    """Two linear layers without bias, one with a weight norm."""

    cut = ("self.first.weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, HIDDEN, bias=False)
        self.gain = nn.Parameter(torch.ones(HIDDEN))
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.first(x) * self.gain))


class Embedding(nn.Module):
    """A table whose rows are read, and read again as the output layer (tied)."""

    cut = ("self.table.weight", 1)

    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(20, HIDDEN, sparse=sparse)
        self.mix = nn.Linear(HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, 20, bias=False)
        if not sparse:
            self.head.weight = self.table.weight

    def example(self) -> torch.Tensor:
        return torch.randint(0, 20, (4, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.table(x)
        return self.head(h + self.mix(h)).mean(1)[:, :4]


class Recurrent(nn.Module):
    """An LSTM between two linear layers; its hidden units go."""

    cut = ("self.rnn.weight_hh_l0", 1)

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Self-attention of which a head goes."""

    cut = ("self.attention.in_proj_weight", 0)

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(HIDDEN, 4, batch_first=True)
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, 4)

    def example(self) -> torch.Tensor:
        return torch.randn(4, 5, HIDDEN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.norm(h).mean(1))


NETWORKS = [Conv, Linear, Embedding, Recurrent, Attention]


_analysed: dict[Any, tp.CutResult] = {}


def analysed(model: Any, index: list[int]) -> tp.CutResult:
    """Return the cut of some hidden units of a network."""
    shapes = tuple(tuple(p.shape) for p in model.parameters())
    key = (type(model), shapes, tuple(index))
    if key not in _analysed:
        graph = tp.ONNXGraph(model)
        graph.build_graph((model.example()[:1],), fill_value=False)
        node, dim = model.cut
        _analysed[key] = graph.nodes[node].cut_analysis(index, dim)
    return _analysed[key]


def loss_of(model: Any, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x), torch.arange(len(x)) % 4)


def step(model: Any, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> torch.Tensor:
    """Take one step as a training loop does, and return its loss, graph and all."""

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x)
        loss.backward()
        return loss

    loss = closure()
    if isinstance(optimizer, torch.optim.LBFGS):
        optimizer.step(closure)
    else:
        optimizer.step()
    return loss


@dataclass
class Alive:
    """What of an earlier forward somebody still holds, by name."""

    name: str
    hold: Callable[[Any, torch.Tensor], Any]

    def __str__(self) -> str:
        return self.name


def _weights(model: Any) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


VIEWS = Alive("views of the weights", lambda model, x: [p.view(-1) for p in _weights(model)])
HELD = [
    Alive("the loss", lambda model, x: loss_of(model, x)),
    Alive("the output", lambda model, x: model(x)),
    Alive("clones of the weights", lambda model, x: [p.clone() for p in _weights(model)]),
    Alive("casts of the weights", lambda model, x: [p.to(torch.float64) for p in _weights(model)]),
    Alive("a penalty", lambda model, x: sum(p.square().sum() for p in _weights(model))),
]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("alive", [*HELD, VIEWS], ids=str)
def test_training_goes_on_whatever_of_an_earlier_step_is_alive(
    network: type[Any], alive: Alive
) -> None:
    model, x = network(), network().example()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss = step(model, optimizer, x)
    held = [loss, alive.hold(model, x)]
    result = analysed(model, [1])
    identities = [id(p) for p in model.parameters()]
    model, context = tp.set_cut(model, result)
    optimizer, state = tp.set_cut_optimizer(model, optimizer, result)
    held += [step(model, optimizer, x), alive.hold(model, x)]
    model = tp.recovery_cut(model, result, context)
    optimizer = tp.recovery_optimizer(model, optimizer, result, state)
    held.append(step(model, optimizer, x))
    assert [id(p) for p in model.parameters()] == identities
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_the_steps_after_a_cut_are_those_of_a_network_that_was_made_so(network: type[Any]) -> None:
    model = network()
    x = model.example()
    kept = loss_of(model, x)
    kept.backward()
    model.zero_grad()
    tp.set_cut(model, analysed(model, [0, 2] if network is not Attention else [0]))
    fresh = pickle.loads(pickle.dumps(model))  # autograd knows nothing of this one
    for each in (model, fresh):
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            step(each, optimizer, x)
    for ours, other in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, other)


class TestAnOldGraph:
    """What was recorded before a cut cannot be run backwards after it, and says so."""

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("alive", HELD, ids=str)
    def test_its_backward_is_refused_and_leaves_no_gradient(
        self, network: type[Any], alive: Alive
    ) -> None:
        model = network()
        held = alive.hold(model, model.example())
        result = analysed(model, [1])
        tp.set_cut(model, result)
        cut = [p for name, p in model.named_parameters() if f"self.{name}" in result.terminal]
        if isinstance(held, list):
            owners = {id(p): each for p, each in zip(_weights(model), held, strict=True)}
            held = [owners[id(p)] for p in cut]
        for each in held if isinstance(held, list) else [held]:
            with pytest.raises(RuntimeError, match=r"run the forward again|modified by an inplace"):
                each.sum().backward()
        assert all(parameter.grad is None for parameter in cut)

    def test_the_error_names_both_shapes(self) -> None:
        model = ConvNet()
        held = model[0].weight.clone()
        tp.set_cut(model, conv_net_cut([0, 1]))
        with pytest.raises(StaleGraphError, match=r"\(6, 3, 3, 3\) still had the shape \(8, 3"):
            held.sum().backward()

    def test_it_is_good_again_after_a_module_pruner_that_failed(self) -> None:
        class Fails(tp.module_pruner.BasePruner):
            def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
                super().set_cut(nn_module, cut_dict)
                raise ValueError("halfway")

        class Own(nn.Conv2d):
            pass

        model = ConvNet()
        model[3] = Own(8, 4, 3)
        loss = model(torch.randn(2, 3, 9, 9)).sum()
        with (
            tp.module_pruner_reg.temporarily(Own, Fails),
            pytest.raises(tp.ReplayError, match="halfway"),
        ):
            tp.set_cut(model, conv_net_cut([0]))
        loss.backward()
        assert model[3].weight.grad.shape == (4, 8, 3, 3)

    def test_a_module_pruner_that_sets_data_by_hand_does_not_stop_the_training(self) -> None:
        class ByHand(tp.module_pruner.BasePruner):
            def set_cut(self, nn_module: Any, cut_dict: Any) -> Any:
                nn_module.weight.data = nn_module.weight.data[:, 1:].clone()
                nn_module.in_channels -= 1
                return nn_module, {}

        class Own(nn.Conv2d):
            pass

        model = ConvNet()
        model[3] = Own(8, 4, 3)
        x = torch.randn(2, 3, 9, 9)
        loss = model(x).sum()
        with tp.module_pruner_reg.temporarily(Own, ByHand):
            tp.set_cut(model, conv_net_cut([0]))
        model(x).sum().backward()
        assert model[3].weight.grad.shape == (4, 7, 3, 3)
        del loss

    def test_it_is_let_go_of_with_its_last_tensor(self) -> None:
        model = Conv()
        x = model.example()
        saved = weakref.ref(x)
        loss = loss_of(model, x)
        tp.set_cut(model, analysed(model, [0]))
        del loss, x
        gc.collect()
        assert saved() is None


class TestOptimizers:
    """Every optimizer of PyTorch: train, cut, train, recover, train, with the losses alive."""

    EXTRA: ClassVar[dict[str, dict[str, Any]]] = {
        "SGD": {"lr": 0.01, "momentum": 0.9},
        "RMSprop": {"centered": True, "momentum": 0.9},
        "Rprop": {"lr": 0.01},
        "Adam": {"amsgrad": True},
        "AdamW": {"fused": True},
        "Adagrad": {"initial_accumulator_value": 0.1},
        "LBFGS": {"lr": 0.1, "max_iter": 3},
    }
    NAMES: ClassVar[list[str]] = sorted(
        name
        for name, each in vars(torch.optim).items()
        if isinstance(each, type)
        and issubclass(each, torch.optim.Optimizer)
        and each is not torch.optim.Optimizer
    )

    @pytest.mark.parametrize("network", NETWORKS)
    @pytest.mark.parametrize("name", NAMES)
    def test_goes_on_through_a_cut_and_its_recovery(self, name: str, network: type[Any]) -> None:
        model = network(sparse=True) if (name, network) == ("SparseAdam", Embedding) else network()
        x = model.example()
        parameters = list(model.parameters())
        if name == "Muon":  # for matrices alone
            parameters = [p for p in parameters if p.dim() == 2]
        if name == "SparseAdam":
            if network is not Embedding:
                pytest.skip("SparseAdam takes sparse gradients, which only a table gives")
            parameters = [model.table.weight]
        optimizer = getattr(torch.optim, name)(parameters, **self.EXTRA.get(name, {}))
        losses = [step(model, optimizer, x) for _ in range(2)]
        result = analysed(model, [1])
        model, context = tp.set_cut(model, result)
        optimizer, state = tp.set_cut_optimizer(model, optimizer, result)
        losses += [step(model, optimizer, x) for _ in range(2)]
        optimizer.load_state_dict(optimizer.state_dict())
        losses += [step(model, optimizer, x) for _ in range(2)]
        model = tp.recovery_cut(model, result, context)
        optimizer = tp.recovery_optimizer(model, optimizer, result, state)
        losses += [step(model, optimizer, x) for _ in range(2)]
        assert all(torch.isfinite(loss) for loss in losses)

    @pytest.mark.parametrize("scheduler", ["StepLR", "CosineAnnealingLR", "OneCycleLR", "LambdaLR"])
    def test_learning_rate_schedulers_go_on(self, scheduler: str) -> None:
        model = Conv()
        x = model.example()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        arguments: dict[str, dict[str, Any]] = {
            "StepLR": {"step_size": 1},
            "CosineAnnealingLR": {"T_max": 4},
            "OneCycleLR": {"max_lr": 0.1, "total_steps": 8},
            "LambdaLR": {"lr_lambda": lambda epoch: 0.5**epoch},
        }
        rates = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **arguments[scheduler])
        seen = []
        for turn in range(4):
            loss = step(model, optimizer, x)
            rates.step()
            seen.append(rates.get_last_lr()[0])
            if turn == 1:
                result = analysed(model, [0])
                tp.set_cut(model, result)
                tp.set_cut_optimizer(model, optimizer, result)
        assert optimizer.param_groups[0]["lr"] == seen[-1] and len(set(seen)) > 2
        assert torch.isfinite(loss)

    def test_an_optimizer_that_steps_in_the_backward_pass_goes_on(self) -> None:
        model = Conv()
        optimizers = {p: torch.optim.Adam([p], foreach=False) for p in model.parameters()}

        def update(parameter: torch.Tensor) -> None:
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(update)
        x = model.example()
        loss = loss_of(model, x)
        loss.backward()
        result = analysed(model, [0])
        tp.set_cut(model, result)
        for name, parameter in model.named_parameters():
            if f"self.{name}" in result.terminal:
                tp.set_cut_optimizer(model, optimizers[parameter], result)
        before = model.first.weight.detach().clone()
        loss = loss_of(model, x)
        loss.backward()
        assert not torch.equal(model.first.weight, before)


class TestLoops:
    """Loops of more than forward, backward, step."""

    def test_the_plain_loop_prunes_between_epochs(self) -> None:
        model = Conv()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        x = model.example()
        done = []
        for _ in range(4):
            model.train()
            for _ in range(2):
                optimizer.zero_grad()
                output = model(x)
                loss = F.cross_entropy(output, torch.arange(4))
                loss.backward()
                optimizer.step()
            model.eval()
            result = analysed(model, [0, 1])
            model, context = tp.set_cut(model, result)
            optimizer, state = tp.set_cut_optimizer(model, optimizer, result)
            done.append((result, context, state))
        assert model.first.out_channels == HIDDEN - 8
        for result, context, state in reversed(done):
            tp.recovery_cut(model, result, context)
            tp.recovery_optimizer(model, optimizer, result, state)
            model.train()
            optimizer.zero_grad()
            loss = loss_of(model, x)
            loss.backward()
            optimizer.step()
        assert model.first.out_channels == HIDDEN and torch.isfinite(loss)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_mixed_precision_with_a_gradient_scaler(self, dtype: torch.dtype) -> None:
        model = Conv()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        x = model.example()

        def amp_step() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = loss_of(model, x)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            return loss

        losses = [amp_step()]
        result = analysed(model, [0, 3])
        _, context = tp.set_cut(model, result)
        _, state = tp.set_cut_optimizer(model, optimizer, result)
        losses.append(amp_step())
        tp.recovery_cut(model, result, context)
        tp.recovery_optimizer(model, optimizer, result, state)
        losses.append(amp_step())
        assert all(torch.isfinite(loss) for loss in losses)
        assert model.first.weight.grad is not None

    def test_a_cut_within_autocast_is_seen_by_the_next_forward(self) -> None:
        model = Linear()
        x = model.example()
        result = analysed(model, [0])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            before = model(x)
            _, context = tp.set_cut(model, result)
            assert model(x).shape == before.shape
            tp.recovery_cut(model, result, context)
            assert torch.equal(model(x), before)

    def test_gradients_gathered_before_the_cut_count_after_it(self) -> None:
        model = Conv().eval()
        x = model.example()
        result = analysed(model, [2])
        first = loss_of(model, x)
        first.backward()
        gathered = model.head.weight.grad.clone()
        tp.set_cut(model, result)
        kept = model.first.weight.grad.clone()
        second = loss_of(model, x)
        second.backward()
        alone = torch.autograd.grad(loss_of(model, x), [model.first.weight, model.head.weight])
        torch.testing.assert_close(model.first.weight.grad, kept + alone[0])
        torch.testing.assert_close(model.head.weight.grad, gathered + alone[1])
        assert first.grad_fn is not None

    def test_an_averaged_copy_is_cut_with_the_same_result(self) -> None:
        model = Conv()
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = model.example()
        loss = step(model, optimizer, x)
        average.update_parameters(model)
        result = analysed(model, [0])
        _, context = tp.set_cut(model, result)
        _, other = tp.set_cut(average, result)
        tp.set_cut_optimizer(model, optimizer, result)
        loss = step(model, optimizer, x)
        average.update_parameters(model)
        assert average(x).shape == model(x).shape
        tp.recovery_cut(model, result, context)
        tp.recovery_cut(average, result, other)
        average.update_parameters(model)
        assert average.module.first.weight.shape[0] == HIDDEN and torch.isfinite(loss)

    @pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
    def test_a_compiled_model_trains_on(self, backend: str) -> None:
        torch._dynamo.reset()
        model = Linear()
        compiled = torch.compile(model, backend=backend)
        optimizer = torch.optim.Adam(model.parameters())
        x = model.example()
        losses = [step(compiled, optimizer, x)]
        result = analysed(model, [0])
        _, context = tp.set_cut(compiled, result)
        _, state = tp.set_cut_optimizer(compiled, optimizer, result)
        losses.append(step(compiled, optimizer, x))
        torch.testing.assert_close(compiled(x), model(x))
        tp.recovery_cut(compiled, result, context)
        tp.recovery_optimizer(compiled, optimizer, result, state)
        losses.append(step(compiled, optimizer, x))
        torch.testing.assert_close(compiled(x), model(x))
        assert all(torch.isfinite(loss) for loss in losses)

    def test_checkpointed_activations_are_computed_again_at_the_new_size(self) -> None:
        class Checkpointed(Linear):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if not self.training:
                    return super().forward(x)
                return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)

        model = Checkpointed()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x = model.example()
        losses = [step(model, optimizer, x)]
        tp.set_cut(model, analysed(model, [0]))
        losses.append(step(model, optimizer, x))
        assert torch.isfinite(losses[-1])

    def test_a_weight_that_is_frozen_and_thawed_around_the_cut_trains_on(self) -> None:
        model = Conv()
        x = model.example()
        loss = loss_of(model, x)
        model.first.weight.requires_grad_(False)
        tp.set_cut(model, analysed(model, [0]))
        assert not model.first.weight.requires_grad
        model.first.weight.requires_grad_(True)
        after = loss_of(model, x)
        after.backward()
        assert model.first.weight.grad.shape == model.first.weight.shape
        del loss

    def test_hooks_on_parameters_run_at_the_new_size(self) -> None:
        model = Conv()
        seen: list[Any] = []
        model.first.weight.register_hook(lambda grad: seen.append(grad.shape))
        model.first.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.shape))
        x = model.example()
        loss = loss_of(model, x)
        tp.set_cut(model, analysed(model, [0]))
        loss = loss_of(model, x)
        loss.backward()
        assert seen == [(HIDDEN - 1, 3, 3, 3)] * 2

    def test_a_refused_cut_leaves_the_loss_good(self) -> None:
        model = ConvNet()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        loss = model(torch.randn(2, 3, 9, 9)).sum()
        with pytest.raises(CutMismatchError):
            tp.set_cut(model, conv_net_cut([40]))
        loss.backward()
        optimizer.step()


@pytest.fixture
def process_group(tmp_path: Any) -> Iterator[None]:
    dist = torch.distributed
    if not dist.is_available():
        pytest.skip("torch without distributed")
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("process_group")
class TestDistributed:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"find_unused_parameters": True},
            {"static_graph": True},
            {"gradient_as_bucket_view": True},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("given", ["the wrapper", "the module within"])
    def test_a_distributed_model_trains_on(self, options: dict[str, Any], given: str) -> None:
        model = Conv()
        wrapper = nn.parallel.DistributedDataParallel(model, **options)
        reduced: list[int] = []

        def count(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations
            reduced.append(bucket.buffer().numel())
            future: Any = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        wrapper.register_comm_hook(None, count)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x = model.example()

        def steps() -> torch.Tensor:
            reduced.clear()
            for _ in range(3):
                loss = step(wrapper, optimizer, x)
            assert sum(reduced) == 3 * sum(p.numel() for p in model.parameters())
            return loss

        losses = [steps()]
        result = analysed(model, [0])
        subject = wrapper if given == "the wrapper" else model
        _, context = tp.set_cut(subject, result)
        _, state = tp.set_cut_optimizer(subject, optimizer, result)
        losses.append(steps())
        tp.recovery_cut(subject, result, context)
        tp.recovery_optimizer(subject, optimizer, result, state)
        losses.append(steps())
        assert all(torch.isfinite(loss) for loss in losses)
