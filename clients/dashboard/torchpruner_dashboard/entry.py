"""The console script: says which extra to install where that is what is missing."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program. Exits with 1 and one line where the extra ``dashboard`` is not installed."""
    try:
        import nicegui  # noqa: F401  (what every command of the program needs)

        from torchpruner_dashboard.cli import app
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("torchpruner"):
            raise
        sys.exit(
            f"this program needs {error.name}, which the base installation leaves out: "
            "pip install 'torchpruner-service[dashboard]'"
        )
    app()
