"""CPU time and memory of processes, read from /proc."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it started, and what it holds."""

    #: User and system time of all its threads, ended ones too; not of its children.
    cpu_s: float
    rss_mb: float
    peak_rss_mb: float


def usage(pid: int) -> Usage:
    """Look at a live process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        rss_mb=_mb(status["VmRSS"]),
        peak_rss_mb=_mb(status["VmHWM"]),
    )


def children(pid: int) -> Sequence[int]:
    """Give the processes that this one started and that live."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += map(int, (task / "children").read_text().split())
    return found


def machine() -> dict[str, object]:
    """Describe the machine, and how busy it is with other things."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "cores": os.cpu_count(),
        "cpu": cpu.partition(":")[2].strip(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def busy_share(before: Sequence[int], after: Sequence[int]) -> float:
    """Give the share of all cores that was in use between two calls of `clock`."""
    idle, total = (after[0] - before[0], after[1] - before[1])
    return 1 - idle / total if total else 0.0


def clock() -> tuple[int, int]:
    """Give idle and total ticks of the machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def _mb(kilobytes: str) -> float:
    return int(kilobytes.split(maxsplit=1)[0]) / 1024
