"""Requests a minute for each key, counted in Redis so that all API processes share the count."""

from __future__ import annotations

import time
from typing import Any

import structlog

from torchpruner_service.problems import RateLimited
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import REDIS_ERRORS

WINDOW = 60

log = structlog.get_logger(__name__)


class RateLimits:
    """Counts requests. While Redis is away each API process counts its own, and the answers say so:
    a limit that holds for each process is looser, and never off."""

    def __init__(self, redis: Any, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._window = 0
        self._own: dict[str, int] = {}

    async def check(self, key: str, limit: int) -> dict[str, str]:
        """Count one request and return the headers to answer with.

        The headers are those of the IETF's draft on rate limits, in both of its forms. Raises
        ``RateLimited`` past ``limit``.
        """
        now = time.time()
        window = int(now // WINDOW)
        reset = int((window + 1) * WINDOW - now) + 1
        # Counted here in any case, so that Redis' going away gives nobody a fresh minute.
        used, policy = self._count(key, window), f'"key";q={limit};w={WINDOW}'
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.incr(self._keys.rate(key, window))
            pipe.expire(self._keys.rate(key, window), 2 * WINDOW)
            # Redis may have come back without its last second.
            used = max(used, int((await pipe.execute())[0]))
        except REDIS_ERRORS as error:
            log.warning("rate limits are counted by each process", error=str(error))
            policy = f'"process";q={limit};w={WINDOW};comment="Redis is away: per API process"'
        remaining = max(0, limit - used)
        headers = {
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": str(reset),
            "RateLimit-Policy": policy,
            "RateLimit": f"{policy.partition(';')[0]};r={remaining};t={reset}",
        }
        if used > limit:
            raise RateLimited(
                f"this key may make {limit} requests a minute; wait {reset} s",
                headers={**headers, "Retry-After": str(reset)},
                limit=limit,
                window=WINDOW,
            )
        return headers

    def _count(self, key: str, window: int) -> int:
        if window != self._window:
            self._window = window
            self._own.clear()
        self._own[key] = self._own.get(key, 0) + 1
        return self._own[key]
