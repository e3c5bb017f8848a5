"""Fitting weight after weight, each from what it reads in the pruned model by then.

Every product of a weight is to give what it gave in the whole model, at the outputs that are left of it.
What it reads by now lacks features and carries the errors of all products before it, so each is fitted
just before it is computed: least squares from the pruned model's inputs to the whole model's outputs, a
convolution's over the patches that its kernel sees. Where its output goes into a sum, it is fitted once
more, to what the sum was: the other summand's error is mended along. Sources: He et al. 2017 (channel
pruning), https://arxiv.org/abs/1707.06168, and Luo et al. 2017 (ThiNet), https://arxiv.org/abs/1707.06342.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from torchpruner_core.calibration.as_found import as_found
from torchpruner_core.calibration.moments import check_finite
from torchpruner_core.calibration.readings import Reading, Watch
from torchpruner_core.calibration.windows import Rows, sampled
from torchpruner_core.recovery import reconstruction
from torchpruner_core.recovery.pair import Pair
from torchpruner_core.recovery.sums import Link, SumWatch

Values = dict[str, torch.Tensor]

ROWS_A_FEATURE = 8
"""Rows that a weight is fitted from for each of its features, where there are as many."""

WORK = 1 << 32
"""Products that a fit may take all the same, so that narrow weights are fitted from more rows."""

ALIVE = 6
"""How many tensors as large as the largest one read a forward holds at a time, roughly."""

SILENT = 1e-3
"""The share of the largest scale below which a channel has no say in a sum."""

EXACT = 1e-12
"""The share of the outputs' square below which they are what they were."""


@dataclass(frozen=True)
class Expected:
    """What a product gave in the whole model: ``outputs`` at the rows ``index`` of ``count``.

    ``kept`` says which of its outputs the cut leaves.
    """

    reading: Reading
    count: int
    index: torch.Tensor
    kept: torch.Tensor
    outputs: torch.Tensor


