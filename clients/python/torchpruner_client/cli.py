"""``torchpruner``: the client at a shell. Every command takes ``--json`` for other programs."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from torchpruner_client.errors import (
    DownloadDamaged,
    NoWorkerError,
    ServiceError,
    ServiceUnreachable,
)
from torchpruner_client.local_files import parse_cut, parse_value, prune_file
from torchpruner_client.synchronous import Client, RemoteModel
from torchpruner_core.cut_result import CutRequest, CutResult, TensorSpec
from torchpruner_core.errors import TorchPrunerError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    # A traceback with its variables would show the API key.
    pretty_exceptions_show_locals=False,
    help=(
        "Structured pruning of a network on a torchpruner service. TORCHPRUNER_URL and "
        "TORCHPRUNER_API_KEY say which and as whom."
    ),
)

# Names come from models and users, and may hold brackets: they are text, never markup.
_out = Console(markup=False)
_err = Console(stderr=True, markup=False)

Url = Annotated[str | None, typer.Option("--url", help="The service; default TORCHPRUNER_URL")]
Key = Annotated[str | None, typer.Option("--api-key", help="Default TORCHPRUNER_API_KEY")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify", help="Run the pruned ONNX model beside the masked one; refuse a difference"
    ),
]
Model = Annotated[str, typer.Argument(help="A model's id or name")]
Input = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        help="NAME:SHAPE:DTYPE, like x:1x3x224x224:float32; with a value that never changes, "
        "sr:scalar:int64=16000. Repeatable",
    ),
]

_SPEC = re.compile(
    r"^(?:(?P<name>.+?):)?(?P<shape>\d+(?:[x,]\d+)*|scalar)(?::(?P<dtype>[a-z0-9]+))?"
    r"(?:=(?P<value>[-+.,0-9e]+))?$"
)


ENDINGS = (".safetensors", ".npz", ".onnx")
NAME_LENGTH = 200
MOST_INDICES = 10_000_000


class Granularity(StrEnum):
    """How an axis that splits into several is cut."""

    auto = "auto"
    outer = "outer"
    inner = "inner"
    strict = "strict"


class By(StrEnum):
    """What FLOPs are listed by."""

    module = "module"
    operator = "operator"


@app.command()
def upload(
    path: Annotated[Path, typer.Argument(help="A TorchScript, .pt2 or ONNX file")],
    input: Input = None,
    name: Annotated[str | None, typer.Option(help="A name to find it by")] = None,
    weights: Annotated[
        bool | None,
        typer.Option(
            "--weights/--no-weights", help="Send the weights; by default not of ONNX files"
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the graph")] = True,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Upload a model and have its graph built."""
    specs = [parse_input(text) for text in input or []]
    with _connected(url, api_key) as client:
        remote = client.upload(
            path, specs or None, name=name or default_name(path), weights=weights, wait=wait
        )
        if as_json:
            _print_json(_info(remote))
            return
        sent, full = remote.bytes_sent or (0, 0)
        counts = remote.info.counts
        _out.print(f"{remote.id}  {remote.name}  {remote.info.state}", soft_wrap=True)
        if remote.info.weightless:
            _out.print(
                f"sent without its weights: {sent:,} of {full:,} bytes ({100 * sent / full:.2f} %)"
            )
        if counts:
            _out.print(
                f"{counts['operators']} operators, {counts['modules']} modules, "
                f"{counts['params']:,} parameters, "
                f"{counts['flops']:,} FLOPs"
            )
        for note in remote.info.notes:
            _out.print(f"note: {note}", soft_wrap=True)


