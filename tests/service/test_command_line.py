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
        (
            ["serve"],
            {"REDIS_URL": "localhost:6379"},
            "REDIS_URL is 'localhost:6379': write redis://",
        ),
        (["worker"], {"REDIS_URL": "redis://h:abc"}, "redis://:PASSWORD@HOST:6379/0"),
        (["worker"], {"REDIS_URL": "rediz://:secret@h"}, "REDIS_URL is 'rediz://:***@h': write"),
        (["serve"], {"STORAGE_URL": "ftp://x"}, "STORAGE_URL is 'ftp://x': write s3://BUCKET"),
        (["serve"], {"STORAGE_URL": "s3://"}, "STORAGE_URL is 's3://': write s3://BUCKET"),
        (["gc"], {"STORAGE_URL": "objects"}, "STORAGE_URL is 'objects': write s3://BUCKET"),
        (["keys", "list"], {"STORAGE_URL": "file://a/b"}, "with its whole path"),
        (["keys", "list"], {"STORAGE_URL": "file:///proc/x"}, "/proc/x cannot be opened"),
        (["serve"], {"STORAGE_URL": "az://c"}, "az://c cannot be opened"),
        (
            ["worker"],
            {"STORAGE_URL": "az://c", "REDIS_URL": "redis://h"},
            "az://c cannot be opened",
        ),
        (["worker"], {"TORCHPRUNER_QUEUES": "build"}, "TORCHPRUNER_QUEUES does not read"),
        (["worker"], {"TORCHPRUNER_QUEUES": '["x"]'}, "TORCHPRUNER_QUEUES is 'x': "),
        (["serve"], {"TORCHPRUNER_LOG_LEVEL": "LOUD"}, "TORCHPRUNER_LOG_LEVEL is 'LOUD': "),
        (["serve"], {"TORCHPRUNER_JOB_TIMEOUT": "0"}, "TORCHPRUNER_JOB_TIMEOUT is '0': "),
    ],
)
def test_a_setting_that_cannot_be_is_named(
    arguments: list[str], environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    settings = {"TORCHPRUNER_DATA_DIR": str(tmp_path), "REDIS_URL": None, "STORAGE_URL": None}
    done = CliRunner().invoke(app, arguments, env={**settings, **environment})
    assert done.exit_code == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
