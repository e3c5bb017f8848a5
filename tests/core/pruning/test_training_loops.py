"""Cutting inside the loops that people write: mixed precision, schedulers, averages, trainers, processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchpruner_core as tp
from tests.core.pruning.nets import ConvNet, conv_net_cut
from tests.core.pruning.training_networks import (
    HIDDEN,
    Conv,
    Linear,
    analysed,
    loss_of,
    step,
)
from torchpruner_core.errors import CutMismatchError


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
