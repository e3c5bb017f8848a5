"""ONNX models larger than one file can be: pruned from files to files, one tensor at a time.

The program is pruned without its large tensors; each of them is then read, cut and written, so that the
cutting of a model takes the memory of its program and its largest tensor. What onnxruntime takes to load
the result comes on top, where it is installed.
Source: https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from torchpruner_core.cut_dict import Cut, read_cut
from torchpruner_core.importing.external_data import (
    fits_one_file,
    large_tensors,
    opened_parts,
    unpacked,
)
from torchpruner_core.onnx_pruning.loading import check_loads, check_valid
from torchpruner_core.onnx_pruning.prune import edited, prune_onnx
from torchpruner_core.onnx_pruning.sliced import OpenModel, open_model, stored_array

if TYPE_CHECKING:
    import onnx

ALIGNMENT = 4096
"""A page of memory: runtimes map tensors that begin at one."""


def prune_onnx_file(
    source: Path, result: Cut, target: Path, check: Callable[[Path], None] | None = None
) -> list[Path]:
    """Write the ONNX model at ``source``, with ``result`` cut out of it, to ``target``; return the files.

    ``source`` is an ONNX file, one whose data files lie beside it, or a zip of both. What fits one file
    (2 GB) becomes one; what does not, ``target`` and ``target`` with ``.data`` behind its name, which
    belong together. Both are there whole or not at all: ``check`` sees the new file before it is put in
    place, and may raise. Raises what :func:`prune_onnx` does, and ``OSError`` where they cannot be written.
    """
    if not target.parent.is_dir() or target.is_dir():
        raise FileNotFoundError(
            f"{target} cannot be written: its folder is not there, or it is one"
        )
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        made = Path(folder) / target.name
        if fits_one_file(source):
            made.write_bytes(prune_onnx(unpacked(source), result))
        else:
            _prune_in_parts(source, result, made)
        if check is not None:
            check(made)
        # The data first: a program is never there without it.
        written = sorted(Path(folder).iterdir(), reverse=True)
        return [part.replace(target.parent / part.name) for part in written]


def _prune_in_parts(source: Path, result: Cut, target: Path) -> None:
    import onnx

    cut = read_cut(result)
    program = unpacked(source, weights=False)
    with opened_parts(source) as parts:
        assert parts is not None
        opened = open_model(program, cut, large_tensors(*parts))
        model = onnx.load_model_from_string(edited(opened, program, cut))
        with target.with_name(f"{target.name}.data").open("wb") as data:
            _write_tensors(opened, model, data)
    target.write_bytes(model.SerializeToString())
    check_valid(target)
    check_loads(target, source)


def _write_tensors(opened: OpenModel, model: onnx.ModelProto, data: IO[bytes]) -> None:
    """Write what lies outside the program, cut, and have ``model`` say where."""
    import onnx

    changed = {*opened.cuts, *opened.renumbers}
    for tensor in model.graph.initializer:
        if tensor.name not in opened.outside:
            continue
        found = opened.read(tensor)
        if tensor.name in changed:
            value = opened.after(tensor.name, stored_array(found))
            found = onnx.numpy_helper.from_array(value, tensor.name)
        data.write(bytes(-data.tell() % ALIGNMENT))
        place = {
            "location": Path(data.name).name,
            "offset": data.tell(),
            "length": len(found.raw_data),
        }
        data.write(found.raw_data)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, entry in place.items():
            tensor.external_data.add(key=key, value=str(entry))
