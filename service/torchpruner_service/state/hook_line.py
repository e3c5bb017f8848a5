"""The line in which webhooks of ended jobs wait to be called.

The script that ends a job puts its webhooks there, so no process can die between the two.
"""

from __future__ import annotations

from typing import Any

from torchpruner_service.state.job_record import JobRecord
from torchpruner_service.state.turns import PUSH

HOOKS = "webhooks"

# Gives `call_watchers(job, line)`. A waiting call is a JSON object: `watcher` and the `event` to send.
CALL_WATCHERS = (
    PUSH
    + """
local function call_watchers(job, line)
  local field = {}
  for _, name in ipairs({'watchers', 'tenant', 'id', 'kind', 'model', 'state', 'problem', 'ended_at'}) do
    field[name] = redis.call('HGET', job, name) or 'null'
  end
  if field.watchers == 'null' or field.watchers == '[]' then return end
  local event = '{"event":"job.' .. string.sub(field.state, 2) .. ',"job":' .. field.id
    .. ',"kind":' .. field.kind .. ',"model":' .. field.model .. ',"state":' .. field.state
    .. ',"problem":' .. field.problem .. ',"ended_at":' .. field.ended_at .. '}'
  for _, each in ipairs(cjson.decode(field.watchers)) do
    local tenant = each.tenant or cjson.decode(field.tenant)
    push(line, tenant, '{"watcher":' .. cjson.encode(each) .. ',"event":' .. event .. '}')
  end
end
"""
)


def event_of(record: JobRecord) -> dict[str, Any]:
    """What a webhook is told of a job: the same as the script above writes."""
    told = ("kind", "model", "state", "problem", "ended_at")
    event = {"event": f"job.{record.state}", "job": record.id}
    return {**event, **{name: getattr(record, name) for name in told}}
