"""A cut is repaired from unlabelled batches, and undone bit for bit."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

import torchpruner_core as tp
from torchpruner_core.calibration.errors import BatchError, CalibrationCancelledError
from torchpruner_core.calibration.readings import Reading, Watch
from torchpruner_core.calibration.windows import Rows, sampled
from torchpruner_core.recovery import reconstruction
from torchpruner_core.recovery.errors import RecoveryError

G = torch.Generator().manual_seed(3)


def redundant(width: int) -> nn.Sequential:
    """A network whose hidden features of the second half are mixtures of the first half's."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, width), nn.Linear(width, 5))
    half = width // 2
    with torch.no_grad():
        mix = torch.rand(half, half) / half
        model[0].weight[half:] = mix @ model[0].weight[:half]
        model[0].bias[half:] = mix @ model[0].bias[:half] + 1
    return model


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 12, 3, groups=2, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 1, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    model.train()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(60):
            model(torch.rand(8, 3, 12, 12, generator=generator))
    return model.eval()


IMAGES = [torch.rand(8, 3, 12, 12, generator=G) for _ in range(3)]
ROWS = [torch.rand(16, 6, generator=G) for _ in range(4)]


@functools.cache
def graph_of(make: Any, *args: Any) -> Any:
    model = make(*args)
    inputs = ROWS[0][:1] if make is redundant else IMAGES[0][:1]
    graph = tp.ONNXGraph(model)
    graph.build_graph((inputs,), fill_value=False)
    return graph


def cut_of(make: Any, asked: Sequence[tuple[str, int]], *args: Any) -> tp.CutResult:
    solved = graph_of(make, *args).solved
    requests = [
        tp.CutRequest(
            node, 0, tuple(range(solved.node(node).shape[0] - count, solved.node(node).shape[0]))
        )
        for node, count in asked
    ]
    return solved.cut_analysis_many(requests)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


CONVOLUTIONS = [("self.0.weight", 4), ("self.6.weight", 3)]


def test_features_that_others_can_replace_are_replaced_exactly() -> None:
    model = redundant(8)
    expected = model(ROWS[0])
    cut = cut_of(redundant, [("self.0.weight", 4)], 8)
    model, _ = tp.set_cut(model, cut)
    assert not torch.allclose(model(ROWS[0]), expected, atol=1e-2)
    done = tp.recover(model, cut, ROWS, strength=1e-9)
    torch.testing.assert_close(model(ROWS[0]), expected, rtol=1e-3, atol=1e-3)
    assert done.error_after < 1e-3 < done.error_before
    assert done.repaired == ("self.1.weight",)
    assert done.biases == ("self.1.bias",)
    assert "0 batch norms" in str(done)


def test_bias_compensation_gives_the_right_mean() -> None:
    model = redundant(8)
    x = torch.cat(ROWS)
    expected = model(x).mean(0)
    cut = cut_of(redundant, [("self.0.weight", 4)], 8)
    model, _ = tp.set_cut(model, cut)
    done = tp.recover(model, cut, ROWS, method="bias")
    torch.testing.assert_close(model(x).mean(0), expected, rtol=1e-4, atol=1e-4)
    assert done.repaired == ()
    assert done.biases == ("self.1.bias",)


@pytest.mark.parametrize("method", ["ridge", "bias", "none"])
def test_recovery_of_the_cut_gives_the_original_bit_for_bit(method: str) -> None:
    model = convolutional()
    before = state(model)
    cut = cut_of(convolutional, CONVOLUTIONS)
    model, context = tp.set_cut(model, cut)
    pruned = state(model)
    done = tp.recover(model, cut, IMAGES, method=method)
    assert done.error_after < done.error_before
    assert not same(state(model), pruned)
    tp.recover(model, cut, IMAGES, method="ridge")
    context = pickle.loads(pickle.dumps(context))
    model = tp.recovery_cut(model, cut, context)
    assert same(state(model), before)


def test_a_plan_is_taken_in_place_of_its_result_and_parameters_keep_their_identity() -> None:
    class Plan:
        result = cut_of(convolutional, CONVOLUTIONS)

    model = convolutional()
    model, _ = tp.set_cut(model, Plan.result)
    parameters = [id(p) for p in model.parameters()]
    done = tp.recover(model, Plan, IMAGES, method="bias")
    assert parameters == [id(p) for p in model.parameters()]
    assert "self.1.running_mean" in done.statistics
    assert not model.training
    assert all(norm.momentum == 0.1 for norm in (model[1], model[4]))


