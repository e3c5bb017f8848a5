"""The program: what all commands have in common."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from torchpruner_client.cli.output import fail, speaks_json

INTERRUPTED = 130
"""The exit code of a program that Ctrl-C ended: 128 and the signal's number."""


class Program(TyperGroup):
    """Tells whatever a command ends with as :func:`fail` does: a line for people, JSON for programs."""

    def invoke(self, ctx: Any) -> Any:
        speaks_json.set("--json" in sys.argv[1:])
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            fail("interrupted", {"type": "interrupted"}, INTERRUPTED)
        except Exception as error:
            said = getattr(error, "format_message", None)  # of click, and of typer
            if said is not None and not speaks_json.get():
                raise  # typer shows it with the command's usage
            if said is not None:
                fail(said(), {"type": "usage"}, getattr(error, "exit_code", 2))
            if os.environ.get("TORCHPRUNER_TRACEBACK"):
                raise
            fail(
                f"{type(error).__name__}: {error}; this was not expected, and is worth a report: "
                "TORCHPRUNER_TRACEBACK=1 shows where it happened",
                {"type": "unexpected"},
            )


def _version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(version("torchpruner-service"))
        except PackageNotFoundError:
            typer.echo("unknown: not installed")
        raise typer.Exit


app = typer.Typer(
    cls=Program,
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
