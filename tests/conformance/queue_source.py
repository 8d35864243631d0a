"""What every QueueSource does, whatever it reads. Subclasses give the `rig` fixture: a server to make queues on.

Time passes by the loop's clock, real or virtual. Leases are whole seconds, as on real servers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import pytest

from router.core.model import Batch, Chunk, Part
from router.errors import SourceUnavailable
from router.ports import QueueSource

#: Longest that anything may take that should come at once.
PATIENCE_S = 30.0
#: Lease of a queue whose leases are to end within a test, seconds.
SHORT_S = 2


@dataclass(frozen=True)
class Features:
    """What this server does as it should."""

    #: A receipt deletes no more once the message was received again.
    stale_receipts: bool = True
    #: `Chunk.times_ms` is the machine's wall clock.
    real_time: bool = True
    #: A queue that was deleted is refused at once.
    removal: bool = True


class Counts(NamedTuple):
    """Messages that may be received now, and that are leased."""

    visible: int
    in_flight: int


class QueueRig(Protocol):
    """A server for one test, and the means to act on it from outside."""

    features: Features

    async def make(self, *, fifo: bool = False, lease_s: int = 30) -> str:
        """Create an empty queue of its own; returns its name."""

    def source(self, queue: str) -> QueueSource:
        """Make a source that is not open yet; the queue need not exist."""

    async def send(self, queue: str, *bodies: str, group: str | None = None) -> list[str]:
        """Send messages, in this order; returns their ids."""

    async def counts(self, queue: str) -> Counts: ...

    async def remove(self, queue: str) -> None:
        """Delete the queue."""


@asynccontextmanager
async def opened(rig: QueueRig, queue: str) -> AsyncIterator[QueueSource]:
    source = rig.source(queue)
    try:
        await source.open()
        yield source
    finally:
        await source.close()


async def receive(source: QueueSource, count: int, *, limit: int = 10) -> Chunk:
    """Receive until there are `count` messages, as one chunk."""
    chunks: list[Chunk] = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(len(chunk.rows) for chunk in chunks) < count:
            chunks.append(await source.receive(limit, 2.0))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = Chunk(
            whole.shard,
            [*whole.positions, *chunk.positions],
            [*whole.sizes, *chunk.sizes],
            [*whole.times_ms, *chunk.times_ms],
            [*whole.keys, *chunk.keys],
            [*whole.rows, *chunk.rows],
            chunk.through,
        )
    assert len(whole.rows) == count
    return whole


async def is_empty(source: QueueSource, wait_s: float = 0.0) -> bool:
    chunk = await source.receive(10, wait_s)
    return not chunk.rows


def bodies(source: QueueSource, chunk: Chunk) -> list[str]:
    return [record["body"] for record in records(source, chunk.rows)]


def records(source: QueueSource, rows: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(source.codec.event(rows))["Records"]
    return found


def receive_counts(source: QueueSource, chunk: Chunk) -> list[str]:
    return [record["attributes"]["ApproximateReceiveCount"] for record in records(source, chunk.rows)]


def now_s() -> float:
    return asyncio.get_running_loop().time()


class QueueSourceConformance:
    # --- receiving

    async def test_every_message_is_given_once(self, rig: QueueRig) -> None:
        queue = await rig.make()
        sent = [f"message {number}" for number in range(35)]
        await rig.send(queue, *sent)
        async with opened(rig, queue) as source:
            chunk = await receive(source, 35)
            assert sorted(bodies(source, chunk)) == sorted(sent)
            assert await is_empty(source)

    @pytest.mark.parametrize("limit", [1, 3, 10])
    async def test_a_receive_gives_at_most_its_limit(self, rig: QueueRig, limit: int) -> None:
        queue = await rig.make()
        await rig.send(queue, *["x"] * 15)
        async with opened(rig, queue) as source:
            chunk = await source.receive(limit, 5.0)
            assert 1 <= len(chunk.rows) <= limit
            assert await rig.counts(queue) == (15 - len(chunk.rows), len(chunk.rows))

    async def test_a_chunk_is_columns_of_one_length(self, rig: QueueRig) -> None:
        queue = await rig.make()
        before_ms = time.time() * 1000 - 60_000
        ids = await rig.send(queue, "a", "b" * 1000, "c")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 3)
        assert sorted(chunk.positions) == sorted(UUID(each).int for each in ids)
        assert len(chunk.sizes) == len(chunk.times_ms) == len(chunk.rows) == 3
        assert chunk.shard == source.name
        assert not source.pinned
        assert chunk.kept is None
        assert not chunk.unfit
        assert not any(chunk.keys)
        if rig.features.real_time:
            assert all(before_ms < time_ms < before_ms + 120_000 for time_ms in chunk.times_ms)

    async def test_sizes_are_never_smaller_than_the_message_in_the_event(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "\u00e9\u4e16\U0001f600" * 30, '"\\\n\t' * 30, "x" * 5000)
        async with opened(rig, queue) as source:
            chunk = await receive(source, 4)
            codec = source.codec
            for index in range(4):
                others = [row for number, row in enumerate(chunk.rows) if number != index]
                added = len(codec.event(chunk.rows)) - len(codec.event(others))
                assert added <= chunk.sizes[index]

    async def test_bodies_come_as_they_were_sent(self, rig: QueueRig) -> None:
        queue = await rig.make()
        sent = ['{"a": [1, 2.50, null]}', "not json {", "\u00e9\u4e16\U0001f600", 'tab\t"quoted" \\ \n', "x" * 200_000]
        await rig.send(queue, *sent)
        async with opened(rig, queue) as source:
            chunk = await receive(source, 5)
            assert sorted(bodies(source, chunk)) == sorted(sent)
            data = [source.codec.view(row)[1] for row in chunk.rows]
            assert sorted(each for each in data if each is not None) == sorted(body.encode() for body in sent)

    async def test_a_receive_that_finds_nothing_waits_and_ends_empty(self, rig: QueueRig) -> None:
        queue = await rig.make()
        async with opened(rig, queue) as source:
            began_s = now_s()
            chunk = await source.receive(10, 2.0)
            assert not chunk.rows
            assert not chunk.positions
            assert 1.5 <= now_s() - began_s < PATIENCE_S

    async def test_a_receive_that_need_not_wait_ends_at_once(self, rig: QueueRig) -> None:
        queue = await rig.make()
        async with opened(rig, queue) as source:
            began_s = now_s()
            assert await is_empty(source)
            assert now_s() - began_s < 10.0

    async def test_a_waiting_receive_gives_what_arrives(self, rig: QueueRig) -> None:
        queue = await rig.make()
        async with opened(rig, queue) as source:
            began_s = now_s()
            receiving = asyncio.create_task(source.receive(10, 20.0))
            await asyncio.sleep(0.5)
            await rig.send(queue, "late")
            chunk = await receiving
            assert bodies(source, chunk) == ["late"]
            assert now_s() - began_s < 10.0

    async def test_receives_at_once_share_the_messages(self, rig: QueueRig) -> None:
        queue = await rig.make()
        sent = [str(number) for number in range(30)]
        await rig.send(queue, *sent)
        async with opened(rig, queue) as source:
            chunks = await asyncio.gather(*(receive(source, 6, limit=3) for _ in range(5)))
            assert sorted(body for chunk in chunks for body in bodies(source, chunk)) == sorted(sent)

    # --- leases

    async def test_a_lease_is_the_queues_own_visibility_timeout(self, rig: QueueRig) -> None:
        queue = await rig.make(lease_s=47)
        async with opened(rig, queue) as source:
            assert source.lease_s == 47

    async def test_a_lease_hides_a_message_and_ends(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 2)
            assert await is_empty(source)
            assert await rig.counts(queue) == (0, 2)
            assert not await source.extend(chunk.rows, SHORT_S)
            again = await receive(source, 2)
            assert sorted(bodies(source, again)) == ["a", "b"]
            assert receive_counts(source, chunk) == ["1", "1"]
            assert receive_counts(source, again) == ["2", "2"]

    async def test_a_message_has_the_same_position_each_time(self, rig: QueueRig) -> None:
        queue = await rig.make(lease_s=SHORT_S)
        [message_id] = await rig.send(queue, "a")
        async with opened(rig, queue) as source:
            first = await receive(source, 1)
        await asyncio.sleep(SHORT_S + 0.5)
        async with opened(rig, queue) as source:
            again = await receive(source, 1)
        assert list(first.positions) == list(again.positions) == [UUID(message_id).int]

    async def test_an_extended_lease_ends_later(self, rig: QueueRig) -> None:
        queue = await rig.make(lease_s=SHORT_S)
        await rig.send(queue, "a", "b")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 2)
            kept = chunk.rows[0]
            assert not await source.extend([kept], 15 * SHORT_S)
            other = await receive(source, 1)
            assert other.positions[0] == chunk.positions[1]
            assert not await source.delete(other.rows)
            assert await is_empty(source)
            assert not await source.extend([kept], SHORT_S)
            again = await receive(source, 1)
            assert again.positions[0] == chunk.positions[0]

    async def test_an_extension_of_nothing_gives_the_message_back(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b", "c")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 3)
            assert not await source.extend(chunk.rows[:2], 0)
            again = await receive(source, 2)
            assert sorted(again.positions) == sorted(chunk.positions[:2])
            assert receive_counts(source, again) == ["2", "2"]

    async def test_what_cannot_be_extended_is_told_by_its_index(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b", "c")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 3)
            assert not await source.delete([chunk.rows[1]])
            failed = await source.extend(chunk.rows, 0)
            assert list(failed) == [1]
            assert failed[1]
            again = await receive(source, 2)
            assert sorted(again.positions) == sorted([chunk.positions[0], chunk.positions[2]])

    # --- deleting

    async def test_what_is_deleted_does_not_come_back_and_the_rest_does(self, rig: QueueRig) -> None:
        queue = await rig.make(lease_s=SHORT_S)
        await rig.send(queue, *[str(number) for number in range(10)])
        async with opened(rig, queue) as source:
            chunk = await receive(source, 10)
            assert not await source.delete(chunk.rows[:7])
            await asyncio.sleep(SHORT_S + 0.5)
            again = await receive(source, 3)
            assert sorted(again.positions) == sorted(chunk.positions[7:])
            assert not await source.delete(again.rows)
            assert await rig.counts(queue) == (0, 0)

    async def test_ten_are_deleted_at_once(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, *["x"] * 10)
        async with opened(rig, queue) as source:
            chunk = await receive(source, 10)
            assert not await source.delete(chunk.rows)
            assert await rig.counts(queue) == (0, 0)

    async def test_deleting_twice_is_no_harm(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 2)
            assert not await source.delete([chunk.rows[0]])
            failed = await source.delete(chunk.rows)
            assert 1 not in failed
            assert await rig.counts(queue) == (0, 0)

    async def test_a_receipt_is_stale_once_the_message_is_received_again(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a")
        async with opened(rig, queue) as source:
            older = await receive(source, 1)
            await source.extend(older.rows, 0)
            newer = await receive(source, 1)
            if rig.features.stale_receipts:
                await source.delete(older.rows)
                assert await rig.counts(queue) == (0, 1)
            assert not await source.delete(newer.rows)
            assert await rig.counts(queue) == (0, 0)

    # --- FIFO

    async def test_a_group_comes_in_order_and_its_keys_are_its_name(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True)
        for number in range(6):
            await rig.send(queue, f"a{number}", group="A")
            await rig.send(queue, f"b{number}", group="B")
        got: dict[bytes | None, list[str]] = {b"A": [], b"B": []}
        async with opened(rig, queue) as source:
            async with asyncio.timeout(PATIENCE_S):
                while sum(len(each) for each in got.values()) < 12:
                    chunk = await source.receive(4, 2.0)
                    for key, body in zip(chunk.keys, bodies(source, chunk), strict=True):
                        got[key].append(body)
                    if chunk.rows:
                        assert not await source.delete(chunk.rows)
        assert got == {b"A": [f"a{number}" for number in range(6)], b"B": [f"b{number}" for number in range(6)]}

    async def test_a_group_is_locked_while_one_of_its_messages_is_in_flight(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True)
        await rig.send(queue, "a0", "a1", "a2", group="A")
        async with opened(rig, queue) as source:
            first = await receive(source, 1, limit=1)
            assert bodies(source, first) == ["a0"]
            assert await is_empty(source)
            await rig.send(queue, "b0", group="B")
            other = await receive(source, 1, limit=1)
            assert bodies(source, other) == ["b0"]
            assert not await source.delete(first.rows)
            assert bodies(source, await receive(source, 1, limit=1)) == ["a1"]

    async def test_a_message_that_is_given_back_comes_before_the_later_ones(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True)
        await rig.send(queue, "a0", "a1", "a2", group="A")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 2, limit=2)
            assert bodies(source, chunk) == ["a0", "a1"]
            assert not await source.extend(chunk.rows, 0)
            again = await receive(source, 3)
            assert bodies(source, again) == ["a0", "a1", "a2"]
            assert receive_counts(source, again) == ["2", "2", "1"]

    async def test_a_lease_that_ends_unlocks_the_group_in_order(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True, lease_s=SHORT_S)
        await rig.send(queue, "a0", "a1", group="A")
        async with opened(rig, queue) as source:
            assert bodies(source, await receive(source, 1, limit=1)) == ["a0"]
            await asyncio.sleep(SHORT_S + 0.5)
            assert bodies(source, await receive(source, 2)) == ["a0", "a1"]

    # --- events

    async def test_a_record_tells_its_attributes(self, rig: QueueRig) -> None:
        queue = await rig.make()
        [message_id] = await rig.send(queue, "a")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 1)
            [record] = records(source, chunk.rows)
        assert record["messageId"] == message_id
        assert record["receiptHandle"]
        assert record["attributes"]["ApproximateReceiveCount"] == "1"
        assert record["attributes"]["SentTimestamp"] == str(chunk.times_ms[0])
        assert "MessageGroupId" not in record["attributes"]

    async def test_a_fifo_record_tells_its_group_and_sequence(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True)
        await rig.send(queue, "a0", "a1", group="A")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 2)
            attributes = [record["attributes"] for record in records(source, chunk.rows)]
        assert [each["MessageGroupId"] for each in attributes] == ["A", "A"]
        assert attributes[0]["SequenceNumber"] < attributes[1]["SequenceNumber"]

    async def test_rows_read_back_from_an_event_make_the_same_event(self, rig: QueueRig) -> None:
        queue = await rig.make(fifo=True)
        await rig.send(queue, '{"a":1}', "\u00e9\n" * 80, group="A")
        await rig.send(queue, "c", group="B")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 3)
        codec = source.codec
        event = codec.event(chunk.rows)
        parsed = codec.parse(event)
        assert codec.event(parsed.rows) == event
        assert list(parsed.positions) == list(chunk.positions)
        assert list(parsed.keys) == list(chunk.keys)
        assert list(parsed.times_ms) == list(chunk.times_ms)
        assert list(parsed.sizes) == list(chunk.sizes)
        assert parsed.shard == chunk.shard

    @pytest.mark.parametrize("event", [b"", b"[]", b"{}", b'{"Records":[{}]}', b'{"Records":7}'])
    async def test_what_is_no_event_is_not_read_back(self, rig: QueueRig, event: bytes) -> None:
        source = rig.source(await rig.make())
        with pytest.raises(ValueError):  # noqa: PT011 - the message is for each source to choose
            source.codec.parse(event)
        await source.close()

    async def test_an_identifier_names_a_message_of_the_batch_or_nothing(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b", "c")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 3)
            ids = [record["messageId"] for record in records(source, chunk.rows)]
        batch = Batch("id", chunk.shard, 0, [Part(chunk, range(2))], 2)
        codec = source.codec
        assert [codec.identify(each, batch) for each in ids] == [*chunk.positions[:2], None]
        strangers: tuple[object, ...] = (
            "",
            f"{ids[0]} ",
            chunk.positions[0],
            str(chunk.positions[0]),
            True,
            [ids[0]],
            {},
            None,
        )
        assert [codec.identify(item, batch) for item in strangers] == [None] * len(strangers)

    # --- opening and closing

    async def test_two_queues_have_two_identities_and_one_queue_has_one(self, rig: QueueRig) -> None:
        one, two = await rig.make(), await rig.make()
        async with opened(rig, one) as first, opened(rig, one) as second, opened(rig, two) as other:
            assert first.identity == second.identity != other.identity

    async def test_the_backlog_is_known_about_or_not(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a", "b", "c")
        async with opened(rig, queue) as source:
            assert source.backlog() in (None, 3)
            await receive(source, 3)
            assert source.backlog() in (None, 0, 1, 2, 3)

    async def test_opening_a_queue_that_is_not_there_is_an_outage_that_says_so(self, rig: QueueRig) -> None:
        source = rig.source("there-is-no-such-queue")
        with pytest.raises(SourceUnavailable, match="there-is-no-such-queue"):
            await source.open()
        await source.close()

    async def test_a_queue_that_is_deleted_under_us_is_an_outage(self, rig: QueueRig) -> None:
        queue = await rig.make()
        await rig.send(queue, "a")
        async with opened(rig, queue) as source:
            chunk = await receive(source, 1)
            if not rig.features.removal:
                pytest.skip("its deleted queues answer for a while")
            await rig.remove(queue)
            with pytest.raises(SourceUnavailable):
                await source.receive(10, 0.0)
            with pytest.raises(SourceUnavailable):
                await source.delete(chunk.rows)
            with pytest.raises(SourceUnavailable):
                await source.extend(chunk.rows, 10)

    async def test_a_cancelled_receive_loses_nothing(self, rig: QueueRig) -> None:
        queue = await rig.make(lease_s=SHORT_S)
        await rig.send(queue, "a", "b")
        async with opened(rig, queue) as source:
            for turns in range(30):
                receiving = asyncio.create_task(source.receive(1, 20.0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                receiving.cancel()
                await asyncio.wait({receiving})
            await asyncio.sleep(SHORT_S + 0.5)
            found: set[str] = set()
            # As a receive whose end nobody heard may have been the last one, one may come twice; and a server may hand
            # them to the receives that have left, one after the other, for as long as those wait.
            async with asyncio.timeout(2 * PATIENCE_S):
                while found != {"a", "b"}:
                    found.update(bodies(source, await source.receive(10, 2.0)))

    async def test_a_cancelled_receive_leaves_later_ones_alone(self, rig: QueueRig) -> None:
        # A server may hand the message to the receive that has left, and then it comes back by its lease.
        queue = await rig.make(lease_s=SHORT_S)
        async with opened(rig, queue) as source:
            receiving = asyncio.create_task(source.receive(10, 20.0))
            await asyncio.sleep(0.3)
            receiving.cancel()
            await asyncio.wait({receiving})
            assert receiving.cancelled()
            await asyncio.sleep(0.3)
            await rig.send(queue, "a")
            assert bodies(source, await receive(source, 1)) == ["a"]

    async def test_closing_ends_a_waiting_receive_and_may_come_twice(self, rig: QueueRig) -> None:
        source = rig.source(await rig.make())
        await source.open()
        receiving = asyncio.create_task(source.receive(10, 20.0))
        await asyncio.sleep(0.3)
        began_s = now_s()
        await source.close()
        await source.close()
        await asyncio.wait({receiving})
        assert now_s() - began_s < 10.0
        assert receiving.cancelled() or isinstance(receiving.exception(), SourceUnavailable)

    async def test_closing_what_was_never_opened_is_no_harm(self, rig: QueueRig) -> None:
        source = rig.source(await rig.make())
        await source.close()
        await source.close()
