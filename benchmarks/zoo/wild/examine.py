"""One file from its bytes to a row: what was built, what was cut, and whether it was right."""

from __future__ import annotations

import random
from typing import Any

import onnx

from benchmarks.zoo import onnx_check
from benchmarks.zoo.examination import Examination, Row, Save, first_line
from benchmarks.zoo.wild import peer
from benchmarks.zoo.wild.wild_file import WildFile
from torchpruner_core.analysis.groups import Group
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.errors import TorchPrunerError
from torchpruner_core.importing.solving import solve_onnx
from torchpruner_core.onnx_pruning import prune_onnx

CUTS, TRIES = 5, 4


def examine(file: WildFile, save: Save) -> Row:
    """Return the row of one file; ``save`` is given the unfinished row after each step."""
    return _Examination(file, save).examined()


class _Examination(Examination):
    def __init__(self, file: WildFile, save: Save) -> None:
        super().__init__(file.name, file.family, save)
        self.file = file

    def run(self) -> None:
        row = self.row
        with self.stage("fetching"):
            data = self.file.read()
        with self.stage("solving"):
            specs, feeds = self.file.inputs(onnx.load_model_from_string(data))
            graph = solve_onnx(data, specs)
            groups = graph.groups()
        row.update(built=True, params=graph.params(), groups=len(groups))
        row["operators"] = len(graph.operators)
        row["notes"] = graph.metadata.get("notes", [])
        with self.stage("running the original"):
            original = onnx_check.run(data, feeds)
        rng = random.Random(len(self.file.name))
        for group in _choose(graph, groups, rng):
            with self.stage(f"cutting {group.members[0][0]}"):
                row["cuts"].append(self._best(group, graph, data, feeds, original, rng))
            self.save(row)
        with self.stage("halving"):
            row["half"] = _halve(graph, groups, data, feeds)
        with self.stage("asking onnxsim"):
            row["onnxsim"] = peer.halve(data, feeds)
            row["peer"] = [row["onnxsim"]["state"]]

    def _best(
        self, group: Group, graph: SolvedGraph, data: bytes, feeds: Any, original: Any, rng: Any
    ) -> Row:
        """Return the first try that shows something: slices may be dead for these inputs."""
        for number in range(TRIES):
            node, dim = group.members[0]
            size = graph.nodes[node].shape[dim]
            count = max(1, min(4, size // 8)) if number < TRIES - 1 else max(1, size // 2)
            index = sorted(rng.sample(range(size), count))
            entry: Row = {
                "kind": "channel", "node": node, "dim": dim, "index": index,
                "granularity": "auto", "status": "equal",
            }  # fmt: skip
            self._try(entry, graph, data, feeds, original)
            if entry["status"] != "unproven":
                break
        return entry

    def _try(self, entry: Row, graph: SolvedGraph, data: bytes, feeds: Any, original: Any) -> None:
        try:
            cut = graph.cut_analysis(entry["node"], entry["index"], entry["dim"])
            cut = CutResult.from_json(cut.to_json())
            entry.update(params_removed=cut.params_removed, renormalises=len(cut.renormalises))
            found = onnx_check.check(data, cut, feeds, original)
        except TorchPrunerError as error:
            entry.setdefault("renormalises", 0)
            entry.update(status="refused", reason=f"{type(error).__name__}: {first_line(error)}")
            return
        except Exception as error:
            entry.update(status="wrong", reason=f"{type(error).__name__}: {first_line(error)}")
            return
        entry["gap"], entry["onnx_error"] = found.gap, found.error
        if not found.error <= max(self.file.tolerance, found.noise):
            reason = f"differs by {found.error:.2g} (gap {found.gap:.2g})"
            entry.update(status="wrong", reason=reason)
        elif not found.gap >= max(onnx_check.VISIBLE, found.error):
            reason = f"masking moves the output by {found.gap:.2g} only"
            entry.update(status="unproven", reason=reason)


def _inner(graph: SolvedGraph, groups: list[Group]) -> list[Group]:
    """Return the groups that reach no output: what is taken from one leaves nothing to compare."""
    shown = {owner for name in graph.outputs for owner in graph.classes_of(name)}
    return [
        group
        for group in groups
        if group.width >= 2
        and not any(graph.classes_of(node)[dim] in shown for node, dim in group.members)
    ]


def _choose(graph: SolvedGraph, groups: list[Group], rng: random.Random) -> list[Group]:
    """Return up to five groups, spread over the depth of the network."""
    inner = _inner(graph, groups)
    if len(inner) <= CUTS:
        return [inner[k % len(inner)] for k in range(CUTS)] if inner else []
    places = (int((k + rng.random()) / CUTS * len(inner)) for k in range(CUTS))
    return [inner[place] for place in places]


def _halve(graph: SolvedGraph, groups: list[Group], data: bytes, feeds: Any) -> Row:
    """Return what is left when half of every group goes, where a group alone can be halved."""
    asked = []
    for group in _inner(graph, groups):
        node, dim = group.members[0]
        request = CutRequest(node, dim, tuple(range(graph.nodes[node].shape[dim] // 2)))
        try:
            graph.cut_analysis_many([request])
            asked.append(request)
        except TorchPrunerError:
            continue
    while asked:
        try:
            cut = graph.cut_analysis_many(asked)
            break
        except TorchPrunerError:
            asked.pop()
    else:
        return {"state": "nothing to halve", "removed": 0}
    try:
        pruned = prune_onnx(data, cut)
        onnx_check.run(pruned, {n: onnx_check.less(cut, n, v) for n, v in feeds.items()})
    except Exception as error:
        return {"state": f"{type(error).__name__}: {first_line(error)}", "removed": 0}
    return {"state": "runs", "removed": cut.params_removed}
