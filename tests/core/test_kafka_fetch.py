"""Rows straight from record batches, against what aiokafka's own iterator makes of the same bytes."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.kafka_codec import KafkaRecord, chunk_of, record_of
from connectors.kafka_fetch import (
    CONTROL,
    LOG_APPEND_TIME,
    TRANSACTIONAL,
    Fetched,
    Pages,
    differs,
    fast_fetch,
    pages_of,
    plain_fetch,
    record_batch,
    unfit,
)

PARTITION = TopicPartition("orders", 3)
COMMIT, ABORT = (((struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 0)),) for kind in (1, 0))

TEXTS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=60) | st.binary(min_size=690, max_size=720)
    ),
    min_size=1,
    max_size=6,
)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=2)


@dataclass
class Log:
    """Bytes of a fetch in the making."""

    data: bytes = b""
    end: int = 0
    #: Aborted transactions as a broker lists them: producer, first offset.
    aborted: list[tuple[int, int]] = field(default_factory=list)
    bounds: list[int] = field(default_factory=list)

    def add(self, batch: bytes, count: int) -> None:
        self.bounds.append(len(self.data))
        self.data += batch
        self.end += count


@st.composite
def logs(draw: st.DrawFn) -> Log:
    log = Log(end=draw(st.integers(0, 2**40)))
    # aiokafka cannot read a fetch in which a new batch follows on an old one, whatever reads its records.
    kinds = draw(st.sampled_from([["old", "gap"], ["plain", "compressed", "stamped", "committed", "aborted", "gap"]]))
    for _ in range(draw(st.integers(1, 6))):
        texts = draw(TEXTS)
        match draw(st.sampled_from(kinds)):
            case "plain":
                log.add(record_batch(log.end, texts, headers=draw(HEADERS)), len(texts))
            case "compressed":
                log.add(record_batch(log.end, texts, codec=draw(st.integers(1, 4))), len(texts))
            case "stamped":
                log.add(record_batch(log.end, texts, LOG_APPEND_TIME), len(texts))
            case "committed":
                log.add(record_batch(log.end, texts, TRANSACTIONAL, producer=1), len(texts))
                log.add(record_batch(log.end, COMMIT, TRANSACTIONAL | CONTROL, producer=1), 1)
            case "aborted":
                log.aborted.append((2, log.end))
                log.add(record_batch(log.end, texts, TRANSACTIONAL, producer=2), len(texts))
                log.add(record_batch(log.end, ABORT, TRANSACTIONAL | CONTROL, producer=2), 1)
            case "old":
                log.add(old_batch(log.end, texts, draw(st.integers(0, 1)), draw(st.sampled_from([0, 1]))), len(texts))
            case _:
                log.end += draw(st.integers(1, 50))
    return log


def old_batch(first: int, texts: Sequence[tuple[bytes | None, bytes | None]], magic: int, codec: int) -> bytes:
    """Make a message set from before Kafka 0.11."""
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for place, (key, value) in enumerate(texts):
        builder.append(first + place if not codec or magic == 0 else place, 1_767_225_600_000 + place, key, value)
    data = bytearray(builder.build())
    if codec:
        struct.pack_into(">q", data, 0, first + len(texts) - 1)
    return bytes(data)


def records(log: Log, since: int, isolation_level: int = READ_COMMITTED) -> PartitionRecords:
    aborted = log.aborted if isolation_level == READ_COMMITTED else None
    return PartitionRecords(PARTITION, MemoryRecords(log.data), aborted, since, None, None, True, isolation_level)


def in_pages(records: PartitionRecords, limit: int, data: bytes | None) -> PartitionRecords:
    """Let records be read in pages."""
    fetched = Fetched(pages_of)
    fetched.limit = limit
    fetched.data = {} if data is None else {PARTITION: data}
    fetched[PARTITION] = FetchResult(PARTITION, assignment=None, partition_records=records, backoff=0)
    return records


# However slow the machine is.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    log=logs(),
    skipped=st.integers(0, 40),
    cut=st.integers(0, 80),
    limit=st.integers(1, 9),
    isolation=st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]),
    has_data=st.booleans(),
)
def test_pages_hold_what_aiokafka_gives(
    log: Log, skipped: int, cut: int, limit: int, isolation: int, *, has_data: bool
) -> None:
    log.data = log.data[: max(0, len(log.data) - cut)]
    since = log.end - skipped
    theirs = records(log, since, isolation)
    expected = [record_of(record) for record in theirs]
    mine = in_pages(records(log, since, isolation), limit, log.data if has_data else None)
    pages = list(mine)
    rows = [row for page in pages for row in page]
    assert rows == expected
    assert mine.next_fetch_offset == theirs.next_fetch_offset
    assert all(len(page) == limit for page in pages[:-1])
    assert all(pages)
    if rows:
        assert chunk_of("orders-3", rows, needs_keys=True) == chunk_of("orders-3", expected, needs_keys=True)


def test_the_position_follows_each_page() -> None:
    log = Log()
    log.add(record_batch(0, [(b"k", b"v")] * 5), 5)
    mine = in_pages(records(log, 0), 2, log.data)
    positions = [(len(page), mine.next_fetch_offset) for page in mine]
    assert positions == [(2, 2), (2, 4), (1, 5)]


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("place", [17, 40, 75])
def test_a_wrong_checksum_is_an_error_behind_what_is_whole(place: int, *, has_data: bool) -> None:
    log = Log()
    for _ in range(2):
        log.add(record_batch(log.end, [(b"k", b"v" * 50)] * 3), 3)
    broken = bytearray(log.data)
    broken[log.bounds[1] + place] ^= 1
    log.data = bytes(broken)
    mine = in_pages(records(log, 0), 100, log.data if has_data else None)
    assert [row.offset for row in next(mine)] == [0, 1, 2]
    with pytest.raises(CorruptRecordException, match="checksum"):
        next(mine)
    assert mine.next_fetch_offset == 3


class Client:
    """A started consumer as far as `fast_fetch` looks at it; `getmany` is aiokafka's in short."""

    def __init__(self, *logs: Log) -> None:
        self._fetcher = SimpleNamespace(_records=OrderedDict(), _client=self)
        self.partitions = [TopicPartition("orders", number) for number in range(len(logs))]
        self.assignment = Assignment(self.partitions)
        self._logs = dict(zip(self.partitions, logs, strict=True))
        self.waits: list[int] = []
        self.error: KafkaError | None = None
        self.is_slow = False

    async def send(self, node: int, request: object) -> object:
        answers = [(partition.partition, 0, log.end, log.data) for partition, log in self._logs.items()]
        return SimpleNamespace(topics=[("orders", answers)])

    async def arrive(self) -> None:
        await self._fetcher._client.send(0, FetchRequest(500, 1, 1 << 20, READ_COMMITTED, []))
        for partition, log in self._logs.items():
            self.assignment.state_value(partition).seek(0)
            part = PartitionRecords(partition, MemoryRecords(log.data), [], 0, None, None, True, READ_COMMITTED)
            result = FetchResult(partition, assignment=self.assignment, partition_records=part, backoff=0)
            self._fetcher._records[partition] = result

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[Any, list[Any]]:
        self.waits.append(timeout_ms)
        if self.is_slow:
            await asyncio.Event().wait()
        fetched = self._fetcher._records
        for partition in [each for each in fetched if each in partitions]:
            found = fetched[partition].getall(max_records)
            if not fetched[partition].has_more():
                del fetched[partition]
            if found:
                return {partition: found}
        if self.error:
            raise self.error
        return {}


