"""Accuracy at the same cost: ours and Torch-Pruning's, same scores, same fine-tuning, paired by seed.

Everything that was measured is kept under ``build/bench-plan``, one file a task and seed, so a run that
was stopped goes on where it was. ``python -m benchmarks.plans.accuracy`` runs it alone.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
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
from benchmarks.plans.tasks import TASKS, Task

TARGETS = (0.75, 0.5, 0.25)
EPOCHS = (0, 1, 10)
SEEDS = 5
FOLDER = Path("build/bench-plan")

Say = Callable[[str], None]


def measure(
    task: Task,
    seed: int,
    folder: Path = FOLDER,
    say: Say = print,
    sides: Sequence[str] = ("peer", "ours"),
) -> dict[str, Any]:
    """Return the accuracies of one seed, from the folder where they are known.

    ``{"base": 95.1, "ours": {"0.5": {"cost": ..., "plain": ..., "0": ..., "1": ..., "10": ...}}, "peer":
    ...}``
    """
    folder.mkdir(parents=True, exist_ok=True)
    slug = f"{task.name.split(',')[0].replace(' ', '-')}-{seed}"
    path, weights = folder / f"{slug}.json", folder / f"{slug}.pt"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    torch.manual_seed(seed)
    model = task.network()
    if weights.exists() and "base" in known:
        model.load_state_dict(torch.load(weights, weights_only=True))
    else:
        task.train(model, task.epochs, task.rate, seed)
        torch.save(model.state_dict(), weights)
        known = {"base": task.accuracy(model)}
        path.write_text(json.dumps(known, indent=1))
    model.eval()
    for side in sides:
        run = {"ours": ours, "peer": theirs}[side]
        for target in TARGETS:
            entry = known.setdefault(side, {})
            if str(target) not in entry:
                entry[str(target)] = run(task, model, target, seed)
                path.write_text(json.dumps(known, indent=1))
                say(f"{task.name}, seed {seed}, {side} at {target:.0%}: {entry[str(target)]}")
    return known


def ours(task: Task, model: nn.Module, target: float, seed: int) -> dict[str, Any]:
    """Plan, cut, recover, fine-tune."""
    subject = copy.deepcopy(model)
    example = task.example()
    graph = tp.ONNXGraph(subject)
    graph.build_graph((example,), fill_value=False)
    scores = tp.importance.magnitude(subject, graph)
    plan = tp.plan(graph, tp.Budget(flops=f"{100 * target:g}%"), scores, scope="isomorphic")
    subject, _ = tp.set_cut(subject, plan.result)
    found: dict[str, Any] = {"cost": peer.macs(subject, example) / peer.macs(model, example)}
    found["plain"] = task.accuracy(subject)
    tp.recover(subject, plan, task.calibration())
    found.update(_tuned(task, subject, seed))
    return found


def theirs(task: Task, model: nn.Module, target: float, seed: int) -> dict[str, Any]:
    """Torch-Pruning's best scope without training and after one epoch; the latter goes on to ten."""
    example = task.example()
    tried: dict[str, dict[str, float]] = {}
    subjects: dict[str, nn.Module] = {}
    failures: dict[str, str] = {}
    graph = tp.ONNXGraph(model)
    graph.build_graph((example,), fill_value=False)
    ignored = peer.output_layers(model, graph)
    for scope in peer.SCOPES:
        try:
            subject = peer.to_cost(model, example, scope, target, ignored)
        except peer.PeerFailedError as error:
            failures[scope] = str(error)
            continue
        subjects[scope] = subject
        tried[scope] = {"0": task.accuracy(subject)}
        first = copy.deepcopy(subject)
        task.train(first, 1, task.rate / 3, seed)
        tried[scope]["1"] = task.accuracy(first)
    if not tried:
        return {"failed": "; ".join(f"{scope}: {why}" for scope, why in failures.items())}
    best = max(tried, key=lambda scope: tried[scope]["1"])
    task.train(subjects[best], 10, task.rate / 3, seed)
    return {
        "cost": peer.macs(subjects[best], example) / peer.macs(model, example),
        "scope": best,
        "0": max(each["0"] for each in tried.values()),
        "1": tried[best]["1"],
        "10": task.accuracy(subjects[best]),
        "failures": failures,
    }


