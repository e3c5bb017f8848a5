"""``torchpruner-service``: serve, work, and manage API keys."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from torchpruner_service.parent import end_with
from torchpruner_service.settings import Settings


class OneLine(TyperGroup):
    """Ends a command with a line and exit code 1 for what an operator can put right."""

    def invoke(self, ctx: Any) -> Any:
        from torchpruner_service.problems import Problem

        try:
            return super().invoke(ctx)
        except Problem as problem:
            _fail(problem.detail)


app = typer.Typer(
    cls=OneLine,
    no_args_is_help=True,
    add_completion=False,
    # A traceback with its variables would show secrets.
    pretty_exceptions_show_locals=False,
    help="Structured pruning as a shared service. Settings come from the environment: REDIS_URL, "
    "STORAGE_URL and TORCHPRUNER_*; see the README.",
)
keys_app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke.")
app.add_typer(keys_app, name="keys")

DataDir = Annotated[
    Path | None,
    typer.Option(help="The folder that `serve` was given, where there is no STORAGE_URL"),
]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; default 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes to start beside")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where everything is kept")] = None,
) -> None:
    """Serve the API. Without REDIS_URL this starts a private Valkey and a worker too."""
    from torchpruner_service.observability.logs import configure_logs
    from torchpruner_service.observability.tracing import configure_tracing
    from torchpruner_service.serving import serve as run
    from torchpruner_service.storage.objects import Objects

    given = {"host": host, "port": port, "workers": workers, "data_dir": data_dir}
    settings = _settings(**{k: v for k, v in given.items() if v is not None})
    configure_logs(settings)
    configure_tracing(settings, "torchpruner-api")
    try:
        # Here and not in a request: a store that cannot be opened is a setting to put right.
        Objects(settings.effective_storage_url)
        run(settings)
    except (RuntimeError, OSError) as error:
        _fail(str(error))


@app.command()
def worker(
    with_parent: Annotated[
        int,
        typer.Option(
            hidden=True, help="Stop when the process of this number, which started it, is gone"
        ),
    ] = 0,
    data_dir: DataDir = None,
) -> None:
    """Build graphs and artifacts until stopped; SIGTERM lets the running job end."""
    from torchpruner_service.observability.logs import configure_logs
    from torchpruner_service.worker.supervisor import run_worker

    settings = _settings(**_given(data_dir))
    if data_dir is not None:
        # Its processes read the settings anew.
        os.environ["TORCHPRUNER_DATA_DIR"] = str(data_dir)
    configure_logs(settings)
    if with_parent:
        end_with(with_parent, signal.SIGTERM)
    run_worker(settings)


@app.command()
def gc(
    grace: Annotated[float, typer.Option(help="Seconds that anything is kept at least")] = 3600.0,
    data_dir: DataDir = None,
) -> None:
    """Remove files that no tenant has any more. Workers do this by themselves every hour."""
    from torchpruner_service.storage.audit_log import trim_all
    from torchpruner_service.storage.garbage import collect
    from torchpruner_service.storage.objects import Objects

    settings = _settings(**_given(data_dir))
    objects = Objects(settings.effective_storage_url)
    done = collect(objects, upload_ttl=settings.upload_ttl, grace=grace)
    events = trim_all(objects, most=settings.audit_events, days=settings.audit_days)
    typer.echo(
        f"removed {done.blobs} files of blobs, {done.models} of models, {done.artifacts} of artifacts, "
        f"{done.uploads} uploads, {events} events of the audit trail"
    )


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of this version."""
    import json

    from torchpruner_service.api.app import create_app

    document = create_app(Settings(redis_url="redis://unused", storage_url=None)).openapi()
    typer.echo(json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False))


