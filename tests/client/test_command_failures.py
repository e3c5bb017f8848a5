"""What the command line says where something is wrong: one line, or JSON, and never a traceback."""

from __future__ import annotations

import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import torchpruner_core
from tests.service.models import small_file
from tests.service.running import PATIENCE, RunningService

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "COLUMNS": "200"}


def run(
    url: str, *arguments: str, lacking: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the program where some packages are not installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({lacking!r}));"
        "from torchpruner_client.cli import app; app()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**ENVIRONMENT, "TORCHPRUNER_URL": url},
    )


def told(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """Return what was said on standard error, which is one line, with nothing on the other."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


ANSWERS = {
    "/html": (200, b"<html>"),
    "/other": (200, b'{"hello": 1}'),
    "/list": (200, b"[]"),
    "/parts": (200, b'{"items": [{}], "next": null}'),
    "/keys": (401, b'{"type": "unauthorized", "detail": "no such key"}'),
}


class Stranger(http.server.BaseHTTPRequestHandler):
    """Some other server: what it answers is in the address."""

    def do_GET(self) -> None:
        status, body = next(each for path, each in ANSWERS.items() if self.path.startswith(path))
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "command", "words"),
    [
        ("/html", "models", "is not JSON; is this a torchpruner service"),
        ("/other", "models", "has no 'items'"),
        ("/list", "models", "is no JSON object"),
        ("/parts", "models", "KeyError"),
        ("/keys", "models", "--api-key KEY, or TORCHPRUNER_API_KEY"),
    ],
)
def test_an_answer_of_somebody_else_is_one_line(
    stranger: str, path: str, command: str, words: str
) -> None:
    assert words in told(run(stranger + path, command))
    problem = json.loads(told(run(stranger + path, command, "--json")))
    assert problem["type"] and problem["detail"]


@pytest.mark.parametrize(
    "arguments", [("cut",), ("plan", "m", "--round-to", "much"), ("plann",), ("models", "--nope")]
)
def test_a_command_line_that_is_wrong_is_json_where_json_was_asked_for(
    arguments: tuple[str, ...],
) -> None:
    problem = json.loads(told(run("http://127.0.0.1:9", *arguments, "--json"), 2))
    assert problem["type"] == "usage" and problem["detail"]


def test_a_missing_shape_is_named_as_it_is_written_here(
    service: RunningService, tmp_path: Path
) -> None:
    file = tmp_path / "shapeless.pt"
    file.write_bytes(small_file(411).content)
    assert "--input x:1x3x224x224:float32" in told(run(service.url, "upload", str(file)))
    done = run(service.url, "upload", str(file), "--input", "x:1x3x8x8", "--json")
    assert done.returncode == 0, done.stderr
    missed = run(service.url, "cut", "shapeless", "self.conv1.wieght", "--index", "25%")
    assert "did you mean self.conv1.weight" in told(missed)


def test_pruning_a_file_without_its_extra_names_it(tmp_path: Path) -> None:
    arguments = (
        "prune",
        str(tmp_path / "m.onnx"),
        "--flops",
        "50%",
        "-o",
        str(tmp_path / "o.onnx"),
    )
    (tmp_path / "m.onnx").write_bytes(b"")
    for more in ((), ("--json",)):
        done = run("", *arguments, *more, lacking=("onnx", "onnx_ir", "torch"))
        assert "pip install 'torchpruner-service[onnx]'" in told(done)


def test_warnings_stay_out_of_what_programs_read(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)).eval()
    file, output = tmp_path / "normed.onnx", str(tmp_path / "out.onnx")
    file.write_bytes(torchpruner_core.export_onnx(model, (torch.zeros(2, 8),)))
    done = run("", "prune", str(file), "--cut", "self.0.weight[0]=0-3", "-o", output, "--json")
    assert json.loads(done.stdout)["path"] == output
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert "ChangedStatisticsWarning" in [each["warning"] for each in told]


def test_an_interrupted_upload_says_so(tmp_path: Path) -> None:
    """The other side takes the first bytes of the file and no more."""
    file = tmp_path / "large.onnx"
    file.write_bytes(bytes(32 << 20))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        program = subprocess.Popen(
            [sys.executable, "-m", "torchpruner_client.cli", "upload", str(file), "--weights"],
            stderr=subprocess.PIPE,
            text=True,
            env={**ENVIRONMENT, "TORCHPRUNER_URL": url},
            # Where the tests run in a shell's background, their children would ignore it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(1)
            program.send_signal(signal.SIGINT)
            assert program.communicate(timeout=PATIENCE)[1] == "interrupted\n"
    assert program.returncode == 130