class Probe:
    """One batch in the whole model: which products there are, and how much memory they need.

    ``calls`` counts each reading, ``largest`` is the largest tensor read and ``outputs`` what fitting would
    keep of all products, both in bytes for this batch.
    """

    def __init__(self, pair: Pair, batch: Any, memory: int) -> None:
        self.memory = memory
        self.calls: Counter[Reading] = Counter()
        self.largest = 0
        self._kept: list[tuple[int, int, int]] = []
        with as_found(pair.whole), torch.no_grad(), Watch(pair.whole, self._note) as watch:
            pair.run.run(pair.whole, batch)
        self.watch = watch

    def _note(self, reading: Reading, tensor: torch.Tensor) -> None:
        self.calls[reading] += 1
        self.largest = max(self.largest, tensor.numel() * tensor.element_size())
        count = Rows(tensor, reading.window).count
        width = sum(block.sizes[1] for block in reading.blocks)
        self._kept.append((count, self.most(reading), 8 * width))  # its outputs and the sum

    def most(self, reading: Reading) -> int:
        """Return how many rows a weight is fitted from at most; one copy of them is held at a time."""
        features = [block.elements // block.sizes[1] for block in reading.blocks]
        worth = max(ROWS_A_FEATURE * max(features), WORK // sum(n * n for n in features))
        return min(worth, self.memory // (ALIVE * 4 * sum(features)) + 1)

    def kept(self, times: float) -> float:
        """Return the bytes of outputs that are kept for ``times`` as much data."""
        return sum(min(times * count, most) * width for count, most, width in self._kept)


class InTurn:
    """Fits the readings ``wanted`` of a pair; ``write`` gets each weight's new values before it is used."""

    def __init__(
        self,
        pair: Pair,
        wanted: Collection[Reading],
        strength: float,
        bias_of: Callable[[Reading], str | None],
        write: Callable[[Values], None],
    ) -> None:
        self.pair, self.wanted, self.strength = pair, wanted, strength
        self.bias_of, self.write = bias_of, write
        self.fitted: list[Reading] = []
        self._expected: dict[str, list[Expected | None]] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._read: dict[str, tuple[Expected, Reading, torch.Tensor]] = {}

    def run(self, probe: Probe, batch: Any, times: float) -> None:
        """Send ``batch``, ``times`` as large as the probe's, through the whole model and the pruned one."""
        pair = self.pair
        self._probe, self._share = probe, min(1.0, probe.memory / max(probe.kept(times), 1))
        with as_found(pair.whole), as_found(pair.root), torch.no_grad():
            with SumWatch(pair.whole, self._keep, self._keep_sum):
                pair.run.run(pair.whole, batch)
            with SumWatch(pair.root, self._fit, self._fit_sum):
                pair.pruned(batch)

    def _keep(self, reading: Reading, tensor: torch.Tensor) -> None:
        calls = self._expected.setdefault(reading.weight, [])
        if reading not in self.wanted:
            calls.append(None)
            return
        rows = Rows(tensor, reading.window)
        index = sampled(rows.count, self._most(reading), tensor.device)
        whole = self.pair.local.tensors
        parameter = whole[reading.weight]
        axes = self.pair.axes.get(reading.weight)
        kept = reconstruction.kept_outputs(reading, parameter, axes)
        outputs = _outputs(_by_block(reading, rows.at(index)), reading, whole)[:, kept]
        check_finite(reading, outputs)
        calls.append(Expected(reading, rows.count, index, kept, outputs))

    def _keep_sum(self, link: Link, summand: torch.Tensor, total: torch.Tensor) -> None:
        calls = self._expected.get(link.reading.weight)
        expected = calls[-1] if calls else None
        if expected is not None and link.reading.weight not in self._sums:
            rows = link.rows(summand, total)
            if len(rows) == expected.count:
                self._sums[link.reading.weight] = rows[expected.index][:, expected.kept].float()

    def _most(self, reading: Reading) -> int:
        return int(self._share * self._probe.most(reading)) + 1

    def _fit(self, shorter: Reading, tensor: torch.Tensor) -> None:
        """Fit a product to what it gave, before it is computed."""
        calls = self._expected.get(shorter.weight)
        expected = calls.pop(0) if calls else None
        if expected is None:
            return
        rows = Rows(tensor, shorter.window)
        width = sum(block.sizes[1] for block in shorter.blocks)
        if rows.count != expected.count or width != expected.outputs.shape[1]:
            return  # another product than the whole model's: left to the other way of fitting
        blocks = _by_block(shorter, rows.at(expected.index))
        gap = expected.outputs - _outputs(blocks, shorter, self.pair.pruned_tensors)
        self.fitted.append(expected.reading)
        self._close(expected, shorter, blocks, gap, expected.outputs)
        if shorter.weight in self._sums:
            self._read[shorter.weight] = (expected, shorter, tensor)
        self.pair.run.ask()

    def _fit_sum(self, link: Link, summand: torch.Tensor, total: torch.Tensor) -> None:
        """Fit a product to the sum that it goes into, after it is computed and before the sum is."""
        expected, shorter, tensor = self._read.pop(link.reading.weight, (None, None, None))
        if expected is None or shorter is None or tensor is None:
            return
        wanted = self._sums.pop(shorter.weight)
        rows = link.rows(summand, total)
        if len(rows) != expected.count or rows.shape[1] != wanted.shape[1]:
            return
        gap = wanted - rows[expected.index].float()
        scales = link.scales()
        if scales is not None:
            size = scales.abs()
            gap = torch.where(size > SILENT * size.max(), gap / scales, 0)
        blocks = _by_block(shorter, Rows(tensor, shorter.window).at(expected.index))
        if self._close(expected, shorter, blocks, gap, wanted):
            link.again()

    def _close(
        self,
        expected: Expected,
        shorter: Reading,
        blocks: list[torch.Tensor],
        gap: torch.Tensor,
        wanted: torch.Tensor,
    ) -> bool:
        """Change a weight, and what is added to its product, so that a gap closes. Return whether."""
        check_finite(shorter, gap)
        if float(gap.square().sum()) <= EXACT * float(wanted.square().sum()):
            return False
        tensors = self.pair.pruned_tensors
        bias = self.bias_of(expected.reading)
        new = tensors[shorter.weight].detach().clone()
        offsets = []
        gaps = gap.unflatten(1, (len(shorter.blocks), -1)).unbind(1)
        features = max(block.elements // block.sizes[1] for block in shorter.blocks)
        strength = self.strength * min(1.0, ROWS_A_FEATURE * features / len(gap))
        for block, rows, missing in zip(shorter.blocks, blocks, gaps, strict=True):
            change, offset = reconstruction.regression(rows, missing, strength, bias is not None)
            view = block.of(new)
            inputs, outputs, *taps = block.sizes
            moved = change.view(inputs, *taps, outputs).movedim(-1, 1)
            view.copy_(view.to(moved.dtype) + moved)
            offsets.append(offset)
        values = {shorter.weight: new}
        if bias is not None:
            values[bias] = tensors[bias].detach() + torch.cat(offsets)
        self.write(values)
        return True


def _by_block(reading: Reading, rows: torch.Tensor) -> list[torch.Tensor]:
    """Return what each block of a weight reads, shapes ``(n, features x taps)``, in float32."""
    return [rows[:, block.features].flatten(1).float() for block in reading.blocks]


def _outputs(
    blocks: list[torch.Tensor], reading: Reading, tensors: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the products of a weight's blocks, bias and all, shape ``(n, blocks x outputs)``."""
    parameter = tensors[reading.weight]
    found = torch.cat(
        [
            rows @ block.of(parameter).movedim(1, -1).flatten(0, -2).float()
            for rows, block in zip(blocks, reading.blocks, strict=True)
        ],
        dim=1,
    )
    return found if reading.bias is None else found + tensors[reading.bias].detach().float()


def together(pair: Pair, memory: int) -> tuple[Probe, Any, float]:
    """Return a probe of the first batch, the first batches as one, and how much larger that is.

    As many as have shapes that fit together, and are small enough for ``memory``.
    """
    batches = iter(pair.run)
    joined = next(batches)
    probe = Probe(pair, joined, memory)
    first = largest = _size(joined)
    for batch in batches:
        largest += _size(batch)
        if ALIVE * probe.largest * largest / first > memory:
            break
        more = _joined(joined, batch)
        if more is None:
            break
        joined = more
    return probe, joined, _size(joined) / first


def _size(batch: Any) -> int:
    return sum(x.numel() for x in tree_flatten(batch)[0] if isinstance(x, torch.Tensor)) or 1


def _joined(first: Any, second: Any) -> Any:
    """Return two batches as one along the first axis, or ``None`` where they do not fit together."""
    ours, form = tree_flatten(first)
    others, other_form = tree_flatten(second)
    if form != other_form:
        return None
    leaves = []
    for x, y in zip(ours, others, strict=True):
        if not isinstance(x, torch.Tensor) or not isinstance(y, torch.Tensor):
            if x is not y and x != y:
                return None
            leaves.append(x)
        elif x.dim() and x.shape[1:] == y.shape[1:] and x.dtype == y.dtype:
            leaves.append(torch.cat([x, y]))
        else:
            return None
    return tree_unflatten(leaves, form)
