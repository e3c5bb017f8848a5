"""One specimen from building to a row: what was built, what was cut, and whether it was right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_map

from benchmarks.zoo import module_check, onnx_check, targets, training_check
from benchmarks.zoo.examination import Examination, Row, Save, first_line
from benchmarks.zoo.signals import enliven
from benchmarks.zoo.specimen import Inputs, Specimen
from torchpruner_core.analysis.solved_graph import SolvedGraph
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import EmptyAxisError, ExportError, ReplayError, TorchPrunerError
from torchpruner_core.exporting import Program, export
from torchpruner_core.exporting.structures import specs_of
from torchpruner_core.importing.solving import solve_onnx

ONE_FILE = 1_900_000_000
"""Bytes of weights beyond which a single ONNX file cannot hold the model."""

HOLDS = 1e-2
"""How far a program may be from its model on other inputs, and be only rounded otherwise."""


def examine(specimen: Specimen, save: Save) -> Row:
    """Return the row of one specimen; ``save`` is given the unfinished row after each step."""
    torch.set_num_threads(1)
    return _Examination(specimen, save).examined()


class _Examination(Examination):
    def __init__(self, specimen: Specimen, save: Save) -> None:
        super().__init__(specimen.name, specimen.family, save)
        self.specimen = specimen
        self.optimised = False

    def run(self) -> None:
        row = self.row
        with self.stage("building the model"):
            model, inputs = self.specimen.build()
            enliven(model, inputs)
            row["params"] = sum(p.numel() for p in model.parameters())
        with self.stage("exporting"):
            program = self._export(model, inputs)
            weights = sum(p.numel() * p.element_size() for p in model.parameters())
            data = program.with_weights() if weights < ONE_FILE else program.weightless()
        with self.stage("solving"):
            graph = solve_onnx(data, specs_of(inputs))
            row["groups"] = len(graph.groups())
        row["built"] = True
        row["operators"] = len(graph.operators)
        if weights >= ONE_FILE:
            raise ValueError("its weights do not fit into one ONNX file, so no cut was run")
        with self.stage("running the original"):
            feeds = _feeds(graph.inputs, inputs)
            original, self.optimised = onnx_check.run_original(data, feeds)
            local = module_check.outputs_of(model, inputs, len(original))
            base = _base_distance(original, local)
            row["base"] = base
            holds = self._holds_elsewhere(model, data, graph.inputs, inputs, len(original))
        for target in targets.choose(model, graph, seed=len(self.specimen.name)):
            entry: Row = {
                "kind": target.kind,
                "node": target.node,
                "dim": target.dim,
                "index": list(target.index),
                "granularity": target.granularity,
            }
            with self.stage(f"cutting {target.node}"):
                self._try(entry, target, graph, data, feeds, original, model, inputs, base)
            if entry["status"] == "wrong" and not holds and entry.get("restored", True):
                # Masking lets data decide otherwise: then the program is no reference.
                entry.pop("module", None)
                reason = f"its program holds for its own inputs alone; {entry['reason']}"
                entry.update(status="unproven", reason=reason)
            row["cuts"].append(entry)
            self.save(row)

    def _holds_elsewhere(
        self,
        model: nn.Module,
        data: bytes,
        names: tuple[str, ...],
        inputs: Inputs,
        count: int,
    ) -> bool:
        """Return whether the program is the model on other inputs too, as far as it takes any."""
        other: Inputs = tree_map(_otherwise, inputs)
        try:
            local = module_check.outputs_of(model, other, count)
        except Exception:
            return True
        try:
            found = onnx_check.run(data, _feeds(names, other), self.optimised)
        except Exception:
            return False
        arrays = {name: x.numpy() for name, x in zip(found, local, strict=True)}
        same = all(found[name].shape == x.shape for name, x in arrays.items())
        return same and onnx_check.distance(arrays, found) <= HOLDS

    def _export(self, model: nn.Module, inputs: Inputs) -> Program:
        """Return the program of the specimen's entrance, or of the module where that one fails."""
        try:
            return export(self._entrance(model, inputs), inputs)
        except ExportError as error:
            if self.specimen.entrance == "module":
                raise
            self.row["torchscript_error"] = first_line(error)
            return export(model, inputs)

    def _entrance(self, model: nn.Module, inputs: Inputs) -> Any:
        if self.specimen.entrance == "module":
            return model
        example = tuple(inputs.values()) if isinstance(inputs, Mapping) else inputs
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that ONNX does not have
        try:
            with torch.no_grad():
                return torch.jit.trace(model, example, check_trace=False)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    def _try(
        self,
        entry: Row,
        target: targets.Target,
        graph: Any,
        data: bytes,
        feeds: Mapping[str, Any],
        original: onnx_check.Outputs,
        model: nn.Module,
        inputs: Inputs,
        base: float,
    ) -> None:
        try:
            cut = _analyse(graph, target, entry)
            cut = CutResult.from_json(cut.to_json())
        except TorchPrunerError as error:
            entry.update(status="refused", reason=f"{type(error).__name__}: {first_line(error)}")
            return
        entry["params_removed"] = cut.params_removed
        entry["renormalises"] = len(cut.renormalises)
        entry["choices"] = [choice.taken for choice in cut.choices]
        entry["status"] = "equal"
        try:
            found = onnx_check.check(data, cut, feeds, original, self.optimised)
        except TorchPrunerError as error:
            entry.update(
                status="refused", reason=f"ONNX: {type(error).__name__}: {first_line(error)}"
            )
            return
        except Exception as error:
            entry.update(
                status="wrong", reason=f"ONNX: {type(error).__name__}: {first_line(error)}"
            )
            return
        entry["gap"], entry["onnx_error"] = found.gap, found.error
        if found.noise > found.gap / 10:
            # Where rounding moves the output as far as the cut does, neither result tells anything.
            entry.update(
                status="unproven", reason=f"rounding moves the output by {found.noise:.2g}"
            )
            return
        if not found.error <= max(onnx_check.TOLERANCE, found.noise):
            entry.update(
                status="wrong", reason=f"ONNX: differs by {found.error:.2g} (gap {found.gap:.2g})"
            )
            return
        if not found.gap >= max(onnx_check.VISIBLE, 10 * found.error):
            entry.update(_unproven(found))
        self._replay(entry, cut, found, model, inputs, base)

    def _replay(
        self,
        entry: Row,
        cut: CutResult,
        found: onnx_check.OnnxCheck,
        model: nn.Module,
        inputs: Inputs,
        base: float,
    ) -> None:
        fixed = [spec.name for spec in cut.outputs if -1 not in spec.shape]
        compared = None if found.compared == len(found.masked) else fixed
        entry["module"] = "wrong"
        try:
            replay = module_check.check(model, cut, inputs, found.masked, compared)
        except ReplayError as error:
            # The pruned ONNX model is there all the same; nothing was changed.
            text = f"{type(error).__name__}: {first_line(error)}"
            entry.update(module="refused", module_reason=text)
            return
        except Exception as error:
            text = f"{type(error).__name__}: {first_line(error)}"
            entry.update(status="wrong", reason=f"module: {text}")
            return
        entry.update(module_error=replay.error, restored=replay.restored)
        if not replay.restored:
            entry.update(
                status="wrong", reason=f"module: not restored bit for bit: {replay.reason}"
            )
        elif not replay.error <= onnx_check.TOLERANCE + 10 * base:
            entry.update(
                status="wrong",
                reason=f"module: differs by {replay.error:.2g} (PyTorch against onnxruntime: {base:.2g})",
            )
        else:
            entry["module"] = "corrected" if replay.corrected else "equal"
            if not replay.error <= max(found.gap / 10, onnx_check.TOLERANCE):
                entry.update(_unproven(found))
            entry.update(training_check.check(model, cut, inputs, replay.corrected))


