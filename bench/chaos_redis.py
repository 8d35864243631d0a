"""A Redis of our own that may be killed, frozen and filled, and keeps everything: append-only file, fsync always."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.chaos_ports import HOST, quiet_port

_START_S = 20.0


class Redis:
    """The server, on a port that stays the same; its data is in the folder."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder = folder
        self._settings = settings
        self._port = quiet_port()
        self._process: Process | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it on what it has, and wait until it has loaded that."""
        self.folder.mkdir(exist_ok=True)
        settings = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", *self._settings]
        where = ["--bind", HOST, "--port", str(self._port), "--dir", str(self.folder), "--logfile", "log"]
        self._process = await asyncio.create_subprocess_exec("redis-server", *where, *settings, stdout=DEVNULL)
        async with asyncio.timeout(_START_S):
            while await self._ping() != b"+PONG":
                assert self._process.returncode is None, (self.folder / "log").read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kill it with -9."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None, "it was never started"
        os.kill(self._process.pid, number)

    async def set(self, setting: str, value: str) -> None:
        """Change a setting while it runs."""
        answer = await self.ask("CONFIG", "SET", setting, value)
        assert answer == b"+OK", answer

    async def ask(self, *words: str) -> bytes:
        """Send a command, and give the first line of its answer."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            writer.write(command.encode())
            return (await reader.readline()).rstrip()
        finally:
            writer.close()

    async def _ping(self) -> bytes:
        with suppress(OSError):
            return await self.ask("PING")
        return b""
