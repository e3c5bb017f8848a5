"""Progress over server-sent events, long polls, cancelling, webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from queue import Queue
from typing import Any

import pytest

from tests.service.models import ModelFile, small_file
from tests.service.running import PATIENCE, RunningService, running_service

SECRET = "a secret between us"


class Receiver(BaseHTTPRequestHandler):
    calls: Queue[tuple[dict[str, str], bytes]]
    refuse = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.put((dict(self.headers), body))
        status = 500 if type(self).refuse > 0 else 204
        type(self).refuse -= 1
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def hooked() -> Iterator[RunningService]:
    with running_service(TORCHPRUNER_WEBHOOK_ALLOW_PRIVATE="true") as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    class Own(Receiver):
        pass

    Own.calls = Queue()

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?a=1", Own
    server.shutdown()
    server.server_close()


def send(service: RunningService, seed: int, url: str, inputs: str = "x:1x3x8x8") -> Any:
    return service.client.post(
        "/v1/models",
        params={"input": inputs},
        content=small_file(seed).content,
        headers={"Torchpruner-Webhook": url, "Torchpruner-Webhook-Secret": SECRET},
    )


def test_a_webhook_is_called_and_signed(
    hooked: RunningService, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    model = send(hooked, 1001, url).json()["id"]
    headers, body = own.calls.get(timeout=PATIENCE)
    parts = dict(part.split("=", 1) for part in headers["Torchpruner-Signature"].split(","))
    expected = hmac.new(SECRET.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256)
    assert hmac.compare_digest(parts["v1"], expected.hexdigest())
    told = json.loads(body)
    assert (told["event"], told["model"], told["state"]) == ("job.ready", model, "ready")


def test_a_failed_build_is_told_too(
    hooked: RunningService, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    send(hooked, 1002, url, "x:1x9x8x8")
    told = json.loads(own.calls.get(timeout=PATIENCE)[1])
    assert told["event"] == "job.failed" and told["problem"]["type"]


def test_a_webhook_that_falters_is_called_again(
    hooked: RunningService, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    own.refuse = 1
    model = send(hooked, 1003, url).json()["id"]
    first, second = own.calls.get(timeout=PATIENCE), own.calls.get(timeout=PATIENCE)
    assert first[1] == second[1]
    assert hooked.wait_model(model)["state"] == "ready"


def test_a_webhook_that_nobody_hears_fails_nothing(hooked: RunningService) -> None:
    model = send(hooked, 1004, "http://127.0.0.1:9/nobody").json()["id"]
    assert hooked.wait_model(model)["state"] == "ready"


def test_every_uploader_s_webhook_is_called_whenever_they_come(
    hooked: RunningService, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    busy = hooked.client.post(
        "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(1005).content
    ).json()["id"]
    # While it waits or is built, while it may have ended, and long after.
    for number in range(2):
        model = send(hooked, 1006, f"{url}&n={number}").json()["id"]
    hooked.wait_model(busy)
    hooked.wait_model(model)
    send(hooked, 1006, f"{url}&n=2")
    told = [json.loads(own.calls.get(timeout=PATIENCE)[1]) for _ in range(3)]
    assert {(each["event"], each["model"]) for each in told} == {("job.ready", model)}
    failed = "x:1x9x8x8"
    for number in range(2):
        hooked.wait_model(send(hooked, 1007, f"{url}&n={number}", failed).json()["id"])
    told = [json.loads(own.calls.get(timeout=PATIENCE)[1]) for _ in range(2)]
    assert {each["event"] for each in told} == {"job.failed"}
    assert own.calls.empty()


def test_a_webhook_for_a_file_that_is_made_already_is_called(
    hooked: RunningService, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    model = hooked.upload(small_file(1008).content, "x:1x3x8x8")["id"]
    headers = {"Torchpruner-Webhook": url, "Torchpruner-Webhook-Secret": SECRET}
    path = f"/v1/models/{model}/pruned-weights"
    for _ in range(2):
        made = hooked.client.post(path, json={}, headers=headers)
        hooked.wait_job(made.headers["location"])
        told = json.loads(own.calls.get(timeout=PATIENCE)[1])
        assert (told["event"], told["job"]) == ("job.ready", made.json()["job"])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:6379/",
        "http://localhost/",
        "http://10.0.0.1/x",
        "http://[::1]/",
        "ftp://a.b/",
        "x",
        "http://u:p@example.com/",
        "http://169.254.169.254/latest",
    ],
)
def test_private_and_odd_webhooks_are_refused(service: RunningService, url: str) -> None:
    answer = send(service, 1005, url)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-webhook")


def test_events_tell_stages_and_the_end(service: RunningService, torchscript: ModelFile) -> None:
    answer = service.client.post(
        "/v1/models", params={"input": "x:3x3x64x64"}, content=torchscript.content
    )
    events = []
    with service.client.stream("GET", f"{answer.headers['location']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                events.append([line[7:]])
            elif line.startswith("data: "):
                events[-1].append(json.loads(line[6:]))
    assert [name for name, _ in events][-1] == "end"
    assert events[-1][1]["state"] == "ready"
    percents = [data["percent"] for _, data in events]
    assert percents == sorted(percents) and percents[-1] == 100
    assert {"exporting"} <= {data["stage"] for _, data in events}


def test_events_of_an_ended_job_are_its_end(service: RunningService, model_id: str) -> None:
    text = service.client.get(f"/v1/models/{model_id}/events").text
    assert text.startswith("event: end")


def test_a_long_poll_returns_when_the_job_has_ended(service: RunningService) -> None:
    answer = service.client.post(
        "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(1006).content
    )
    shown = service.client.get(answer.headers["location"], params={"wait": 30}).json()
    assert shown["state"] == "ready"


def test_deleting_a_model_cancels_its_build(
    service: RunningService, torchscript: ModelFile
) -> None:
    # The one worker is busy with the first, so the second waits and never starts.
    first = service.client.post(
        "/v1/models", params={"input": "x:5x3x64x64"}, content=torchscript.content
    )
    second = service.client.post(
        "/v1/models", params={"input": "x:1x3x8x8"}, content=small_file(1007).content
    )
    job = second.json()["job"]
    assert service.client.delete(second.headers["location"]).status_code == 204
    service.wait_model(first.json()["id"])
    assert service.client.get(second.headers["location"]).status_code == 404
    again = service.upload(small_file(1007).content, "x:1x3x8x8")
    assert (again["state"], again["job"]) == ("ready", job)
