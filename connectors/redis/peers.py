"""How the replicas of a fleet ask each other: through Redis, each by an inbox of its own.

An inbox is a stream that is read from where the reader was, so that nothing is lost when a connection breaks while it
is read; what was read is taken off with the next read. It belongs to one incarnation, and goes with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.link import CALL_S, RedisLink
from connectors.redis.table_scripts import ANSWER, ASK, INBOX
from router.errors import PeerGone, StoreUnavailable
from router.ports import PeerCall

#: Largest body, bytes.
BODY_BYTES: Final = 16 << 20
#: Longest time that one read of the inbox waits for something.
_READ_S: Final = 5.0
_READ_COUNT: Final = 100
#: Longest time between two looks at the row of one that is asked.
_LOOK_S: Final = 2.0


class RedisPeers:
    """The Peers port over Redis. What comes is read from the first `ask` or `calls` on, until `close`."""

    def __init__(self, link: RedisLink, table: RedisLeaseTable) -> None:
        """Reach nothing yet; who asks is who has joined this table. The link stays open."""
        self._link = link
        self._table = table
        self._closed = False
        self._asked: dict[str, asyncio.Future[bytes]] = {}
        self._waiting: deque[_Call | None] = deque()
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        #: The incarnation whose inbox is read.
        self._read_as = ""
        #: Why the last reader ended.
        self._failure: StoreUnavailable | None = None
        #: Of calls that came of late: a reader begins at the oldest entry that is left, and some were read before.
        self._ids: deque[bytes] = deque(maxlen=2 * _READ_COUNT)

    async def ask(self, replica: str, what: str, body: bytes, within_s: float) -> bytes:
        _check_size(body)
        call_id = secrets.token_hex(8)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        await self._follow()
        self._asked[call_id] = answered
        try:
            async with asyncio.timeout(within_s):
                asked = await self._table.run(ASK, replica, call_id, what, body)
                if asked[0] == b"asked":
                    await self._settled(answered, replica, asked[1].decode(), int(asked[2]))
        except TimeoutError:
            raise TimeoutError(f"replica {replica} has not answered {what} within {within_s:g} s") from None
        finally:
            del self._asked[call_id]
            answered.cancel()
        if asked[0] == b"busy":
            raise TimeoutError(f"replica {replica} is asked {what}, and has {INBOX} calls to answer before")
        if asked[0] == b"nobody":
            raise PeerGone(f"there is no replica {replica} in fleet {self._link.fleet}")
        return answered.result()

    async def _settled(self, answered: asyncio.Future[bytes], replica: str, incarnation: str, beat: int) -> None:
        """Wait for an answer, and look meanwhile whether the one that is to give it lives.

        A reader that has ended is put to work again: what it missed is still in the inbox.
        """
        loop = asyncio.get_running_loop()
        lease_s = self._table.lease_s
        moved_s = loop.time()
        while not (await asyncio.wait({answered}, timeout=min(_LOOK_S, lease_s / 5)))[0]:
            row = await self._table.row(replica)
            self._start()
            if answered.done():
                return
            if row is None or row.incarnation != incarnation:
                raise PeerGone(f"replica {replica} ended before it answered")
            if row.beat != beat:
                beat, moved_s = row.beat, loop.time()
            elif loop.time() - moved_s >= max(lease_s, row.lease_s):
                raise PeerGone(f"replica {replica} has not been heard of for {max(lease_s, row.lease_s):g} s")

    async def calls(self) -> AsyncIterator[PeerCall | None]:
        while not self._closed:
            if self._waiting:
                call = self._waiting.popleft()
                self._room.set()
                yield call
                continue
            await self._follow()
            self._came.clear()
            await self._came.wait()
            if self._failure is not None and not self._waiting:
                raise self._failure

    async def close(self) -> None:
        self._closed = True
        await self._stop()

    def _start(self) -> None:
        """Read what comes, unless that is being done."""
        if self._closed:
            raise StoreUnavailable(f"{self._link.where}: it is closed")
        if self._reader is None or self._reader.done():
            self._failure = None
            self._reader = asyncio.create_task(self._read_on())

    async def _stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        self._came.set()
        for answered in self._asked.values():
            if not answered.done():
                answered.set_exception(StoreUnavailable(f"{self._link.where}: we do not listen for answers any more"))

    async def _follow(self) -> None:
        """Read as who we are: when we have joined anew, what our former self was asked is not for us."""
        if self._read_as != self._table.incarnation:
            await self._stop()
            self._waiting.clear()
            self._read_as = self._table.incarnation
        self._start()

    async def _read_on(self) -> None:
        """Sort what comes into answers and calls until a read fails; who asks next begins anew."""
        inbox = self._link.key("inbox", self._table.name, self._read_as)
        read = b"0-0"
        try:
            while self._read_as == self._table.incarnation:
                block_ms = int(_READ_S * 1000)
                words = ("XREAD", "COUNT", _READ_COUNT, "BLOCK", block_ms, "STREAMS", inbox, read)
                found = await self._link.command(*words, within_s=_READ_S + CALL_S)
                for number, entry in found[0][1] if found else ():
                    read = number
                    self._sort(entry)
                if found:
                    await self._link.command("XTRIM", inbox, "MINID", _after(read))
                while len(self._waiting) >= INBOX:
                    self._room.clear()
                    await self._room.wait()
        except StoreUnavailable as error:
            self._failure = error
        finally:
            self._came.set()

    def _sort(self, entry: Mapping[bytes, bytes]) -> None:
        match entry[b"k"]:
            case b"answer":
                answered = self._asked.get(entry[b"id"].decode())
                if answered is not None and not answered.done():
                    answered.set_result(entry[b"body"])
            case b"nudge":
                if not self._waiting or self._waiting[-1] is not None:
                    self._waiting.append(None)
            case _ if entry[b"id"] not in self._ids:
                self._ids.append(entry[b"id"])
                self._waiting.append(_Call(self._table, entry))
        self._came.set()


class _Call:
    """Something that another replica asks."""

    def __init__(self, table: RedisLeaseTable, entry: Mapping[bytes, bytes]) -> None:
        self.replica = entry[b"by"].decode()
        self.what = entry[b"what"].decode()
        self.body = entry[b"body"]
        self._table = table
        self._asker = entry[b"of"]
        self._id = entry[b"id"]

    async def answer(self, body: bytes) -> None:
        _check_size(body)
        await self._table.run(ANSWER, self.replica, self._asker, self._id, body)


def _check_size(body: bytes) -> None:
    if len(body) > BODY_BYTES:
        raise ValueError(f"{len(body)} bytes are more than replicas tell each other in one call ({BODY_BYTES})")


def _after(number: bytes) -> str:
    """Give the first possible number of an entry behind this one."""
    time, _, count = number.decode().partition("-")
    return f"{time}-{int(count) + 1}"
