"""What a service manager hears, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from router.service_manager import READY_POLL_S, ServiceManager
from router.telemetry import Log

PATIENCE_S = 20.0


class ScriptedBoard:
    """Is ready when the test says so."""

    def __init__(self, *, ready: bool) -> None:
        self.is_ready = ready

    def ready(self) -> tuple[bool, object]:
        return self.is_ready, None

    def summary(self) -> str:
        return "mappings: 1 idle"


class NotedLog(Log):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def write(self, event: str, **fields: object) -> None:
        self.lines.append(f"{event} {fields['error']}")


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.setblocking(False)
        yield server


@contextmanager
def running(environment: dict[str, str], board: ScriptedBoard) -> Iterator[ServiceManager]:
    manager = ServiceManager(environment, Log())
    work = asyncio.get_running_loop().create_task(manager.run(board))
    try:
        yield manager
    finally:
        work.cancel()


async def heard(server: socket.socket) -> list[str]:
    async with asyncio.timeout(PATIENCE_S):
        return (await asyncio.get_running_loop().sock_recv(server, 4096)).decode().splitlines()


async def until(server: socket.socket, line: str) -> None:
    while line not in await heard(server):
        pass


def drained(server: socket.socket) -> list[str]:
    """Give what has been sent and not been heard."""
    lines: list[str] = []
    with suppress(BlockingIOError):
        while True:
            lines += server.recv(4096).decode().splitlines()
    return lines


async def test_ready_is_said_once_it_is_and_not_before(tmp_path: Path) -> None:
    board = ScriptedBoard(ready=False)
    with listening(str(tmp_path / "notify")) as server, running({"NOTIFY_SOCKET": str(tmp_path / "notify")}, board):
        assert await heard(server) == ["STATUS=mappings: 1 idle"]
        assert await heard(server) == ["STATUS=mappings: 1 idle"]
        board.is_ready = True
        await until(server, "READY=1")
        assert await heard(server) == ["WATCHDOG=1", "STATUS=mappings: 1 idle"]


async def test_a_socket_of_the_abstract_namespace_is_found() -> None:
    name = f"headrace-test-{os.getpid()}"
    with listening(f"\0{name}") as server, running({"NOTIFY_SOCKET": f"@{name}"}, ScriptedBoard(ready=True)):
        assert await heard(server) == ["READY=1"]


async def test_pings_come_at_half_the_watchdogs_time_and_end_while_the_loop_is_stuck(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000", "WATCHDOG_PID": str(os.getpid())}
    with listening(address) as server, running(environment, ScriptedBoard(ready=True)):
        for _ in range(3):
            await until(server, "WATCHDOG=1")
        drained(server)
        # This blocks the event loop for ten pings.
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.recv(4096)
        server.setblocking(False)
        await until(server, "WATCHDOG=1")


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "100"}, {"WATCHDOG_USEC": "100", "WATCHDOG_PID": "1"}])
async def test_who_does_not_listen_is_told_nothing(environment: dict[str, str]) -> None:
    manager = ServiceManager(environment, Log())
    await manager.run(ScriptedBoard(ready=False))
    manager.stopping(1.0)


async def test_a_watchdog_of_another_process_asks_nothing_of_us(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    with listening(address) as server, running(environment, ScriptedBoard(ready=True)):
        await until(server, "READY=1")
        await until(server, "WATCHDOG=1")
        await asyncio.sleep(READY_POLL_S)
        assert drained(server) == []


async def test_stopping_names_the_time_that_a_drain_may_take(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with listening(address) as server:
        ServiceManager({"NOTIFY_SOCKET": address}, Log()).stopping(600)
        assert await heard(server) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=630000000", "STATUS=draining"]


async def test_a_manager_that_does_not_hear_is_logged_once_and_waited_for_never(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    log = NotedLog()
    manager = ServiceManager({"NOTIFY_SOCKET": address}, log)
    for _ in range(2):
        manager.stopping(1.0)
    assert log.lines == ["notification.failed [Errno 2] No such file or directory"]
    with listening(address) as deaf:
        for _ in range(5000):  # more than its queue holds
            manager.stopping(1.0)
        assert log.lines[1:] == ["notification.failed [Errno 11] Resource temporarily unavailable"]
        drained(deaf)
        manager.stopping(1.0)
        assert "STOPPING=1" in drained(deaf)
