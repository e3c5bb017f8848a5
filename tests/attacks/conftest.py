"""One service with tight limits, which all attacks share: the next file must work after each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService, running_service, until

# Long enough for a small model on a busy machine, short enough to wait for an endless one.
TIME_LIMIT = 20.0


@pytest.fixture(scope="session")
def target() -> Iterator[RunningService]:
    with running_service(
        TORCHPRUNER_JOB_TIMEOUT=str(int(TIME_LIMIT)),
        TORCHPRUNER_SANDBOX_CPU_SECONDS="30",
        TORCHPRUNER_SANDBOX_MEMORY=str(2 << 30),
        TORCHPRUNER_SANDBOX_FILE_BYTES=str(64 << 20),
    ) as running:
        yield running


class Attack:
    """Sends a file and checks what every attack must come to."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self._seed = int(time.monotonic() * 1000) % 1_000_000

    def fails(self, content: bytes, *inputs: str) -> dict[str, Any]:
        """Send a file that must be refused or end as failed, in time; return the problem."""
        answer = self.service.client.post(
            "/v1/models", params={"input": list(inputs)}, content=content
        )
        if answer.status_code == 202:
            shown = self.service.wait_model(answer.json()["id"])
            assert shown["state"] == "failed", shown
            problem: dict[str, Any] = shown["problem"]
        else:
            assert 400 <= answer.status_code < 500, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
        self.next_job_works()
        return problem

    def ends(self, content: bytes, *inputs: str) -> dict[str, Any]:
        """Send a file that may also succeed, but must end in time."""
        answer = self.service.client.post(
            "/v1/models", params={"input": list(inputs)}, content=content
        )
        shown: dict[str, Any] = answer.json()
        if answer.status_code == 202:
            shown = self.service.wait_model(shown["id"])
        else:
            assert 400 <= answer.status_code < 500, answer.text
        self.next_job_works()
        return shown

    def next_job_works(self) -> None:
        self._seed += 1
        shown = self.service.upload(small_file(self._seed).content, "x:1x3x8x8")
        assert shown["state"] == "ready", shown
        (nursery,) = self.service.processes("torchpruner_service.sandbox.nursery")
        until(lambda: not nursery.children())
        scratch = self.service.data_dir / "scratch"
        assert not [path for path in scratch.iterdir() if path.name.startswith("upload-")]


@pytest.fixture
def attack(target: RunningService) -> Attack:
    return Attack(target)
