"""A graph, solved: what a process needs to answer questions about a model, in numpy alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchpruner_core.analysis.closure import GRANULARITIES, Granularity
from torchpruner_core.analysis.cut_analysis import analyse
from torchpruner_core.analysis.derive import derive
from torchpruner_core.analysis.graph_data import GraphData
from torchpruner_core.analysis.groups import Group, groups
from torchpruner_core.analysis.requests import read_requests
from torchpruner_core.analysis.storage import dump, load
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import CutError, CutIndexError, ProtectedIOError


@dataclass(frozen=True, repr=False)
class SolvedGraph(GraphData):
    """The nodes, operators, modules and coupling of one model, and the questions people ask of it.

    Immutable; safe to share between threads. Built by ``torchpruner_core.solve_onnx``.
    """

    def cut_analysis(
        self,
        node: str,
        index: Sequence[int],
        dim: int,
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that removes ``index`` along ``dim`` of ``node``.

        Negative ``dim`` counts from the end. ``granularity`` decides where an axis splits into
        several prunable ones (heads and head dimensions, groups and channels a group).

        Raises :class:`~torchpruner_core.errors.CutError` and its subclasses; nothing is changed.
        """
        request = self.request(node, index, dim)
        return self.cut_analysis_many([request], granularity=granularity, protect_io=protect_io)

    def cut_analysis_many(
        self,
        requests: Iterable[CutRequest],
        *,
        granularity: Granularity = "auto",
        protect_io: bool = False,
    ) -> CutResult:
        """Return the smallest consistent cut that contains every request; see ``cut_analysis``."""
        asked = tuple(self.request(r.node, r.index, r.dim) for r in read_requests(requests))
        if not asked:
            raise CutIndexError("no cut was asked for; give at least one node, dim and index")
        if granularity not in GRANULARITIES:
            raise CutError(
                f"granularity is one of {', '.join(GRANULARITIES)}, not {granularity!r}",
                received=granularity,
            )
        result = analyse(self, asked, granularity)
        if protect_io and (result.touches_inputs or result.touches_outputs):
            names = ", ".join((*result.touches_inputs, *result.touches_outputs))
            raise ProtectedIOError(
                f"the cut reaches the model's inputs or outputs ({names}), and protect_io is set",
                touches_inputs=list(result.touches_inputs),
                touches_outputs=list(result.touches_outputs),
            )
        return result

    def groups(self) -> list[Group]:
        """Return every group of the model; see :mod:`torchpruner_core.analysis.groups`."""
        return groups(self)

    def derive(self, result: CutResult) -> SolvedGraph:
        """Return the graph after ``result`` was cut: sliced, not rebuilt.

        Raises ``CutError`` where ``result`` was not made for this graph or is not consistent.
        """
        return derive(self, result)

    def to_bytes(self) -> bytes:
        """Return the graph as bytes for a cache or a file."""
        return dump(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> SolvedGraph:
        """Read :meth:`to_bytes`; raises ``InvalidModelError`` for anything else."""
        return load(data, cls)

    def __repr__(self) -> str:
        return (
            f"SolvedGraph({len(self.modules)} modules, {len(self.operators)} operators, "
            f"{self.params():,} parameters, {self.flops():,} FLOPs)"
        )
