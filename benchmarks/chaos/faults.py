"""What goes wrong: processes are killed, Redis too, the store stands still, garbage is collected."""

from __future__ import annotations

import collections
import random
import signal
import threading
import time

import psutil

from benchmarks.chaos.deployment import Deployment
from torchpruner_service.problems import Problem
from torchpruner_service.storage.garbage import collect, empty_trash

KILLED = ("api", "supervisor", "rq worker", "work-horse", "nursery", "sandboxed child", "redis")
FREEZE_SECONDS = (0.5, 4.0)
TRASH_SECONDS = 15.0


class Faults(threading.Thread):
    """One fault every one to four seconds until :meth:`finish`; ``done`` counts them by kind."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        super().__init__(name="faults", daemon=True)
        self.done: collections.Counter[str] = collections.Counter()
        self._deployment = deployment
        self._chance = random.Random(seed)
        self._finished = threading.Event()

    def finish(self) -> None:
        self._finished.set()
        self.join()

    def run(self) -> None:
        while not self._finished.wait(self._chance.uniform(1.0, 4.0)):
            kind = self._chance.choice([*KILLED, "store"])
            victims = self._deployment.processes(kind)
            if not victims:
                continue
            victim = self._chance.choice(victims)
            try:
                if kind == "store":
                    self._freeze(victim)
                else:
                    victim.send_signal(signal.SIGKILL)
                    self.done[f"{kind} killed"] += 1
            except psutil.NoSuchProcess:
                continue

    def _freeze(self, victim: psutil.Process) -> None:
        victim.suspend()
        time.sleep(self._chance.uniform(*FREEZE_SECONDS))
        victim.resume()
        self.done["store frozen"] += 1


class Collector(threading.Thread):
    """Garbage collection without any grace, all the time."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(name="collector", daemon=True)
        self.done: collections.Counter[str] = collections.Counter()
        self._objects = deployment.objects
        self._finished = threading.Event()

    def finish(self) -> None:
        self._finished.set()
        self.join()

    def run(self) -> None:
        while not self._finished.wait(1.0):
            try:
                moved = collect(self._objects, upload_ttl=3600, grace=0)
                self.done["put back"] += empty_trash(self._objects, TRASH_SECONDS)
            except Problem:
                # The store stands still, for instance.
                self.done["interrupted"] += 1
                continue
            self.done["collections"] += 1
            self.done["into the trash"] += moved.blobs + moved.models + moved.artifacts
