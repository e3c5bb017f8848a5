"""Cuts: asked for, downloaded, made on a file here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from torchpruner_client.cli.app import app
from torchpruner_client.cli.options import (
    AsJson,
    Cut,
    Granularity,
    Input,
    Key,
    Model,
    Protect,
    RoundTo,
    Url,
    Verify,
    cut_of,
    parse_index,
    parse_input,
    parse_share,
)
from torchpruner_client.cli.output import (
    connected,
    err,
    fail,
    out,
    print_json,
    print_result,
    size,
    told_warnings,
)
from torchpruner_client.local_files import parse_cut, prune_file
from torchpruner_client.synchronous import RemoteModel
from torchpruner_core.analysis.requests import near_names
from torchpruner_core.cut_result import CutRequest, CutResult
from torchpruner_core.cut_warnings import cut_warnings, warn_of
from torchpruner_core.errors import TorchPrunerError, UnknownNodeError

ENDINGS = (".safetensors", ".npz", ".onnx")


@app.command()
def cut(
    model: Model,
    node: Annotated[str, typer.Argument(help="A parameter, like self.conv1.weight")],
    index: Annotated[str, typer.Option("--index", help="0,1,2,3 or 0-3,8, or the first 25%")],
    dim: Annotated[int, typer.Option(help="Axis; negative ones count from the end")] = 0,
    granularity: Annotated[
        Granularity, typer.Option(help="Whole blocks, whole strides, the cheaper, or neither")
    ] = Granularity.auto,
    protect_io: Annotated[
        bool, typer.Option(help="Refuse a cut that reaches the model's inputs or outputs")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the result here, for `download`")] = None,
    name: Annotated[
        str | None, typer.Option(help="Keep the cut on the service under this name")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Ask what else must go if these slices go."""
    share = index.strip().endswith("%")
    indices = () if share else parse_index(index)
    with connected(url, api_key) as client:
        remote = client.model(model)
        if share:
            shapes = {item["name"]: item["shape"] for item in remote.nodes()}
            if node not in shapes:
                near = near_names(node, shapes)
                raise UnknownNodeError(
                    f"there is no node called {node!r}{near}; `torchpruner groups` lists names"
                )
            if not -len(shapes[node]) <= dim < len(shapes[node]):
                fail(f"{node} has the shape {shapes[node]}, and no axis {dim}")
            indices = parse_share(index.strip(), shapes[node][dim])
        request = CutRequest(node, dim, indices)
        result = remote.cut_analysis_many(
            [request], granularity=granularity.value, protect_io=protect_io
        )
        if save is not None:
            save.write_text(result.to_json())
        if name is not None:
            remote.save_cut(
                name,
                result,
                requests=[request],
                granularity=granularity.value,
                protect_io=protect_io,
            )
        if as_json:
            print_json(result.to_dict())
            return
        print_result(result)


@app.command()
def download(
    model: Model,
    path: Annotated[Path, typer.Argument(help="Where to put it; .safetensors, .npz or .onnx")],
    cut: Cut = None,
    verify: Verify = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Download pruned weights, or the pruned model as ONNX; the file's ending says which."""
    if verify and (path.suffix != ".onnx" or cut is None):
        fail("--verify compares a pruned ONNX model with the original: give --cut, and a path.onnx")
    if path.suffix not in ENDINGS:
        fail(f"{path} does not end in one of {', '.join(ENDINGS)}, which say what to write")
    with connected(url, api_key) as client:
        remote = client.model(model)
        result = None if cut is None else cut_of(remote, cut)
        if path.suffix == ".onnx" and verify:
            _download_verified(remote, result, path)
        elif path.suffix == ".onnx":
            remote.download_onnx(result, path)
        else:
            form = "npz" if path.suffix == ".npz" else "safetensors"
            remote.download_pruned(result, path, format=form)
        if as_json:
            print_json({"path": str(path), "size": path.stat().st_size})
            return
        out.print(f"{path}  {size(path.stat().st_size)}", soft_wrap=True)


def _download_verified(remote: RemoteModel, result: CutResult | None, path: Path) -> None:
    """Download the original and the pruned model, compare them here, and keep the pruned one."""
    from torchpruner_core.onnx_pruning.verification import verify_onnx

    with tempfile.TemporaryDirectory(dir=path.parent or None) as folder:
        original = remote.download_onnx(None, Path(folder) / "original.onnx")
        pruned = remote.download_onnx(result, Path(folder) / "pruned.onnx")
        assert result is not None
        for each in verify_onnx(original.read_bytes(), pruned.read_bytes(), result):
            err.print(f"verified: {each}", soft_wrap=True)
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
    round_to: RoundTo = 1,
    protect: Protect = None,
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
        with told_warnings():
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
            warn_of(cut_warnings(done.result), "torchpruner_client")
    except ImportError as error:
        fail(
            f"{error}; pruning a file needs the extra onnx: pip install 'torchpruner-service[onnx]'"
        )
    except (TorchPrunerError, OSError, ValueError) as error:
        fail(str(error))
    result = done.result
    if as_json:
        print_json(
            {
                "path": str(output),
                "size": done.after,
                "notes": list(done.notes),
                "verified": list(done.verified),
                "result": result.to_dict(),
            }
        )
        return
    print_result(result)
    for note in done.notes:
        out.print(f"note: {note}", soft_wrap=True)
    for line in done.verified:
        out.print(f"verified: {line}", soft_wrap=True)
    out.print(f"{output}  {done.before:,} -> {done.after:,} bytes", soft_wrap=True)
