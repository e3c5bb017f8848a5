"""Connections to Redis, blocking for workers and asynchronous for the API."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from torchpruner_service.problems import Unavailable

_TIMEOUT = 5.0

REDIS_ERRORS = (RedisError, OSError)


def blocking_client(url: str) -> redis.Redis:
    """A client for worker processes. Values are bytes; RQ needs it so."""
    return redis.Redis.from_url(
        url, socket_timeout=None, socket_connect_timeout=_TIMEOUT, health_check_interval=15
    )


def async_client(url: str) -> Any:
    """A client for the API's event loop. A restart of Redis is ridden out for about a second."""
    from redis.asyncio.retry import Retry as AsyncRetry

    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=AsyncRetry(ExponentialBackoff(cap=0.4, base=0.05), 4),
        retry_on_error=[BusyLoadingError, redis.exceptions.ConnectionError],
    )


def retrying_client(url: str) -> redis.Redis:
    """A blocking client that rides out a restart of Redis for some seconds."""
    return redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT,
        socket_connect_timeout=_TIMEOUT,
        retry=Retry(ExponentialBackoff(cap=1.0, base=0.05), 10),
        retry_on_error=[BusyLoadingError, redis.exceptions.ConnectionError],
    )


_NAMED: tuple[tuple[type[Exception], str, str], ...] = (
    (
        redis.exceptions.OutOfMemoryError,
        "OOM",
        "Redis is full (its maxmemory is reached): give it more memory; what is stored is still "
        "answered, and new work is refused until then",
    ),
    (
        redis.exceptions.ReadOnlyError,
        "READONLY",
        "Redis is a read-only replica: point REDIS_URL to the primary",
    ),
    (
        redis.exceptions.AuthenticationError,
        "NOAUTH",
        "Redis asks for a password, or for another one: put it into REDIS_URL",
    ),
    (
        redis.exceptions.NoPermissionError,
        "NOPERM",
        "Redis does not let this user run a command that the service needs",
    ),
    (redis.exceptions.BusyLoadingError, "LOADING", "Redis is still reading its data"),
    (
        redis.exceptions.MaxConnectionsError,
        "max number of clients",
        "Redis has as many clients as its maxclients allows",
    ),
    (
        redis.exceptions.ResponseError,
        "MISCONF",
        "Redis cannot write to its disk and takes no changes until it can: look at the disk's room "
        "and at Redis' log",
    ),
)
"""Errors by class, or by what their text says where a pipeline or script has wrapped them."""


def unavailable(error: BaseException) -> Unavailable:
    """The problem that stands for a Redis that cannot be worked with."""
    text = str(error)
    for kind, words, detail in _NAMED:
        if words in text or (isinstance(error, kind) and words != "MISCONF"):
            slug = "redis-full" if words == "OOM" else None
            return Unavailable(f"{detail}; nothing was lost, try again", slug=slug, part="redis")
    return Unavailable(
        f"Redis does not answer ({type(error).__name__}); nothing was lost, try again",
        part="redis",
    )
