"""`headrace status --watch` beside a daemon that comes and goes. It needs no server: there is nobody at its brokers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import COMMAND, PATIENCE_S, Daemon, plain


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path) as made:
        made.function("orders", "def handle(event, context): pass")
        made.mapping("orders", plain("127.0.0.1:1", "orders"))
        made.write()
        yield made


@asynccontextmanager
async def watching(daemon: Daemon, *options: str, stdout: int = PIPE) -> AsyncIterator[Process]:
    words = ("status", "--watch", "--interval", "100ms", *options)
    environment = {**os.environ, "HEADRACE_CONFIG": str(daemon.file), "TERM": "xterm"}
    process = await asyncio.create_subprocess_exec(COMMAND, *words, env=environment, stdin=DEVNULL, stdout=stdout)
    try:
        async with asyncio.timeout(3 * PATIENCE_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(process: Process, state: str) -> Mapping[str, Any]:
    """Read documents up to one of this state."""
    assert process.stdout is not None
    while True:
        document: Mapping[str, Any] = json.loads(await process.stdout.readline())
        if document["state"] == state:
            return document


async def test_one_document_a_line_over_restarts_until_it_is_interrupted(daemon: Daemon) -> None:
    async with watching(daemon, "--json") as process:
        assert "no headrace runs" in (await until(process, "away"))["error"]
        await daemon.start()
        running = await until(process, "running")
        assert [each["name"] for each in running["mappings"]] == ["orders"]
        await daemon.kill()
        await until(process, "away")
        await daemon.start()
        await until(process, "running")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_without_a_terminal_one_snapshot_follows_the_other(daemon: Daemon) -> None:
    await daemon.start()
    async with watching(daemon) as process:
        assert process.stdout is not None
        for _ in range(2):
            while b"headrace 0" not in await process.stdout.readline():
                pass
            assert (await process.stdout.readline()).startswith(b"MAPPING")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


class Terminal:
    """The other side of a terminal that a process writes to."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._written = asyncio.Queue[bytes]()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, lambda: self._written.put_nowait(os.read(self._ours, 65536)))

    async def read_to(self, wanted: bytes) -> bytes:
        """Read what is written up to this."""
        text = b""
        while wanted not in text:
            text += await self._written.get()
        return text

    def close(self) -> None:
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        os.close(self.theirs)


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_terminal_gets_its_screen_back(daemon: Daemon, terminal: Terminal, number: int, status: int) -> None:
    async with watching(daemon, stdout=terminal.theirs) as process:
        assert b"\x1b[?1049h" in await terminal.read_to(b"away")
        for _ in range(20):
            process.send_signal(signal.SIGWINCH)
        process.send_signal(number)
        await terminal.read_to(b"\x1b[?1049l")
        assert await process.wait() == status


async def test_a_terminal_of_another_size_is_drawn_anew_at_once(daemon: Daemon, terminal: Terminal) -> None:
    async with watching(daemon, "--interval", "1h", stdout=terminal.theirs) as process:
        await terminal.read_to(b"every 3600 s")
        for _ in range(3):
            process.send_signal(signal.SIGWINCH)
            await terminal.read_to(b"every 3600 s")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
