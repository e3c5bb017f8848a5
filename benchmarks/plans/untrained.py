"""What recovery without training loses, by importance and budget: the quick half of the accuracy figures.

``python -m benchmarks.plans.untrained`` trains the networks (or takes those that
``benchmarks.plans.accuracy`` kept), plans, cuts and recovers; with ``--peer`` Torch-Pruning's best scope at
half of the MACs stands beside.
What was measured is kept, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from torch import nn

import torchpruner_core as tp
from benchmarks.figures import Figure, report
from benchmarks.plans import peer
from benchmarks.plans.accuracy import FOLDER, SEEDS, TARGETS, Say, measure
from benchmarks.plans.tasks import TASKS, Task

IMPORTANCES = ("magnitude", "activation", "fluctuation")
HALF = 0.5


def trained(task: Task, seed: int, folder: Path) -> tuple[nn.Module, float]:
    """Return the network of a seed and its accuracy in percent."""
    base = float(measure(task, seed, folder, sides=())["base"])
    model = task.network()
    model.load_state_dict(torch.load(folder / f"{slug(task, seed)}.pt", weights_only=True))
    return model.eval(), base


def slug(task: Task, seed: int) -> str:
    return f"{task.name.split(',')[0].replace(' ', '-')}-{seed}"


def recovered(task: Task, model: nn.Module, importance: str, target: float) -> dict[str, float]:
    """Return the accuracy after a plan, before and after recovery."""
    subject = copy.deepcopy(model)
    graph = tp.ONNXGraph(subject)
    graph.build_graph((task.example(),), fill_value=False)
    batches = () if importance == "magnitude" else (task.calibration(),)
    scores = getattr(tp.importance, importance)(subject, graph, *batches)
    plan = tp.plan(graph, tp.Budget(flops=target), scores)
    subject, _ = tp.set_cut(subject, plan.result)
    plain = task.accuracy(subject)
    tp.recover(subject, plan, task.calibration())
    return {"plain": plain, "recovered": task.accuracy(subject)}


def peers(task: Task, model: nn.Module) -> float | None:
    """Return the accuracy of Torch-Pruning's best scope at half of the MACs, ``None`` where all fail."""
    example = task.example()
    graph = tp.ONNXGraph(model)
    graph.build_graph((example,), fill_value=False)
    ignored = peer.output_layers(model, graph)
    found = []
    for scope in peer.SCOPES:
        try:
            found.append(task.accuracy(peer.to_cost(model, example, scope, HALF, ignored)))
        except peer.PeerFailedError:
            continue
    return max(found, default=None)


def rows(tasks: Sequence[Task], seeds: int, beside: bool, folder: Path, say: Say) -> dict[str, Any]:
    """Return every measurement by ``"task|seed|what"``, from the folder where they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "untrained.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    asked = [("magnitude", target) for target in TARGETS]
    asked += [(importance, HALF) for importance in IMPORTANCES[1:]]
    for seed in range(seeds):
        for task in tasks:
            model, base = trained(task, seed, folder)
            for importance, target in asked:
                key = f"{task.name}|{seed}|{importance}|{target}"
                if key not in known:
                    known[key] = {"base": base, **recovered(task, model, importance, target)}
                    path.write_text(json.dumps(known, indent=1))
                    say(f"{key}: {known[key]}")
            key = f"{task.name}|{seed}|peer|{HALF}"
            if beside and key not in known:
                known[key] = {"base": base, "recovered": peers(task, model)}
                path.write_text(json.dumps(known, indent=1))
                say(f"{key}: {known[key]}")
    return known


def untrained_figures(
    tasks: Sequence[Task], seeds: int, beside: bool, folder: Path = FOLDER, say: Say = print
) -> Iterator[Figure]:
    """Yield the points lost, mean of the seeds with their range."""
    known = rows(tasks, seeds, beside, folder, say)
    for task in tasks:
        for importance in (*IMPORTANCES, "peer"):
            for target in TARGETS:
                keys = [f"{task.name}|{seed}|{importance}|{target}" for seed in range(seeds)]
                found = [known[key] for key in keys if known.get(key, {}).get("recovered")]
                if not found:
                    continue
                lost = np.array([row["base"] - row["recovered"] for row in found])
                note = f"{len(found)} seeds, {lost.min():.1f} to {lost.max():.1f}"
                if "plain" in found[0]:
                    note += f"; not recovered {np.mean([row['plain'] for row in found]):.1f} %"
                name = f"{task.name} at {target:.0%} MACs, {importance}: lost"
                value = float(lost.mean())
                if importance != "peer" and target == HALF:
                    yield Figure.at_most(name, value, 2, "points", note)
                else:
                    yield Figure.shown(name, value, "points", note)


def main(
    task: Annotated[
        list[str] | None, typer.Option(help="Only tasks with this in the name.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = SEEDS,
    beside: Annotated[bool, typer.Option("--peer", help="Measure Torch-Pruning too.")] = False,
    folder: Annotated[Path, typer.Option(help="Where measurements are kept.")] = FOLDER,
    output: Annotated[Path, typer.Option()] = Path("build/bench-plan-untrained.json"),
) -> None:
    """Measure and report."""
    torch.set_num_threads(1)
    console = Console()
    chosen = [t for t in TASKS if not task or any(part in t.name for part in task)]
    figures = list(untrained_figures(chosen, seeds, beside, folder, console.print))
    report("What recovery without training loses", figures, output, console)


if __name__ == "__main__":
    typer.run(main)
