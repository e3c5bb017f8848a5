"""Requests a minute for each key, counted in Redis so that all API processes share the count."""

from __future__ import annotations

import time
from typing import Any

from torchpruner_service.problems import RateLimited
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.redis_clients import REDIS_ERRORS

WINDOW = 60


async def check_rate(redis: Any, keys: Keys, key: str, limit: int) -> dict[str, str]:
    """Count one request and return the headers to answer with.

    The headers are those of the IETF's draft on rate limits, in both of its forms. Raises
    ``RateLimited`` past ``limit``. Where Redis is away nobody is refused.
    """
    now = time.time()
    window = int(now // WINDOW)
    reset = int((window + 1) * WINDOW - now) + 1
    try:
        pipe = redis.pipeline(transaction=False)
        pipe.incr(keys.rate(key, window))
        pipe.expire(keys.rate(key, window), 2 * WINDOW)
        used = int((await pipe.execute())[0])
    except REDIS_ERRORS:
        return {}
    remaining = max(0, limit - used)
    headers = {
        "RateLimit-Limit": str(limit),
        "RateLimit-Remaining": str(remaining),
        "RateLimit-Reset": str(reset),
        "RateLimit-Policy": f'"key";q={limit};w={WINDOW}',
        "RateLimit": f'"key";r={remaining};t={reset}',
    }
    if used > limit:
        raise RateLimited(
            f"this key may make {limit} requests a minute; wait {reset} s",
            headers={**headers, "Retry-After": str(reset)},
            limit=limit,
            window=WINDOW,
        )
    return headers
