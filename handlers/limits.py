"""How much memory a worker takes, and how it is kept within its limit.

Two ways, both against the sum over the worker and the children it has started:

- Watched, everywhere: resident sizes from /proc, ten times a second while an invocation runs. Between two looks a
  function may overshoot (by what it can touch in a tenth of a second), and children that detach from their parent
  are not seen. Pages that forked processes share are counted once before anything is killed.
- By the kernel, where a cgroup v2 folder beside ours is delegated to us with the memory controller (for example under
  systemd with `Delegate=memory` and `DelegateSubgroup=`): no overshoot, no escape.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def descendants(pid: int) -> list[int]:
    """Give the living children of a process and theirs, as far as their parents still live."""
    found: list[int] = []
    queue = [pid]
    while queue:
        children = _children(queue.pop())
        found += children
        queue += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has just ended
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - half the time
            children += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return children


def resident_bytes(pid: int) -> int:
    """Give the resident size of one process; 0 when it is gone."""
    try:
        return int(_read(f"/proc/{pid}/statm").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional_bytes(pid: int) -> int:
    """Give the resident size with shared pages divided among those who share them."""
    with contextlib.suppress(OSError):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return resident_bytes(pid)


def _read(path: str) -> bytes:
    """Read a file of /proc at once: this runs ten times a second for every busy worker."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 64 * 1024)
    finally:
        os.close(descriptor)


def used_bytes(pid: int, limit_bytes: int) -> int:
    """Give the memory of a process and its descendants; exact only where that decides about the limit."""
    family = [pid, *descendants(pid)]
    total = sum(map(resident_bytes, family))
    if total > limit_bytes and len(family) > 1:
        total = sum(map(_proportional_bytes, family))
    return total


class Cgroup:
    """The cgroup v2 of one worker."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "memory.max").write_text(str(limit_bytes))
        swap = folder / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """Kill every process in it, also those that left the worker's process group."""
        with contextlib.suppress(OSError):  # kernels before 5.14 cannot; the process group is killed as well
            (self._folder / "cgroup.kill").write_text("1")

    def ran_out(self) -> bool:
        """Has the kernel killed something in it for its memory?"""
        try:
            events = dict(line.split() for line in (self._folder / "memory.events").read_text().splitlines())
        except (OSError, ValueError):
            return False
        return int(events.get("oom_kill", 0)) > 0

    def remove(self) -> None:
        with contextlib.suppress(OSError):  # something in it is still dying: an empty folder stays behind, harmless
            self._folder.rmdir()


class CgroupHome:
    """The folder where cgroups of workers may be made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def make(self, limit_bytes: int) -> Cgroup | None:
        """Make a cgroup; None where the kernel does not let us after all."""
        self._made += 1
        try:
            return Cgroup(self._folder / f"headrace-{os.getpid()}-{self._made}", limit_bytes)
        except OSError:
            return None


def find_cgroup_home(mount: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> CgroupHome | None:
    """Find the folder around our own cgroup, if it is ours to write and limits memory; else None."""
    try:
        lines = own.read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        folder = (mount / path.lstrip("/")).parent
    except (OSError, StopIteration):
        return None
    if path == "/" or not os.access(folder / "cgroup.procs", os.W_OK) or not _limits_memory(folder):
        return None
    return CgroupHome(folder)


def _limits_memory(folder: Path) -> bool:
    """Do folders in this one have limits for memory? Where the folder was handed to us, let them have some first.

    systemd leaves the controllers of a folder that it delegates to whom it delegates it to, and marks the folder.
    """
    control = folder / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        if "memory" in control.read_text().split():
            return True
        if os.getxattr(folder, "user.delegate") == b"1":
            control.write_text("+memory")
            return True
    return False
