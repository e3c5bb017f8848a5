"""Everything a child gives up before it looks at an upload, in the one order that works."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torchpruner_core
import torchpruner_service
from torchpruner_service.sandbox import landlock, seccomp

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_PR_CAPBSET_DROP, _PR_SET_DUMPABLE = 24, 4
_LAST_CAP = 63
_CAPSET_VERSION = 0x20080522

_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/usr/local/cuda")
_SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/sys/devices/system/cpu",
    "/proc/cpuinfo",
    "/proc/meminfo",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_GPU = (
    "/dev/nvidia0",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia1",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes, seconds and counts that a task may use. ``memory`` is beyond what the nursery had."""

    memory: int
    cpu_seconds: int
    wall_seconds: float
    files: int
    file_bytes: int
    gpu: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def missing() -> list[str]:
    """What this kernel cannot confine; empty where code may be run."""
    lacking = []
    if landlock.abi() == 0:
        lacking.append("Landlock (kernel 5.13 or newer, with `landlock` in its list of LSMs)")
    if not seccomp.supported():
        lacking.append("a seccomp filter for this processor")
    return lacking


def code_folders() -> list[Path]:
    """Folders that Python imports from: the interpreter, its libraries and the installed
    packages."""
    found = {Path(path) for path in sysconfig.get_paths().values()}
    found |= {Path(sys.prefix) / "lib", Path(sys.base_prefix) / "lib"}
    # A source tree on the path may hold more than packages: what is granted is the packages alone.
    found |= {Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    found |= {
        Path(file).parent for file in (torchpruner_core.__file__, torchpruner_service.__file__)
    }
    skipped = {"include", "scripts", "data"}
    found -= {
        Path(sysconfig.get_paths()[name]) for name in skipped if name in sysconfig.get_paths()
    }
    return sorted(path for path in found if path.exists())


def confine(
    limits: Limits, inputs: Iterable[Path], scratch: Path, *, strict: bool, preserve: Iterable[int]
) -> None:
    """Give up every right that the task does not need. There is no way back.

    ``inputs`` are the files it may read, ``scratch`` the only folder it may write in, ``preserve``
    the descriptors it keeps. ``strict`` raises ``OSError`` where something cannot be given up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _close_all_but(preserve)
    os.chdir(scratch)
    os.umask(0o077)
    _private_network(libc)
    _limit_resources(limits)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _drop_capabilities(libc)
    seccomp.no_new_privileges()
    devices = [Path(path) for path in (*_DEVICES, *(_GPU if limits.gpu else ()))]
    readable = [Path(path) for path in (*_SYSTEM, *_SYSTEM_FILES)]
    if limits.gpu:
        readable += [Path("/proc/driver/nvidia"), Path("/sys/bus/pci"), Path("/proc/self")]
    try:
        landlock.confine([*readable, *code_folders(), *inputs], [scratch], devices)
    except OSError:
        if strict:
            raise
    try:
        seccomp.install()
    except (OSError, KeyError):
        if strict:
            raise


def _close_all_but(preserve: Iterable[int]) -> None:
    keep = sorted({0, 1, 2, *preserve})
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    # What an upload prints is not for the service's log.
    os.dup2(null, 2)
    previous = 2
    for descriptor in keep:
        if descriptor > previous + 1:
            os.closerange(previous + 1, descriptor)
        previous = max(previous, descriptor)
    os.closerange(previous + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _private_network(libc: ctypes.CDLL) -> None:
    # Where neither is allowed the seccomp filter still refuses every socket.
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC)


def _limit_resources(limits: Limits) -> None:
    pages = Path("/proc/self/statm").read_text().split()
    size = os.sysconf("SC_PAGE_SIZE")
    virtual, data = int(pages[0]) * size, int(pages[5]) * size
    if not limits.gpu:
        # CUDA reserves address space by the hundred gigabytes; the work-horse watches resident
        # memory in any case.
        _limit(resource.RLIMIT_DATA, data + limits.memory)
        _limit(resource.RLIMIT_AS, virtual + 2 * limits.memory)
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds)
    _limit(resource.RLIMIT_NOFILE, limits.files)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, 512)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    for capability in range(_LAST_CAP + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPSET_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(nothing))
