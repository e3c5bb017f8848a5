"""Tells those who asked that a job ended, with a signed request.

The body is the job as JSON. ``Torchpruner-Signature: t=<unix time>,v1=<hex>`` carries the
HMAC-SHA256, with the secret that the caller gave with the hook (or the service's), of ``<unix
time>.<body>``; a receiver compares it and refuses old times.

API processes call, not workers: workers reach no network, and a receiver that answers byte by byte
must hold no build up. Each call has a deadline for all of it, tenants take turns, and a call that a
process died with is made again by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import anyio.to_thread
import httpx
import structlog

from torchpruner_service.api.app_state import AppState
from torchpruner_service.settings import Settings
from torchpruner_service.state.hook_line import HOOKS
from torchpruner_service.state.redis_clients import REDIS_ERRORS
from torchpruner_service.state.turns import Taken

TRIES = 3
CALLS = 32
"""How many calls one API process makes at once."""
LOOK_SECONDS = 0.5

log = structlog.get_logger(__name__)


def sign(secret: str, body: bytes, moment: int) -> str:
    """The signature header of ``body`` sent at ``moment``."""
    mac = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256)
    return f"t={moment},v1={mac.hexdigest()}"


async def deliver_webhooks(state: AppState) -> None:
    """Call what waits to be called, until cancelled."""
    settings, turns = state.settings, state.board.turns
    claim = TRIES * (settings.webhook_timeout + 1.0) + 10.0
    calls: set[asyncio.Task[None]] = set()

    def take() -> Taken | None:
        return turns.take(HOOKS, limit=settings.tenant_hooks, seconds=claim, back=True)

    async with httpx.AsyncClient(
        verify=ssl.create_default_context(), trust_env=False, timeout=None
    ) as client:
        try:
            while True:
                taken = None
                if len(calls) < CALLS:
                    with contextlib.suppress(*REDIS_ERRORS):
                        taken = await anyio.to_thread.run_sync(take)
                if taken is None:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                call = asyncio.create_task(_deliver(state, client, taken))
                calls.add(call)
                call.add_done_callback(calls.discard)
        finally:
            for call in calls:
                call.cancel()


async def _deliver(state: AppState, client: httpx.AsyncClient, taken: Taken) -> None:
    waiting = json.loads(taken.item)
    url, settings = waiting["watcher"]["url"], state.settings
    body = json.dumps(waiting["event"], separators=(",", ":")).encode()
    secret = waiting["watcher"].get("secret") or settings.webhook_secret.get_secret_value()
    for number in range(TRIES):
        status = 0
        try:
            async with asyncio.timeout(settings.webhook_timeout):
                status = await _post(client, url, body, secret, settings)
        except TimeoutError:
            log.warning("webhook too slow", url=url, seconds=settings.webhook_timeout)
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning("webhook failed", url=url, error=str(error))
        if 200 <= status < 300:
            break
        if 400 <= status < 500:
            log.warning("webhook refused", url=url, status=status)
            break
        await asyncio.sleep(0.2 * (number + 1))
    with contextlib.suppress(*REDIS_ERRORS):
        await anyio.to_thread.run_sync(state.board.turns.done, taken)


async def public_address(host: str, port: int, allow_private: bool) -> str:
    """Resolve ``host`` once and return the address to connect to.

    Raises ``ValueError`` for an address inside the deployment: a webhook must not reach what its
    caller cannot.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    address = str(found[0][4][0])
    if not allow_private and not ipaddress.ip_address(address).is_global:
        raise ValueError(f"{host} is {address}, which is not a public address")
    return address


async def _post(
    client: httpx.AsyncClient, url: str, body: bytes, secret: str, settings: Settings
) -> int:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = await public_address(host, port, settings.webhook_allow_private)
    shown = f"[{address}]" if ":" in address else address
    # Connecting to the checked address keeps a second look-up from giving another one; the
    # certificate is still checked against the name.
    target = parts._replace(netloc=f"{shown}:{port}", path=parts.path or "/", fragment="")
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": "torchpruner-service",
        "Torchpruner-Signature": sign(secret, body, int(time.time())),
        "Connection": "close",
    }
    extensions: dict[str, Any] = {"sni_hostname": host}
    async with client.stream(
        "POST", target.geturl(), content=body, headers=headers, extensions=extensions
    ) as answer:
        return answer.status_code