@keys_app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose models the key sees")] = "default",
    scopes: Annotated[
        str, typer.Option(help="read, write, metrics, admin; comma separated")
    ] = "read,write",
    name: Annotated[str, typer.Option(help="What the key is for")] = "",
    rate_limit: Annotated[int | None, typer.Option(help="Requests a minute")] = None,
    quota_models: Annotated[int | None, typer.Option(help="Models it may keep")] = None,
    quota_bytes: Annotated[int | None, typer.Option(help="Bytes of files it may keep")] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once; only a hash is stored."""
    from torchpruner_service.auth.api_keys import create_key
    from torchpruner_service.folder_lock import was_served_from
    from torchpruner_service.problems import Problem
    from torchpruner_service.storage.objects import Objects

    settings = _settings(**_given(data_dir))
    if settings.storage_url is None and not was_served_from(settings.data_dir):
        _fail(
            f"no service has ever kept its data in {settings.data_dir}, so nobody would know this key: "
            "give the --data-dir that `torchpruner-service serve` has, set the STORAGE_URL that it "
            "has, or start it first"
        )
    try:
        _, text = create_key(
            Objects(settings.effective_storage_url),
            tenant,
            [scope.strip() for scope in scopes.split(",") if scope.strip()],
            name=name,
            rate_limit=rate_limit,
            quota_models=quota_models,
            quota_bytes=quota_bytes,
        )
    except Problem as problem:
        _fail(problem.detail)
    typer.echo(text)


@keys_app.command("list")
def list_all(data_dir: DataDir = None) -> None:
    """List the keys, without their secrets."""
    from torchpruner_service.auth.api_keys import list_keys
    from torchpruner_service.storage.objects import Objects

    table = Table("id", "tenant", "scopes", "name", "created", "state")
    for key in list_keys(Objects(_settings(**_given(data_dir)).effective_storage_url)):
        created = time.strftime("%Y-%m-%d %H:%M", time.gmtime(key.created_at))
        table.add_row(
            key.id,
            key.tenant,
            ",".join(key.scopes),
            key.name,
            created,
            "revoked" if key.revoked_at else "valid",
        )
    Console().print(table)


@keys_app.command("revoke")
def revoke(
    identifier: Annotated[str, typer.Argument(help="The key's id")], data_dir: DataDir = None
) -> None:
    """Revoke a key; API processes refuse it within seconds."""
    from torchpruner_service.auth.api_keys import revoke_key
    from torchpruner_service.problems import Problem
    from torchpruner_service.storage.objects import Objects

    try:
        key = revoke_key(Objects(_settings(**_given(data_dir)).effective_storage_url), identifier)
    except Problem as problem:
        _fail(problem.detail)
    typer.echo(f"revoked {key.id} of {key.tenant}")


def _given(data_dir: Path | None) -> dict[str, Any]:
    return {} if data_dir is None else {"data_dir": data_dir}


def _settings(**given: Any) -> Settings:
    """Return the settings, options before the environment. Exits where a value is not valid."""
    try:
        return Settings(**given)
    except SettingsError as error:
        # A list or a number that does not read; the cause says no more than its place.
        field = re.search(r'field "(\w+)"', str(error))
        _fail(
            f"TORCHPRUNER_{field[1].upper() if field else '*'} does not read; lists are JSON, like "
            '["build", "measure"]'
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        option = f"--{name.replace('_', '-')}" if name in given else variable(name)
        _fail(f"{option} is {shown(first['input'])}: {first['msg'].removeprefix('Value error, ')}")


def variable(name: str) -> str:
    """The environment variable of a setting: some are also read under the platforms' own names."""
    if name.upper().startswith(("TORCHPRUNER_", "REDIS_URL", "STORAGE_URL", "OTEL_")):
        return name.upper()
    return f"TORCHPRUNER_{name.upper()}"


def shown(value: Any) -> str:
    """A setting's value as a message may show it: without the password of a URL."""
    return re.sub(r"(://[^/@]*:)[^@/]+@", r"\1***@", repr(value))


def _fail(message: str) -> NoReturn:
    # Messages hold paths and names, whose brackets are no markup.
    Console(stderr=True, markup=False).print(message, style="red", soft_wrap=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
