"""Several events of one worker at once, as tasks of one event loop.

bootstrap.py loads this file into a worker whose function has a `concurrency_per_worker` of more than 1. Like it, this
one runs in the user's interpreter and needs CPython 3.9 or newer and the standard library; uvloop runs the event loop
where it is installed.

Whose a line of output is says a context variable, which asyncio copies into every task and `asyncio.to_thread` that an
invocation starts. Such lines travel as frames, each at once, so that none is lost with the process. What nobody can
attribute (child processes, C libraries, threads without that context, what is printed after its invocation's end) goes
where all output of a worker goes that runs one event at a time.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import select
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NoReturn, Optional, Tuple

if TYPE_CHECKING:
    from handlers import bootstrap
else:
    import __main__ as bootstrap  # the worker's main program

#: Output of one request that is kept.
OUTPUT_LIMIT_BYTES = 1024 * 1024
_CUT = b"[more output of this request was not kept]\n"
#: A line is sent in pieces of about this size where it does not end.
_LINE_BYTES = 8 * 1024
_READ_BYTES = 64 * 1024
#: Frames that are sent together, at most: the daemon works on them while the next ones are made.
_TOGETHER = 32


class Wire:
    """The worker's socket, for as many frames at a time as there are. Only the loop's thread sends."""

    def __init__(self, channel: bootstrap.Channel, loop: asyncio.AbstractEventLoop) -> None:
        self._channel = channel
        self._loop = loop
        self._thread = threading.get_ident()
        self._frames: List[bytes] = []
        self._is_sending = False
        self._is_due = False
        #: Pieces of a frame that has not come whole, and how much of it is known to be missing.
        self._parts: List[bytes] = []
        self._missing_bytes = 0

    @property
    def is_closed(self) -> bool:
        """Is this a forked child?"""
        return self._channel.socket.fileno() < 0

    def post(self, kind: int, slot: int, body: bytes, number: int = 0) -> None:
        """Send a frame, together with others of this turn of the loop."""
        self._frames.append(bootstrap.HEADER.pack(kind, 0, slot, len(body), number) + body)
        if len(self._frames) >= _TOGETHER:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.flush)

    def send(self, kind: int, slot: int, body: bytes) -> None:
        """Send a frame at once, from any thread."""
        self._frames.append(bootstrap.HEADER.pack(kind, 0, slot, len(body), 0) + body)
        if threading.get_ident() == self._thread:
            self.flush()
        else:
            self._loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Send what waits, in order."""
        self._is_due = False
        if self._is_sending:  # a finaliser or signal handler prints while this is at it: it goes on below
            return
        self._is_sending = True
        try:
            while self._frames:
                count = len(self._frames)  # other threads may add to them meanwhile
                data = b"".join(self._frames[:count])
                del self._frames[:count]
                self._send_all(memoryview(data))
        except OSError:  # the daemon is gone
            os._exit(1)
        finally:
            self._is_sending = False

    def _send_all(self, data: memoryview) -> None:
        """Send, and wait where the socket is full: the daemon never stops reading."""
        while data:
            try:
                data = data[self._channel.socket.send(data) :]
            except BlockingIOError:  # uvloop takes the socket out of blocking mode
                poll = select.poll()
                poll.register(self._channel.socket, select.POLLOUT)
                poll.poll()

    def receive(self) -> List[Tuple[int, int, int, str, bytes]]:
        """Read once, and give the frames that are whole: kind, slot, number, request id, body."""
        data = self._channel.socket.recv(_READ_BYTES)
        if not data:
            bootstrap.leave()
        if self._parts:
            self._parts.append(data)
            self._missing_bytes -= len(data)
            if self._missing_bytes > 0:
                return []
            data = b"".join(self._parts)
            self._parts = []
        return self._cut(data)

    def _cut(self, data: bytes) -> List[Tuple[int, int, int, str, bytes]]:
        frames: List[Tuple[int, int, int, str, bytes]] = []
        head_bytes = bootstrap.HEADER.size
        at, end, size = 0, head_bytes, len(data)
        while end <= size:
            kind, id_bytes, slot, body_bytes, number = bootstrap.HEADER.unpack_from(data, at)
            body_at = end + id_bytes
            end = body_at + body_bytes
            if end > size:
                break
            frames.append((kind, slot, number, data[at + head_bytes : body_at].decode(), data[body_at:end]))
            at = end
            end += head_bytes
        if at < size:
            self._parts = [data[at:]]
            self._missing_bytes = end - size
        return frames


