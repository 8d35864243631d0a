"""A wire between a client and a broker that can be cut, stalled and mended.

Kafka clients leave the address they were given for the one the broker advertises, so the proxy rewrites that in every
response: the same host with another port is as long as before.
"""

from __future__ import annotations

import asyncio
import struct


class KafkaProxy:
    """Listens on a port of its own that stays the same while it is cut and mended."""

    def __init__(self, broker: str) -> None:
        self._host, _, port = broker.rpartition(":")
        self._broker_port = int(port)
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    async def mend(self) -> None:
        """Listen, and let what was stalled flow again."""
        self._flowing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self._host, self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def stall(self) -> None:
        """Swallow everything without closing anything."""
        self._flowing.clear()

    async def cut(self) -> None:
        """Close every connection and refuse new ones."""
        assert self._server is not None
        self._server.close()
        self._server = None
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        broker_reader, broker_writer = await asyncio.open_connection(self._host, self._broker_port)
        self._writers |= {writer, broker_writer}
        try:
            await asyncio.gather(self._requests(reader, broker_writer), self._responses(broker_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            for each in (writer, broker_writer):
                each.close()
                self._writers.discard(each)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
        raise ConnectionResetError

    async def _responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        advertised, ours = (
            struct.pack(">h", len(self._host)) + self._host.encode() + struct.pack(">i", port)
            for port in (self._broker_port, self._port)
        )
        while True:
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size))
            await self._flowing.wait()
            writer.write(size + body.replace(advertised, ours))
