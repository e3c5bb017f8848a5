"""Models: uploaded, listed, looked into, derived, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchpruner_client.cli.app import app
from torchpruner_client.cli.options import (
    AsJson,
    By,
    Input,
    Key,
    Model,
    Url,
    cut_of,
    default_name,
    parse_input,
)
from torchpruner_client.cli.output import connected, date, fail, out, print_json, size
from torchpruner_client.synchronous import RemoteModel


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
    with connected(url, api_key) as client:
        remote = client.upload(
            path, specs or None, name=name or default_name(path), weights=weights, wait=wait
        )
        if as_json:
            print_json(info_of(remote))
            return
        sent, full = remote.bytes_sent or (0, 0)
        counts = remote.info.counts
        out.print(f"{remote.id}  {remote.name}  {remote.info.state}", soft_wrap=True)
        if remote.info.weightless:
            out.print(
                f"sent without its weights: {size(sent)} of {size(full)} ({100 * sent / full:.2f} %)"
            )
        if counts:
            out.print(
                f"{counts['operators']} operators, {counts['modules']} modules, "
                f"{counts['params']:,} parameters, "
                f"{counts['flops']:,} FLOPs"
            )
        for note in remote.info.notes:
            out.print(f"note: {note}", soft_wrap=True)


@app.command()
def models(
    name: Annotated[str | None, typer.Option(help="Only names that hold this")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="Only with this tag. Repeatable: all")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the models on the service, newest first."""
    with connected(url, api_key) as client:
        found = client.models(name=name, tags=tag or [])
        if as_json:
            keys = ("id", "name", "state", "size", "parent", "created_at", "tags", "note")
            print_json([{key: getattr(item, key) for key in keys} for item in found])
            return
        table = Table("id", "name", "state", "size", "added", "derived from", "tags")
        for item in found:
            table.add_row(
                item.id,
                item.name or "",
                item.state,
                "" if item.parent else size(item.size),
                date(item.created_at),
                item.parent or "",
                " ".join(item.tags),
            )
        out.print(table)


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
    with connected(url, api_key) as client:
        records = [
            module.record
            for name, module in client.model(model).modules.items()
            if (kind is None or module.type == kind) and (prefix is None or name.startswith(prefix))
        ]
        if as_json:
            print_json(
                [
                    {"name": r.name, "type": r.type, "params": r.params, "flops": r.flops}
                    for r in records
                ]
            )
            return
        table = Table("module", "type", "parameters", "FLOPs")
        for record in records:
            table.add_row(record.name, record.type, f"{record.params:,}", f"{record.flops:,}")
        out.print(table)


@app.command()
def groups(model: Model, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List what is pruned together, and what one slice of it saves."""
    with connected(url, api_key) as client:
        found = client.model(model).groups()
        if as_json:
            print_json(
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
        out.print(table)


@app.command()
def flops(
    model: Model,
    by: Annotated[By | None, typer.Option(help="List the parts too")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Count FLOPs, MACs and parameters."""
    with connected(url, api_key) as client:
        found = client.model(model).flops([by.value] if by else [])
        parts = found.by_module or found.by_operator
        if as_json:
            body = {"flops": found.flops, "macs": found.macs, "params": found.params}
            print_json({**body, f"by_{by.value}": dict(parts)} if by else body)
            return
        if parts:
            table = Table(by.value if by else "", "FLOPs")
            for name, count in parts.items():
                table.add_row(name, f"{count:,}")
            out.print(table)
        out.print(f"{found.flops:,} FLOPs, {found.macs:,} MACs, {found.params:,} parameters")


@app.command()
def derive(
    model: Model,
    cut: Annotated[
        str,
        typer.Option(
            "--cut", help="A file of `cut --save` or `plan --save`, or the name of a saved cut"
        ),
    ],
    name: Annotated[str | None, typer.Option(help="A name to list the new model under")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make what is left after a cut a model of its own, ready at once."""
    with connected(url, api_key) as client:
        remote = client.model(model)
        made = remote.derive(cut_of(remote, cut), name=name)
        if as_json:
            print_json(info_of(made))
            return
        out.print(f"{made.id}  {made.name or ''}  {made.info.state}", soft_wrap=True)


@app.command()
def delete(
    models: Annotated[list[str], typer.Argument(help="Ids or names of models")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Remove models from the service, for the whole tenant."""
    with connected(url, api_key) as client:
        found = [client.model(model) for model in models]
        if not yes and not as_json:
            names = ", ".join(each.name or each.id for each in found)
            if not typer.confirm(f"Delete {names}?"):
                fail("nothing was deleted")
        results = client.delete_models([each.id for each in found])
        kept = [each for each in results if not each.removed]
        if as_json:
            gone = [each.id for each in results if each.removed]
            print_json({"deleted": gone, "kept": {each.id: each.problem for each in kept}})
        for each in results:
            if not as_json:
                said = "deleted" if each.removed else f"kept: {(each.problem or {}).get('detail')}"
                out.print(f"{each.id}  {said}", soft_wrap=True)
        if kept:
            raise typer.Exit(1)


def info_of(remote: RemoteModel) -> dict[str, Any]:
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
