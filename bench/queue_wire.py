"""A process that passes bytes on between a port of its own and a server: an endpoint that can be killed.

    python -m bench.queue_wire PORT HOST:PORT

It listens on the first port until it is killed, and passes everything on to the second.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
_START_S = 20.0


class Wire:
    """The process, from outside; it may be started again on its port."""

    def __init__(self, endpoint_url: str) -> None:
        self._target = urlsplit(endpoint_url).netloc
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.queue_wire", str(self._port), self._target, cwd=ROOT, stdout=PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_START_S):
            assert await self._process.stdout.readline(), "the wire ended"

    async def kill(self) -> None:
        """Kill it with -9; its connections end as they are."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def _serve(port: int, host: str, target_port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, back), _copy(there, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        print("listening", flush=True)
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on until one side ends, then end the other."""
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("port", type=int, metavar="PORT", help="where it listens")
    parser.add_argument("target", metavar="HOST:PORT", help="where it leads")
    given = parser.parse_args()
    host, _, target_port = given.target.rpartition(":")
    asyncio.run(_serve(given.port, host, int(target_port)))


if __name__ == "__main__":
    main()