class Running:
    """One event that runs, and what it prints."""

    __slots__ = ("_is_over", "_rests", "_room_bytes", "_slot", "_wire", "request_id")

    def __init__(self, wire: Wire, slot: int, request_id: str) -> None:
        self._wire = wire
        self._slot = slot
        self.request_id = request_id
        self._is_over = False
        self._room_bytes = OUTPUT_LIMIT_BYTES
        #: Beginnings of lines, by the descriptor that they were written to.
        self._rests: Optional[Dict[int, bytes]] = None

    def write(self, descriptor: int, data: bytes) -> bool:
        """Take what it prints; False when that is not for us: it is over, or a forked child."""
        if self._is_over or self._wire.is_closed:
            return False
        if self._rests is None:
            self._rests = {}
        text = self._rests.get(descriptor, b"") + data
        end = text.rfind(b"\n") + 1 or (len(text) if len(text) >= _LINE_BYTES else 0)
        self._rests[descriptor] = text[end:]
        if end:
            self._send(text[:end])
        return True

    def end(self) -> None:
        """Send what is left, and take no more."""
        self._is_over = True
        for rest in (self._rests or {}).values():
            if rest:
                self._send(rest)

    def _send(self, text: bytes) -> None:
        if self._room_bytes < 0:
            return
        if len(text) > self._room_bytes:
            kept = text[: self._room_bytes]
            if kept and not kept.endswith(b"\n"):
                kept += b"\n"
            text = kept + _CUT
        self._room_bytes -= len(text)
        self._wire.send(bootstrap.OUTPUT, self._slot, text)


_RUNNING: ContextVar[Optional[Running]] = ContextVar("headrace_running", default=None)


class _Stream(io.RawIOBase):
    """Standard output or error: what an invocation writes is its own, all else goes to the descriptor."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        text = bytes(data)
        running = _RUNNING.get()
        if running is None or not running.write(self._descriptor, text):
            written = 0
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        return len(text)


class _TaskLog(bootstrap.Log):
    def current(self) -> str:
        running = _RUNNING.get()
        return running.request_id if running is not None else ""


class TaskWorker(bootstrap.Worker):
    """A worker that does not wait for the end of one event before it begins the next."""

    def __init__(self, setup: Dict[str, Any]) -> None:
        super().__init__(setup)
        self.log = _TaskLog()
        self._concurrency: int = setup["concurrency"]
        self._tasks: Dict[int, asyncio.Task[None]] = {}
        if setup["logs"]:
            sys.stdout, sys.stderr = _stream(1), _stream(2)

    def load(self) -> None:
        super().load()
        if not (
            inspect.iscoroutinefunction(self._handler) or inspect.iscoroutinefunction(type(self._handler).__call__)
        ):
            message = (
                "concurrency_per_worker is {}, which needs an async def handler, and '{}' is none: make it async def, "
                "or leave concurrency_per_worker at 1"
            )
            raise bootstrap.Fault("Runtime.HandlerNotAsync", message.format(self._concurrency, self._name))
        self._new_loop = _loop_maker()

    def serve(self, channel: bootstrap.Channel) -> NoReturn:
        """Answer events until the daemon closes the channel, or one of them ends the process."""
        self._set_up()
        self._loop = self._new_loop()
        asyncio.set_event_loop(self._loop)
        self._wire = Wire(channel, self._loop)
        self._loop.add_reader(channel.socket, self._take)
        try:
            self._loop.run_forever()
        finally:
            self._wire.flush()
            self._loop.set_exception_handler(_ignore)  # the tasks that are left: there is no need to tell of each
        raise SystemExit

    def _take(self) -> None:
        for kind, slot, number, request_id, body in self._wire.receive():
            if kind in (bootstrap.INVOKE, bootstrap.INVOKE_TOLD):
                work = self._answer(slot, number, request_id, body, is_told=kind == bootstrap.INVOKE_TOLD)
                self._tasks[slot] = asyncio.Task(work, loop=self._loop, name=request_id)
            elif kind == bootstrap.PING:
                self._wire.post(bootstrap.PONG, 0, b"")
            elif slot in self._tasks:
                self._loop.call_soon(self._tasks[slot].cancel)  # behind its first step, which may still be to come

    async def _answer(self, slot: int, number: int, request_id: str, body: bytes, *, is_told: bool) -> None:
        """Run one event and post its result. SystemExit and KeyboardInterrupt end the loop."""
        start_ns = time.perf_counter_ns()
        running = Running(self._wire, slot, request_id)
        _RUNNING.set(running)
        kind = bootstrap.RAISED
        try:
            context, event = bootstrap.LambdaContext(request_id, number), body
            if is_told:  # of a tracing header, too, which has no place here: all share the environment
                told, event = bootstrap.split_told(body)
                context.tell(told)
            result = await self._handler(bootstrap.decode(event), context)
            kind = bootstrap.BAD_RESULT
            answer = self._marshaller.encode(result)
            kind = bootstrap.RETURNED
        except (SystemExit, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # whatever a handler raises is its answer
            answer = bootstrap.report(error, request_id)
        running.end()
        del self._tasks[slot]
        if self._wire.is_closed:  # a forked child that returned from the handler
            os._exit(1)
        self._wire.post(kind, slot, answer, (time.perf_counter_ns() - start_ns) // 1000)


def _stream(descriptor: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(_Stream(descriptor), "utf-8", "backslashreplace", write_through=True)  # type: ignore[arg-type,unused-ignore]


def _loop_maker() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return new_event_loop


def _ignore(*_: object) -> None:
    pass
