"""After the storm: is everything there, has everything ended, is everything right?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import redis

from benchmarks.chaos.deployment import Deployment
from benchmarks.chaos.files import right_cut, right_weights
from benchmarks.chaos.ledger import Kept, Ledger
from torchpruner_service.state.keys import Keys

SETTLE_SECONDS = 240.0
SAMPLED = 40


@dataclass(frozen=True)
class Verdict:
    """How many of the acknowledged models were found, jobs that have not ended, and what is wrong."""

    acknowledged: int
    found: int
    stuck: int
    wrong: list[str]


def judge(deployment: Deployment, ledger: Ledger) -> Verdict:
    """Ask for each acknowledged model, as its tenant would."""
    end = time.monotonic() + SETTLE_SECONDS
    connection, keys = redis.Redis.from_url(deployment.valkey.url), Keys()
    while connection.zcard(keys.active) and time.monotonic() < end:
        time.sleep(0.5)
    kept = list(ledger.kept.values())
    wrong, found = list(ledger.wrong), 0
    with httpx.Client(base_url=deployment.urls[0], timeout=60.0) as client:
        for number, each in enumerate(kept):
            problems = list(
                _look_at(client, each, end, weights=number % (len(kept) // SAMPLED + 1) == 0)
            )
            found += not problems
            wrong += problems
    return Verdict(len(kept), found, int(connection.zcard(keys.active)), wrong)


def _look_at(client: httpx.Client, kept: Kept, end: float, weights: bool) -> Iterator[str]:
    headers = {"Authorization": f"Bearer {kept.key}"}
    path = f"/v1/models/{kept.model}"
    while True:
        answer = client.get(path, headers=headers, params={"wait": 5})
        state = answer.json().get("state")
        if answer.status_code == 503 or (state in {"queued", "running"} and time.monotonic() < end):
            continue
        break
    if answer.status_code != 200 or state != "ready":
        yield f"{kept.model} is {state or answer.status_code}: {answer.text[:300]}"
        return
    asked = {"node": "self.conv1.weight", "index": [1]}
    cut = client.post(f"{path}/cut-analysis", headers=headers, json=asked)
    if cut.status_code != 200 or not right_cut(cut.json(), 1):
        yield f"{kept.model} answers wrongly: {cut.text[:300]}"
        return
    if not weights or kept.cut is not None:
        return
    result = {key: value for key, value in cut.json().items() if key != "model"}
    made = client.post(f"{path}/pruned-weights", headers=headers, json={"result": result})
    while made.json().get("state") in {"queued", "running"} and time.monotonic() < end:
        made = client.get(f"/v1/artifacts/{made.json()['id']}", headers=headers, params={"wait": 5})
    content = client.get(str(made.json().get("content")), headers=headers)
    if content.status_code != 200 or not right_weights(kept.file, 1, content.content):
        yield f"{kept.model} has wrong weights: {made.text[:300]}"
