"""What people write about models, and what was done to them: names, tags, notes, saved cuts, the trail."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchpruner_client.cli.app import app
from torchpruner_client.cli.options import (
    AsJson,
    Key,
    Model,
    Url,
    read_result,
)
from torchpruner_client.cli.output import connected, date, fail, out, print_json, size
from torchpruner_client.operations import is_model_id
from torchpruner_client.records import AuditEvent, ModelInfo, StoredLatency


@app.command()
def rename(
    model: Model,
    name: Annotated[str, typer.Argument(help="The new name; an empty one for none")],
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give a model another name."""
    with connected(url, api_key) as client:
        _show(client.model(model).rename(name or None), as_json)


@app.command()
def tag(
    model: Model,
    tags: Annotated[list[str] | None, typer.Argument(help="Tags to add; none shows them")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="A tag to take away. Repeatable")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Add tags to a model, or take some away; `models --tag` finds it by them."""
    with connected(url, api_key) as client:
        remote = client.model(model)
        info = remote.info
        kept = [each for each in info.tags if each not in (remove or [])]
        wanted = list(dict.fromkeys([*kept, *(tags or [])]))
        if wanted != list(info.tags):
            info = remote.describe(tags=wanted, revision=info.revision or None)
        _show(info, as_json)


@app.command()
def note(
    model: Model,
    text: Annotated[
        str | None, typer.Argument(help="What to write; an empty one for none; left out shows it")
    ] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write a note about a model, or read it."""
    with connected(url, api_key) as client:
        remote = client.model(model)
        _show(remote.info if text is None else remote.describe(note=text or None), as_json)


@app.command()
def cuts(
    model: Model,
    save: Annotated[str | None, typer.Option(help="Save a cut under this name")] = None,
    cut: Annotated[
        Path | None, typer.Option("--cut", help="The cut to save: a file of `cut --save`")
    ] = None,
    note: Annotated[str | None, typer.Option(help="A note to keep with it")] = None,
    delete: Annotated[str | None, typer.Option(help="Forget the saved cut of this name")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the cuts that were saved of a model; save or forget one. `--cut NAME` of other commands uses
    one."""
    if (save is None) != (cut is None):
        fail(
            "a cut is saved with both: --save NAME --cut FILE; `torchpruner cut --name` saves a new one"
        )
    result = None if cut is None else read_result(cut)
    with connected(url, api_key) as client:
        remote = client.model(model)
        if save is not None:
            remote.save_cut(save, result, note=note)
        if delete is not None:
            remote.delete_cut(delete)
        found = remote.saved_cuts()
        if as_json:
            print_json([asdict(each) for each in found])
            return
        table = Table("name", "saved", "parameters", "FLOPs", "note")
        for each in found:
            params = _share(each.params_before, each.params_after)
            flops = _share(each.flops_before, each.flops_after)
            table.add_row(each.name, date(each.created_at), params, flops, each.note or "")
        out.print(table)


@app.command()
def latencies(model: Model, url: Url = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """List what was measured of a model, newest first."""
    with connected(url, api_key) as client:
        found = client.model(model).latencies()
        if as_json:
            print_json([_latency(each) for each in found])
            return
        table = Table("measured", "original ms", "pruned ms", "speedup", "of", "device", "load")
        for each in found:
            what = "a plan" if each.plan else "a cut" if each.cut else "the model alone"
            table.add_row(
                date(each.measured_at),
                _spread(each.original),
                _spread(each.pruned) if each.cut else "",
                f"{each.speedup:.2f}" if each.cut and each.speedup else "",
                what,
                f"{each.device} ({each.runtime})",
                f"{each.load['before']:g} of {each.load['cpus']:g} CPUs",
            )
        out.print(table)


@app.command()
def audit(
    model: Annotated[str | None, typer.Argument(help="Only about this model")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many events")] = 50,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what, when, newest first."""
    with connected(url, api_key) as client:
        # An id is asked for as it is: events stay when their model is gone.
        about = None if model is None else model if is_model_id(model) else client.model(model).id
        found = client.audit(model=about, limit=limit)
        if as_json:
            print_json([asdict(each) for each in found])
            return
        table = Table("when", "key", "what", "model", "of")
        for each in found:
            table.add_row(date(each.at), each.key, each.action, each.model or "", _about(each))
        out.print(table)


def _show(info: ModelInfo, as_json: bool) -> None:
    if as_json:
        print_json({"id": info.id, "name": info.name, "note": info.note, "tags": list(info.tags)})
        return
    out.print(f"{info.id}  {info.name or ''}  {' '.join(info.tags)}".rstrip(), soft_wrap=True)
    if info.note:
        out.print(info.note, soft_wrap=True)


def _share(before: int, after: int) -> str:
    return f"{after:,} ({100 * (after / before - 1):+.1f} %)" if before else f"{after:,}"


def _spread(timing: Any) -> str:
    low, high = timing.get("p10_ms"), timing.get("p90_ms")
    between = "" if low is None else f" ({low:.3f} to {high:.3f})"
    return f"{timing['median_ms']:.3f}{between}"


def _latency(each: StoredLatency) -> dict[str, Any]:
    return {**asdict(each), "inputs": [spec.to_dict() for spec in each.inputs]}


def _about(event: AuditEvent) -> str:
    details = event.details
    told = [event.name or event.subject or ""]
    if "asked" in details:
        first = [f"{a['node']}[{a['dim']}] {a['slices']} slices" for a in details["asked"][:1]]
        told += first
    if details.get("questions", 1) > 1:
        told.append(f"{details['questions']} questions")
    if "budget" in details:
        told.append(", ".join(f"{key} {value}" for key, value in details["budget"].items()))
    if "changed" in details:
        told.append(", ".join(details["changed"]))
    if "size" in details:
        told.append(size(details["size"]))
    return "  ".join(each for each in told if each)
