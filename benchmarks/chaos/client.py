"""One client of thirty: does what people do, over and over, and looks at every answer."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from typing import Any

import httpx

from benchmarks.chaos.files import File, make_file, right_cut, right_weights
from benchmarks.chaos.ledger import Kept, Ledger

REFUSALS = frozenset({429, 502, 503, 504, 507})
"""Answers that say "not now": the caller was told and lost nothing."""
TRIES = 40
WIDE = 128


class Refused(Exception):
    """A request that was refused again and again: told, and given up."""


class ChaosClient(threading.Thread):
    """Works until :meth:`finish`. Files of seeds below ``shared`` are sent by everybody."""

    def __init__(
        self, number: int, key: str, urls: list[str], shared: list[File], ledger: Ledger
    ) -> None:
        super().__init__(name=f"client-{number}", daemon=True)
        self._number = number
        self._key = key
        self._urls = urls
        self._shared = shared
        self._ledger = ledger
        self._chance = random.Random(number)
        self._finished = threading.Event()
        self._seed = 10_000 * (number + 1)
        self._mine: list[Kept] = []
        self._http = httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=30.0)

    def finish(self) -> None:
        self._finished.set()

    def run(self) -> None:
        acts = [
            (self._upload, 4), (self._upload_in_parts, 1), (self._upload_again, 2), (self._ask, 6),
            (self._list, 2), (self._derive, 2), (self._weights, 2), (self._onnx, 1),
            (self._attach, 1), (self._latency, 1), (self._follow, 1), (self._remove, 2),
            (self._cancel, 1),
        ]  # fmt: skip
        names, weights = zip(*acts, strict=True)
        while not self._finished.is_set():
            act = self._chance.choices(names, weights)[0]
            try:
                act()
                self._ledger.count("acts")
            except Refused:
                self._ledger.count("given up")
            except Exception as error:
                self._ledger.mistake(f"{act.__name__}: {type(error).__name__}: {error}")
            self._finished.wait(self._chance.uniform(0.05, 0.5))
        self._http.close()

    # What a client does

    def _upload(self) -> None:
        shared = self._chance.random() < 0.3
        file = self._chance.choice(self._shared) if shared else self._new_file()
        shown = self._send(file.content)
        self._keep(Kept(self._key, shown["id"], file), mine=not shared)

    def _upload_in_parts(self) -> None:
        file = self._new_file()
        half = len(file.content) // 2
        started = self._call("POST", "/v1/uploads", json={"length": len(file.content)}).json()
        path, offset = f"/v1/uploads/{started['id']}", 0
        while offset < len(file.content):
            part = file.content[offset : max(half, offset + 1) if offset < half else None]
            answer = self._call(
                "PATCH", path, content=part, headers={"Upload-Offset": str(offset)}, also={409, 404}
            )
            if answer.status_code == 404:
                return  # deleted by nobody, but a refused start may leave none
            offset = int(answer.headers["upload-offset"])
        shown = self._call("POST", "/v1/models", json={"upload": started["id"]}, also={404}).json()
        if "id" in shown:
            self._keep(Kept(self._key, shown["id"], file))

    def _upload_again(self) -> None:
        kept = self._some()
        answer = self._call("POST", "/v1/models", json={"blob": kept.file.digest}, also={404})
        if answer.status_code != 404:
            self._keep(Kept(self._key, answer.json()["id"], kept.file), mine=False)

    def _ask(self) -> None:
        kept = self._some()
        self._call("HEAD", f"/v1/blobs/{kept.file.digest}", also={404})
        index = self._chance.randrange(4)
        answer = self._of(
            kept, "POST", "cut-analysis", json={"node": "self.conv1.weight", "index": [index]}
        )
        if answer is not None:
            self._expect(right_cut(answer.json(), index), "a wrong cut", answer)
            self._ledger.count("cuts right")
        for what in ("groups", "modules", "flops", "lineage"):
            self._of(kept, "GET", what)

    def _list(self) -> None:
        listed = self._call("GET", "/v1/models", params={"limit": 1000}).json()
        self._expect(listed["total"] >= 0, "no total", None)
        for path in ("/v1/jobs", "/v1/workers", "/v1"):
            self._call("GET", path)

    def _derive(self) -> None:
        kept = self._some()
        if kept.cut is not None:
            return
        index = self._chance.randrange(4)
        answer = self._of(
            kept, "POST", "cut-analysis", json={"node": "self.conv1.weight", "index": [index]}
        )
        if answer is None:
            return
        result = {key: value for key, value in answer.json().items() if key != "model"}
        made = self._of(kept, "POST", "derive", json={"result": result})
        if made is not None:
            self._keep(Kept(self._key, made.json()["id"], kept.file, index), mine=False)

    def _weights(self) -> None:
        kept = self._some()
        index = self._chance.randrange(4)
        cut = {"node": "self.conv1.weight", "index": [index]}
        answer = self._of(kept, "POST", "cut-analysis", json=cut)
        if answer is None or kept.cut is not None:
            return
        result = {key: value for key, value in answer.json().items() if key != "model"}
        content = self._made(kept, "pruned-weights", {"result": result})
        if content is not None:
            self._expect(right_weights(kept.file, index, content), "wrong weights", None)
            self._ledger.count("downloads right")

    def _onnx(self) -> None:
        content = self._made(self._some(), "pruned-onnx", {})
        if content is not None:
            self._ledger.count("downloads right")

    def _attach(self) -> None:
        self._seed += 1
        file = make_file(self._seed, WIDE)
        shown = self._send(file.weightless())
        model = shown["id"]
        if self._end(f"/v1/models/{model}") is None:
            return
        job = self._call(
            "POST", f"/v1/models/{model}/weights", content=file.content, also={404, 409}
        )
        if job.status_code in (404, 409):
            return
        ended = self._end(f"/v1/jobs/{job.json()['id']}")
        if ended is not None and ended["state"] == "ready":
            self._keep(Kept(self._key, model, file))
            self._ledger.count("weights attached")

    def _latency(self) -> None:
        kept = self._some()
        made = self._of(kept, "POST", "latency", json={"runs": 5, "warm_up": 1})
        if made is not None:
            self._end(f"/v1/jobs/{made.json()['id']}")

    def _follow(self) -> None:
        shown = self._send(self._new_file().content)
        try:
            with self._http.stream(
                "GET", f"{self._url()}/v1/models/{shown['id']}/events", timeout=5.0
            ) as events:
                for line in events.iter_lines():
                    if line == "event: end" or self._finished.is_set():
                        break
        except httpx.TransportError:
            self._ledger.count("refused")

    def _remove(self) -> None:
        if len(self._mine) < 5:
            return
        kept = self._mine.pop(self._chance.randrange(len(self._mine)))
        self._ledger.forget(kept)
        self._call("DELETE", f"/v1/models/{kept.model}", also={404})
        self._ledger.count("removed")

    def _cancel(self) -> None:
        """Cancel a build, and want it after all."""
        file = self._new_file()
        shown = self._send(file.content)
        self._call("DELETE", f"/v1/jobs/{shown['job']}", also={404})
        again = self._send(file.content)
        self._keep(Kept(self._key, again["id"], file))

    # How it asks

    def _send(self, content: bytes) -> dict[str, Any]:
        shown: dict[str, Any] = self._call("POST", "/v1/models", content=content).json()
        self._ledger.count("uploads acknowledged")
        return shown

    def _of(self, kept: Kept, method: str, what: str, **options: Any) -> httpx.Response | None:
        """Ask about a model that is kept: it may not be ready, and must be known."""
        path = f"/v1/models/{kept.model}/{what}"
        answer = self._call(method, path, also={404, 409}, **options)
        if answer.status_code == 404:
            known = self._ledger.kept.get((kept.key, kept.model))
            self._expect(known is None, "an acknowledged model is unknown", answer)
            return None
        if answer.status_code == 409:
            expected = {"model-not-ready", "weights-required", "model-cancelled"}
            self._expect(answer.json()["type"] in expected, "an odd conflict", answer)
            return None
        return answer

    def _made(self, kept: Kept, kind: str, body: dict[str, Any]) -> bytes | None:
        """Have a file made and download it."""
        answer = self._of(kept, "POST", kind, json=body)
        if answer is None:
            return None
        artifact = answer.json()["id"]
        shown = self._end(f"/v1/artifacts/{artifact}")
        if shown is None or shown["state"] != "ready":
            return None
        whole = self._call("GET", shown["content"], also={404})
        if whole.status_code == 404:
            return None  # its model was removed meanwhile
        right = hashlib.sha256(whole.content).hexdigest() == shown["sha256"]
        self._expect(right, "a damaged download", None)
        return whole.content

    def _end(self, path: str) -> dict[str, Any] | None:
        """Wait for something to end; ``None`` where the client is finished before."""
        while not self._finished.is_set():
            answer = self._call("GET", path, params={"wait": 5}, also={404})
            if answer.status_code == 404:
                return None
            shown: dict[str, Any] = answer.json()
            if shown["state"] == "failed":
                self._expect(bool(shown["problem"].get("retryable")), "a failed job", answer)
                return None
            if shown["state"] in {"ready", "cancelled"}:
                return shown
        return None

    def _call(
        self, method: str, path: str, also: frozenset[int] | set[int] = frozenset(), **options: Any
    ) -> httpx.Response:
        """Ask until there is an answer other than "not now". Raises ``Refused``."""
        for number in range(TRIES):
            self._ledger.count("requests")
            try:
                answer = self._http.request(method, f"{self._url()}{path}", **options)
            except httpx.TransportError:
                self._ledger.count("refused")
                time.sleep(min(2.0, 0.05 * 2**number))
                continue
            if answer.status_code in REFUSALS:
                self._ledger.count("refused")
                time.sleep(min(2.0, 0.05 * 2**number))
                continue
            if answer.status_code >= 400 and answer.status_code not in also:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            return answer
        raise Refused

    def _url(self) -> str:
        return self._chance.choice(self._urls)

    def _some(self) -> Kept:
        mine = self._ledger.of(self._key)
        if not mine:
            self._upload()
            mine = self._ledger.of(self._key)
        return self._chance.choice(mine)

    def _keep(self, kept: Kept, *, mine: bool = True) -> None:
        self._ledger.acknowledge(kept)
        if mine:
            self._mine.append(kept)

    def _new_file(self) -> File:
        self._seed += 1
        return make_file(self._seed)

    def _expect(self, holds: bool, words: str, answer: httpx.Response | None) -> None:
        if not holds:
            text = "" if answer is None else json.dumps(answer.text[:300])
            self._ledger.mistake(f"{words} {text}")
