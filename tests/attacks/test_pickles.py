"""A ``.pt2`` archive can hold a pickle, and a pickle is any program. In the sandbox it can do nothing."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from functools import lru_cache
from typing import Any

import pytest
import torch

from tests.attacks.conftest import Attack

REPORT = """
import json, os, socket, stat, struct, sys, ctypes
found = {}
def report():
    # What comes back to the attacker is what anybody sees: the problem of a failed model.
    data = json.dumps({'type': 'report', 'detail': json.dumps(found)}).encode()
    for number in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                os.write(number, b'E' + struct.pack('!Q', len(data)) + data)
        except OSError:
            pass
    os._exit(0)
def attempt(name, action):
    try:
        found[name] = repr(action())[:40]
    except BaseException as error:
        found[name] = type(error).__name__
"""


class Payload:
    """Unpickles by running ``code``."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code, {})


@lru_cache(maxsize=1)
def archive() -> dict[str, bytes]:
    exported = torch.export.export(torch.nn.Linear(4, 4), (torch.zeros(1, 4),))
    buffer = io.BytesIO()
    torch.export.save(exported, buffer)
    with zipfile.ZipFile(buffer) as file:
        return {name: file.read(name) for name in file.namelist()}


def hostile(code: str) -> bytes:
    """An archive whose example inputs are a pickle that runs ``code``."""
    payload = io.BytesIO()
    torch.save(Payload(code), payload)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in archive().items():
            file.writestr(name, payload.getvalue() if "sample_inputs" in name else data)
    return buffer.getvalue()


def attempts(attack: Attack, *lines: str) -> dict[str, str]:
    """Run attempts inside the sandbox; return what came of each: an exception's name, or a value."""
    body = "".join(
        f"attempt({json.dumps(str(k))}, lambda: {line})\n" for k, line in enumerate(lines)
    )
    problem = attack.fails(hostile(f"{REPORT}{body}report()\n"))
    found: dict[str, str] = json.loads(problem["detail"])
    return found


def test_the_archive_without_a_payload_works(attack: Attack) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in archive().items():
            file.writestr(name, data)
    shown = attack.ends(buffer.getvalue())
    assert shown["state"] == "ready", shown


def test_the_payload_does_run_so_these_tests_mean_something(attack: Attack) -> None:
    assert attempts(attack, "1 + 1") == {"0": "2"}


REFUSED = {
    "read a password file": "open('/etc/passwd').read()",
    "read the host's name": "open('/etc/hostname').read()",
    "list the root": "os.listdir('/')",
    "list the temporary folder": "os.listdir('/tmp')",
    "read an environment": "open('/proc/1/environ').read()",
    "read its own environment file": "open('/proc/self/environ').read()",
    "write to the temporary folder": "open('/tmp/torchpruner-attack', 'w')",
    "write into the packages": "open(os.path.join(os.path.dirname(json.__file__), 'x.py'), 'w')",
    "open an internet socket": "socket.socket()",
    "open a unix socket": "socket.socket(socket.AF_UNIX)",
    "open a netlink socket": "socket.socket(16, 3, 0)",
    "run a program": "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "fork": "os.fork()",
    "signal its parent": "os.kill(os.getppid(), 9)",
    "signal everybody": "os.kill(-1, 9)",
    "make a link out": "os.symlink('/etc/passwd', 'link') or open('link').read()",
    "make a device": "os.mknod('device', 0o600 | 0o020000, 259)",
    "change the root": "os.chroot('.')",
    "become another user": "os.setuid(12345)",
    "see credentials in the environment": "os.environ['REDIS_URL']",
    "see settings in the environment": "os.environ['TORCHPRUNER_DATA_DIR']",
}


def test_code_in_the_sandbox_can_do_none_of_it(attack: Attack) -> None:
    outcomes = attempts(attack, *REFUSED.values())
    assert len(outcomes) == len(REFUSED)
    refusals = {
        "PermissionError", "FileNotFoundError", "KeyError", "OSError", "ProcessLookupError",
    }  # fmt: skip
    done = {name: outcomes[str(k)] for k, name in enumerate(REFUSED)}
    assert {name: outcome for name, outcome in done.items() if outcome not in refusals} == {}


