"""A tiny process that ends workers when their daemon does not say in time that they may go on.

A daemon that is stopped (SIGSTOP, a debugger, a machine that swaps) cannot end what it runs when its leases run out,
and another replica must not run beside it. So the daemon tells its leash again and again until when its workers may
live, by the clock that goes on while the machine sleeps. When that time comes and no later one was told, or when the
daemon ends, the leash kills the process groups that are listed in the folder `workers` of the daemon's state, with what
has left them, after it has noted in each one's file that it was the leash: such an end spends no attempt.

The program imports nothing but what every interpreter has loaded, or little more: it is there all the time.

Weak spots: what has left the group of a worker is found only while the worker lives; when the daemon is killed, that
ends first, and the next daemon of the folder finds it (predecessors.py). What stops the daemon may stop the leash and
the workers with it (a container that is paused); then all go on together, and the leash kills the workers a moment
after that.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: Read from standard input: until when the workers may live, seconds.
WORD = struct.Struct("d")
#: Third word of a worker's file.
MARK = "leashed"
#: Between two looks while no word comes, seconds: something may be started beside what was killed.
_AGAIN_S = 1.0


def main(registry: str) -> None:
    until_s = float("inf")
    is_cut = False
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while True:
        left_s = _AGAIN_S if is_cut else min(max(until_s - _now_s(), 0.0), 3600.0)
        if poll.poll(int(left_s * 1000) + 1):
            words = os.read(0, WORD.size * 512)
            if not words:
                cut(registry)
                return
            [until_s] = WORD.unpack(words[-WORD.size :])
        is_cut = _now_s() >= until_s
        if is_cut:
            cut(registry)


def cut(registry: str) -> None:
    """Kill all workers that are listed."""
    processes = dict(_processes())
    for name in os.listdir(registry):
        path = os.path.join(registry, name)
        try:
            with open(path, "r+") as file:
                words = file.read().split()
                if len(words) < 2 or processes.get(int(words[0]), ("", "", ""))[2] not in ("", words[1]):
                    continue  # not written whole yet, or the number belongs to another process now
                if len(words) == 2:
                    file.write(f" {MARK}")
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        _kill(int(words[0]), processes)


def _kill(leader: int, processes: dict[int, tuple[str, str, str]]) -> None:
    """Kill a process group, and descendants that have left it."""
    doomed = {str(leader)}
    while more := {str(pid) for pid, (parent, _, _) in processes.items() if parent in doomed} - doomed:
        doomed |= more
    doomed |= {str(pid) for pid, (_, group, _) in processes.items() if group == str(leader)}
    for pid in doomed & {str(pid) for pid in processes}:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except OSError:
            continue


def _processes() -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Give parent, group and start of each process, by its number."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            yield int(name), (fields[1], fields[2], fields[19])


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main(sys.argv[1])
