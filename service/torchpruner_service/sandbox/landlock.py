"""Landlock: which files a process may touch, decided by the process itself and for ever.

See the kernel's ``Documentation/userspace-api/landlock.rst``. Called through ctypes, since glibc
has no wrappers. Everything not granted is refused, /proc and the temp folders of others included.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
_READ = _READ_FILE | _READ_DIR

_NET_ALL = 0b11
_SCOPE_ALL = 0b11


class _RulesetAttr(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))


def abi() -> int:
    """The kernel's Landlock version, or 0 where it has none."""
    return max(0, _syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG)))


def confine(readable: Iterable[Path], writable: Iterable[Path], devices: Iterable[Path]) -> None:
    """Let this process read ``readable``, write under ``writable``, use ``devices``, and no more.

    ``no_new_privs`` must be set. Raises ``OSError`` where the kernel refuses.
    """
    version = abi()
    if version == 0:
        raise OSError("this kernel has no Landlock")
    everything = (1 << 13) - 1
    everything |= (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    everything |= _IOCTL if version >= 5 else 0
    attributes = _RulesetAttr(
        everything, _NET_ALL if version >= 4 else 0, _SCOPE_ALL if version >= 6 else 0
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _syscall(_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        for path in readable:
            _grant(ruleset, path, _READ & everything)
        for path in devices:
            _grant(ruleset, path, (_READ | _WRITE_FILE | _IOCTL) & everything)
        for path in writable:
            _grant(ruleset, path, everything & ~_EXECUTE)
        if _syscall(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0)) < 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = _PathBeneathAttr(rights, descriptor)
        added = _syscall(
            _ADD,
            ctypes.c_int(ruleset),
            ctypes.c_int(_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint32(0),
        )
        if added < 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule for {path}")
    finally:
        os.close(descriptor)