def test_what_was_learnt_after_the_recovery_is_kept() -> None:
    model = redundant(8)
    before = state(model)
    cut = cut_of(redundant, [("self.0.weight", 4)], 8)
    model, context = tp.set_cut(model, cut)
    tp.recover(model, cut, ROWS)
    with torch.no_grad():
        model[1].bias += 1
    learnt = model[1].bias.detach().clone()
    model = tp.recovery_cut(model, cut, context)
    assert torch.equal(model[1].bias, learnt)
    assert torch.equal(model[1].weight, before["1.weight"])


def test_convolutions_read_by_groups_are_repaired_within_their_group() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 8, 1)
            self.second = nn.Conv2d(8, 6, 3, groups=2)
            with torch.no_grad():
                for group in (0, 4):
                    self.first.weight[group + 3] = self.first.weight[group] * 2
                    self.first.bias[group + 3] = self.first.bias[group] * 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    model = Grouped().eval()
    x = IMAGES[0]
    expected = model(x)
    graph = tp.ONNXGraph(model)
    graph.build_graph((x[:1],), fill_value=False)
    cut = graph.solved.cut_analysis("self.first.weight", [3, 7], 0, granularity="inner")
    model, _ = tp.set_cut(model, cut)
    assert model.second.groups == 2
    tp.recover(model, cut, IMAGES, strength=1e-9)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-3)


def test_heads_and_neurons_of_a_transformer_are_repaired() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=50,
        use_cache=False,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    ids = [torch.randint(0, 50, (4, 12), generator=G) for _ in range(4)]
    graph = tp.ONNXGraph(model)
    graph.build_graph({"input_ids": ids[0]}, fill_value=False)
    requests = [
        request
        for layer in range(2)
        for request in (
            tp.CutRequest(f"self.model.layers.{layer}.self_attn.k_proj.weight", 0, tuple(range(4))),
            tp.CutRequest(f"self.model.layers.{layer}.mlp.gate_proj.weight", 0, tuple(range(16))),
        )
    ]
    cut = graph.solved.cut_analysis_many(requests)
    before = state(model)
    model, context = tp.set_cut(model, cut)
    done = tp.recover(model, cut, [{"input_ids": x} for x in ids])
    assert done.error_after < 0.9 * done.error_before
    assert set(done.repaired) >= {
        f"self.model.layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("self_attn.o_proj", "mlp.down_proj")
    }
    model = tp.recovery_cut(model, cut, context)
    assert same(state(model), before)


def test_a_weight_that_is_an_embedding_too_is_left_alone_and_named() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embed = nn.Embedding(20, 8)
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.embed(ids)))

    model = Tied().eval()
    ids = [torch.randint(0, 20, (4, 6), generator=G) for _ in range(2)]
    graph = tp.ONNXGraph(model)
    graph.build_graph((ids[0],), fill_value=False)
    cut = graph.solved.cut_analysis("self.embed.weight", [0, 1], 1)
    model, _ = tp.set_cut(model, cut)
    pruned = state(model)
    done = tp.recover(model, cut, ids)
    assert list(done.skipped) == ["self.embed.weight"]
    assert same(state(model), pruned)


def test_several_passes_give_what_one_gives() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    first, second = convolutional(), convolutional()
    tp.recover(tp.set_cut(first, cut)[0], cut, IMAGES, sequential=False)
    tp.recover(tp.set_cut(second, cut)[0], cut, IMAGES, sequential=False, memory=1)
    assert same(state(first), state(second))


def test_fitting_in_turn_keeps_errors_from_adding_up() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.Tanh())))
    deep.append(nn.LayerNorm(16))
    deep.append(nn.Linear(16, 3))
    rows = [torch.rand(64, 16, generator=G) for _ in range(4)]
    graph = tp.ONNXGraph(deep)
    graph.build_graph((rows[0][:1],), fill_value=False)
    cut = graph.solved.cut_analysis_many(
        [tp.CutRequest(f"self.{layer}.weight", 0, tuple(range(4))) for layer in (0, 2, 4, 6)]
    )
    errors = {}
    for sequential in (False, True):
        model, context = tp.set_cut(deep, cut)
        errors[sequential] = tp.recover(model, cut, rows, sequential=sequential).error_after
        tp.recovery_cut(model, cut, context)
    assert errors[True] < 0.9 * errors[False]


def test_one_batch_is_enough_where_more_do_not_fit_into_memory_or_together() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    for batches, memory in ((IMAGES, 1), ([IMAGES[0], IMAGES[1][..., :10, :10]], 1 << 30)):
        model, _ = tp.set_cut(convolutional(), cut)
        done = tp.recover(model, cut, batches, memory=memory)
        assert done.error_after < done.error_before


