"""Fetched records as rows of our own, a record batch at a time: around aiokafka's record objects where that can be.

aiokafka makes every record twice, the second time as a frozen dataclass, through a generator for each; that is a third
of what a record costs the daemon. Its public interface offers nothing else. So `fast_fetch` leans on internals of its
fetcher, and on these only: the fetcher keeps what has come in `_records`, a dict of `FetchResult`; each has a
`PartitionRecords` that iterates over `_records_iterator` and knows the position. A dict of ours in the place of the
fetcher's gives each one another iterator, over pages of rows. The fetcher asks brokers through its `_client`, which is
wrapped to keep hold of the bytes that came: checksums by the processor's own instruction take a tenth of the time that
aiokafka's take. All else stays with `getmany`: waiting, positions, errors, and when to fetch again.

`unfit` tries all of that on records it has made, once in a process. Where it does not come out as aiokafka's own way
does, `plain_fetch` makes the same rows of what `getmany` gives.

A row owns its key and value: it keeps no fetched bytes alive.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, Final

import google_crc32c
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from connectors.kafka_codec import NO_HEADERS, TIMESTAMP_TYPES, KafkaRecord, encode_headers, record_of

#: Gives rows by partition: of these partitions, at most so many, waiting so long (seconds) for some. Raises aiokafka's
#: errors. When it is cancelled, it gives what it has, or has taken nothing.
Fetch = Callable[[Collection[TopicPartition], int, float], Awaitable[Mapping[TopicPartition, Sequence[KafkaRecord]]]]

#: Records decoded in one turn of the event loop, at most: a worker that is done waits no longer for its next batch.
_TURN_COUNT: Final = 200
#: A record batch begins with its offset (8 bytes) and the length of what follows (4); its checksum is of what begins at
#: the attributes.
_LEAD_BYTES: Final = 12
_CHECKED_FROM: Final = 21


def plain_fetch(consumer: AIOKafkaConsumer) -> Fetch:
    """Fetch by the public interface alone."""

    async def fetch(
        partitions: Collection[TopicPartition], count: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[KafkaRecord]]:
        found = await consumer.getmany(*partitions, timeout_ms=int(timeout_s * 1000), max_records=count)
        return {partition: [record_of(each) for each in records] for partition, records in found.items()}

    return fetch


def fast_fetch(consumer: AIOKafkaConsumer) -> Fetch:
    """Fetch around aiokafka's record objects, where `unfit` says None; nobody else may read from the consumer then."""
    fetched = Fetched(pages_of)
    consumer._fetcher._records = fetched
    consumer._fetcher._client = _Listener(consumer._fetcher._client, fetched)

    async def fetch(
        partitions: Collection[TopicPartition], count: int, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[KafkaRecord]]:
        found: dict[TopicPartition, list[KafkaRecord]] = {}
        left = count
        try:
            while left > 0:
                fetched.limit = min(left, _TURN_COUNT)
                pages = await consumer.getmany(*partitions, timeout_ms=int(timeout_s * 1000), max_records=1)
                if not pages:
                    break
                for partition, (rows,) in pages.items():
                    found.setdefault(partition, []).extend(rows)
                    left -= len(rows)
                timeout_s = 0.0
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            # The client has gone on behind what was found: that must not be lost.
            if not found:
                raise
        except KafkaError:
            # It comes again with the next fetch of what it is about; what was found is ours already.
            if not found:
                raise
        return found

    return fetch


#: Yields pages of rows, each of at most `limit`, in the place of a PartitionRecords' own iterator. Its bytes are given
#: too where they are known.
Pages = Callable[[PartitionRecords, "Fetched", bytes | None], Iterator[list[KafkaRecord]]]


class Fetched(OrderedDict[TopicPartition, Any]):
    """What the fetcher has, and the consumer has not taken."""

    def __init__(self, pages: Pages) -> None:
        super().__init__()
        #: Rows of one page, at most.
        self.limit = 1
        #: Bytes of the response that is taken apart now.
        self.data: dict[TopicPartition, bytes] = {}
        self._pages = pages

    def __setitem__(self, partition: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            records = result._partition_records
            records._records_iterator = self._pages(records, self, self.data.pop(partition, None))
        super().__setitem__(partition, result)


class _Listener:
    """The client as the fetcher knows it; what a fetch brings is noted first."""

    def __init__(self, client: Any, fetched: Fetched) -> None:
        self._client = client
        self._fetched = fetched

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any) -> Any:
        response = await self._client.send(node, request)
        if isinstance(request, FetchRequest):
            # The fetcher takes it apart before anything else runs.
            self._fetched.data = {
                TopicPartition(topic, number): data
                for topic, partitions in response.topics
                for number, *_, data in partitions
            }
        return response


def pages_of(records: PartitionRecords, owner: Fetched, data: bytes | None) -> Iterator[list[KafkaRecord]]:
    """Yield pages, moving the position as aiokafka's own iterator does."""
    page: list[KafkaRecord] = []
    bodies = repeat(None) if data is None else _bodies(data)
    try:
        while records._records.has_next():
            batch = records._records.next_batch()
            if not _is_sound(batch, next(bodies)):
                raise CorruptRecordException(f"the checksum of a record batch of {records._tp} is wrong")
            if not _is_passed_over(records, batch):
                wanted_from = records.next_fetch_offset
                each = chain(batch)  # a batch itself may be iterated once, from its beginning
                while rows := _rows(records, batch, islice(each, owner.limit - len(page))):
                    # A fetch begins with the batch that holds the position, not with the position.
                    page += (
                        rows if rows[0].offset >= wanted_from else [row for row in rows if row.offset >= wanted_from]
                    )
                    if len(page) >= owner.limit:
                        records.next_fetch_offset = page[-1].offset + 1
                        yield page
                        page = []
            # Also behind what a compaction has removed from the end of the batch.
            records.next_fetch_offset = batch.next_offset
    except KafkaError:
        if page:
            yield page
        raise
    if page:
        yield page


