"""TorchScript is code: programs that read, write, take everything, never end, or crash."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.attacks.conftest import Attack
from torchpruner_service.sandbox.disk_use import disk_used

PASSWD = "/etc/passwd"


def program(module: torch.nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def torch_s_own_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that another test imported may have wrapped it, and TorchScript compiles no wrapper."""
    monkeypatch.setattr(torch, "save", torch.serialization.save)


class OnLoad(torch.nn.Module):
    """Its ``__setstate__`` is code of the archive, which runs while the archive is loaded."""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


class ReadsAFile(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        content = torch.from_file(self.path, False, 64, dtype=torch.uint8)
        # What was read would leave in the message.
        raise ValueError("read " + str(content))


class OverwritesAFile(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        content = torch.from_file(self.path, True, 64, dtype=torch.uint8)
        self.training = bool(content.fill_(0).sum() > 0)


class SavesAFile(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        torch.save(torch.zeros(3), self.path)


class FillsTheDisk(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        big = torch.zeros(40_000_000)
        for number in range(1000):
            torch.save(big, "fill" + str(number))


class TakesMemory(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = bool(torch.ones(50_000_000_000).sum() > 0)


class TakesMemoryBitByBit(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        kept = [torch.zeros(1)]
        for _ in range(100_000):
            kept.append(torch.ones(10_000_000))
        self.training = len(kept) > 5


class NeverEnds(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        number = 0
        while number >= 0:
            number = (number + 1) % 1000


class Crashes(OnLoad):
    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        # An index far outside, which this operator does not check.
        index = torch.full((1, 1, 2, 2), 1 << 42, dtype=torch.int64)
        grad, image = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 4, 4)
        out = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, image, [2, 2], [2, 2], [0, 0], [1, 1], False, index
        )
        self.training = bool(out.sum() > 0)


def refused_by_the_kernel(problem: dict[str, object]) -> bool:
    return "Permission denied" in str(problem.get("cause"))


def load_outside(content: bytes, folder: Path) -> None:
    """Load a program without a sandbox: proves that the attack would do harm."""
    file = folder / "program.pt"
    file.write_bytes(content)
    code = f"import torch; torch.jit.load({str(file)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, timeout=550)


def test_reading_a_file_is_refused(attack: Attack) -> None:
    problem = attack.fails(program(ReadsAFile(PASSWD)), "x:1")
    assert refused_by_the_kernel(problem), problem
    assert "114" not in problem["cause"]


def test_reading_the_worker_s_environment_is_refused(attack: Attack) -> None:
    (worker,) = attack.service.processes("torchpruner_service.worker.rq_worker")
    problem = attack.fails(program(ReadsAFile(f"/proc/{worker.pid}/environ")), "x:1")
    assert refused_by_the_kernel(problem), problem


def test_reading_another_model_is_refused(attack: Attack) -> None:
    attack.next_job_works()
    blobs = attack.service.store / "blobs"
    other = next(path for path in blobs.rglob("*") if path.is_file())
    problem = attack.fails(program(ReadsAFile(str(other))), "x:1")
    assert refused_by_the_kernel(problem), problem


def test_whether_another_tenant_has_a_file_is_not_told(attack: Attack) -> None:
    attack.next_job_works()
    objects = attack.service.data_dir / "objects"
    digest = next(path for path in (attack.service.store / "blobs").rglob("*") if path.is_file())
    told = []
    for name in (digest.name, "0" * 64):
        guess = objects / "blobs" / name[:2] / name
        problem = attack.fails(program(ReadsAFile(str(guess))), "x:1")
        told.append(problem["cause"].replace(name, "?").replace(f"/{name[:2]}/", "/"))
    # The name of the store's folder is not to be read or listed either.
    assert told[0] == told[1]
    for secret in (objects, objects / ".store"):
        problem = attack.fails(program(ReadsAFile(str(secret))), "x:1")
        assert attack.service.store.name not in str(problem)


def test_no_path_of_the_store_reaches_the_sandbox(attack: Attack) -> None:
    problem = attack.fails(program(ReadsAFile("/nowhere")), "x:1")
    assert attack.service.store.name not in str(problem)


def test_overwriting_a_file_does_nothing(attack: Attack, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    content = program(OverwritesAFile(str(victim)))
    victim.write_bytes(b"untouched" * 20)
    load_outside(content, tmp_path)
    assert victim.read_bytes()[:64] == bytes(64)
    victim.write_bytes(b"untouched" * 20)
    attack.ends(content, "x:1")
    assert victim.read_bytes() == b"untouched" * 20


def test_creating_a_file_does_nothing(attack: Attack, tmp_path: Path) -> None:
    new = tmp_path / "new"
    content = program(SavesAFile(str(new)))
    load_outside(content, tmp_path)
    assert new.exists()
    new.unlink()
    attack.ends(content, "x:1")
    assert not new.exists()


def test_files_in_its_own_folder_are_bounded_and_removed(attack: Attack) -> None:
    attack.ends(program(FillsTheDisk()), "x:1")
    left = list((attack.service.data_dir / "scratch").rglob("fill*"))
    assert not left
    assert disk_used(attack.service.data_dir, 4 << 30) < 2 << 30


def test_two_hundred_gigabytes_are_refused(attack: Attack) -> None:
    assert attack.fails(program(TakesMemory()), "x:1")["type"] == "memory-limit"


def test_memory_taken_bit_by_bit_is_refused(attack: Attack) -> None:
    problem = attack.fails(program(TakesMemoryBitByBit()), "x:1")
    assert problem["type"] in {"memory-limit", "model-crashed"}, problem


def test_an_endless_program_is_stopped(attack: Attack) -> None:
    assert attack.fails(program(NeverEnds()), "x:1")["type"] == "time-limit"


def test_a_crash_kills_the_child_alone(attack: Attack) -> None:
    problem = attack.fails(program(Crashes()), "x:1")
    assert problem["type"] == "model-crashed"
    assert problem["signal"] == "SIGSEGV"


def damaged(change: Callable[[bytearray], None]) -> bytes:
    content = bytearray(program(ReadsAFile(os.devnull)))
    change(content)
    return bytes(content)


def test_damaged_archives_end_cleanly(attack: Attack) -> None:
    def flip(content: bytearray) -> None:
        for position in range(200, len(content) - 400, 37):
            content[position] ^= 0xFF

    def cut_the_middle(content: bytearray) -> None:
        del content[len(content) // 3 : len(content) // 2]

    for change in (flip, cut_the_middle):
        attack.fails(damaged(change), "x:1")
