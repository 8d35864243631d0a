"""Keeps the daemon's memory and environment from handlers, which run as the same user."""

from __future__ import annotations

import ctypes
from typing import Final

#: prctl(2): without it, any process of the same user may read /proc/PID/environ and /proc/PID/mem, or attach itself.
_PR_SET_DUMPABLE: Final = 4


def close_memory() -> None:
    """Let nobody but root look into this process; it leaves no core file either. What it executes is not affected."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
