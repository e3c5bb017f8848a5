"""What people read where no browser is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_line_says_that_the_tests_did_not_run_and_how_to_get_a_browser() -> None:
    files = sorted(str(path) for path in Path(__file__).parent.glob("test_*_in_browser.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "--color=no", *files],
        # No folder has programs: no browser is found.
        env={**os.environ, "PATH": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(lines) == 1, done.stdout
    assert "did not run" in lines[0]
    assert "apt-get install chromium" in lines[0]
    assert "passed" not in done.stdout
