"""``torchpruner-service`` with settings that cannot be: a sentence, not a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from torchpruner_service.cli import app


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["serve", "--port", "99999"], {}, "--port is 99999: "),
        (["serve", "--workers", "-1"], {}, "--workers is -1: "),
        (["gc"], {"TORCHPRUNER_PORT": "abc"}, "TORCHPRUNER_PORT is 'abc': "),
        (["worker"], {"TORCHPRUNER_AUTH": "maybe"}, "TORCHPRUNER_AUTH is 'maybe': "),
        (["serve", "--port", "0", "--data-dir", "/proc/[x]"], {}, "/proc/[x]"),
        (["keys", "revoke", "[/nope]"], {}, "there is no key [/nope]"),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    arguments: list[str], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    settings = {"TORCHPRUNER_DATA_DIR": str(tmp_path), "REDIS_URL": None, "STORAGE_URL": None}
    done = CliRunner().invoke(app, arguments, env={**settings, **environment})
    assert done.exit_code == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