def test_code_in_the_sandbox_cannot_trace_or_unshare(attack: Attack) -> None:
    libc = "ctypes.CDLL(None, use_errno=True)"
    found = attempts(
        attack,
        f"{libc}.ptrace(16, os.getppid(), 0, 0)",
        f"{libc}.unshare(0x10000000)",
        f"{libc}.syscall(425, 8, 0)",
        f"{libc}.syscall(321, 0, 0, 0)",
        f"{libc}.syscall(434, os.getppid(), 0)",
        f"{libc}.mount(b'none', b'.', b'tmpfs', 0, 0)",
    )
    assert set(found.values()) == {"-1"}


def test_a_listener_on_this_machine_is_not_reached(attack: Attack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        outcome = attempts(attack, f"socket.create_connection(('127.0.0.1', {port}), 2)")
        assert outcome == {"0": "PermissionError"}
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_open_descriptors_lead_nowhere(attack: Attack) -> None:
    code = "[os.fstat(n).st_mode >> 12 for n in range(3, 200) if _is_open(n)]"
    prefix = (
        "def _is_open(n):\n    try:\n        os.fstat(n)\n        return True\n"
        "    except OSError:\n        return False\n"
    )
    problem = attack.fails(hostile(f"{REPORT}{prefix}found['open'] = {code}\nreport()\n"))
    kinds = json.loads(problem["detail"])["open"]
    # A pipe to report on (1), and whatever Python holds of regular files (8); no socket (12).
    assert kinds.count(12) == 0
    assert kinds.count(1) <= 1


def test_threads_without_end_are_bounded(attack: Attack) -> None:
    code = (
        "import threading, time\n"
        "while True:\n    threading.Thread(target=time.sleep, args=(100,)).start()\n"
    )
    attack.fails(hostile(code))


def test_nonsense_written_to_the_pipe_is_a_clean_failure(attack: Attack) -> None:
    code = (
        "import os\n"
        "for n in range(3, 64):\n"
        "    try:\n        os.write(n, b'R' + b'\\xff' * 64)\n"
        "    except OSError:\n        pass\n"
        "os._exit(0)\n"
    )
    assert attack.fails(hostile(code))["type"] == "model-crashed"


def test_a_forged_result_is_not_believed(attack: Attack) -> None:
    code = (
        "import os, struct, json\n"
        "text = json.dumps({'nodes': 1}).encode()\n"
        "for n in range(3, 64):\n"
        "    try:\n"
        "        os.write(n, b'D' + struct.pack('!Q', 4) + b'fake')\n"
        "        os.write(n, b'R' + struct.pack('!Q', len(text)) + text)\n"
        "    except OSError:\n        pass\n"
        "os._exit(0)\n"
    )
    assert attack.fails(hostile(code))["type"] == "invalid-model"


def test_a_flood_of_progress_is_bounded(attack: Attack) -> None:
    code = (
        "import json, os, stat, struct\n"
        "def fifo(n):\n"
        "    try:\n        return stat.S_ISFIFO(os.fstat(n).st_mode)\n"
        "    except OSError:\n        return False\n"
        "pipe = [n for n in range(3, 64) if fifo(n)][0]\n"
        "for number in range(300000):\n"
        "    text = json.dumps({'stage': f'stage {number}', 'percent': 50}).encode()\n"
        "    os.write(pipe, b'P' + struct.pack('!Q', len(text)) + text)\n"
    )
    attack.ends(hostile(code))
    text = attack.service.client.get("/metrics").text
    assert "stage 1" not in text


def test_a_forged_problem_has_the_form_of_one(attack: Attack) -> None:
    code = (
        f"{REPORT}"
        "text = json.dumps({'type': '<script>', 'status': 200, 'detail': 'x' * 100000, 'y': 'z' * 9000})\n"
        "for n in range(3, 64):\n"
        "    try:\n"
        "        if stat.S_ISFIFO(os.fstat(n).st_mode):\n"
        "            os.write(n, b'E' + struct.pack('!Q', len(text)) + text.encode())\n"
        "    except OSError:\n        pass\n"
        "os._exit(0)\n"
    )
    problem = attack.fails(hostile(code))
    assert problem["type"] == "invalid-model"
    assert len(problem["detail"]) <= 4000 and "y" not in problem
