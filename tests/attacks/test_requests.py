"""Requests made to break the API: each has an answer below 500, soon, and in little memory."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService

DIGITS = "9" * 5000
JSON = {"Content-Type": "application/json"}
SURROGATE = r"a\ud800b"


@dataclass(frozen=True)
class Ready:
    """A service with one of everything, and a way to send it what no HTTP library would."""

    service: RunningService
    model: str
    blob: str
    artifact: str
    upload: str

    def send(self, method: str, path: str, body: bytes = b"", **headers: str | bytes) -> int:
        """Send one request as it stands and return its status. Raises where nothing comes back."""
        for name in ("model", "blob", "artifact", "upload"):
            path = path.replace("{" + name + "}", getattr(self, name))
        address = urlsplit(self.service.url)
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: " + address.netloc.encode()]
        lines += [b"Connection: close", b"Content-Length: %d" % len(body)]
        for key, value in headers.items():
            plain = value if isinstance(value, bytes) else value.encode()
            lines.append(key.replace("_", "-").encode() + b": " + plain)
        with socket.create_connection(
            (address.hostname, address.port), timeout=PATIENCE
        ) as connection:
            connection.sendall(b"\r\n".join([*lines, b"", b""]) + body)
            answer = b""
            while chunk := connection.recv(1 << 16):
                answer += chunk
        return int(answer.split(b" ", 2)[1])


@pytest.fixture(scope="module")
def ready(target: RunningService) -> Iterator[Ready]:
    file = small_file(7001)
    shown = target.upload(file.content, *file.inputs)
    artifact = target.artifact(shown["id"], "pruned-weights")
    upload = target.client.post("/v1/uploads", json={"length": 10}).json()["id"]
    yield Ready(target, shown["id"], shown["blob"], artifact["id"], upload)


def peak(service: RunningService) -> int:
    """The most memory that the API process had since :func:`forget_peak`, in bytes."""
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def worked(service: RunningService) -> float:
    """Seconds of a processor that the API process has used."""
    assert service.process is not None
    times = psutil.Process(service.process.pid).cpu_times()
    return float(times.user + times.system)


def forget_peak(service: RunningService) -> None:
    assert service.process is not None
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")


INDICES = [
    f"[{DIGITS}]",
    f"[{2**63}]",
    f"[-{2**63}]",
    f'{{"ranges":[[0,{2**63}]]}}',
    f'{{"ranges":[[{2**63},{2**63 + 1}]]}}',
    f'{{"ranges":[[-{2**63},{2**63}]]}}',
    f'{{"ranges":[[0,{DIGITS}]]}}',
    '{"ranges":[[5,2]]}',
    '{"ranges":[]}',
    '{"ranges":[[0,1],[0,1]]}',
    "[1e400]",
    f'"{SURROGATE}"',
    f'["{SURROGATE}"]',
]


@pytest.mark.parametrize("index", INDICES, ids=[text[:24] for text in INDICES])
def test_indices_that_no_axis_has_are_refused(ready: Ready, index: str) -> None:
    asked = f'{{"node":"self.conv1.weight","index":{index}}}'
    sent = f'{{"result":{{"terminal":{{"self.conv1.weight":[{index},null,null,null]}}}}}}'
    path = "/v1/models/{model}"
    assert 400 <= ready.send("POST", f"{path}/cut-analysis", asked.encode(), **JSON) < 500
    for kind in ("derive", "pruned-weights", "pruned-onnx", "latency"):
        assert 400 <= ready.send("POST", f"{path}/{kind}", sent.encode(), **JSON) < 500, kind


BODIES = [
    f'{{"node":"self.conv1.weight","index":[0],"dim":{DIGITS[:4000]}}}',
    f'{{"node":"self.conv1.weight","index":[0],"dim":{2**64}}}',
    f'{{"node":"{SURROGATE}","index":[0]}}',
    f'{{"node":"self.conv1.weight","index":[0],"{SURROGATE}":1}}',
    f'{{"node":"self.conv1.weight","index":[0],"granularity":"{SURROGATE}"}}',
    f'{{"name":"{SURROGATE}","result":{{"terminal":{{"self.conv1.weight":[[0],null,null,null]}}}}}}',
    f'{{"result":{{"terminal":{{"{SURROGATE}":[["{SURROGATE}"]]}}}}}}',
    f'{{"result":{{"terminal":{{"a":[]}},"operator":{{"{SURROGATE}":{{"b":{DIGITS[:4000]}}}}}}}}}',
    '{"result":{"terminal":{"self.conv1.weight":[[0],null,null,null]},"shapes":[1]}}',
    f'{{"result":{{"terminal":{{"self.conv1.weight":[[0],null]}},"shapes":{{"a":["{DIGITS}"]}}}}}}',
    "[" * 100_000,
    '{"result":{"terminal":{"self.conv1.weight":' + "[" * 20_000 + "]" * 20_000 + "}}}",
    '{"node":"a","index":[NaN]}',
    "\xff\xfe{",
]


@pytest.mark.parametrize("body", BODIES, ids=[text[:40] for text in BODIES])
def test_bodies_that_no_client_would_send_are_refused(ready: Ready, body: str) -> None:
    for kind in ("cut-analysis", "derive", "pruned-weights", "latency"):
        path = "/v1/models/{model}/" + kind
        assert 400 <= ready.send("POST", path, body.encode("latin-1"), **JSON) < 500, kind
    assert 400 <= ready.send("POST", "/v1/models", body.encode("latin-1"), **JSON) < 500
    assert 400 <= ready.send("POST", "/v1/uploads", body.encode("latin-1"), **JSON) < 500


def test_a_name_that_is_no_text_does_not_spoil_the_list(ready: Ready) -> None:
    inputs = '[{"name":"x","shape":[1,3,8,8]}]'
    body = f'{{"blob":"{ready.blob}","name":"{SURROGATE}","inputs":{inputs}}}'
    assert 400 <= ready.send("POST", "/v1/models", body.encode(), **JSON) < 500
    assert ready.send("POST", "/v1/models?name=%ED%A0%80&input=x:1x3x8x8", b"no model") == 422
    assert ready.send("GET", "/v1/models") == 200


PATHS = [
    "/v1/models/{model}",
    "/v1/models/{model}/modules",
    "/v1/artifacts/{artifact}",
    "/v1/artifacts/{artifact}/content",
    "/v1/uploads/{upload}",
    "/v1/jobs/build-{model}",
    "/v1/blobs/{blob}",
]


@pytest.mark.parametrize(
    "suffix", ["%0A", "%0D%0A", "%00", "%ED%A0%80", "%FF", "%E2%80%A8", "%2F.."]
)
def test_what_follows_an_id_makes_it_another(ready: Ready, suffix: str) -> None:
    for path in PATHS:
        head, brace, tail = path.rpartition("}")
        for method in ("GET", "HEAD", "DELETE"):
            assert ready.send(method, f"{head}{brace}{suffix}{tail}") in (404, 405), (method, path)


@pytest.mark.parametrize(
    "given",
    [
        f"bytes=0-{DIGITS}",
        f"bytes={DIGITS}-",
        f"bytes=-{DIGITS}",
        f"bytes={2**63}-",
        f"bytes=0-{2**64}",
        b"bytes=\xb2-",
    ],
)
def test_ranges_of_a_file_may_have_any_numbers(ready: Ready, given: str | bytes) -> None:
    status = ready.send("GET", "/v1/artifacts/{artifact}/content", Range=given)
    assert status in (200, 206, 416)


@pytest.mark.parametrize("number", [DIGITS, str(2**63), "-1", "1.5", "nan", "inf", "²"])
def test_numbers_that_do_not_count_are_refused(ready: Ready, number: str) -> None:
    plain = number.encode()
    assert 400 <= ready.send("PATCH", "/v1/uploads/{upload}", b"x", Upload_Offset=plain) < 500
    assert 400 <= ready.send("POST", f"/v1/models?input=x:1x{number}".replace("²", "%B2")) < 500
    if number != "²":
        assert 400 <= ready.send("GET", f"/v1/models?limit={number}") < 500
        assert 400 <= ready.send("GET", f"/v1/models?cursor={number}") < 500
        body = f'{{"length":{number}}}'.encode()
        assert 400 <= ready.send("POST", "/v1/uploads", body, **JSON) < 500


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=" + "a" * 300,
        b"multipart/form-data; boundary=\xff",
        "multipart/form-data",
        "application/json; charset=utf-99",
    ],
)
def test_content_types_that_do_not_read_are_refused(ready: Ready, kind: str | bytes) -> None:
    status = ready.send("POST", "/v1/models?input=x:1x3x8x8", b"--x\r\n\r\n", Content_Type=kind)
    assert 400 <= status < 500


def test_a_part_s_headers_and_their_number_are_bounded(ready: Ready) -> None:
    head = "multipart/form-data; boundary=x"
    long = b"--x\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n\r\n--x--\r\n"
    many = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" * 30 + b"--x--\r\n"
    for body in (long, many):
        assert ready.send("POST", "/v1/models", body, Content_Type=head) == 422


def test_a_small_request_cannot_take_much_memory(ready: Ready) -> None:
    ranges = {"ranges": [[0, 5_000_000]]}
    many = [{"node": "self.conv1.weight", "index": ranges}] * 10
    wide = {"terminal": {"self.conv1.weight": [ranges] * 4, "self.conv1.bias": [ranges]}}
    within = [{"node": "self.conv1.weight", "index": {"ranges": [[0, 7]]}}] * 10_000
    repeated = {"node": "self.conv1.weight", "index": {"ranges": [[0, 1]] * 90_000}}
    forget_peak(ready.service)
    before = peak(ready.service)
    for path, body in (
        ("cut-analysis", {"cuts": many}),
        ("cut-analysis", repeated),
        ("derive", {"result": wide}),
        ("pruned-weights", {"result": {**wide, "requested": many, "added": wide["terminal"]}}),
    ):
        before_it = worked(ready.service)
        content = json.dumps(body).encode()
        status = ready.send("POST", "/v1/models/{model}/" + path, content, **JSON)
        assert status in (409, 413, 422)
        assert worked(ready.service) - before_it < 5
    content = json.dumps({"cuts": within}).encode()
    assert ready.send("POST", "/v1/models/{model}/cut-analysis", content, **JSON) in (200, 413)
    assert peak(ready.service) - before < 100 << 20
