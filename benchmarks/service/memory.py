"""How much memory an API process takes while a model of two gigabytes goes up and its weights come down."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.live_service import live_service
from benchmarks.service.big_file import write_big_onnx
from torchpruner_client import Client

LAYERS = 7
"""Seven layers are 1.75 GiB; a single ONNX file cannot have more than two."""
LIMIT_MIB = 300.0


class Peak(threading.Thread):
    """Samples a process's resident memory, in MiB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._done = threading.Event()
        self.mib = 0.0

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.mib = max(self.mib, self._process.memory_info().rss / 2**20)

    def stop(self) -> float:
        self._done.set()
        self.join()
        return self.mib


def memory_figures() -> Iterator[Figure]:
    """Yield the peak over upload, analysis and download of the whole and of pruned weights."""
    with tempfile.TemporaryDirectory(prefix="tp-bench-") as folder, live_service() as service:
        file = Path(folder) / "big.onnx"
        size = write_big_onnx(file, LAYERS)
        peak = Peak(service.process)
        peak.start()
        with Client(service.url, progress=False) as client:
            remote = client.upload(file, weights=True)
            result = remote.cut_analysis("self.layers.0.weight", range(64))
            target = remote.download_pruned(result, Path(folder) / "pruned.safetensors")
            down = target.stat().st_size
        yield Figure.shown("bytes up", size / 2**30, "GiB")
        yield Figure.shown("bytes down", down / 2**30, "GiB")
        yield Figure.at_most("peak of the API process", peak.stop(), LIMIT_MIB, "MiB")
