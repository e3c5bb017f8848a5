"""A real dashboard process, and the browser that looks at it."""

from __future__ import annotations

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

from tests.service.running import PATIENCE, environment

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE = {"width": 1280, "height": 860}
NARROW = {"width": 390, "height": 844}


def chromium() -> str | None:
    """The system's browser, if it has one."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


@contextmanager
def running_dashboard(service_url: str, **settings: str) -> Iterator[str]:
    """Start a dashboard on a free port; yield its address; stop it."""
    kept = environment(**settings)
    program = [sys.executable, "-m", "torchpruner_dashboard.cli", "--url", service_url]
    with tempfile.TemporaryDirectory(prefix="tp-dash-test-") as folder:
        log = Path(folder, "dashboard.log")
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*program, "--port", "0"],
                # NiceGUI behaves differently where it believes that a test imported it.
                env={k: v for k, v in kept.items() if not k.startswith("PYTEST_")},
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        try:
            yield _address(process, log)
            text = log.read_text(errors="replace")
            # Frames of the dashboard; a browser that leaves early makes the server complain too.
            assert "torchpruner_dashboard/" not in text, text[-4000:]
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"^torchpruner-dashboard: (http://\S+)", log.read_text(), re.MULTILINE)
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the dashboard did not start:\n{log.read_text()[-3000:]}")


class Visitor:
    """One browser window. It notes what the page should not do: errors, and requests elsewhere."""

    def __init__(self, browser: Any, base: str, viewport: dict[str, int], theme: str) -> None:
        self.base = base
        self.context = browser.new_context(
            base_url=base, viewport=viewport, color_scheme=theme, accept_downloads=True
        )
        self.context.set_default_timeout(1000 * PATIENCE)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("request", self._request)

    def go(self, path: str, wait_for: str = "main") -> Any:
        self.page.goto(path)
        self.page.wait_for_selector(wait_for)
        # From here on the page hears what is done to it.
        self.page.wait_for_function("window.did_handshake")
        return self.page

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(script))

    def screenshot(self, name: str, *, whole: bool = False) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)

    def close(self) -> None:
        self.context.close()

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.elsewhere.append(request.url)
