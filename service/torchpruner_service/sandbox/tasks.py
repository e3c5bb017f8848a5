"""What may be asked of a sandboxed child. Each task takes plain JSON and writes frames.

The names here are the whole surface between the service and untrusted files.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchpruner_core.cut_result import CutResult, TensorSpec
from torchpruner_core.cut_warnings import caught
from torchpruner_service.sandbox.frames import FrameWriter

CHUNK = 8 << 20


def build(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Read a model and send its solved graph; return whether it came without its weights."""
    from torchpruner_core import solve_onnx

    data = _onnx_bytes(args, out, 5, 55, weights=False)
    out.progress("solving", 60)

    def progress(stage: str, fraction: float) -> None:
        out.progress(stage, 60 + 35 * min(1.0, max(0.0, fraction)))

    # A file's own shapes are overridden by the asked ones; an exported one has them already.
    inputs = _specs(args) if args["format"] == "onnx" else None
    graph = solve_onnx(data, inputs or None, progress, max_slices=args.get("max_slices"))
    from torchpruner_service.sandbox.weightless import lacks_weights

    out.data(graph.to_bytes())
    whole = args["format"] != "onnx" or _is_archive(Path(args["path"]))
    return {"weightless": not whole and lacks_weights(data)}


def weights(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Send a model's state, cut, in the form of ``args["output"]``."""
    from torchpruner_service.sandbox.state_cutting import cut_tensors
    from torchpruner_service.sandbox.state_reading import read_state
    from torchpruner_service.sandbox.state_writing import WRITERS

    out.progress("reading weights", 10)
    state = read_state(Path(args["path"]), args["format"], _specs(args))
    tensors = cut_tensors(state, _cuts(args))
    out.progress("writing", 30)
    WRITERS[args["output"]](tensors, out.data)
    return {"tensors": len(tensors)}


def onnx(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Send a model's ONNX form, cut: one file, or a zip of several where it is larger than one can be."""
    from torchpruner_core.importing.external_data import fits_one_file

    path = Path(args["path"])
    if args["format"] == "onnx" and not fits_one_file(path):
        return _onnx_in_files(path, _cuts(args), out)
    data = _onnx_bytes(args, out, 5, 50)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pruned = _pruned_onnx(data, _cuts(args))
    out.progress("writing", 80)
    out.data(pruned)
    return {"warnings": caught(seen)}


def _onnx_in_files(path: Path, cuts: list[CutResult], out: FrameWriter) -> dict[str, Any]:
    from torchpruner_core import prune_onnx_file
    from torchpruner_service.sandbox.state_writing import write_archive

    files = [path]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for number, cut in enumerate(cuts):
            out.progress("cutting", 5 + 70 * number / len(cuts))
            folder = Path(f"cut-{number}")
            folder.mkdir()
            before, files = files, prune_onnx_file(files[-1], cut, folder / "model.onnx")
            for part in before if number else ():
                part.unlink()
    out.progress("writing", 80)
    if len(files) == 1:
        with files[0].open("rb") as file:
            while chunk := file.read(CHUNK):
                out.data(chunk)
        return {"warnings": caught(seen)}
    write_archive(files, out.data)
    names = " and ".join(sorted(part.name for part in files))
    told = {
        "type": "several-files",
        "detail": f"the pruned model is larger than the 2 GB of one ONNX file: this is a zip of {names}, "
        "which belong together; unpack it before a runtime loads it",
    }
    return {"warnings": [*caught(seen), told]}


def attach(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Return the sha256 of an ONNX file without its weights."""
    from torchpruner_core import strip_weights
    from torchpruner_core.importing.external_data import unpacked

    out.progress("comparing", 20)
    stripped = strip_weights(unpacked(Path(args["path"]), weights=False))
    return {"sha256": hashlib.sha256(stripped).hexdigest(), "size": len(stripped)}


def latency(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Time a model's forward pass before and after its cuts."""
    from torchpruner_service.sandbox.measuring import measure

    data = _onnx_bytes(args, out, 2, 25)
    pruned = _pruned_onnx(data, _cuts(args))
    out.progress("measuring", 30)
    return measure(
        {"original": data, "pruned": pruned},
        runs=args["runs"],
        warm_up=args["warm_up"],
        providers=args["providers"],
        threads=args["threads"],
        progress=lambda fraction: out.progress("measuring", 30 + 70 * fraction),
    )


def plan(args: dict[str, Any], out: FrameWriter) -> dict[str, Any]:
    """Send the plan that a request asks for; see :mod:`.planning`."""
    from torchpruner_service.sandbox.planning import make

    def onnx_model() -> bytes:
        with_weights = bool(args["weights"])
        return _pruned_onnx(_onnx_bytes(args, out, 2, 10, weights=with_weights), _cuts(args))

    cuts = _cuts(args) if "cuts" in args else []
    return make(args, _specs(args), cuts, onnx_model, out)


TASKS: dict[str, Callable[[dict[str, Any], FrameWriter], dict[str, Any]]] = {
    "build": build,
    "weights": weights,
    "onnx": onnx,
    "attach": attach,
    "latency": latency,
    "plan": plan,
}


def _is_archive(path: Path) -> bool:
    """Whether an ONNX model came with its data files, which the graph was built without."""
    from torchpruner_core.importing.archives import is_archive

    with path.open("rb") as file:
        return is_archive(file.read(4))


def _onnx_bytes(
    args: dict[str, Any], out: FrameWriter, start: float, end: float, *, weights: bool = True
) -> bytes:
    """The model as ONNX. Coupling needs no ``weights``, and a file with them ends at 2 GB."""
    path = Path(args["path"])
    if args["format"] == "onnx":
        out.progress("reading", start)
        from torchpruner_core.importing.external_data import unpacked

        return unpacked(path, weights=weights)
    from torchpruner_core import export_onnx

    out.progress("exporting", start)
    data = export_onnx(path, _specs(args), weights=weights)
    out.progress("exported", end)
    return bytes(data)


def _pruned_onnx(data: bytes, cuts: list[CutResult]) -> bytes:
    from torchpruner_core import prune_onnx

    for cut in cuts:
        data = prune_onnx(data, cut)
    return data


def _specs(args: dict[str, Any]) -> list[TensorSpec]:
    return [TensorSpec.from_dict(item) for item in args["inputs"]]


def _cuts(args: dict[str, Any]) -> list[CutResult]:
    return [CutResult.from_dict(item) for item in json.loads(Path(args["cuts"]).read_text())]
