"""Puts pages and downloads together and runs them."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

from torchpruner_dashboard.settings import DashboardSettings

ASSETS = Path(__file__).with_name("assets")


def run(settings: DashboardSettings) -> None:
    """Serve the dashboard until it is stopped."""
    # A key in the operator's environment must not speak for visitors: the SDK would read it.
    os.environ.pop("TORCHPRUNER_API_KEY", None)
    from nicegui import app, ui

    from torchpruner_dashboard.downloads import Downloads
    from torchpruner_dashboard.pages import install_pages
    from torchpruner_dashboard.sessions import Sessions
    from torchpruner_dashboard.visit import Desk

    if settings.port == 0:
        settings = replace(settings, port=_free_port(settings.host))
    desk = Desk(settings, Sessions(settings), Downloads())
    desk.downloads.install(app)
    app.add_static_files("/assets", ASSETS)
    ui.add_head_html(
        '<link rel="stylesheet" href="/assets/dashboard.css">'
        '<script src="/assets/dashboard.js" defer></script>',
        shared=True,
    )
    install_pages(desk)
    app.on_shutdown(desk.sessions.close)
    app.on_shutdown(desk.downloads.close)
    app.on_startup(
        lambda: print(f"torchpruner-dashboard: http://{settings.host}:{settings.port}", flush=True)
    )
    ui.run(
        host=settings.host,
        port=settings.port,
        title="torchpruner",
        favicon=ASSETS / "icon.svg",
        dark=None,
        language="en-US",
        tailwind=False,
        reload=False,
        show=False,
        show_welcome_message=False,
        storage_secret=settings.secret,
        session_middleware_kwargs={"same_site": "lax"},
        reconnect_timeout=10.0,
    )


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
        return port
