"""Uploads and downloads beside a plain copy with sha256 of the same file on the same disk."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.live_service import live_service
from benchmarks.service.big_file import write_big_onnx

LAYERS = 2
ROUNDS = 3
RATIO = 0.5
PIECE = 1 << 20


def transfer_figures() -> Iterator[Figure]:
    """Yield upload and download throughput as a fraction of the plain copy's."""
    with tempfile.TemporaryDirectory(prefix="tp-bench-") as folder, live_service() as service:
        file = Path(folder) / "big.onnx"
        size = write_big_onnx(file, LAYERS)
        copies, uploads = [], []
        for number in range(ROUNDS):
            # Other bytes each time: a known file would not be sent at all.
            with file.open("r+b") as handle:
                handle.seek(size // 2)
                handle.write(number.to_bytes(8, "little"))
            copies.append(_timed(lambda: _copy_and_hash(file, Path(folder) / "copy")))
            uploads.append(_timed(lambda: _send(service.client, file)))
        model = service.wait(service.client.get("/v1/models").json()["items"][0]["id"])["id"]
        made = service.client.post(f"/v1/models/{model}/pruned-weights", json={}).json()
        while made["state"] in {"queued", "running"}:
            made = service.client.get(f"/v1/artifacts/{made['id']}?wait=30").json()
        downloads = [
            _timed(lambda: _fetch(service.client, made["content"], Path(folder) / "down"))
            for _ in range(ROUNDS)
        ]
    plain = statistics.median(copies)
    mib = size / 2**20
    yield Figure.shown("plain copy + sha256", mib / plain, "MiB/s")
    yield Figure.shown("upload", mib / statistics.median(uploads), "MiB/s")
    yield Figure.shown("download", mib / statistics.median(downloads), "MiB/s", "hashed here")
    yield Figure.at_least(
        "upload, of the plain copy's speed", plain / statistics.median(uploads), RATIO, ""
    )
    yield Figure.at_least(
        "download, of the plain copy's speed", plain / statistics.median(downloads), RATIO, ""
    )


def _timed(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _copy_and_hash(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _send(client: object, file: Path) -> None:
    def pieces() -> Iterator[bytes]:
        with file.open("rb") as handle:
            while piece := handle.read(PIECE):
                yield piece

    headers = {"Content-Length": str(file.stat().st_size)}
    answer = client.post("/v1/models", content=pieces(), headers=headers)  # type: ignore[attr-defined]
    answer.raise_for_status()


def _fetch(client: object, path: str, target: Path) -> None:
    hasher = hashlib.sha256()
    with client.stream("GET", path) as answer, target.open("wb") as file:  # type: ignore[attr-defined]
        answer.raise_for_status()
        for chunk in answer.iter_raw():
            file.write(chunk)
            hasher.update(chunk)
    if answer.headers["etag"] != f'"{hasher.hexdigest()}"':
        raise RuntimeError("the download is damaged")
