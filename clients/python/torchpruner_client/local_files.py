"""``torchpruner prune``: an ONNX file pruned on this machine, without a service and without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchpruner_core.cut_result import CutRequest, CutResult, TensorSpec
from torchpruner_core.errors import CutError, InputSpecError, VerificationError

_CUT = re.compile(r"(?P<node>.+)\[(?P<dim>-?\d+)\]=(?P<index>[\d,\s-]+)")


@dataclass(frozen=True, slots=True)
class PrunedFile:
    """What was done: the cut, the bytes of its files before and after, how it compared, what is written."""

    result: CutResult
    notes: tuple[str, ...]
    before: int
    after: int
    verified: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def parse_cut(text: str, parse_index: Any) -> CutRequest:
    """Return the request of ``self.conv1.weight[0]=0-15,20``; raises ``CutError`` for anything else."""
    match = _CUT.fullmatch(text.strip())
    if match is None:
        raise CutError(
            f"--cut {text!r} does not read as NODE[DIM]=INDICES, like self.conv1.weight[0]=0-15"
        )
    return CutRequest(match["node"], int(match["dim"]), tuple(parse_index(match["index"])))


def parse_value(text: str) -> tuple[str, tuple[int | float, ...]]:
    """Return the name and numbers of ``sr=16000``; raises ``InputSpecError`` for anything else."""
    name, equals, numbers = text.rpartition("=")
    try:
        if not name or not equals:
            raise ValueError
        values = tuple(float(n) if "." in n or "e" in n else int(n) for n in numbers.split(","))
    except ValueError:
        raise InputSpecError(
            f"--value {text!r} does not read as NAME=NUMBER, like sr=16000"
        ) from None
    return name, values


def specs_of(
    data: bytes, given: Sequence[TensorSpec], values: Iterable[str]
) -> dict[str, TensorSpec] | None:
    """Return what was said of the inputs, by name; the file says the rest.

    Raises ``InputSpecError`` where a name is not an input's.
    """
    import onnx

    from torchpruner_core.graph.dtypes import dtype_name
    from torchpruner_core.importing.input_shapes import declared, open_inputs
    from torchpruner_core.importing.wire import strip_weights

    infos = {i.name: i for i in open_inputs(onnx.load_model_from_string(strip_weights(data)))}
    found: dict[str, TensorSpec] = {}
    for position, spec in enumerate(given):
        names = list(infos)
        name = spec.name or (names[position] if position < len(names) else "")
        info = infos.get(name)
        dtype = spec.dtype if info is None else dtype_name(info.type.tensor_type.elem_type)
        found[name] = TensorSpec(name, spec.shape, dtype, spec.value)
    for text in values:
        name, numbers = parse_value(text)
        if name not in infos:
            raise InputSpecError(
                f"the model has no input called {name!r}; its inputs are {', '.join(infos)}"
            )
        sizes = declared(infos[name]) or []
        known = tuple(size if isinstance(size, int) else 1 for size in sizes)
        shape = found[name].shape if name in found else known
        dtype = dtype_name(infos[name].type.tensor_type.elem_type)
        found[name] = TensorSpec(name, shape, dtype, numbers)
    return found or None


def prune_file(
    path: Path,
    output: Path,
    requests: Sequence[CutRequest] = (),
    *,
    inputs: Sequence[TensorSpec] = (),
    values: Sequence[str] = (),
    granularity: Any = "auto",
    protect_io: bool = False,
    budget: dict[str, str] | None = None,
    plan: Path | None = None,
    rules: dict[str, Any] | None = None,
    verify: bool = False,
) -> PrunedFile:
    """Prune the ONNX file at ``path`` and write it to ``output``, which is there whole or not at all.

    What goes is either asked (``requests``), planned for a ``budget`` (``{"flops": "50%"}``, by the magnitude
    of the file's weights), or what a ``plan`` says that was saved. With ``verify`` the pruned model is
    compared with the masked one in onnxruntime before it is written. Raises ``TorchPrunerError``'s subclasses
    and ``OSError``.
    """
    from torchpruner_core.importing.external_data import data_files, fits_one_file
    from torchpruner_core.importing.formats import read_model
    from torchpruner_core.importing.solving import solve_onnx
    from torchpruner_core.onnx_pruning import prune_onnx_file
    from torchpruner_core.onnx_pruning.verification import verify_onnx

    if sum((bool(requests), budget is not None, plan is not None)) != 1:
        raise CutError("say what goes: --cut, a budget such as --flops 50%, or --plan, one of them")
    data = read_model(path, weights=False)
    if verify and not fits_one_file(path):
        raise VerificationError(
            f"{path} is larger than the 2 GB of one ONNX file: it is pruned in parts, and not run beside "
            "its masked form; leave --verify out"
        )
    specs = specs_of(data, inputs, values)
    graph = solve_onnx(data, specs)
    if requests:
        result = graph.cut_analysis_many(requests, granularity=granularity, protect_io=protect_io)
    else:
        result = _planned(path, graph, budget, plan, rules or {})
    before = sum(part.stat().st_size for part in (path, *map(path.with_name, data_files(path))))
    verified: list[str] = []

    def compare(pruned: Path) -> None:
        found = verify_onnx(read_model(path), pruned.read_bytes(), result)
        verified.extend(map(str, found))

    files = prune_onnx_file(path, result, output, compare if verify else None)
    after = sum(part.stat().st_size for part in files)
    notes = tuple(graph.metadata.get("notes", ()))
    return PrunedFile(result, notes, before, after, tuple(verified), tuple(files))


def _planned(
    path: Path,
    graph: Any,
    budget: dict[str, str] | None,
    plan: Path | None,
    rules: dict[str, Any],
) -> CutResult:
    from torchpruner_core.onnx_pruning import onnx_magnitudes
    from torchpruner_core.planning.budget import Budget
    from torchpruner_core.planning.plan import Plan
    from torchpruner_core.planning.plan import plan as make_plan

    if plan is not None:
        return Plan.load(plan, graph).result
    return make_plan(graph, Budget(**(budget or {})), onnx_magnitudes(path, graph), **rules).result
