"""What becomes of a call that was given up on while Redis was not reached: it must not come behind later ones."""

from __future__ import annotations

import asyncio
import socket

import pytest

from connectors.redis.link import RedisLink
from connectors.settings import RedisSettings
from router.errors import StoreUnavailable

#: More than a receiver takes in that does not read, less than the kernel takes from the sender.
SIZE = 60_000


def received(server: socket.socket) -> bytes:
    """Give all that comes."""
    text = b""
    try:
        while more := server.recv(65536):
            text += more
    except ConnectionResetError:
        pass
    return text


async def test_what_is_still_on_its_way_is_not_sent_any_more() -> None:
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        link = RedisLink(RedisSettings(tls=False, host="127.0.0.1", port=listening.getsockname()[1], database=0), "f")
        with pytest.raises(StoreUnavailable, match="in time"):
            await link.command("SET", "key", b"x" * SIZE, within_s=2.0)
        await link.close()
        connection, _ = listening.accept()
        connection.settimeout(5)
        text = await asyncio.to_thread(received, connection)
        connection.close()
    assert 0 < len(text) < SIZE
