"""Drives operations with blocking I/O."""

from __future__ import annotations

import hashlib
import time
from typing import Any, TypeVar

import httpx

from torchpruner_client.connection_settings import ConnectionSettings
from torchpruner_client.deprecation import warn_if_deprecated
from torchpruner_client.download_target import opened
from torchpruner_client.errors import error_of
from torchpruner_client.event_stream import EventReader
from torchpruner_client.steps import Call, Fetch, Flow, Step, Watch
from torchpruner_client.waiting import check, unreachable

T = TypeVar("T")


class SyncDriver:
    """Runs :data:`Flow` generators over one ``httpx.Client``."""

    def __init__(self, settings: ConnectionSettings, transport: httpx.BaseTransport | None) -> None:
        self._settings = settings
        self._http = httpx.Client(
            base_url=settings.url,
            headers=settings.headers(),
            timeout=settings.timeout,
            transport=transport,
        )

    def close(self) -> None:
        self._http.close()

    def run(self, flow: Flow[T]) -> T:
        """Take each step of ``flow`` and return its value; errors are raised inside it first."""
        try:
            step = next(flow)
            while True:
                try:
                    value = self._take(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            result: T = end.value
            return result

    def _take(self, step: Step) -> Any:
        if isinstance(step, Call):
            return self._call(step)
        if isinstance(step, Watch):
            return self._watch(step)
        return self._fetch(step)

    def _call(self, call: Call) -> httpx.Response:
        policy = self._settings.retries
        number = 0
        while True:
            number += 1
            try:
                content = call.body.chunks() if call.body is not None else None
                options = self._settings.request_options(call)
                response = self._http.request(call.method, call.path, content=content, **options)
            except httpx.TransportError as error:
                if not call.retry or number > policy.retries:
                    raise unreachable(self._settings.url, error) from error
                time.sleep(policy.wait(number))
                continue
            wait = policy.wait_after(response, number)
            if wait is not None:
                time.sleep(wait)
                continue
            if response.status_code >= 400 and response.status_code not in call.accept:
                raise error_of(response)
            warn_if_deprecated(response)
            return response

    def _watch(self, watch: Watch) -> dict[str, Any]:
        policy = self._settings.retries
        deadline = None if watch.timeout is None else time.monotonic() + watch.timeout
        number = 0
        while True:
            try:
                with self._http.stream(
                    "GET", watch.path, timeout=httpx.Timeout(30.0, connect=5.0)
                ) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        raise error_of(answer)
                    reader = EventReader()
                    for line in answer.iter_lines():
                        check(deadline, watch)
                        found = reader.line(line)
                        if found is None:
                            continue
                        number = 0
                        watch.on_event(found[1])
                        if found[0] == "end":
                            return found[1]
            except httpx.TransportError as error:
                number += 1
                if number > policy.retries:
                    raise unreachable(self._settings.url, error) from error
            check(deadline, watch)
            time.sleep(policy.wait(max(1, number)))

    def _fetch(self, fetch: Fetch) -> str:
        policy = self._settings.retries
        hasher = hashlib.sha256()
        done, number, etag = 0, 0, ""
        with opened(fetch.target) as file:
            while True:
                headers = {"Range": f"bytes={done}-", "If-Range": etag} if done else {}
                try:
                    with self._http.stream("GET", fetch.path, headers=headers) as answer:
                        if answer.status_code >= 400:
                            answer.read()
                            raise error_of(answer)
                        if answer.status_code != 206 and done:
                            file.seek(0)
                            file.truncate()
                            hasher, done = hashlib.sha256(), 0
                        etag = answer.headers.get("etag", "")
                        total = done + int(answer.headers.get("content-length", 0))
                        for chunk in answer.iter_bytes():
                            file.write(chunk)
                            hasher.update(chunk)
                            done += len(chunk)
                            number = 0
                            fetch.on_received(done, total)
                    return hasher.hexdigest()
                except httpx.TransportError as error:
                    number += 1
                    if number > policy.retries:
                        raise unreachable(self._settings.url, error) from error
                    time.sleep(policy.wait(number))