@app.command()
def models(url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List the models on the service, newest first."""
    with _connected(url, api_key) as client:
        found = client.models()
        if as_json:
            _print_json(
                [{"id": m.id, "name": m.name, "state": m.state, "size": m.size} for m in found]
            )
            return
        table = Table("id", "name", "state", "size", "parent")
        for item in found:
            table.add_row(item.id, item.name or "", item.state, f"{item.size:,}", item.parent or "")
        _out.print(table)


@app.command()
def modules(
    model: Model,
    kind: Annotated[str | None, typer.Option("--type", help="Only modules of this type")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only names that start with this")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List a model's modules."""
    with _connected(url, api_key) as client:
        records = [
            module.record
            for name, module in client.model(model).modules.items()
            if (kind is None or module.type == kind) and (prefix is None or name.startswith(prefix))
        ]
        if as_json:
            _print_json(
                [
                    {"name": r.name, "type": r.type, "params": r.params, "flops": r.flops}
                    for r in records
                ]
            )
            return
        table = Table("module", "type", "parameters", "FLOPs")
        for record in records:
            table.add_row(record.name, record.type, f"{record.params:,}", f"{record.flops:,}")
        _out.print(table)


@app.command()
def groups(model: Model, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List what is pruned together, and what one slice of it saves."""
    with _connected(url, api_key) as client:
        found = client.model(model).groups()
        if as_json:
            _print_json(
                [
                    {
                        "id": g.id,
                        "width": g.width,
                        "prunable": g.prunable,
                        "reason": g.reason,
                        "step": g.step,
                        "params_per_slice": g.params_per_slice,
                        "flops_per_slice": g.flops_per_slice,
                        "members": [{"node": node, "dim": dim} for node, dim in g.members],
                    }
                    for g in found
                ]
            )
            return
        table = Table("group", "width", "step", "parameters a slice", "FLOPs a slice", "members")
        for group in found:
            names = ", ".join(f"{node}[{dim}]" for node, dim in group.members[:3])
            more = "" if len(group.members) <= 3 else f" and {len(group.members) - 3} more"
            table.add_row(
                str(group.id),
                str(group.width),
                str(group.step) if group.prunable else f"- ({group.reason})",
                f"{group.params_per_slice:,}",
                f"{group.flops_per_slice:,}",
                names + more,
            )
        _out.print(table)


@app.command()
def cut(
    model: Model,
    node: Annotated[str, typer.Argument(help="A parameter, like self.conv1.weight")],
    index: Annotated[str, typer.Option("--index", help="0,1,2,3 or 0-3 or 0-3,8")],
    dim: Annotated[int, typer.Option(help="Axis; negative ones count from the end")] = 0,
    granularity: Annotated[
        Granularity, typer.Option(help="Whole blocks, whole strides, the cheaper, or neither")
    ] = Granularity.auto,
    protect_io: Annotated[
        bool, typer.Option(help="Refuse a cut that reaches the model's inputs or outputs")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the result here, for `download`")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Ask what else must go if these slices go."""
    request = CutRequest(node, dim, parse_index(index))
    with _connected(url, api_key) as client:
        result = client.model(model).cut_analysis_many(
            [request], granularity=granularity.value, protect_io=protect_io
        )
        if save is not None:
            save.write_text(result.to_json())
        if as_json:
            _print_json(result.to_dict())
            return
        _print_result(result)


@app.command()
def flops(
    model: Model,
    by: Annotated[By | None, typer.Option(help="List the parts too")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count FLOPs, MACs and parameters."""
    with _connected(url, api_key) as client:
        found = client.model(model).flops([by.value] if by else [])
        parts = found.by_module or found.by_operator
        if as_json:
            body = {"flops": found.flops, "macs": found.macs, "params": found.params}
            _print_json({**body, f"by_{by.value}": dict(parts)} if by else body)
            return
        if parts:
            table = Table(by.value if by else "", "FLOPs")
            for name, count in parts.items():
                table.add_row(name, f"{count:,}")
            _out.print(table)
        _out.print(f"{found.flops:,} FLOPs, {found.macs:,} MACs, {found.params:,} parameters")


@app.command()
def download(
    model: Model,
    path: Annotated[Path, typer.Argument(help="Where to put it; .safetensors, .npz or .onnx")],
    cut: Annotated[
        Path | None,
        typer.Option("--cut", help="A result that `cut --save` wrote; none for all weights"),
    ] = None,
    verify: Verify = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Download pruned weights, or the pruned model as ONNX; the file's ending says which."""
    if verify and (path.suffix != ".onnx" or cut is None):
        _fail(
            "--verify compares a pruned ONNX model with the original: give --cut, and a path.onnx"
        )
    if path.suffix not in ENDINGS:
        _fail(f"{path} does not end in one of {', '.join(ENDINGS)}, which say what to write")
    result = None if cut is None else read_result(cut)
    with _connected(url, api_key) as client:
        remote = client.model(model)
        if path.suffix == ".onnx" and verify:
            _download_verified(remote, result, path)
        elif path.suffix == ".onnx":
            remote.download_onnx(result, path)
        else:
            form = "npz" if path.suffix == ".npz" else "safetensors"
            remote.download_pruned(result, path, format=form)
        if as_json:
            _print_json({"path": str(path), "size": path.stat().st_size})
            return
        _out.print(f"{path}  {path.stat().st_size:,} bytes")


def _download_verified(remote: RemoteModel, result: CutResult | None, path: Path) -> None:
    """Download the original and the pruned model, compare them here, and keep the pruned one."""
    from torchpruner_core.onnx_pruning.verification import verify_onnx

    with tempfile.TemporaryDirectory(dir=path.parent or None) as folder:
        original = remote.download_onnx(None, Path(folder) / "original.onnx")
        pruned = remote.download_onnx(result, Path(folder) / "pruned.onnx")
        assert result is not None
        for each in verify_onnx(original.read_bytes(), pruned.read_bytes(), result):
            _err.print(f"verified: {each}", soft_wrap=True)
        pruned.replace(path)


@app.command()
def prune(
    path: Annotated[Path, typer.Argument(help="An ONNX file, or a zip of one and its data files")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the pruned file goes")],
    cut: Annotated[
        list[str] | None,
        typer.Option("--cut", help="NODE[DIM]=INDICES, like self.conv1.weight[0]=0-15. Repeatable"),
    ] = None,
    flops: Annotated[str | None, typer.Option(help="FLOPs that are left at most: 50%")] = None,
    params: Annotated[str | None, typer.Option(help="Parameters that are left: 50%, 12M")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan that was saved")] = None,
    round_to: Annotated[int, typer.Option(help="Kept widths are multiples, with a budget")] = 1,
    protect: Annotated[
        list[str] | None, typer.Option(help="A module or tensor that stays, with a budget")
    ] = None,
    input: Input = None,
    value: Annotated[
        list[str] | None,
        typer.Option(help="An input that always holds one value, like sr=16000. Repeatable"),
    ] = None,
    granularity: Annotated[
        Granularity, typer.Option(help="Whole blocks, whole strides, the cheaper, or neither")
    ] = Granularity.auto,
    protect_io: Annotated[
        bool, typer.Option(help="Refuse a cut that reaches the model's inputs or outputs")
    ] = False,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Prune an ONNX file on this machine: no service, no PyTorch."""
    amounts = {"flops": flops, "params": params}
    budget = {name: amount for name, amount in amounts.items() if amount is not None}
    specs = [parse_input(text) for text in input or []]
    try:
        done = prune_file(
            path,
            output,
            [parse_cut(text, parse_index) for text in cut or []],
            inputs=specs,
            values=value or [],
            granularity=granularity.value,
            protect_io=protect_io,
            budget=budget or None,
            plan=plan,
            rules={"round_to": round_to, "protect": tuple(protect or ())},
            verify=verify,
        )
    except ImportError as error:
        _fail(
            f"{error}; pruning a file needs the extra onnx: pip install 'torchpruner-service[onnx]'"
        )
    except (TorchPrunerError, OSError, ValueError) as error:
        _fail(str(error))
    result = done.result
    if as_json:
        _print_json(
            {
                "path": str(output),
                "size": done.after,
                "notes": list(done.notes),
                "verified": list(done.verified),
                "result": result.to_dict(),
            }
        )
        return
    _print_result(result)
    for note in done.notes:
        _out.print(f"note: {note}", soft_wrap=True)
    for line in done.verified:
        _out.print(f"verified: {line}", soft_wrap=True)
    _out.print(f"{output}  {done.before:,} -> {done.after:,} bytes", soft_wrap=True)


def parse_index(text: str) -> tuple[int, ...]:
    """Return the indices of ``0,1,4-7``. Exits with an explanation for anything else."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            _fail(f"--index {text!r} does not read as 0,1,2 or 0-3")
        start = int(match[1])
        stop = int(match[2] or start)
        if stop - start >= MOST_INDICES:
            _fail(f"--index {text!r} asks for {stop - start + 1:,} slices, more than any axis has")
        if stop < start:
            _fail(f"--index {text!r} counts backwards; write {stop}-{start}")
        found += range(start, stop + 1)
    return tuple(found)


def default_name(path: Path) -> str:
    """Return a name the service takes, from a file's, which may be in no encoding and of any length."""
    return os.fsencode(path.stem).decode("utf-8", "replace")[:NAME_LENGTH]


def read_result(path: Path) -> CutResult:
    """Return the result in a file that ``cut --save`` wrote. Exits where it holds none."""
    try:
        return CutResult.from_json(path.read_bytes())
    except OSError as error:
        _fail(f"{path} cannot be read: {error.strerror or error}")
    except (ValueError, TypeError, KeyError) as error:
        _fail(f"{path} holds no result that `torchpruner cut --save` wrote: {error}")


def parse_input(text: str) -> TensorSpec:
    """Return the spec of ``x:1x3x224x224:float32``."""
    match = _SPEC.match(text)
    if match is None:
        _fail(f"--input {text!r} does not read as NAME:SHAPE:DTYPE, like x:1x3x224x224:float32")
    shape = () if match["shape"] == "scalar" else tuple(map(int, re.split("[x,]", match["shape"])))
    value = None if match["value"] is None else parse_value(f"{text[:40]}={match['value']}")[1]
    return TensorSpec(match["name"] or "", shape, match["dtype"] or "float32", value)


@contextmanager
def _connected(url: str | None, api_key: str | None) -> Iterator[Client]:
    try:
        with Client(url, api_key=api_key) as client:
            yield client
    except (ServiceUnreachable, NoWorkerError, DownloadDamaged) as error:
        _fail(str(error))
    except ServiceError as error:
        _fail(f"{error.detail} ({error.code})")
    except BrokenPipeError:
        raise  # the reader of the output is gone: typer ends quietly
    except (TorchPrunerError, OSError, TimeoutError, ValueError) as error:
        _fail(str(error))


def _info(remote: RemoteModel) -> dict[str, Any]:
    info = remote.info
    sent, full = remote.bytes_sent or (None, None)
    return {
        "id": info.id,
        "name": info.name,
        "state": info.state,
        "format": info.format,
        "weightless": info.weightless,
        "bytes_sent": sent,
        "bytes_full": full,
        "counts": dict(info.counts),
    }


def _print_result(result: CutResult) -> None:
    table = Table("tensor", "axis", "slices removed")
    for name, axes in result.terminal.items():
        for axis, indices in enumerate(axes):
            if indices is not None:
                table.add_row(name, str(axis), _short(indices.tolist()))
    _out.print(table)
    for name, change in result.operator.items():
        _out.print(f"{name}: subtract {change}")
    for choice in result.choices:
        _out.print(f"choice at {choice.operator}: {choice.taken}, not {choice.rejected}")
    if result.renormalises:
        _out.print(f"statistics change in {', '.join(result.renormalises)}")
    _out.print(
        f"parameters {result.params_before:,} -> {result.params_after:,}, "
        f"FLOPs {result.flops_before:,} -> {result.flops_after:,}"
    )


def _short(indices: list[int]) -> str:
    text = ", ".join(map(str, indices[:12]))
    return text if len(indices) <= 12 else f"{text} ... ({len(indices)} in all)"


def _print_json(value: Any, write: Callable[[str], None] = typer.echo) -> None:
    write(json.dumps(value, indent=2))


def _fail(message: str) -> NoReturn:
    _err.print(message, style="red", soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