def _bodies(data: bytes) -> Iterator[bytes]:
    """Give what the checksum of each record batch covers."""
    at = 0
    while True:
        end = at + _LEAD_BYTES + int.from_bytes(data[at + 8 : at + _LEAD_BYTES], "big")
        yield data[at + _CHECKED_FROM : end]
        at = end


def _is_sound(batch: Any, body: bytes | None) -> bool:
    if body is None or not isinstance(batch, DefaultRecordBatch):
        return bool(batch.validate_crc())
    return bool(google_crc32c.value(body) == batch.crc)


def _is_passed_over(records: PartitionRecords, batch: Any) -> bool:
    """Say whether a batch has no records for us: a marker of a transaction, or what was aborted."""
    if records._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        aborted = records._aborted_producers
        records._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and records._contains_abort_marker(batch):
            aborted.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in aborted:
            return True
    return bool(batch.is_control_batch)


def _rows(records: PartitionRecords, batch: Any, some: Iterable[Any]) -> list[KafkaRecord]:
    partition: TopicPartition = records._tp
    if not isinstance(batch, DefaultRecordBatch):
        # Messages from before Kafka 0.11, each with a type of timestamp of its own.
        return [record_of(records._consumer_record(partition, record)) for record in some]
    topic, number = partition
    timestamp_type = TIMESTAMP_TYPES[batch.timestamp_type]
    return [
        KafkaRecord(
            topic,
            number,
            record.offset,
            record.timestamp,
            timestamp_type,
            record.key,
            record.value,
            encode_headers(headers) if (headers := record.headers) else NO_HEADERS,
        )
        for record in some
    ]


# --- does it fit?


def unfit(consumer: AIOKafkaConsumer) -> str | None:
    """Say why `fast_fetch` cannot be used with this started consumer; None when it can."""
    try:
        if type(consumer._fetcher._records) is not OrderedDict:
            return "its fetcher keeps what it has in another way"
        return _trial()
    except Exception as error:  # noqa: BLE001 - whatever does not fit, there is another way
        return f"{type(error).__name__}: {error}"


@cache
def _trial() -> str | None:
    return differs(pages_of)


def differs(pages: Pages) -> str | None:
    """Read records made here by pages and by aiokafka, and say what differs; raises whatever these raise."""
    data = _sample()
    theirs = _records(data)
    expected = [record_of(record) for record in theirs]
    fetched = Fetched(pages)
    fetched.limit = limit = 2
    assignment = Assignment([_SAMPLE])
    state = assignment.state_value(_SAMPLE)
    state.seek(_SAMPLE_FROM)
    fetched.data = {_SAMPLE: data}
    fetched[_SAMPLE] = FetchResult(_SAMPLE, assignment=assignment, partition_records=_records(data), backoff=0)
    rows: list[KafkaRecord] = []
    while found := fetched[_SAMPLE].getall(1):
        rows += found[0]
        if len(found[0]) > limit or state.position <= rows[-1].offset:
            return "its pages do not keep to their size and position"
    if rows != expected:
        return "its pages hold other records"
    if state.position != theirs.next_fetch_offset or fetched[_SAMPLE].has_more():
        return "its pages end at another position"
    return None


_SAMPLE: Final = TopicPartition("sample", 7)
#: In the middle of the first batch.
_SAMPLE_FROM: Final = 1
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
_GZIP: Final = 1


def _records(data: bytes) -> PartitionRecords:
    aborted = [(5, 20)]
    return PartitionRecords(_SAMPLE, MemoryRecords(data), aborted, _SAMPLE_FROM, None, None, True, READ_COMMITTED)


def _sample() -> bytes:
    """Make records of every kind: the last batch was cut off, as the broker does at the end of a fetch."""
    texts = [(b"k", b"v"), (b"", b""), (None, b"v" * 900), (b"k", None)]
    abort_marker = [(struct.pack(">hh", 0, 0), struct.pack(">hi", 0, 0))]
    batches = [
        record_batch(0, texts),
        record_batch(10, texts, headers=[("a", b"\x01\xff"), ("b", None)]),
        record_batch(20, texts, TRANSACTIONAL, producer=5),
        record_batch(30, abort_marker, TRANSACTIONAL | CONTROL, producer=5),
        record_batch(40, texts, LOG_APPEND_TIME, codec=_GZIP),
        record_batch(50, texts, TRANSACTIONAL, producer=5),
        record_batch(60, texts)[:-1],
    ]
    return b"".join(batches)


def record_batch(
    first: int,
    texts: Sequence[tuple[bytes | None, bytes | None]],
    flags: int = 0,
    *,
    codec: int = 0,
    producer: int = -1,
    headers: Sequence[tuple[str, bytes | None]] = (),
) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, producer, 0, 0, 1 << 20)
    for place, (key, value) in enumerate(texts):
        builder.append(place, 1_767_225_600_000 + place, key, value, list(headers))
    data = bytearray(builder.build())
    # What only a broker writes: the offset, and the flags, which the checksum covers.
    struct.pack_into(">q", data, 0, first)
    data[22] |= flags
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)