def test_progress_is_told_and_a_cancelled_recovery_changes_nothing() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    model, _ = tp.set_cut(convolutional(), cut)
    pruned = state(model)
    told: list[tuple[int, int | None]] = []
    tp.recover(model, cut, IMAGES, progress=lambda *at: told.append(at))
    assert told == sorted(told)
    assert told[-1] == (6, 6)
    model, _ = tp.set_cut(convolutional(), cut)
    for stop in (1, 5):
        with pytest.raises(CalibrationCancelledError):
            tp.recover(model, cut, IMAGES, progress=lambda done, total, stop=stop: done < stop)
        assert same(state(model), pruned)


def test_an_interrupted_recovery_changes_nothing_wherever_it_stops() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    model, context = tp.set_cut(convolutional(), cut)
    pruned = state(model)
    count = 0

    def batches() -> Any:
        nonlocal count
        for batch in IMAGES:
            count += 1
            if count == stop:
                raise KeyboardInterrupt
            yield batch

    for stop in range(1, 40):  # noqa: B007
        count = 0
        try:
            tp.recover(model, cut, batches)
        except KeyboardInterrupt:
            assert same(state(model), pruned)
            assert not context.repairs
        else:
            break
    assert stop > 8


def test_a_step_that_makes_the_outputs_worse_is_taken_back() -> None:
    model = convolutional()
    cut = cut_of(convolutional, [("self.6.weight", 1)])
    model, _ = tp.set_cut(model, cut)
    norms = state(model)["1.running_mean"]
    strange = [100 * torch.rand(2, 3, 12, 12, generator=G) ** 8 for _ in range(4)]
    done = tp.recover(model, cut, [*IMAGES, IMAGES[0], *strange], method="none")
    assert done.taken_back == ("batchnorm",)
    assert torch.equal(model[1].running_mean, norms)
    assert done.error_after == done.error_before


def test_what_cannot_be_recovered_is_refused_before_any_work() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    model = convolutional()
    with pytest.raises(RecoveryError, match="set_cut"):
        tp.recover(model, cut, IMAGES)
    model, _ = tp.set_cut(model, cut)
    pruned = state(model)
    with pytest.raises(RecoveryError, match="set_cut"):
        tp.recover(copy.deepcopy(model), cut, IMAGES)
    with pytest.raises(RecoveryError, match="method"):
        tp.recover(model, cut, IMAGES, method="magic")
    for number in (0, float("nan"), float("inf"), "much"):
        with pytest.raises(RecoveryError, match="strength is a positive number"):
            tp.recover(model, cut, IMAGES, strength=number)
    with pytest.raises(RecoveryError, match="more than once"):
        tp.recover(model, cut, iter(IMAGES))
    with pytest.raises(BatchError, match="forward="):
        tp.recover(model, cut, [(IMAGES[0], torch.zeros(8))])
    with pytest.raises(BatchError, match="no batch"):
        tp.recover(model, cut, [])
    with pytest.raises(BatchError, match="batch 0 is empty"):
        tp.recover(model, cut, [IMAGES[0][:0]])
    with pytest.raises(BatchError, match="function that is to return batches returned 5"):
        tp.recover(model, cut, lambda: 5)
    assert same(state(model), pruned)


def test_labels_in_a_batch_are_left_out_by_forward() -> None:
    cut = cut_of(convolutional, CONVOLUTIONS)
    model, _ = tp.set_cut(convolutional(), cut)
    labelled = [(x, torch.zeros(len(x))) for x in IMAGES]
    done = tp.recover(model, cut, labelled, forward=lambda model, batch: model(batch[0]))
    assert done.error_after < done.error_before


def test_training_goes_on_after_a_recovery() -> None:
    model = convolutional().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    cut = cut_of(convolutional, CONVOLUTIONS)
    model, _ = tp.set_cut(model, cut)
    tp.recover(model, cut, IMAGES)
    assert model.training
    for _ in range(2):
        optimizer.zero_grad()
        model(IMAGES[0]).square().mean().backward()
        optimizer.step()


