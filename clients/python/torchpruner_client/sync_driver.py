"""Drives operations with blocking I/O."""

from __future__ import annotations

import time
from typing import Any, TypeVar

import httpx

from torchpruner_client.connection_settings import STREAM_TIMEOUT, ConnectionSettings
from torchpruner_client.deprecation import warn_if_deprecated
from torchpruner_client.download_target import opened
from torchpruner_client.errors import error_of
from torchpruner_client.following import Following
from torchpruner_client.patience import Patience
from torchpruner_client.steps import Call, Fetch, Flow, Step, Watch
from torchpruner_client.transfer import Transfer
from torchpruner_client.waiting import unreachable

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
        following = Following(watch, self._patience())
        while True:
            try:
                with self._http.stream("GET", watch.path, timeout=STREAM_TIMEOUT) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        wait = following.refused(answer)
                    else:
                        following.begin()
                        for line in answer.iter_lines():
                            ended = following.line(line)
                            if ended is not None:
                                return ended
                        wait = following.broke()
            except httpx.TransportError as error:
                wait = following.broke(error)
            time.sleep(wait)

    def _fetch(self, fetch: Fetch) -> str:
        with opened(fetch.target) as file:
            transfer = Transfer(fetch, file, self._patience())
            while True:
                try:
                    with self._http.stream("GET", fetch.path, headers=transfer.headers()) as answer:
                        if answer.status_code >= 400:
                            answer.read()
                            wait = transfer.refused(answer)
                        else:
                            transfer.begin(answer)
                            for chunk in answer.iter_bytes():
                                transfer.take(chunk)
                            return transfer.digest()
                except httpx.TransportError as error:
                    wait = transfer.broke(error)
                time.sleep(wait)

    def _patience(self) -> Patience:
        return Patience(self._settings.retries, self._settings.url)