def three_records() -> Log:
    log = Log()
    log.add(record_batch(0, [(b"k", b"v")] * 3), 3)
    return log


async def test_a_fetch_takes_from_all_partitions_up_to_its_count_and_waits_once() -> None:
    client = Client(three_records(), three_records(), three_records())
    fetch = fast_fetch(client)
    await client.arrive()
    first = await fetch(client.partitions, 5, 1.0)
    assert [[row.offset for row in rows] for rows in first.values()] == [[0, 1, 2], [0, 1]]
    assert client.waits == [1000, 0]
    second = await fetch(client.partitions, 5, 1.0)
    assert {partition.partition: [row.offset for row in rows] for partition, rows in second.items()} == {
        1: [2],
        2: [0, 1, 2],
    }


async def test_a_fetch_gives_way_in_between_and_keeps_what_it_has_when_it_is_cancelled() -> None:
    log = Log()
    log.add(record_batch(0, [(b"k", b"v")] * 900), 900)
    client = Client(log)
    fetch = fast_fetch(client)
    await client.arrive()
    reading = asyncio.ensure_future(fetch(client.partitions, 500, 1.0))
    await asyncio.sleep(0)
    assert not reading.done()
    reading.cancel()
    [first] = (await reading).values()
    [second] = (await fetch(client.partitions, 500, 1.0)).values()
    assert 0 < len(first) < 500 == len(second)
    assert [row.offset for row in (*first, *second)] == list(range(len(first) + 500))


async def test_a_fetch_that_waits_can_be_cancelled() -> None:
    client = Client()
    client.is_slow = True
    reading = asyncio.ensure_future(fast_fetch(client)([PARTITION], 500, 1.0))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_an_error_behind_what_was_found_waits_for_the_next_fetch() -> None:
    client = Client(three_records(), three_records())
    fetch = fast_fetch(client)
    await client.arrive()
    client.error = KafkaError("away")
    assert len(await fetch(client.partitions, 100, 1.0)) == 2
    client.error = KafkaError("away")
    with pytest.raises(KafkaError):
        await fetch(client.partitions, 100, 1.0)


async def test_both_ways_give_the_same() -> None:
    rows = []
    for attach in (fast_fetch, plain_fetch):
        client = Client(three_records())
        fetch = attach(client)
        await client.arrive()
        rows.append(await fetch(client.partitions, 100, 1.0))
    assert rows[0] == rows[1]


async def test_this_aiokafka_fits() -> None:
    assert unfit(Client()) is None


@pytest.mark.parametrize("fetcher", [SimpleNamespace(), SimpleNamespace(_records={}), None])
async def test_another_fetcher_does_not_fit(fetcher: object) -> None:
    assert unfit(SimpleNamespace(_fetcher=fetcher))


def all_at_once(records: PartitionRecords, owner: Fetched, data: bytes | None) -> Iterator[list[KafkaRecord]]:
    owner.limit = 1000
    yield from pages_of(records, owner, data)
    owner.limit = 2


def without_the_last(records: PartitionRecords, owner: Fetched, data: bytes | None) -> Iterator[list[KafkaRecord]]:
    *first, _ = pages_of(records, owner, data)
    yield from first


def one_too_far(records: PartitionRecords, owner: Fetched, data: bytes | None) -> Iterator[list[KafkaRecord]]:
    yield from pages_of(records, owner, data)
    records.next_fetch_offset += 1


def with_another_value(records: PartitionRecords, owner: Fetched, data: bytes | None) -> Iterator[list[KafkaRecord]]:
    for page in pages_of(records, owner, data):
        page[0].value = b"another"
        yield page


@pytest.mark.parametrize("pages", [all_at_once, without_the_last, one_too_far, with_another_value])
async def test_the_trial_notices_what_is_wrong(pages: Pages) -> None:
    assert differs(pages)
    assert differs(pages_of) is None