def test_inputs_that_the_cut_shortens_are_shortened_for_the_pruned_model() -> None:
    model = convolutional()
    cut = graph_of(convolutional).solved.cut_analysis("self.0.weight", [1], 1)
    model, _ = tp.set_cut(model, cut)
    done = tp.recover(model, cut, IMAGES)
    assert done.error_after < done.error_before
    assert "self.0.weight" in done.repaired


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 4, 3, padding=1), (2, 6, 7, 7)),
        (nn.Conv2d(6, 4, (3, 2), stride=2, dilation=2, padding=2, groups=2), (2, 6, 9, 8)),
        (nn.Conv1d(6, 4, 5, padding=1), (6, 11)),
        (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1), (2, 6, 4, 5)),
        (nn.ConvTranspose1d(6, 4, 2, stride=2, groups=2), (2, 6, 5)),
    ],
)
def test_the_rows_that_a_kernel_sees_times_its_weight_are_the_output(
    layer: nn.Module, shape: tuple[int, ...]
) -> None:
    x = torch.rand(shape, generator=G)
    read: list[tuple[Reading, torch.Tensor]] = []
    with torch.no_grad(), Watch(layer, lambda *each: read.append(each)):
        expected = layer(x)
    ((reading, tensor),) = read
    rows = Rows(tensor, reading.window)
    blocks = [
        rows.at(torch.arange(rows.count))[:, block.features].flatten(1)
        @ block.of(layer.weight).movedim(1, -1).flatten(0, -2)
        for block in reading.blocks
    ]
    found = torch.cat(blocks, dim=1) + layer.bias
    axis = 1 if len(shape) == expected.dim() and len(shape) == layer.weight.dim() else 0
    wanted = expected.movedim(axis, -1).reshape(-1, 4)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    some = sampled(rows.count, 5, x.device)
    assert len(some) == 5
    torch.testing.assert_close(rows.at(some), rows.at(torch.arange(rows.count))[some])


@pytest.mark.parametrize("count", [40, 4])
def test_a_regression_closes_what_can_be_closed_from_many_rows_and_from_few(count: int) -> None:
    rows = torch.rand(count, 7, generator=G)
    missing = rows @ torch.rand(7, 3, generator=G) + 2
    change, offset = reconstruction.regression(rows, missing, 1e-9, centred=True)
    torch.testing.assert_close(
        (rows.double() @ change + offset).float(), missing, rtol=1e-3, atol=1e-3
    )


def test_a_convolution_is_fitted_tap_by_tap() -> None:
    """A removed channel that is a kept one moved by a pixel is replaced by another tap of the kernel."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 3)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
        for channel, (row, column) in enumerate([(1, 1), (1, 1), (1, 1), (1, 2)]):
            model[0].weight[channel, channel % 3, row, column] = 1
        model[1].weight[:, 3, :, 2] = 0  # what would need a tap outside the kernel
    expected = model(IMAGES[0])
    graph = tp.ONNXGraph(model)
    graph.build_graph((IMAGES[0][:1],), fill_value=False)
    cut = graph.solved.cut_analysis("self.0.weight", [3], 0)
    model, _ = tp.set_cut(model, cut)
    tp.recover(model, cut, IMAGES, strength=1e-9)
    torch.testing.assert_close(model(IMAGES[0]), expected, rtol=1e-2, atol=1e-2)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = kind(6, 12, num_layers=2, batch_first=True)
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.fc(self.rnn(x)[0])
        return out


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_are_scored_planned_recovered_and_undone(kind: type[nn.RNNBase]) -> None:
    model = Recurrent(kind).eval()
    steps = [torch.rand(8, 5, 6, generator=G) for _ in range(3)]
    graph = tp.ONNXGraph(model)
    graph.build_graph((steps[0][:1],), fill_value=False)
    scores = tp.importance.activation(model, graph, steps)
    assert ("self.rnn.weight_hh_l1", 1) in scores.values
    before = state(model)
    plan = tp.plan(graph, tp.Budget(params="60%"), scores)
    assert plan.widths["self.rnn.weight_hh_l1", 1][1] < 12
    model, context = tp.set_cut(model, plan.result)
    done = tp.recover(model, plan, steps)
    assert done.error_after < 0.5 * done.error_before
    assert {"self.rnn.weight_ih_l1", "self.fc.weight"} <= set(done.repaired)
    assert not done.skipped
    assert same(state(tp.recovery_cut(model, plan.result, context)), before)


def test_a_weight_that_is_computed_before_it_is_used_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)))
    graph = tp.ONNXGraph(model)
    graph.build_graph((ROWS[0][:1],), fill_value=False)
    cut = graph.solved.cut_analysis("self.0.weight", [0, 1], 0)
    model, _ = tp.set_cut(model, cut)
    done = tp.recover(model, cut, ROWS)
    ((name, reason),) = done.skipped.items()
    assert name == "self.1.parametrizations.weight.original1"
    assert "no product" in reason
    assert name in str(done)
