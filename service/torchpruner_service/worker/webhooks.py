"""Tells those who asked that a job ended, with a signed request.

The body is the job as JSON. ``Torchpruner-Signature: t=<unix time>,v1=<hex>`` carries the
HMAC-SHA256, with the secret that the caller gave with the hook (or the service's), of ``<unix
time>.<body>``; a receiver compares it and refuses old times.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import structlog

from torchpruner_service.settings import Settings
from torchpruner_service.state.job_record import JobRecord

TRIES = 3
TIMEOUT = 5.0

log = structlog.get_logger(__name__)


def sign(secret: str, body: bytes, moment: int) -> str:
    """The signature header of ``body`` sent at ``moment``."""
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


def call_watchers(settings: Settings, record: JobRecord) -> None:
    """Call every webhook of an ended job. A hook that fails is logged and fails nothing."""
    for watcher in record.watchers:
        body = json.dumps(_event(record), separators=(",", ":")).encode()
        secret = watcher.get("secret") or settings.webhook_secret.get_secret_value()
        for number in range(TRIES):
            try:
                status = _post(watcher["url"], body, secret, settings.webhook_allow_private)
            except (OSError, ValueError, http.client.HTTPException) as error:
                log.warning("webhook failed", url=watcher["url"], error=str(error))
                status = 0
            if 200 <= status < 300:
                break
            if 400 <= status < 500:
                log.warning("webhook refused", url=watcher["url"], status=status)
                break
            time.sleep(0.2 * (number + 1))


def _event(record: JobRecord) -> dict[str, Any]:
    return {
        "event": f"job.{record.state}",
        "job": record.id,
        "kind": record.kind,
        "model": record.model,
        "state": record.state,
        "problem": record.problem,
        "ended_at": record.ended_at,
    }


def public_address(host: str, port: int, allow_private: bool) -> str:
    """Resolve ``host`` once and return the address to connect to.

    Raises ``ValueError`` for an address inside the deployment: a webhook must not reach what its
    caller cannot.
    """
    address = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    if not allow_private and not ipaddress.ip_address(address).is_global:
        raise ValueError(f"{host} is {address}, which is not a public address")
    return address


def _post(url: str, body: bytes, secret: str, allow_private: bool) -> int:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    host = parts.hostname or ""
    address = public_address(host, port, allow_private)
    # Connecting to the checked address keeps a second look-up from giving another one.
    raw = socket.create_connection((address, port), timeout=TIMEOUT)
    try:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
        )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(
            "POST",
            path,
            body=body,
            headers={
                "Content-Type": "application/json",
                "User-Agent": "torchpruner-service",
                "Torchpruner-Signature": sign(secret, body, int(time.time())),
            },
        )
        return connection.getresponse().status
    finally:
        raw.close()
