"""Large files through the service: speed beside a plain copy, and the memory of the API process."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
from onnx import TensorProto, helper

from benchmarks.figures import Figure
from benchmarks.live_service import LiveService

SIZE = 2_000_000_000
WIDTH = 10_000
CHUNK = 1 << 20
SHARE = 0.5
PEAK_MIB = 300.0


def transfer_figures(service: LiveService, folder: Path, size: int = SIZE) -> Iterator[Figure]:
    """Send an ONNX file of ``size`` bytes up, have it cut, fetch the weights."""
    source = folder / "large.onnx"
    write_model(source, size)
    size = source.stat().st_size
    up_plain = _seconds(lambda: _copy_and_hash(source, folder / "copy"))
    with PeakMemory(service.process) as peak:
        start = time.perf_counter()
        view = _upload(service, source)
        up = time.perf_counter() - start
        view = service.wait(view["id"], limit=600)
        artifact = _pruned_weights(service, view["id"])
        target = folder / "pruned.safetensors"
        start = time.perf_counter()
        _download(service, artifact["content"], target)
        down = time.perf_counter() - start
    down_size = target.stat().st_size
    down_plain = _seconds(lambda: shutil.copyfile(target, folder / "copy"))
    giga = f"{size / 1e9:.2f} GB"
    yield Figure.at_least(
        "upload: share of the speed of cp + sha256",
        up_plain / up,
        SHARE,
        "",
        f"{giga} in {up:.1f} s, plain {up_plain:.1f} s",
    )
    yield Figure.at_least(
        "pruned-weights download: share of the speed of cp",
        down_plain / down,
        SHARE,
        "",
        f"{down_size / 1e9:.2f} GB in {down:.1f} s, plain {down_plain:.1f} s",
    )
    yield Figure.at_most(
        f"memory of the API process while {giga} go up and come down", peak.mib, PEAK_MIB, "MiB"
    )


def write_model(path: Path, size: int) -> None:
    """Write a chain of square matrix products of ``size`` bytes in all, block by block."""
    layers = max(2, round(size / (4 * WIDTH * WIDTH)))
    block = np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32).tobytes()
    weights = [f"layers.{i}.weight" for i in range(layers)]
    names = ["x", *(f"h{i}" for i in range(layers - 1)), "y"]
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", [names[i], weights[i]], [names[i + 1]], f"/layers.{i}")
                for i in range(layers)
            ],
            "large",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, WIDTH))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, WIDTH))],
            [
                TensorProto(
                    dims=(WIDTH, WIDTH), data_type=TensorProto.FLOAT, name=name, raw_data=block
                )
                for name in weights
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    path.write_bytes(model.SerializeToString())


class PeakMemory:
    """Watches the resident memory of a process; ``mib`` is the most that was seen."""

    def __init__(self, process: psutil.Process) -> None:
        self.mib = 0.0
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self.mib = max(self.mib, self._process.memory_info().rss / 2**20)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _copy_and_hash(source: Path, target: Path) -> str:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _connection(service: LiveService) -> HTTPConnection:
    """The plainest client there is, so that the service is measured and not the client."""
    parts = urlsplit(service.url)
    assert parts.hostname is not None
    return HTTPConnection(parts.hostname, parts.port, blocksize=CHUNK, timeout=600)


def _upload(service: LiveService, source: Path) -> dict[str, Any]:
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(source.stat().st_size),
    }
    with closing(_connection(service)) as connection, source.open("rb") as file:
        connection.request("POST", "/v1/models?name=large", file, headers)
        answer = connection.getresponse()
        body: dict[str, Any] = json.loads(answer.read())
    if answer.status >= 300:
        raise RuntimeError(f"the upload was answered with {answer.status}: {body}")
    return body


def _pruned_weights(service: LiveService, model: str) -> dict[str, Any]:
    asked = {"node": "self.layers.0.weight", "index": list(range(100)), "dim": 1}
    result = service.client.post(f"/v1/models/{model}/cut-analysis", json=asked)
    result.raise_for_status()
    plain = {key: result.json()[key] for key in ("terminal", "iner", "operator")}
    answer = service.client.post(f"/v1/models/{model}/pruned-weights", json={"result": plain})
    answer.raise_for_status()
    shown: dict[str, Any] = answer.json()
    end = time.monotonic() + 600
    while shown["state"] not in {"ready", "failed", "cancelled"} and time.monotonic() < end:
        shown = service.client.get(f"/v1/artifacts/{shown['id']}?wait=30").json()
    if shown["state"] != "ready":
        raise RuntimeError(f"the pruned weights are {shown['state']}: {shown['problem']}")
    return shown


def _download(service: LiveService, path: str, target: Path) -> None:
    block = memoryview(bytearray(CHUNK))
    with closing(_connection(service)) as connection, target.open("wb", buffering=0) as file:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"the download was answered with {answer.status}")
        while count := answer.readinto(block):
            file.write(block[:count])
