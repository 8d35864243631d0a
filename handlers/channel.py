"""The daemon's end of the socket to one worker: frames out and in, without ever waiting.

A small frame is one system call on each side: it is written at once, and the event loop is asked for help only with
what the socket did not take.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Protocol

from handlers import bootstrap

_READ_BYTES: Final = 64 * 1024
_SOCKET_BUFFER_BYTES: Final = 1024 * 1024
_HEADER: Final = bootstrap.HEADER


class Receiver(Protocol):
    """Who is told what comes."""

    def received(self, kind: int, body: bytes, number: int) -> None:
        """Take one frame."""
        ...

    def broken(self, *, is_over: bool) -> None:
        """Learn that the other end is gone (`is_over`), or does not keep to the protocol."""
        ...


class Channel:
    """Sends and receives frames on the running event loop."""

    def __init__(self, ours: socket.socket, receiver: Receiver) -> None:
        self._socket = ours
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._unsent = memoryview(b"")
        #: Pieces of a frame that has not come whole, and how much of it is known to be missing.
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        ours.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        self._loop.add_reader(ours, self.read)

    def send(self, kind: int, body: bytes, number: int = 0, request_id: bytes = b"") -> bool:
        """Send a frame, now or bit by bit; False when nobody is there any more. One at a time."""
        head = _HEADER.pack(kind, len(request_id), len(body), number) + request_id
        try:
            sent = self._socket.sendmsg((head, body))
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(head) + len(body):
            self._unsent = memoryview(head + body)[sent:]
            self._loop.add_writer(self._socket, self._send_more)
        return True

    def _send_more(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # it is dying; its exit tells the rest
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def read(self) -> None:
        """Take what has come."""
        data = self._receive()
        if data is None:
            return
        if len(data) < _HEADER.size:
            self._await_rest(data, _HEADER.size - len(data))
            return
        kind, id_bytes, size, number = _HEADER.unpack_from(data)
        missing_bytes = _HEADER.size + size - len(data)
        if missing_bytes < 0 or id_bytes or size > bootstrap.RESULT_LIMIT_BYTES:
            self._receiver.broken(is_over=False)
        elif missing_bytes:
            self._await_rest(data, missing_bytes)
        else:
            self._receiver.received(kind, data[_HEADER.size :], number)

    def _receive(self) -> bytes | None:
        """Read once; None when nothing has come, or not yet all that is known to be missing."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self._receiver.broken(is_over=True)
            return None
        if self._parts:
            self._parts.append(data)
            self._missing_bytes -= len(data)
            if self._missing_bytes > 0:
                return None
            data = b"".join(self._parts)
            self._parts = []
        return data

    def _await_rest(self, data: bytes, missing_bytes: int) -> None:
        self._parts = [data]
        self._missing_bytes = missing_bytes

    def stop(self) -> None:
        """Read and write no more."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)

    def close(self) -> None:
        self.stop()
        self._socket.close()
