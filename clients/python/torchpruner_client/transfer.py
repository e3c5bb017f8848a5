"""One download over as many answers as it takes; both drivers feed it."""

from __future__ import annotations

import hashlib
import re
from typing import BinaryIO

import httpx

from torchpruner_client.patience import Patience
from torchpruner_client.steps import Fetch

_CONTENT_RANGE = re.compile(r"^bytes (\d+)-")


class NotResumed(httpx.TransportError):
    """The answer begins elsewhere than where the last one broke."""


class Transfer:
    """Writes what arrives into ``file`` and hashes it.

    An answer that begins anew (a proxy took the ``Range`` away, or the content changed) is a
    failure: only bytes that no answer brought before are progress.
    """

    def __init__(self, fetch: Fetch, file: BinaryIO, patience: Patience) -> None:
        self._fetch = fetch
        self._file = file
        self._patience = patience
        self._hash = hashlib.sha256()
        self._done = 0
        self._total = 0
        self._furthest = 0
        self._advancing = True
        self._etag = ""

    def headers(self) -> dict[str, str]:
        """What to ask with: the rest of the content, where some is here."""
        if not self._done:
            return {}
        condition = {"If-Range": self._etag} if self._etag else {}
        return {"Range": f"bytes={self._done}-", **condition}

    def begin(self, answer: httpx.Response) -> None:
        """Look at an answer below 400. Raises ``NotResumed`` where its bytes cannot be used."""
        if self._done and answer.status_code != 206:
            self._start_over()
        elif self._done:
            start = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
            if start is not None and int(start[1]) != self._done:
                self._start_over()
                raise NotResumed("the answer is another part of the content than was asked for")
            self._advancing = True
        self._etag = answer.headers.get("etag", "")
        self._total = self._done + int(answer.headers.get("content-length", 0))

    def take(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self._done += len(chunk)
        if self._advancing and self._done > self._furthest:
            self._furthest = self._done
            self._patience.progressed()
        self._fetch.on_received(self._done, self._total)

    def broke(self, error: Exception) -> float:
        """Seconds to wait before the next try. Raises ``ServiceUnreachable`` after too many."""
        return self._patience.after_error(error)

    def refused(self, answer: httpx.Response) -> float:
        """The same for a read answer of 400 or more."""
        if answer.status_code == 416 and self._done:
            # Nothing follows what is here, yet the end never came: the content is another one.
            self._start_over()
            return self._patience.after_error(NotResumed("the rest of the content is not there"))
        return self._patience.after_refusal(answer)

    def digest(self) -> str:
        """The sha256 (hex) of the content."""
        return self._hash.hexdigest()

    def _start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hash, self._done = hashlib.sha256(), 0
        self._advancing = False