def _tuned(task: Task, model: nn.Module, seed: int) -> dict[str, float]:
    found = {}
    for epochs in EPOCHS:
        subject = copy.deepcopy(model)
        if epochs:
            task.train(subject, epochs, task.rate / 3, seed)
        found[str(epochs)] = task.accuracy(subject)
    return found


def accuracy_figures(
    tasks: Sequence[Task] = TASKS, seeds: int = SEEDS, folder: Path = FOLDER, say: Say = print
) -> Iterator[Figure]:
    """Yield the figures of each task and target, and how often ours is at least as good."""
    from scipy.stats import ttest_rel

    wins: list[bool] = []
    clear: list[bool] = []
    for task in tasks:
        rows = [measure(task, seed, folder, say) for seed in range(seeds)]
        base = float(np.mean([row["base"] for row in rows]))
        yield Figure.shown(f"{task.name}: original", base, "%", f"mean of {seeds} seeds")
        for target in TARGETS:
            mine = [row["ours"][str(target)] for row in rows]
            other = [row["peer"][str(target)] for row in rows]
            failed = [each["failed"] for each in other if "failed" in each]
            where = f"{task.name} at {target:.0%} MACs"
            plain = float(np.mean([each["plain"] for each in mine]))
            for epochs in map(str, EPOCHS):
                gained = np.array([each[epochs] for each in mine])
                name = f"{where}, {epochs} epochs"
                if failed:
                    yield Figure.shown(name, float(gained.mean()), "%", f"peer: {failed[0]}")
                    continue
                theirs_ = np.array([each[epochs] for each in other])
                gap = gained - theirs_
                chance = (
                    float(ttest_rel(gained, theirs_, alternative="greater").pvalue)
                    if gap.std() > 0
                    else float(gap.mean() <= 0)
                )
                wins.append(bool(gap.mean() >= 0))
                clear.append(bool(chance < 0.05))
                note = (
                    f"peer {theirs_.mean():.2f} ({_scopes(other)}), paired p = {chance:.3f}; MACs "
                    f"{np.mean([m['cost'] for m in mine]):.3f} v {np.mean([o['cost'] for o in other]):.3f}"
                )
                if epochs == "0":
                    note += f"; ours without recovery {plain:.2f}"
                yield Figure(name, float(gained.mean()), float(theirs_.mean()), "%", wins[-1], note)
            if target == 0.5:
                lost = base - float(np.mean([each["0"] for each in mine]))
                yield Figure.at_most(f"{where}: lost without training", lost, 2, "points")
                if not failed:
                    ahead = float(
                        np.mean([m["0"] - o["0"] for m, o in zip(mine, other, strict=True)])
                    )
                    yield Figure.at_least(f"{where}: ahead without training", ahead, 10, "points")
    if wins:
        yield Figure.at_least(
            "targets at which ours is at least as good", float(np.mean(wins)), 1, "share"
        )
        yield Figure.at_least(
            "targets at which ours is clearly better", float(np.mean(clear)), 0.5, "share"
        )


def _scopes(rows: Sequence[dict[str, Any]]) -> str:
    return "/".join(sorted({row["scope"] for row in rows}))


def main(
    task: Annotated[
        list[str] | None, typer.Option(help="Only tasks with this in the name.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = SEEDS,
    folder: Annotated[Path, typer.Option(help="Where measurements are kept.")] = FOLDER,
    output: Annotated[Path, typer.Option()] = Path("build/bench-plan-accuracy.json"),
) -> None:
    """Measure and report."""
    torch.set_num_threads(1)
    console = Console()
    chosen = [t for t in TASKS if not task or any(part in t.name for part in task)]
    figures = list(accuracy_figures(chosen, seeds, folder, console.print))
    report("Accuracy at the same cost; held-out data", figures, output, console)


if __name__ == "__main__":
    typer.run(main)
