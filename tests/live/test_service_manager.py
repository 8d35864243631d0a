"""A daemon started as systemd starts it, with a socket to be told by."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.live.daemon import PATIENCE_S, Daemon, plain, produce

FINE = "def handle(event, context): ..."
SLOW = """
import pathlib, time

def handle(event, context):
    pathlib.Path("began").touch()
    while not pathlib.Path("end").exists():
        time.sleep(0.01)
"""


class Manager:
    """Hears what it is told at once, as systemd does: a socket that is not read holds ten words, and loses the next."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._heard: asyncio.Queue[list[str]] = asyncio.Queue()

    def hear(self) -> None:
        self._heard.put_nowait(self._server.recv(4096).decode().splitlines())

    async def until(self, line: str) -> list[str]:
        """Give all lines up to the first that begins so."""
        lines: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not any(each.startswith(line) for each in lines):
                    lines += await self._heard.get()
        except TimeoutError:
            raise AssertionError(f"not in {PATIENCE_S:.0f} s: {line}, but {lines[-6:]}") from None
        return lines


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.setblocking(False)
        made = Manager(server)
        asyncio.get_running_loop().add_reader(server, made.hear)
        yield made
        asyncio.get_running_loop().remove_reader(server)


def managed(folder: Path) -> Daemon:
    return Daemon(folder, {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"})


@asynccontextmanager
async def mute_broker() -> AsyncIterator[tuple[int, asyncio.Server]]:
    """A port that takes connections and says nothing."""
    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], server
    finally:
        server.close()
        for connection in connections:
            connection.close()
        await server.wait_closed()


async def readiness(daemon: Daemon) -> int:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{daemon.port}/health/ready") as answer:
        return answer.status


async def test_ready_is_told_when_health_ready_says_it(tmp_path: Path, manager: Manager) -> None:
    async with managed(tmp_path) as daemon:
        async with mute_broker() as (port, _):
            daemon.function("orders", FINE)
            daemon.mapping("orders", plain(f"127.0.0.1:{port}", "orders"))
            await daemon.start(ready=False)
            before = await manager.until("STATUS=mappings: 1 starting")
            assert await readiness(daemon) == 503
        assert "READY=1" not in before
        await manager.until("READY=1")
        assert await readiness(daemon) == 200
        await manager.until("STATUS=mappings: 1 starting (orders: SourceUnavailable)")
        daemon.file.write_text("functions: 7")
        daemon.process.send_signal(signal.SIGHUP)
        await manager.until("STATUS=mappings: 1 starting (orders: SourceUnavailable); the configuration was refused")
        assert await daemon.terminate() == 0
        await manager.until("STOPPING=1")


async def test_pings_go_on_while_a_handler_is_busy_and_a_drain_waits_for_it(
    tmp_path: Path, manager: Manager, kafka_bootstrap: str, topic: Any
) -> None:
    name = await topic()
    async with managed(tmp_path) as daemon:
        code = daemon.function("orders", SLOW, timeout=60).parent
        daemon.mapping("orders", plain(kafka_bootstrap, name))
        await daemon.start()
        await manager.until("READY=1")
        await produce(kafka_bootstrap, name, [("key", 1)])
        await daemon.until((code / "began").exists, "the handler began")
        await manager.until("STATUS=mappings: 1 running")
        daemon.process.terminate()
        assert "EXTEND_TIMEOUT_USEC=60000000" in await manager.until("STATUS=draining")
        await manager.until("WATCHDOG=1")
        await manager.until("WATCHDOG=1")
        (code / "end").touch()
        assert await daemon.exit() == 0
