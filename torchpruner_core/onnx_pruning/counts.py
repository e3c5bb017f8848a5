"""The number of elements in an unbiased variance: a mean times n, divided by n - 1.

Other numbers that a program reads off sizes stay what they were, since what is left must be computed
as before. Of a statistic over fewer slices the count is a part: ``torch.var`` counts what is there, and
so do the pruned model and its reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torchpruner_core.graph.nodes import DataNode, OperatorRecord


def counts_of_statistics(operators: Iterable[OperatorRecord]) -> Iterator[DataNode]:
    """Yield the values that count the elements of a variance: n, and n less a correction."""
    for operator in operators:
        if operator.type != "Div" or operator.is_constant:
            continue
        scaled, divisor = _maker(operator.input(0)), _maker(operator.input(1))
        if scaled is None or divisor is None or (scaled.type, divisor.type) != ("Mul", "Sub"):
            continue
        count, less = divisor.input(0), operator.input(1)
        makers = [_maker(factor) for factor in scaled.in_data if factor is not count]
        is_mean = [maker is not None and maker.type == "ReduceMean" for maker in makers]
        if divisor.is_constant and is_mean == [True] and count is not None and less is not None:
            yield count
            yield less


def _maker(node: DataNode | None) -> OperatorRecord | None:
    return None if node is None else node.in_operator
