"""One zoo model, planned at several budgets: never above, near, exact, whole, and it runs.

Each pruned ONNX model is read again from its bytes: its FLOPs and parameters must be those that were
predicted, every planned width must be there and obey the rules, and onnxruntime must run it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

import torchpruner_core as tp
from benchmarks.zoo import onnx_check
from benchmarks.zoo.specimen import Inputs, Specimen
from torchpruner_core.exporting import export
from torchpruner_core.exporting.structures import specs_of, tensors_of_inputs
from torchpruner_core.importing.solving import solve_onnx

SHARES = (0.75, 0.5, 0.25)
MULTIPLES = (1, 8)
ALLOWED = {1: 0.01, 8: 0.03}
"""How far below its budget a plan may land, by the multiple that widths are rounded to."""


@dataclass(frozen=True)
class Row:
    """One plan. ``below`` is how far under its budget it landed, as a share of the budget.

    ``state`` is ``"planned"``, ``"infeasible"`` (the rules leave nothing cheap enough, and the error says what
    is nearest) or ``"failed"``; ``error`` says why.
    """

    model: str
    share: float
    multiple: int
    state: str
    below: float = 0.0
    exact: bool = True
    emptied: int = 0
    rules: bool = True
    runs: bool = True
    seconds: float = 0.0
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rows_of(specimen: Specimen) -> Iterator[Row]:
    """Yield a row for each share and multiple; raises where the model itself cannot be planned on."""
    torch.set_num_threads(1)
    model, inputs = specimen.build()
    data = export(model, inputs).with_weights()
    specs = specs_of(inputs)
    graph = solve_onnx(data, specs)
    scores = tp.importance.magnitude(model, graph)
    feeds = _feeds(graph, inputs)
    name = f"{specimen.family}/{specimen.name}"
    for multiple in MULTIPLES:
        for share in SHARES:
            began = time.perf_counter()
            try:
                plan = tp.plan(graph, tp.Budget(flops=share), scores, round_to=multiple)
            except tp.InfeasibleBudgetError as error:
                yield Row(name, share, multiple, "infeasible", error=str(error))
                continue
            except tp.TorchPrunerError as error:
                yield Row(name, share, multiple, "failed", error=f"{type(error).__name__}: {error}")
                continue
            seconds = time.perf_counter() - began
            yield _row(name, share, multiple, plan, graph, data, specs, feeds, seconds)


def _feeds(graph: tp.SolvedGraph, inputs: Inputs) -> dict[str, Any]:
    values = tensors_of_inputs(inputs)
    tensors = list(values.values()) if isinstance(values, dict) else list(values)
    return {name: t.numpy() for name, t in zip(graph.inputs, tensors, strict=True)}


def _row(
    name: str,
    share: float,
    multiple: int,
    plan: tp.Plan,
    graph: tp.SolvedGraph,
    data: bytes,
    specs: Any,
    feeds: dict[str, Any],
    seconds: float,
) -> Row:
    limit = share * graph.flops()
    after = plan.costs["flops"].after
    error = ""
    exact = runs = True
    try:
        pruned = tp.prune_onnx(data, plan.result)
        again = solve_onnx(pruned, specs)
        exact = (again.flops(), again.params()) == (after, plan.costs["params"].after)
        if not exact:
            error = (
                f"re-analysed {again.flops():,} FLOPs and {again.params():,} parameters, planned "
                f"{after:,} and {plan.costs['params'].after:,}"
            )
    except tp.TorchPrunerError as problem:
        exact, error = False, f"{type(problem).__name__}: {problem}"
    else:
        try:
            outputs = onnx_check.run(pruned, feeds)
            runs = all(np.isfinite(v).all() for v in outputs.values() if v.dtype.kind == "f")
        except Exception as problem:
            runs, error = False, f"{type(problem).__name__}: {str(problem)[:300]}"
    return Row(
        name,
        share,
        multiple,
        "planned",
        below=1 - after / limit,
        exact=exact,
        emptied=sum(after == 0 for _, after in plan.widths.values()),
        rules=all(_obeys(group, multiple) for group in plan.groups if group.touched),
        runs=runs,
        seconds=seconds,
        error=error,
    )


def _obeys(group: Any, multiple: int) -> bool:
    return group.after % multiple == 0 and group.after >= group.least >= 1
