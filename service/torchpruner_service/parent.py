"""Processes that end with the one that started them, whenever that happens."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def end_with(parent: int, by: signal.Signals) -> None:
    """Have the kernel send ``by`` to this process when the process ``parent`` ends.

    A parent that ended before this was asked, while its child still imported, would never be missed:
    then the signal comes at once.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), by)
