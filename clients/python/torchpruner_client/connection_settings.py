"""What both clients know of a connection: where, as whom, how patiently."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from torchpruner_client.retrying import RetryPolicy
from torchpruner_client.steps import Call

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT = httpx.Timeout(60.0, connect=5.0)
STREAM_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""Of events: the service repeats itself every few seconds."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """``url`` and ``api_key`` default to TORCHPRUNER_URL and TORCHPRUNER_API_KEY."""

    url: str
    api_key: str | None = field(repr=False)
    retries: RetryPolicy
    timeout: httpx.Timeout

    @classmethod
    def of(
        cls,
        url: str | None,
        api_key: str | None,
        timeout: float | httpx.Timeout | None,
        retries: RetryPolicy | int | None,
    ) -> ConnectionSettings:
        if not isinstance(retries, RetryPolicy):
            retries = RetryPolicy() if retries is None else RetryPolicy(retries=retries)
        if not isinstance(timeout, httpx.Timeout):
            timeout = (
                TIMEOUT if timeout is None else httpx.Timeout(timeout, connect=min(timeout, 5.0))
            )
        return cls(
            _checked_url(url or os.environ.get("TORCHPRUNER_URL") or DEFAULT_URL),
            _checked_key(api_key or os.environ.get("TORCHPRUNER_API_KEY")),
            retries,
            timeout,
        )

    def headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"torchpruner-client/{_version()}", "Accept": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def request_options(self, call: Call) -> dict[str, Any]:
        """Keyword arguments of ``httpx``'s ``request`` for everything but the body."""
        headers = dict(call.headers)
        options: dict[str, Any] = {"params": dict(call.params), "headers": headers}
        if call.json is not None:
            options["json"] = call.json
        if call.body is not None:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(len(call.body))
        if call.timeout is not None:
            options["timeout"] = httpx.Timeout(call.timeout, connect=5.0)
        headers.update(_trace_headers())
        return options


def _checked_url(text: str) -> str:
    """The address without a slash at its end. Raises ``ValueError`` with the one that was meant."""
    url = text.strip()
    scheme, found, rest = url.partition("://")
    if not found:
        raise ValueError(f"the service's address {text!r} has no scheme; write http://{url}")
    if scheme.lower() not in ("http", "https"):
        raise ValueError(f"the service is spoken to over http or https, not {scheme}://{rest}")
    try:
        if not httpx.URL(url).host:
            raise ValueError(f"the service's address {text!r} names no host")
    except httpx.InvalidURL as error:
        raise ValueError(f"the service's address {text!r} cannot be read: {error}") from None
    return url.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """The key without blanks around it, which files and pasting add.

    Raises ``ValueError`` for one that no header can hold. Left to the HTTP library, its error would
    show the key.
    """
    key = (key or "").strip()
    for position, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            raise ValueError(
                f"the API key's character {position} of {len(key)} is {_named(character)}, which no "
                "key has; copy the line that `torchpruner-service keys create` printed, whole and alone"
            )
    return key or None


def _named(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    return "a blank" if character.isspace() else f"U+{ord(character):04X}"


def _trace_headers() -> dict[str, str]:
    """The caller's OpenTelemetry trace, where it has one: the service goes on with it."""
    import sys

    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def _version() -> str:
    try:
        return version("torchpruner-service")
    except PackageNotFoundError:
        return "0"
