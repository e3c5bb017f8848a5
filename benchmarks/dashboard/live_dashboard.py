"""A dashboard process on a free port, and the system's browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_LIMIT = 60.0
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_browser() -> str | None:
    """The path of a browser, if there is one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def live_dashboard(service_url: str) -> Iterator[str]:
    """Start a dashboard of the service, yield its address, stop it in the end."""
    with tempfile.TemporaryDirectory(prefix="tp-bench-") as folder:
        log = Path(folder, "dashboard.log")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHPRUNER_", "PYTEST"))}
        program = [sys.executable, "-m", "torchpruner_dashboard.cli"]
        with log.open("wb") as sink:
            child = subprocess.Popen(
                [*program, "--url", service_url, "--port", "0"],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=kept,
                cwd=folder,
            )
        try:
            yield _address(child, log)
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def live_page(program: str, url: str) -> Iterator[Any]:
    """A page of a headless browser at 1280 pixels, its cache kept between visits."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 860})
            yield context.new_page()
        finally:
            browser.close()


def _address(child: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and child.poll() is None:
        found = re.search(r"torchpruner-dashboard: (http://\S+)", log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the dashboard did not start:\n{log.read_text(errors='replace')[-2000:]}")
