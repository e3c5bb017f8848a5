"""The program: what all commands have in common."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer


def _version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(version("torchpruner-service"))
        except PackageNotFoundError:
            typer.echo("unknown: not installed")
        raise typer.Exit


app = typer.Typer(
    no_args_is_help=True,
    # A traceback with its variables would show the API key.
    pretty_exceptions_show_locals=False,
    help=(
        "Structured pruning of a network: `prune` works on files here, all else on a torchpruner "
        "service. TORCHPRUNER_URL and TORCHPRUNER_API_KEY say which and as whom."
    ),
)


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version"),
    ] = False,
) -> None: ...
