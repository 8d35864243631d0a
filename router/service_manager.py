"""What the daemon tells the service manager that started it, in the protocol of systemd: sd_notify(3).

A notification is one datagram of lines NAME=value to the Unix socket that NOTIFY_SOCKET names; without the variable
nobody is told anything. The pings of the watchdog are sent by the event loop, so that they end when it is stuck.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final, Protocol

from router.telemetry import Log

#: Between two looks whether all is ready.
READY_POLL_S: Final = 0.25
#: Between two words about how it is, where no watchdog asks for them more often.
STATUS_S: Final = 15.0
#: What closing may take after the drain bound: killed workers, last commits, open connections.
CLOSING_S: Final = 30.0
_PER_S: Final = 1_000_000


class Looks(Protocol):
    """Sees how the daemon is."""

    def ready(self) -> tuple[bool, object]: ...

    def summary(self) -> str: ...


class ServiceManager:
    """Whoever started the daemon, as far as it wants to be told."""

    def __init__(self, environment: Mapping[str, str], log: Log) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        #: A name that begins with @ is in the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval_s = _watchdog_s(environment) / 2 or STATUS_S
        self._log = log
        self._trouble = ""

    async def run(self, board: Looks) -> None:
        """Say once that all is ready, and from then on that the event loop turns; until cancelled."""
        if not self._address:
            return
        while not board.ready()[0]:
            self._tell(f"STATUS={board.summary()}")
            await asyncio.sleep(READY_POLL_S)
        self._tell("READY=1")
        while True:
            self._tell("WATCHDOG=1", f"STATUS={board.summary()}")
            await asyncio.sleep(self._interval_s)

    def stopping(self, drain_s: float) -> None:
        """Say that the daemon ends, and how long that may take."""
        patience = round((drain_s + CLOSING_S) * _PER_S)
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={patience}", "STATUS=draining")

    def _tell(self, *lines: str) -> None:
        """Send one notification; one that cannot be sent is logged, and nothing waits for it."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except (OSError, ValueError) as error:
            trouble = str(error)
        else:
            trouble = ""
        if trouble and trouble != self._trouble:
            self._log.write("notification.failed", error=trouble)
        self._trouble = trouble


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Give the time within which a ping is expected from us; 0 = none is."""
    duration, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not duration.isdecimal() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(duration) / _PER_S
