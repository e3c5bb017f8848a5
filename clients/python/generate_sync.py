"""Writes the blocking client from the asynchronous one: ``python clients/python/generate_sync.py``.

They are one source. A comment ``# sync: TEXT`` in the asynchronous client is ``TEXT`` in the blocking one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).with_name("torchpruner_client")
SOURCE, TARGET = PACKAGE / "asynchronous.py", PACKAGE / "synchronous.py"

NAMES = (
    ("AsyncRemote", "Remote"),
    ("AsyncClient", "Client"),
    ("AsyncDriver", "SyncDriver"),
    ("async_driver", "sync_driver"),
    ("AsyncBaseTransport", "BaseTransport"),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("aclose", "close"),
    ("async ", ""),
    ("await ", ""),
)
HEAD = '''"""The blocking client, made from ``asynchronous.py`` by ``generate_sync.py``: edit that file."""'''


def blocking(source: str) -> str:
    """Return the blocking client's text for the asynchronous one's."""
    text = HEAD + source[source.index('"""', 3) + 3 :]
    for name, other in NAMES:
        text = text.replace(name, other)
    text = re.sub(r"# sync: (.*)", r"\1", text)
    tidy = ("check", "--quiet", "--select", "I", "--fix"), ("format", "--quiet")
    for command in tidy:
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", TARGET, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    TARGET.write_text(blocking(SOURCE.read_text()))
