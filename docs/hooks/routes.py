"""Writes the table of routes into the HTTP page from the service's own OpenAPI schema."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

MARK = "<!-- routes -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the mark with a table; pages without one stay as they are."""
    return markdown.replace(MARK, routes()) if MARK in markdown else markdown


def routes() -> str:
    """Method, path and summary of every route, in the schema's order."""
    from torchpruner_service.api.app import create_app
    from torchpruner_service.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        schema = create_app(Settings(data_dir=Path(folder))).openapi()
    rows = ["| | | |", "| --- | --- | --- |"]
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            rows.append(f"| `{method.upper()}` | `{path}` | {route.get('summary', '')} |")
    return "\n".join(rows)
