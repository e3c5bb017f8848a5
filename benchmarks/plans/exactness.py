"""One zoo model, planned at several budgets: never above, near, exact, whole, and it runs.

Each pruned ONNX model is read again from its bytes: its FLOPs and parameters must be those that were
predicted, every planned width must be there and obey the rules, and onnxruntime must run it.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torchpruner_core as tp
from benchmarks.figures import Figure
from benchmarks.zoo import onnx_check
from benchmarks.zoo.catalogue import every
from benchmarks.zoo.specimen import Inputs, Specimen
from torchpruner_core.exporting import export
from torchpruner_core.exporting.structures import specs_of, tensors_of_inputs
from torchpruner_core.importing.solving import solve_onnx

FAMILIES = ("torchvision/classification", "ultralytics")
TOO_LARGE = frozenset(
    (
        "convnext_base", "convnext_large", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
        "regnet_x_16gf", "regnet_x_32gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_32gf",
        "resnext101_64x4d", "swin_b", "swin_v2_b", "vgg13", "vgg16", "vgg19", "vit_b_32", "vit_h_14",
        "vit_l_16", "vit_l_32", "wide_resnet101_2",
    )
)  # fmt: skip
"""Left out for their size, each with a smaller sister in the table."""

LIGHT = frozenset(
    (
        "convnext_atto", "deit_tiny_distilled_patch16_224", "edgenext_xx_small",
        "efficientnet_lite0", "efficientvit_m0", "fasternet_t0", "gernet_s", "ghostnetv2_100",
        "hardcorenas_a", "lcnetv2_small", "mobilenetv3_small_050", "mobileone_s0", "pvt_v2_b0",
        "regnetx_002", "regnety_002", "repghostnet_050", "repvit_m0_9", "resnetv2_18", "selecsls42",
        "shvit_s1", "skresnet18", "starnet_s050", "xcit_nano_12_p16_224"
    )
)  # fmt: skip
"""Networks of timm, small ones of many kinds."""

SECONDS = 900.0
"""For one model; a model that takes longer is a row of its own."""

SHARES = (0.75, 0.5, 0.25)
MULTIPLES = (1, 8)
ALLOWED = {1: 0.01, 8: 0.03}
"""How far below its budget a plan may land, by the multiple that widths are rounded to."""


@dataclass(frozen=True)
class Row:
    """One plan. ``below`` is how far under its budget it landed, as a share of the budget.

    ``state`` is ``"planned"``, ``"infeasible"`` (the rules leave nothing cheap enough, and the error says
    what is nearest) or ``"failed"``; ``error`` says why.
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


def specimens() -> list[Specimen]:
    """Return the networks of the zoo that people deploy at their real sizes."""
    return [
        s
        for s in every()
        if (s.family in FAMILIES and s.name not in TOO_LARGE)
        or (s.family.startswith("timm/") and s.name in LIGHT)
    ]


def measure(wanted: Sequence[Specimen], folder: Path, told: Callable[[str], None]) -> list[Row]:
    """Return the rows of ``wanted``, each in a process of its own.

    What was measured is kept in ``folder``, one file a model, so a run that was stopped goes on where it
    was; models that failed are measured again.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.plans.exactness", "torchvision", "onnxruntime"])
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for number, specimen in enumerate(wanted, 1):
        path = folder / f"{specimen.key.replace('/', '-')}.json"
        if path.exists():
            rows += [Row(**row) for row in json.loads(path.read_text())]
            continue
        told(f"{number}/{len(wanted)} {specimen.name}")
        with context.Pool(1, maxtasksperchild=1) as pool:
            task = pool.apply_async(_rows, (specimen.key,))
            try:
                found = task.get(SECONDS)
            except Exception as error:
                name = f"{specimen.family}/{specimen.name}"
                found = [Row(name, 0, 0, "failed", error=f"{type(error).__name__}: {error}")]
        rows += found
        if all(row.state != "failed" for row in found):
            path.write_text(json.dumps([row.to_dict() for row in found], indent=1))
    return rows


def _rows(key: str) -> list[Row]:
    specimen = next(s for s in every() if s.key == key)
    return list(rows_of(specimen))


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Return what the rows prove."""
    planned = [row for row in rows if row.state == "planned"]
    failed = [row for row in rows if row.state == "failed"]
    other = [row for row in rows if row.state == "infeasible"]
    wrong = [row for row in planned if not row.exact]
    still = [row for row in planned if not row.runs]
    told = ", ".join(sorted({f"{r.model} {r.share:.0%}/{r.multiple}" for r in other}))
    found = [
        Figure.at_least("models planned", len({r.model for r in planned}), 60, "models"),
        Figure.at_most("models that could not be planned on", len(failed), 0, "models",
                       "; ".join(f"{r.model}: {r.error[:120]}" for r in failed)),
        Figure.shown("budgets that no width meets", len(other), "plans", told),
        Figure.at_most("plans above their budget", sum(r.below < 0 for r in planned), 0, "plans"),
        Figure.at_most("plans that a new analysis of the pruned file contradicts", len(wrong), 0,
                       "plans", "; ".join(f"{r.model}: {r.error[:120]}" for r in wrong)),
        Figure.at_most("layers emptied", sum(r.emptied for r in planned), 0, "layers"),
        Figure.at_most("widths against the rules", sum(not r.rules for r in planned), 0, "plans"),
        Figure.at_most("pruned models that do not run", len(still), 0, "plans",
                       "; ".join(f"{r.model}: {r.error[:120]}" for r in still)),
    ]  # fmt: skip
    for multiple, allowed in ALLOWED.items():
        below = [row for row in planned if row.multiple == multiple]
        far = [row for row in below if row.below > allowed]
        found.append(
            Figure.at_most(
                f"plans more than {allowed:.0%} below their budget, round_to={multiple}",
                len(far),
                0,
                f"of {len(below)} plans",
                ", ".join(f"{r.model} {r.share:.0%}: {r.below:.1%}" for r in far),
            )
        )
        if below:
            median = float(np.median([row.below for row in below]))
            found.append(
                Figure.shown(f"below the budget, median, round_to={multiple}", 100 * median, "%")
            )
    return found


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
    return bool(group.after % multiple == 0 and group.after >= group.least >= 1)
