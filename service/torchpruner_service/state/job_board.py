"""Jobs: submitted once, run by one work-horse at a time, never stuck.

The state of a job is a Redis hash; every change is one script, so that two API processes or a late
work-horse cannot undo each other's. The request of a job that has not ended is also in the object
store, from which it comes back when Redis lost everything.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import replace as changed_copy
from typing import Any

import redis
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer

from torchpruner_service.identity import engine_version
from torchpruner_service.problems import Conflict
from torchpruner_service.settings import Settings
from torchpruner_service.state.fair_queue import FairQueue, line_of
from torchpruner_service.state.hook_line import CALL_WATCHERS, HOOKS, event_of
from torchpruner_service.state.job_record import JobRecord, State, queue_of
from torchpruner_service.state.keys import Keys
from torchpruner_service.state.turns import Taken, Turns
from torchpruner_service.storage import layout
from torchpruner_service.storage.objects import Objects

ENTRY_POINT = "torchpruner_service.worker.horse.run_job"

LISTED_JOBS = 500
"""How many of its newest jobs a tenant can list."""

MAX_WATCHERS = 100
"""How many webhooks may wait for one job."""

# KEYS: hash, active. ARGV: id, score, number of states to replace, those, then field/value pairs.
_SUBMIT = """
local state = redis.call('HGET', KEYS[1], 'state')
if state then
  local again = false
  for i = 1, tonumber(ARGV[3]) do
    if state == ARGV[3 + i] then again = true end
  end
  if not again then return 0 end
  redis.call('DEL', KEYS[1])
end
local first = 4 + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], unpack(ARGV, first))
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return 1
"""

# KEYS: hash, active, the webhooks' line. ARGV: id, attempt ('' for any), ended (0/1), ttl, then
# field/value pairs.
_CHANGE = (
    CALL_WATCHERS
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 0 end
if state == '"ready"' or state == '"failed"' or state == '"cancelled"' then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
if ARGV[3] == '1' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  call_watchers(KEYS[1], KEYS[3])
end
return 1
"""
)

# KEYS: hash. ARGV: tenant, webhooks as a JSON list. 1: waits too; 0: the job has ended or is unknown;
# 2: too many webhooks wait already.
_JOIN = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= '"queued"' and state ~= '"running"' then return 0 end
local watchers = cjson.decode(redis.call('HGET', KEYS[1], 'watchers') or '[]')
local known = {}
for _, each in ipairs(watchers) do known[cjson.encode(each)] = true end
for _, each in ipairs(cjson.decode(ARGV[2])) do
  if not known[cjson.encode(each)] then table.insert(watchers, each) end
end
if #watchers > %d then return 2 end
if #watchers > 0 then redis.call('HSET', KEYS[1], 'watchers', cjson.encode(watchers)) end
local function without(field)
  local kept = {}
  for _, each in ipairs(cjson.decode(redis.call('HGET', KEYS[1], field) or '[]')) do
    if each ~= ARGV[1] then table.insert(kept, each) end
  end
  return kept
end
local tenants, left = without('tenants'), without('left')
table.insert(tenants, ARGV[1])
redis.call('HSET', KEYS[1], 'tenants', cjson.encode(tenants))
redis.call('HSET', KEYS[1], 'left', #left > 0 and cjson.encode(left) or '[]')
return 1
"""

# KEYS: hash, active. ARGV: tenant, id, ttl, then field/value pairs for the end of the job. 2: the
# last tenant left and the job has ended; 1: others wait for it; 0: it had ended, or is unknown.
_LEAVE = """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= '"queued"' and state ~= '"running"' then return 0 end
local tenants, watchers = {}, {}
for _, each in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'tenants') or '[]')) do
  if each ~= ARGV[1] then table.insert(tenants, each) end
