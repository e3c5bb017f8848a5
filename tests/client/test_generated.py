"""The blocking client is made from the asynchronous one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "clients/python/generate_sync.py"


def test_the_blocking_client_is_what_the_generator_makes() -> None:
    spec = importlib.util.spec_from_file_location("generate_sync", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.blocking(module.SOURCE.read_text()) == module.TARGET.read_text(), (
        "run python clients/python/generate_sync.py"
    )
