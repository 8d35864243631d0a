"""The daemon's end of the socket to one worker: frames out and in, without ever waiting.

A small frame is one system call on each side: it is written at once, and the event loop is asked for help only with
what the socket did not take. Where many come together, those of one turn of the loop are one system call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Final, Protocol

from handlers import bootstrap

#: What a read brings, until it is copied: an object of this size for each read would cost as much as the read.
_read: Final = memoryview(bytearray(64 * 1024))
_SOCKET_BUFFER_BYTES: Final = 1024 * 1024
#: Frames that are sent together, at most: the worker begins while the next ones are made.
_TOGETHER: Final = 32
_HEADER: Final = bootstrap.HEADER
_HEADER_BYTES: Final = _HEADER.size


class Receiver(Protocol):
    """Who is told what comes."""

    def received(self, kind: int, slot: int, body: bytes, number: int) -> None:
        """Take one frame."""
        ...

    def flowing(self) -> None:
        """Learn that the channel is no longer clogged."""
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
        #: Frames that wait for the end of this turn of the loop, and what the socket did not take yet.
        self._frames: list[bytes] = []
        self._waiting_bytes = 0
        self._unsent = memoryview(b"")
        #: Pieces of a frame that has not come whole, and how much of it is known to be missing.
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        self._is_over = False
        ours.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            ours.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        self._loop.add_reader(ours, self.read)

    @property
    def is_clogged(self) -> bool:
        """Does something wait that the socket does not take?"""
        return bool(self._unsent)

    def send(self, kind: int, body: bytes, number: int = 0, request_id: bytes = b"", slot: int = 0) -> bool:
        """Send a frame at once, or what the socket does not take later; False when nobody is there any more."""
        if self._frames or self._unsent:
            self.post(kind, body, number, request_id, slot)
            return True
        head = _HEADER.pack(kind, len(request_id), slot, len(body), number) + request_id
        try:
            sent = self._socket.sendmsg((head, body))
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(head) + len(body):
            self._await_room(memoryview(head + body)[sent:])
        return True

    def send_descriptors(self, kind: int, slot: int, descriptors: Sequence[int]) -> None:
        """Send a frame without a body and descriptors with it; raises OSError when the socket does not take it now."""
        socket.send_fds(self._socket, [_HEADER.pack(kind, 0, slot, 0, 0)], descriptors)

    def post(self, kind: int, body: bytes, number: int = 0, request_id: bytes = b"", slot: int = 0) -> None:
        """Send a frame together with others of this turn of the loop."""
        if not self._frames:
            self._loop.call_soon(self._flush)
        head = _HEADER.pack(kind, len(request_id), slot, len(body), number)
        self._frames.append(head + request_id + body)
        self._waiting_bytes += len(body)
        if len(self._frames) >= _TOGETHER or self._waiting_bytes >= _SOCKET_BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._unsent or not self._frames:
            return
        data = b"".join(self._frames)
        self._frames.clear()
        self._waiting_bytes = 0
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is dying; its exit tells the rest
            return
        if sent < len(data):
            self._await_room(memoryview(data)[sent:])

    def _await_room(self, unsent: memoryview) -> None:
        self._unsent = unsent
        self._loop.add_writer(self._socket, self._send_more)

    def _send_more(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # it is dying; its exit tells the rest
            self._unsent = self._unsent[:0]
        if not self._unsent:
            self._loop.remove_writer(self._socket)
            self._flush()
        if not self._unsent:
            self._receiver.flowing()

    def read(self) -> bool:
        """Take what has come; False when nothing has."""
        data = self._receive()
        if not data:
            return data is not None
        at, end, size = 0, _HEADER_BYTES, len(data)
        while end <= size:
            kind, id_bytes, slot, body_bytes, number = _HEADER.unpack_from(data, at)
            if id_bytes or body_bytes > bootstrap.RESULT_LIMIT_BYTES:
                self._break(is_over=False)
                return False
            end += body_bytes
            if end > size:
                break
            self._receiver.received(kind, slot, data[end - body_bytes : end], number)
            at = end
            end += _HEADER_BYTES
        if at < size:
            self._parts = [data[at:]]
            self._missing_bytes = end - size
        return True

    def drain(self) -> None:
        """Take all that has come."""
        while not self._is_over and self.read():
            pass

    def _break(self, *, is_over: bool) -> None:
        self._is_over = True
        self._receiver.broken(is_over=is_over)

    def _receive(self) -> bytes | None:
        """Read once; None when nothing has come, b"" while a frame is known not to be whole yet."""
        try:
            size = self._socket.recv_into(_read)
        except BlockingIOError:
            return None
        except OSError:
            size = 0
        if not size:
            self._break(is_over=True)
            return None
        data = bytes(_read[:size])
        if self._parts:
            self._parts.append(data)
            self._missing_bytes -= len(data)
            if self._missing_bytes > 0:
                return b""
            data = b"".join(self._parts)
            self._parts = []
        return data

    def stop(self) -> None:
        """Read and write no more."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)

    def close(self) -> None:
        self.stop()
        self._socket.close()
