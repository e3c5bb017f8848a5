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


def unavailable(error: BaseException) -> Unavailable:
    """The problem that stands for an unreachable Redis."""
    return Unavailable(
        f"Redis does not answer ({type(error).__name__}); nothing was lost, try again",
        part="redis",
    )
