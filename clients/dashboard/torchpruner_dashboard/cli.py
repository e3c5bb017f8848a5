"""``torchpruner-dashboard``: serve the web page."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Annotated

import typer

from torchpruner_core.errors import ChangedStatisticsWarning
from torchpruner_dashboard.settings import DashboardSettings

app = typer.Typer(add_completion=False)


@app.command()
def main(
    url: Annotated[
        str | None, typer.Option(help="The service; default TORCHPRUNER_URL or 127.0.0.1:8000")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind; default 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default 8080, 0 takes a free one")] = None,
) -> None:
    """Serve the dashboard of a torchpruner service.

    Visitors log in with their own API key where the service wants one.
    TORCHPRUNER_DASHBOARD_API_KEY makes one key everybody's.
    """
    from torchpruner_dashboard.server import run

    settings = DashboardSettings.from_environment()
    if url is not None:
        settings = replace(settings, service_url=url.rstrip("/"))
    if host is not None:
        settings = replace(settings, host=host)
    if port is not None:
        settings = replace(settings, port=port)
    # The page itself says what a cut renormalises: the log is the operator's.
    warnings.simplefilter("ignore", ChangedStatisticsWarning)
    run(settings)


if __name__ == "__main__":
    app()
