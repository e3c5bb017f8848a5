"""Which of a model's stored measurements is that of a cut, or of the model itself.

A latency depends on shapes alone: a measurement of a cut that leaves as many parameters and FLOPs
stands for every cut that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchpruner_client import AsyncRemoteModel, CutResult, ModelInfo, StoredLatency

Timing = Mapping[str, float]
"""``median_ms``, ``p10_ms``, ``p90_ms`` and others of one model."""


def of_cut(stored: Sequence[StoredLatency], result: CutResult) -> StoredLatency | None:
    """The newest measurement of a cut of the same size; ``stored`` is newest first."""
    return of_size(stored, result.params_after, result.flops_after)


def of_size(stored: Sequence[StoredLatency], params: int, flops: int) -> StoredLatency | None:
    """The newest measurement of a cut that leaves ``params`` parameters and ``flops`` FLOPs."""
    for each in stored:
        cut = each.cut
        if cut and (cut["params_after"], cut["flops_after"]) == (params, flops):
            return each
    return None


async def of_model(model: AsyncRemoteModel, parent: AsyncRemoteModel | None) -> Measured | None:
    """The newest measurement that tells how long ``model`` itself takes; ``parent`` is what it was
    derived from, whose cuts of the same size tell it too. Raises what the SDK raises."""
    stored = await model.latencies()
    if not model.info.parent:
        return (stored[0], stored[0].original) if stored else None
    own = next((each for each in stored if each.cut is None), None)
    if own is None and parent is not None:
        own = of_size(await parent.latencies(), *_size(model.info))
    return (own, own.pruned) if own else None


Measured = tuple[StoredLatency, Timing]


def _size(info: ModelInfo) -> tuple[int, int]:
    return int(info.counts.get("params", 0)), int(info.counts.get("flops", 0))
