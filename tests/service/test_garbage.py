"""What nobody owns is removed; what somebody needs is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.models import small_file
from tests.service.running import RunningService, running_service
from torchpruner_service.storage.garbage import sweep_scratch


@pytest.fixture(scope="module")
def own() -> Iterator[RunningService]:
    with running_service() as running:
        yield running


def gc(service: RunningService, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "torchpruner_service.cli", "gc", *arguments],
        env={**service.environment, "TORCHPRUNER_DATA_DIR": str(service.data_dir)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def stored(service: RunningService, text: str) -> list[Path]:
    """Files that ``text`` is part of the path of, but for the audit trail's, which stay."""
    return [
        path
        for path in (service.data_dir / "objects").rglob("*")
        if text in str(path) and path.is_file() and path.parent.name != "audit"
    ]


def test_a_removed_model_s_file_goes_after_the_grace_time(own: RunningService) -> None:
    gone = own.upload(small_file(1601).content, "x:1x3x8x8")
    kept = own.upload(small_file(1602).content, "x:1x3x8x8")
    own.client.delete(f"/v1/models/{gone['id']}")
    assert own.client.head(f"/v1/blobs/{gone['blob']}").status_code == 404
    gc(own)
    assert stored(own, gone["blob"])
    gc(own, "--grace", "0")
    assert not stored(own, gone["blob"]) and not stored(own, gone["id"])
    assert own.artifact(kept["id"], "pruned-weights")["state"] == "ready"
    again = own.upload(small_file(1601).content, "x:1x3x8x8")
    assert again["state"] == "ready"
    assert {path.name for path in stored(own, again["id"])} >= {"manifest.json", "solved.bin"}
    assert own.artifact(again["id"], "pruned-weights")["state"] == "ready"


def test_a_derived_model_keeps_the_file_it_came_from(own: RunningService) -> None:
    parent = own.upload(small_file(1603).content, "x:1x3x8x8")
    cut = own.cut(parent["id"], "self.conv1.weight", [0])
    cut.pop("model")
    child = own.client.post(f"/v1/models/{parent['id']}/derive", json={"result": cut}).json()
    own.client.delete(f"/v1/models/{parent['id']}")
    gc(own, "--grace", "0")
    assert own.artifact(child["id"], "pruned-weights")["state"] == "ready"


def test_a_quota_of_bytes_is_freed_by_removing_models(own: RunningService) -> None:
    file = small_file(1604)
    first, second = own.upload(file.content, "x:1x3x8x8"), own.upload(file.content, "x:2x3x8x8")
    own.client.delete(f"/v1/models/{first['id']}")
    assert own.client.head(f"/v1/blobs/{first['blob']}").status_code == 200
    own.client.delete(f"/v1/models/{second['id']}")
    assert own.client.head(f"/v1/blobs/{first['blob']}").status_code == 404


def test_what_a_killed_process_staged_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / "upload-old", tmp_path / "upload-new"
    folder = tmp_path / "job-old"
    folder.mkdir()
    for path in (old, new, folder / "x"):
        path.write_bytes(b"x")
    for path in (old, folder):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert sweep_scratch(tmp_path, 3600) == 2
    assert list(tmp_path.iterdir()) == [new]
