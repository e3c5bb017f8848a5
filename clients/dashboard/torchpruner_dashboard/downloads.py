"""Files on their way to a browser: each can be fetched by the session that asked, then it is gone."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

KEEP_SECONDS = 900.0


@dataclass(slots=True)
class Parcel:
    """``folder`` holds the one file ``path``; ``browser`` is who may fetch it."""

    browser: str
    folder: Path
    path: Path
    made_at: float = field(default_factory=time.monotonic)


class Downloads:
    """Hands out temporary folders, and files by an address that cannot be guessed."""

    PREFIX = "/downloads/"

    def __init__(self) -> None:
        self._parcels: dict[str, Parcel] = {}

    def place(self, browser: str, filename: str) -> tuple[str, Path]:
        """Return the address and the path at which to write the file."""
        self._sweep()
        folder = Path(tempfile.mkdtemp(prefix="tp-dashboard-"))
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in filename) or "model"
        token = secrets.token_urlsafe(24)
        self._parcels[token] = Parcel(browser, folder, folder / safe)
        return f"{self.PREFIX}{token}", folder / safe

    def discard(self, address: str) -> None:
        parcel = self._parcels.pop(address.removeprefix(self.PREFIX), None)
        if parcel is not None:
            shutil.rmtree(parcel.folder, ignore_errors=True)

    def close(self) -> None:
        for token in list(self._parcels):
            self.discard(token)

    def install(self, app: FastAPI) -> None:
        """Add the route that answers with the files."""

        @app.get(f"{self.PREFIX}{{token}}", include_in_schema=False)
        def fetch(token: str, request: Request) -> Response:
            parcel = self._parcels.get(token)
            if parcel is None or request.session.get("id") != parcel.browser:
                return Response("This download is gone; ask for it again.", 404)
            done = BackgroundTask(self.discard, token)
            return FileResponse(parcel.path, filename=parcel.path.name, background=done)

    def _sweep(self) -> None:
        now = time.monotonic()
        for token, parcel in list(self._parcels.items()):
            if now - parcel.made_at > KEEP_SECONDS:
                self.discard(token)
