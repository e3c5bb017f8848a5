"""Tenants take turns: what waits is taken from each in turn, and of each only so much at once.

A *line* is one thing that is waited for, such as the build queue or the webhooks. In Redis it is a
sorted set of tenants, the one whose turn is next first, with a list of items (a *lane*) and a sorted
set of taken ones (by when their claim lapses) for each. So a tenant who sends a thousand jobs delays
another's first one by one job, and one who runs endless programs holds as many workers as one tenant
may (round robin over tenants, as RFC 970 does over senders).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchpruner_service.state.keys import Keys

# Wakes a worker that waits for the line. A hundred calls are enough: more would wake it for nothing.
_WAKE = """
local function wake(line)
  redis.call('RPUSH', line .. ':wake', '1')
  redis.call('LTRIM', line .. ':wake', -100, -1)
end
"""

# Gives `push(line, tenant, item)`.
PUSH = (
    _WAKE
    + """
local function push(line, tenant, item)
  redis.call('RPUSH', line .. ':lane:' .. tenant, item)
  if not redis.call('ZSCORE', line, tenant) then
    redis.call('ZADD', line, redis.call('INCR', line .. ':turn'), tenant)
  end
  wake(line)
end
"""
)

# KEYS: line. ARGV: tenant, item.
_PUSH = PUSH + "push(KEYS[1], ARGV[1], ARGV[2])"

# KEYS: line, a list that items must also be in ('' for none). ARGV: how many one tenant may have
# taken (0 for any), milliseconds of the claim, whether a lapsed claim puts the item back (0/1).
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, span, back = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
for _, tenant in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local lane, taken = KEYS[1] .. ':lane:' .. tenant, KEYS[1] .. ':taken:' .. tenant
  for _, item in ipairs(redis.call('ZRANGEBYSCORE', taken, '-inf', now)) do
    redis.call('ZREM', taken, item)
    if back then redis.call('LPUSH', lane, item) end
  end
  local held = redis.call('ZCARD', taken)
  if limit == 0 or held < limit then
    local item = redis.call('LPOP', lane)
    while item and KEYS[2] ~= '' and redis.call('LREM', KEYS[2], 1, item) == 0 do
      item = redis.call('LPOP', lane)
    end
    if item then
      redis.call('ZADD', taken, now + span, item)
      if not back then redis.call('PEXPIRE', taken, span * 2) end
      redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[1] .. ':turn'), tenant)
      return {tenant, item}
    end
    if held == 0 or not back then redis.call('ZREM', KEYS[1], tenant) end
  end
end
return false
"""

# KEYS: line. ARGV: tenant, item, milliseconds.
_KEEP = """
local time = redis.call('TIME')
local taken = KEYS[1] .. ':taken:' .. ARGV[1]
redis.call('ZADD', taken, time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3], ARGV[2])
redis.call('PEXPIRE', taken, ARGV[3] * 2)
"""

# KEYS: line. ARGV: tenant, item.
_DONE = (
    _WAKE
    + """
redis.call('ZREM', KEYS[1] .. ':taken:' .. ARGV[1], ARGV[2])
wake(KEYS[1])
"""
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One item, claimed for a while. It waited in the lane of ``tenant``."""

    line: str
    tenant: str
    item: str


class Turns:
    """The lines of a deployment; blocking."""

    def __init__(self, connection: Any, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._push = connection.register_script(_PUSH)
        self._take = connection.register_script(_TAKE)
        self._keep = connection.register_script(_KEEP)
        self._done = connection.register_script(_DONE)

    def push(self, line: str, tenant: str, item: str, client: Any = None) -> None:
        """Let ``item`` wait for the tenant's turn; ``client`` is a pipeline to do it in."""
        self._push(keys=[self._keys.line(line)], args=[tenant, item], client=client)

    def take(
        self, line: str, *, limit: int, seconds: float, listed: str = "", back: bool = False
    ) -> Taken | None:
        """Claim the next item for ``seconds``, of a tenant who holds less than ``limit`` (0: any).

        Items that are no longer in the list ``listed`` are passed over. ``back`` puts an item whose
        claim lapses into its lane again; without it the item is forgotten.
        """
        found = self._take(
            keys=[self._keys.line(line), listed], args=[limit, int(seconds * 1000), int(back)]
        )
        return None if not found else Taken(line, found[0].decode(), found[1].decode())

    def keep(self, taken: Taken, seconds: float) -> None:
        """Claim an item for another while."""
        args = [taken.tenant, taken.item, int(seconds * 1000)]
        self._keep(keys=[self._keys.line(taken.line)], args=args)

    def done(self, taken: Taken) -> None:
        """Let go of an item, so that the tenant's next one may be taken."""
        self._done(keys=[self._keys.line(taken.line)], args=[taken.tenant, taken.item])

    def waits(self, line: str, tenant: str, item: str) -> bool:
        """Whether ``item`` is in the tenant's lane."""
        lane = f"{self._keys.line(line)}:lane:{tenant}"
        return self._connection.lpos(lane, item) is not None

    def withdraw(self, line: str, tenant: str, item: str) -> None:
        """Take an item out of the lane it waits in."""
        self._connection.lrem(f"{self._keys.line(line)}:lane:{tenant}", 1, item)

    def wait(self, lines: Sequence[str], seconds: float) -> None:
        """Return when something may be taken from one of ``lines``, or after ``seconds``."""
        self._connection.blpop([f"{self._keys.line(line)}:wake" for line in lines], seconds)
