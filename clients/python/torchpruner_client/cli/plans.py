"""Plans and measurements: how cheap, how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from torchpruner_client.cli.app import app
from torchpruner_client.cli.options import (
    AsJson,
    Cut,
    Importance,
    Key,
    Model,
    Protect,
    RoundTo,
    Url,
    cut_of,
)
from torchpruner_client.cli.output import connected, fail, out, print_json
from torchpruner_core.planning.scores import Scores

Scope = Annotated[str, typer.Option(help="Rank units together: isomorphic, local or global")]


@app.command()
def plan(
    model: Model,
    flops: Annotated[str | None, typer.Option(help="FLOPs that are left at most: 50%")] = None,
    macs: Annotated[str | None, typer.Option(help="MACs that are left at most")] = None,
    params: Annotated[str | None, typer.Option(help="Parameters that are left: 50%, 12M")] = None,
    size: Annotated[
        str | None, typer.Option("--bytes", help="Stored bytes that are left: 50%, 48MB")
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Bytes of activations at once")] = None,
    latency: Annotated[str | None, typer.Option(help="Measured there: 50%, 5ms")] = None,
    importance: Annotated[
        Importance | None, typer.Option(help="Score slices by the model's weights")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="Scores as JSON, as Scores.to_dict() writes them")
    ] = None,
    round_to: RoundTo = 1,
    protect: Protect = None,
    scope: Scope = "isomorphic",
    max_cut: Annotated[float, typer.Option(help="The share of a group that may go")] = 1.0,
    frontier: Annotated[
        str | None, typer.Option(help="Show other shares too: 75,50,25 (percent)")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the plan here, for `derive`")] = None,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a model cheaper: which widths fit a budget, and what that costs."""
    amounts = {
        "flops": flops, "macs": macs, "params": params, "bytes": size, "memory": memory,
        "latency": latency,
    }  # fmt: skip
    budget = {name: _amount(text) for name, text in amounts.items() if text is not None}
    if not budget:
        fail("say what the model may cost: --flops 50%, --params 12M, --latency 5ms, ...")
    options: dict[str, Any] = {
        "round_to": round_to,
        "protect": tuple(protect or ()),
        "scope": scope,
        "max_cut": max_cut,
    }
    shares = _shares(frontier)
    with connected(url, api_key) as client:
        remote = client.model(model)
        asked: dict[str, Any] = {"importance": importance.value if importance else None, **options}
        if scores is not None:
            asked["scores"] = Scores.from_dict(_json_of(scores))
        made = remote.plan(budget, **asked)
        points = remote.frontier(budget, shares, **asked) if shares else []
        if save is not None:
            made.save(save)
        if as_json:
            found = made.to_dict()
            if points:
                found["frontier"] = [
                    {"fraction": p.fraction, "costs": p.costs, "score_kept": p.score_kept}
                    for p in points
                ]
            print_json(found)
            return
        out.print(str(made), soft_wrap=True)
        if points:
            table = Table("share", *made.costs)
            for point in points:
                costs = [f"{cost['after']:,.6g}" for cost in point.costs.values()]
                table.add_row(f"{point.fraction:.0%}", *(costs or [point.problem or ""]))
            out.print(table)


@app.command()
def latency(
    model: Model,
    cut: Cut = None,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Timed runs")] = 30,
    url: Url = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Measure the forward pass before and after a cut, on the service's device."""
    with connected(url, api_key) as client:
        remote = client.model(model)
        result = None if cut is None else cut_of(remote, cut)
        found = remote.latency(result, runs=runs)
        if as_json:
            print_json(
                {
                    "device": found.device,
                    "original": dict(found.original),
                    "pruned": dict(found.pruned),
                    "speedup": found.speedup,
                }
            )
            return
        table = Table("", "median ms", "95 % ms", "least ms")
        for name, timing in (("original", found.original), ("pruned", found.pruned)):
            keys = ("median_ms", "p95_ms", "min_ms")
            table.add_row(name, *(f"{timing[key]:.3f}" for key in keys))
        out.print(table)
        out.print(f"{found.speedup:.2f} times as fast on {found.device}", soft_wrap=True)


def _amount(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _shares(text: str | None) -> list[float]:
    try:
        return (
            [float(part.strip().removesuffix("%")) / 100 for part in text.split(",")]
            if text
            else []
        )
    except ValueError:
        fail(f"--frontier {text!r} does not read as 75,50,25")


def _json_of(path: Path) -> Any:
    import json

    try:
        return json.loads(path.read_text())
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror or error}")
    except ValueError as error:
        fail(f"{path} is no JSON: {error}")