end
if #tenants == 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV, 4))
  redis.call('ZREM', KEYS[2], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
  return 2
end
for _, each in ipairs(cjson.decode(redis.call('HGET', KEYS[1], 'watchers') or '[]')) do
  if each.tenant ~= ARGV[1] then table.insert(watchers, each) end
end
local left = cjson.decode(redis.call('HGET', KEYS[1], 'left') or '[]')
table.insert(left, ARGV[1])
redis.call('HSET', KEYS[1], 'tenants', cjson.encode(tenants), 'left', cjson.encode(left),
  'tenant', cjson.encode(tenants[1]), 'watchers', #watchers > 0 and cjson.encode(watchers) or '[]')
return 1
"""

# KEYS: lease. ARGV: holder, seconds. True when the lease is this holder's now.
_TAKE_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_DROP_LEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class JobBoard:
    """All jobs of a deployment. Blocking: the API calls it from threads."""

    def __init__(self, connection: Any, objects: Objects, settings: Settings) -> None:
        self.connection = connection
        self.objects = objects
        self.settings = settings
        self.keys = Keys(settings.redis_prefix)
        self.turns = Turns(connection, self.keys)
        self._submit = connection.register_script(_SUBMIT)
        self._change = connection.register_script(_CHANGE)
        self._join = connection.register_script(_JOIN % MAX_WATCHERS)
        self._leave = connection.register_script(_LEAVE)
        self._take = connection.register_script(_TAKE_LEASE)
        self._drop = connection.register_script(_DROP_LEASE)

    def get(self, job: str) -> JobRecord | None:
        return JobRecord.from_hash(self.connection.hgetall(self.keys.job(job)))

    def submit(self, record: JobRecord, replace: Iterable[State] = ("cancelled",)) -> bool:
        """Queue a job unless it is there already; return whether this call queued it.

        A job in one of the states ``replace`` is started afresh. The request is durable before
        this returns.
        """
        known = self.get(record.id)
        replaced = [json.dumps(state) for state in replace]
        if known is not None and json.dumps(known.state) not in replaced:
            return False
        record.engine = record.engine or engine_version()
        self.objects.put_json(layout.pending(record.id), record.to_request())
        if not self._put(record, replaced):
            return False
        self.enqueue(record)
        return True

    def adopt(self, record: JobRecord) -> bool:
        """Queue a job, which waits for workers of an older engine, for those of this one."""
        left_line, item = line(record), rq_id(record)
        if not self._update(record, engine=engine_version()):
            return False
        record.engine = engine_version()
        self.objects.put_json(layout.pending(record.id), record.to_request())
        self.turns.withdraw(left_line, record.lane, item)
        self.connection.lrem(self._queue(record).key, 1, item)
        self.enqueue(record)
        return True

    def restore(self, record: JobRecord) -> bool:
        """Queue a job whose request is in the object store and that Redis has forgotten.

        Redis may remember an end from before the request: its last writes are what it loses. A request
        from before the end is what a process left behind that died while it ended the job.
        """
        known = self.get(record.id)
        if known is not None and known.ended and record.queued_at <= (known.ended_at or 0.0):
            self.objects.delete(layout.pending(record.id))
            return False
        replaced = [json.dumps(known.state)] if known is not None and known.ended else []
        if not self._put(record, replaced):
            return False
        self.enqueue(record)
        return True

    def enqueue(self, record: JobRecord) -> None:
        """Put a queued job into its RQ queue, under a name that this attempt alone has."""
        self._queue(record).enqueue(
            ENTRY_POINT,
            args=(record.id, record.attempt),
            job_id=rq_id(record),
            job_timeout=self.settings.job_timeout + 30,
            result_ttl=60,
            failure_ttl=3600,
            description=f"{record.kind} {record.model}",
        )

    def start(self, record: JobRecord) -> bool:
        changed = self._update(record, state="running", stage="starting", started_at=time.time())
        if changed:
            record.state = "running"
        return changed

    def progress(self, record: JobRecord, stage: str, percent: float) -> bool:
        """Note how far a job is; ``False`` where it is not this attempt's any more."""
        return self._update(record, stage=stage, percent=round(percent, 1))

    def ready(self, record: JobRecord, result: dict[str, Any]) -> bool:
        return self._end(record, state="ready", stage="ready", percent=100.0, result=result)

    def fail(self, record: JobRecord, problem: dict[str, Any]) -> bool:
        return self._end(record, state="failed", stage="failed", problem=problem)

    def join(self, record: JobRecord) -> bool:
        """Have the tenant and webhooks of ``record`` wait for a job that is there already.

        ``False`` where it has ended. Raises ``Conflict`` where too many webhooks wait for it.
        """
        joined = self._join(
            keys=[self.keys.job(record.id)], args=[record.tenant, json.dumps(record.watchers)]
        )
        if joined == 2:
            raise Conflict(
                f"{MAX_WATCHERS} webhooks wait for this job already; poll it, or follow its events",
                slug="too-many-webhooks",
                job=record.id,
            )
        current = self.get(record.id) if joined else None
        if current is None:
            return False
        self._list(record)
        self._note_request(current)
        return True

    def tell(self, record: JobRecord) -> None:
        """Have the webhooks of ``record``, whose job had ended before they came, called now."""
        for watcher in record.watchers:
            waiting = {"watcher": watcher, "event": event_of(record)}
            self.turns.push(HOOKS, str(watcher.get("tenant", record.tenant)), json.dumps(waiting))

    def leave(self, record: JobRecord, tenant: str) -> bool:
        """Take ``tenant`` from those who wait for a job; the last one to leave cancels it.

        A queued job that is cancelled never starts, a running one is stopped by its work-horse.
        Return whether the job was cancelled.
        """
        ended = {"state": "cancelled", "stage": "cancelled", "ended_at": time.time()}
        pairs = _pairs({key: json.dumps(value) for key, value in ended.items()})
        left = self._leave(
            keys=[self.keys.job(record.id), self.keys.active],
            args=[tenant, record.id, self.settings.result_ttl, *pairs],
        )
        if left == 1:
            current = self.get(record.id)
            if current is not None:
                self._note_request(current)
        elif left == 2:
            self.objects.delete(layout.pending(record.id))
            current = self.get(record.id)
            if current is not None and not current.ended:
                # Asked for again meanwhile, and the request that just went was the new one's.
                self._note_request(current)
            with contextlib.suppress(NoSuchJobError):
                self._rq_job(record).delete()
        return bool(left == 2)

    def again(self, record: JobRecord, stage: str) -> bool:
        """Queue the next attempt of a job whose worker was lost."""
        previous = record.attempt
        record.engine = record.engine or engine_version()
        record.lane = record.lane or record.tenant
        if not self._update(
            record,
            state="queued",
            stage=stage,
            percent=0.0,
            attempt=previous + 1,
            started_at=None,
            engine=record.engine,
            lane=record.lane,
        ):
            return False
        record.attempt, record.state = previous + 1, "queued"
        self.objects.put_json(layout.pending(record.id), record.to_request())
        self.enqueue(record)
        return True

    def take_lease(self, record: JobRecord, holder: str) -> bool:
        """Claim or renew the right to run a job; it lapses by itself after ``lease_seconds``."""
        seconds = self.settings.lease_seconds
        args = [holder, int(seconds * 1000)]
        if not self._take(keys=[self.keys.lease(record.id)], args=args):
            return False
        self.turns.keep(_taken(record), seconds)
        return True

    def end_turn(self, record: JobRecord, item: str | None = None) -> None:
        """Say that an attempt (RQ's id of it is ``item``) no longer runs, so that its tenant's next
        job may."""
        taken = _taken(record)
        self.turns.done(taken if item is None else changed_copy(taken, item=item))

    def drop_lease(self, job: str, holder: str) -> None:
        self._drop(keys=[self.keys.lease(job)], args=[holder])

    def lease_holder(self, job: str) -> str | None:
        holder = self.connection.get(self.keys.lease(job))
        return None if holder is None else str(holder.decode())

    def active(self) -> list[str]:
        """Jobs that have not ended, oldest first."""
        return [item.decode() for item in self.connection.zrange(self.keys.active, 0, -1)]

    def newest(self, tenant: str) -> list[JobRecord]:
        """The jobs that ``tenant`` started and that are not forgotten yet, newest first."""
        names = self.connection.zrevrange(self.keys.tenant_jobs(tenant), 0, -1)
        pipe = self.connection.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self.keys.job(name.decode()))
        found = [JobRecord.from_hash(data) for data in pipe.execute()]
        return [record for record in found if record is not None]

    def forget_active(self, job: str) -> None:
        self.connection.zrem(self.keys.active, job)

    def waits_in_queue(self, record: JobRecord) -> bool:
        """Whether RQ still holds this attempt, waiting or taken a moment ago."""
        try:
            status = self._rq_job(record).get_status()
        except (NoSuchJobError, redis.RedisError, ValueError):
            return False
        if status in {JobStatus.FAILED, JobStatus.FINISHED, JobStatus.STOPPED, JobStatus.CANCELED}:
            return False
        return self.turns.waits(line(record), record.lane, rq_id(record))

    def queue_depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for name in self.settings.queues:
            depths[name] = int(self.connection.llen(self.keys.waiting(name)))
        return depths

    def queue(self, name: str) -> FairQueue:
        """RQ's queue of that name."""
        return FairQueue(
            self.keys.queue(name), connection=self.connection, serializer=JSONSerializer
        )

    def _queue(self, record: JobRecord) -> FairQueue:
        queue = self.queue(queue_of(record))
        return queue.for_lane(self.turns, line(record), record.lane)

    def _rq_job(self, record: JobRecord) -> Job:
        return Job.fetch(rq_id(record), connection=self.connection, serializer=JSONSerializer)

    def _put(self, record: JobRecord, replaced: list[str]) -> bool:
        record.engine, record.lane = record.engine or engine_version(), record.tenant
        pairs = _pairs(record.to_hash())
        put = self._submit(
            keys=[self.keys.job(record.id), self.keys.active],
            args=[record.id, record.queued_at, len(replaced), *replaced, *pairs],
        )
        if put:
            self._list(record)
        return bool(put)

    def _note_request(self, record: JobRecord) -> None:
        """Write the request of a job anew; it may have ended meanwhile, and must not come back."""
        self.objects.put_json(layout.pending(record.id), record.to_request())
        current = self.get(record.id)
        if current is not None and current.ended:
            self.objects.delete(layout.pending(record.id))

    def _list(self, record: JobRecord) -> None:
        key = self.keys.tenant_jobs(record.tenant)
        pipe = self.connection.pipeline(transaction=False)
        pipe.zadd(key, {record.id: record.queued_at})
        pipe.zremrangebyrank(key, 0, -LISTED_JOBS - 1)
        pipe.expire(key, self.settings.result_ttl)
        pipe.execute()

    def _update(
        self, record: JobRecord, *, ended: bool = False, any_attempt: bool = False, **fields: Any
    ) -> bool:
        pairs = _pairs({key: json.dumps(value) for key, value in fields.items()})
        attempt = "" if any_attempt else json.dumps(record.attempt)
        return bool(
            self._change(
                keys=[self.keys.job(record.id), self.keys.active, self.keys.line(HOOKS)],
                args=[record.id, attempt, int(ended), self.settings.result_ttl, *pairs],
            )
        )

    def _end(self, record: JobRecord, *, any_attempt: bool = False, **fields: Any) -> bool:
        changed = self._update(
            record, ended=True, any_attempt=any_attempt, ended_at=time.time(), **fields
        )
        if changed:
            for key, value in fields.items():
                setattr(record, key, value)
            self.objects.delete(layout.pending(record.id))
        return changed


def line(record: JobRecord) -> str:
    """The line that a job waits in."""
    return line_of(queue_of(record), record.engine)


def _taken(record: JobRecord) -> Taken:
    return Taken(line(record), record.lane, rq_id(record))


def rq_id(record: JobRecord) -> str:
    """RQ's id of one attempt; RQ takes letters, digits, ``-`` and ``_`` only.

    The time makes a job that is submitted again after it was cancelled another one for RQ.
    """
    return f"{record.id}-{record.attempt}-{int(record.queued_at * 1000)}"


def _pairs(fields: dict[str, str]) -> list[str]:
    return [item for pair in fields.items() for item in pair]
