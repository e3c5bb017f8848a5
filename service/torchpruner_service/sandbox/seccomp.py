"""A seccomp filter: no sockets, no programs, no other processes, no kernel doors.

A classic BPF program built by hand and installed with ``prctl``, so no library is needed. Refused
calls fail with ``EPERM`` (``clone3`` with ``ENOSYS``, so that the C library falls back to
``clone``, whose flags can be read).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_MODE_FILTER = 2

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH, _ARG0 = 0, 4, 16
_CLONE_THREAD = 0x00010000
_X32_BIT = 0x40000000

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Name -> number on x86-64 and on arm64 (None: that architecture has no such call).
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "tkill": (200, 130),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "setpriority": (141, 140),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
}
_KILL = (62, 129)
_TGKILL = (234, 131)
_PRLIMIT = (302, 261)
_CLONE = (56, 220)
_CLONE3 = (435, 435)

Instruction = tuple[int, int, int, int]


def program(own_pid: int, machine: str | None = None) -> list[Instruction]:
    """The filter for a process ``own_pid``, as ``(code, jump if true, jump if false, k)``."""
    machine = machine or platform.machine()
    column = {"x86_64": 0, "aarch64": 1}[machine]
    refuse = _ERRNO | errno.EPERM
    lines: list[Instruction] = [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, _ARCHES[machine]),
        (_RET, 0, 0, _KILL_PROCESS),
        (_LD, 0, 0, _NR),
    ]
    if machine == "x86_64":
        lines += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, refuse)]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            lines += [(_JEQ, 0, 1, number), (_RET, 0, 0, refuse)]
    lines += [(_JEQ, 0, 1, _CLONE3[column]), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
    # A thread may be made, a process may not.
    lines += [
        (_JEQ, 0, 4, _CLONE[column]),
        (_LD, 0, 0, _ARG0),
        (_JSET, 0, 1, _CLONE_THREAD),
        (_RET, 0, 0, _ALLOW),
        (_RET, 0, 0, refuse),
    ]
    # Signals to itself only: abort() needs that. Its own limits only: the C library reads them.
    for numbers, allowed in ((_KILL, own_pid), (_TGKILL, own_pid), (_PRLIMIT, 0)):
        lines += [
            (_JEQ, 0, 4, numbers[column]),
            (_LD, 0, 0, _ARG0),
            (_JEQ, 0, 1, allowed),
            (_RET, 0, 0, _ALLOW),
            (_RET, 0, 0, refuse),
        ]
    lines.append((_RET, 0, 0, _ALLOW))
    return lines


def supported() -> bool:
    return platform.machine() in _ARCHES


def no_new_privileges() -> None:
    """Promise the kernel that no later program gains rights; Landlock and seccomp need it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def install() -> None:
    """Install the filter for this process and all threads it starts. It cannot be removed."""
    lines = program(os.getpid())
    code = b"".join(struct.pack("=HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))

    class _Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    attached = _Program(len(lines), ctypes.cast(buffer, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(attached), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")