def _otherwise(x: torch.Tensor) -> torch.Tensor:
    """Return other contents that the model takes as well: backwards, and other indices."""
    if x.is_floating_point() or not x.dim():
        return x.flip(-1) if x.dim() else x
    return torch.where(x > 1, x.flip(-1) // 2, x)


def _unproven(found: onnx_check.OnnxCheck) -> Row:
    return {"status": "unproven", "reason": f"masking moves the output by {found.gap:.2g} only"}


def _analyse(graph: SolvedGraph, target: targets.Target, entry: Row) -> CutResult:
    """Return the cut, whole blocks or strides where they can go at all (halves that are shuffled cannot)."""
    try:
        return graph.cut_analysis_many(target.requests(), granularity=target.granularity)
    except EmptyAxisError:
        if target.granularity == "auto":
            raise
        entry["granularity"] = "auto"
        return graph.cut_analysis_many(target.requests(), granularity="auto")


def _feeds(names: tuple[str, ...], inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return {name: value.numpy() for name, value in inputs.items()}
    return {name: value.numpy() for name, value in zip(names, inputs, strict=False)}


def _base_distance(original: onnx_check.Outputs, local: list[torch.Tensor]) -> float:
    """Return how far PyTorch and onnxruntime are apart on the model as it is, relatively."""
    if len(original) != len(local):
        raise ValueError(f"the module returns {len(local)} tensors, its ONNX form {len(original)}")
    worst = 0.0
    for (name, expected), tensor in zip(original.items(), local, strict=True):
        got = tensor.numpy()
        if not np.isfinite(expected.astype(np.float64)).any() and expected.size:
            raise ValueError("the outputs are not finite")
        if expected.shape == got.shape:
            worst = max(worst, onnx_check.distance({name: expected}, {name: got}))
    return worst
