"""The console script: says which extra to install where that is what is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program. Exits with 1 and one line where the extra ``service`` is not installed."""
    try:
        import fastapi  # noqa: F401  (what every command of the program needs)

        from torchpruner_service.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("torchpruner"):
            raise
        sys.exit(
            f"this program needs {error.name}, which the base installation leaves out: "
            "pip install 'torchpruner-service[service]'"
        )
    app()
