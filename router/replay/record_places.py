"""Where failure records come from: a file that a command reads to us, a queue, the objects of a bucket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

import msgspec

from router.errors import NotFound, SourceUnavailable
from router.failures.reading import RECORD_LIMIT_BYTES
from router.ports import ObjectSource, QueueSource
from router.replay.end import Prospect, RecordEnd, ReplayEnd
from router.replay.queue_job import CALL_LIMIT, WAIT_S, QueueReplay, message_id
from router.replay.record_frames import ReadText

#: Records in hand at once, and their bytes; one alone may be larger.
AT_ONCE: Final = 8
AT_ONCE_BYTES: Final = 32 * 1024 * 1024
#: Objects in a row that cannot be read before a job stops.
UNREAD_LIMIT: Final = 3
#: Objects that are counted before a job begins, at most.
COUNT_LIMIT: Final = 100_000

#: Records that somebody reads to us. Raises ConnectionError when they end half-way.
Records = AsyncIterator[ReadText]
#: Runs a record to its end; says what that would do.
Run = Callable[[ReadText], Awaitable[RecordEnd]]
Look = Callable[[ReadText], Awaitable[Prospect]]
#: Hears what came of a record.
Tell = Callable[[ReplayEnd | Prospect], Awaitable[None]]


class RecordPlace(Protocol):
    """Failure records in one place."""

    #: Does it let go of what is settled, so that nothing has to be remembered of it?
    forgets: bool

    async def open(self) -> None:
        """Reach it. Raises SourceUnavailable."""
        ...

    async def count(self) -> int | None:
        """Count the records, about; None = not known. Raises SourceUnavailable, NotFound."""
        ...

    async def replay(self, run: Run, tell: Tell, interval_s: float) -> str | None:
        """Run all records; gives why it stopped before the last, if it did."""
        ...

    async def look(self, look: Look, tell: Tell) -> str | None:
        """Look at the records; gives why it stopped early, if it did."""
        ...

    async def close(self) -> None: ...


class GivenRecords:
    """Records that somebody reads to us."""

    forgets = False

    def __init__(self, records: Records) -> None:
        self._records = records

    async def open(self) -> None:
        """It is."""

    async def count(self) -> int | None:
        return None

    async def replay(self, run: Run, tell: Tell, interval_s: float) -> str | None:
        return await _at_once(self._records, run, tell, interval_s)

    async def look(self, look: Look, tell: Tell) -> str | None:
        return await _in_turn(self._records, look, tell)

    async def close(self) -> None:
        """Whoever reads them closes what they are in."""


class RecordObjects:
    """The objects of a bucket, a record each, as AWS Lambda writes them."""

    forgets = False

    def __init__(self, objects: ObjectSource) -> None:
        self._objects = objects

    async def open(self) -> None:
        try:
            await self._objects.open()
        except BaseException:
            await self._objects.close()
            raise

    async def count(self) -> int | None:
        count, key = 0, ""
        while keys := await self._objects.page(key):
            count, key = count + len(keys), keys[-1][0]
            if count > COUNT_LIMIT:
                return None
        if not count:
            raise NotFound(f"there is no object in {self._objects.name}; correct bucket or prefix")
        return count

    async def replay(self, run: Run, tell: Tell, interval_s: float) -> str | None:
        return await _at_once(self._found(), run, tell, interval_s)

    async def look(self, look: Look, tell: Tell) -> str | None:
        return await _in_turn(self._found(), look, tell)

    async def close(self) -> None:
        await self._objects.close()

    async def _found(self) -> AsyncIterator[ReadText]:
        """Give the objects by key, which for those of one shard is the order in which they failed.

        Raises:
            SourceUnavailable
        """
        unread = 0
        key = ""
        while keys := await self._objects.page(key):
            for key, size_bytes in keys:
                if size_bytes > RECORD_LIMIT_BYTES:
                    yield ReadText(key, b"", f"it is larger than a failure record can be ({size_bytes} bytes)")
                    continue
                try:
                    found = ReadText(key, await self._objects.read(key))
                    unread = 0
                except NotFound as error:
                    found = ReadText(key, b"", str(error))
                except SourceUnavailable as error:
                    unread += 1
                    if unread == UNREAD_LIMIT:
                        raise
                    found = ReadText(key, b"", str(error))
                yield found


class RecordQueue:
    """A queue of failure records; those that are settled are deleted from it."""

    forgets = True

    def __init__(self, queue: QueueSource) -> None:
        self._queue = queue

    async def open(self) -> None:
        try:
            await self._queue.open()
        except BaseException:
            await self._queue.close()
            raise

    async def count(self) -> int | None:
        return self._queue.backlog()

    async def replay(self, run: Run, tell: Tell, interval_s: float) -> str | None:
        async def run_one(name: str, event: bytes) -> ReplayEnd:
            return await run(ReadText(name, _body(event)))

        job = QueueReplay(self._queue, None, run_one, tell, interval_s=interval_s, at_once=AT_ONCE, refusal_stops=False)
        return await job.run()

    async def look(self, look: Look, tell: Tell) -> str | None:
        chunk = await self._queue.receive(CALL_LIMIT, WAIT_S)
        try:
            for row, position in zip(chunk.rows, chunk.positions, strict=True):
                await tell(await look(ReadText(message_id(position), _body(self._queue.codec.event([row])))))
        finally:
            if chunk.rows:
                await self._queue.extend(chunk.rows, 0)
        return None

    async def close(self) -> None:
        await self._queue.close()


class _Message(msgspec.Struct):
    body: str


class _Messages(msgspec.Struct):
    records: tuple[_Message] = msgspec.field(name="Records")


_decode_message: Final = msgspec.json.Decoder(_Messages).decode


def _body(event: bytes) -> bytes:
    """Give the body of the one message in an event of a queue."""
    return _decode_message(event).records[0].body.encode()


async def _in_turn(records: AsyncIterator[ReadText], look: Look, tell: Tell) -> str | None:
    try:
        async for found in records:
            await tell(await look(found))
    except (SourceUnavailable, ConnectionError) as error:
        return _why(error)
    return None


async def _at_once(records: AsyncIterator[ReadText], run: Run, tell: Tell, interval_s: float) -> str | None:
    """Run records in the order they come, some at once: so many, and so many bytes."""
    in_hand_bytes = 0
    in_hand = 0
    change = asyncio.Event()

    async def one(found: ReadText) -> None:
        nonlocal in_hand, in_hand_bytes
        end = await run(found)
        in_hand -= 1
        in_hand_bytes -= len(found.text)
        change.set()
        await tell(end)

    async with asyncio.TaskGroup() as tasks:
        try:
            async for found in records:
                while in_hand and (in_hand == AT_ONCE or in_hand_bytes + len(found.text) > AT_ONCE_BYTES):
                    change.clear()
                    await change.wait()
                in_hand += 1
                in_hand_bytes += len(found.text)
                tasks.create_task(one(found))
                await asyncio.sleep(interval_s)
        except (SourceUnavailable, ConnectionError) as error:
            return _why(error)
    return None


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, SourceUnavailable) else "who read the records to us has gone"
