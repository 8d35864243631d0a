"""Kinesis as a registered consumer: subscriptions, what ends and breaks them, and polls in their place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connectors.kinesis import KinesisSource
from connectors.settings import KinesisSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Chunk, at_time
from router.errors import PositionLost, ShardGone, SourceUnavailable, Throttled
from tests.fakes.aggregates import aggregate
from tests.fakes.event_stream import frame
from tests.fakes.http_server import Answer, refuse, say, send, stall
from tests.fakes.kinesis_server import PUSHING, REGION, KinesisServer, kinesis_server, pushed

PATIENCE_S = 20.0
ONE = "shardId-000000000000"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")


@pytest.fixture
async def server() -> AsyncIterator[KinesisServer]:
    async with kinesis_server() as server:
        yield server


@asynccontextmanager
async def opened(
    server: KinesisServer, *, wait_s: float = PATIENCE_S, call_s: float = 10.0
) -> AsyncIterator[KinesisSource]:
    settings = KinesisSettings("m", server.consumer_arn, server.http.url, REGION)
    source = KinesisSource(settings, wait_s=wait_s, call_s=call_s)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await source.open()
            server.http.requests.clear()
            yield source
    finally:
        await source.close()


async def read(source: KinesisSource, after: int, limit: int = 100) -> Chunk:
    [chunk] = await source.read(ONE, {ONE: Demand(after, limit)})
    return chunk


async def read_values(source: KinesisSource, after: int, count: int, limit: int = 100) -> list[bytes | None]:
    values: list[bytes | None] = []
    while len(values) < count:
        chunk = await read(source, after, limit)
        after = chunk.through
        values += [source.codec.view(row)[1] for row in chunk.rows]
    return values


def append(server: KinesisServer, *values: bytes) -> list[Any]:
    return [server.stream.append(ONE, value, key=b"k") for value in values]


def operations(server: KinesisServer) -> list[str]:
    return [each.headers["x-amz-target"].rpartition(".")[2] for each in server.http.requests]


# --- opening


async def test_a_consumer_is_found_and_named_in_full(server: KinesisServer) -> None:
    async with opened(server) as source:
        assert source.identity == server.consumer_arn
        assert source.handicap is None


async def test_a_consumer_that_cannot_read_is_said(server: KinesisServer) -> None:
    server.consumer_status = "CREATING"
    with pytest.raises(SourceUnavailable, match=r"Kinesis consumer arn:.*: the consumer is creating; wait until it is"):
        async with opened(server):
            pass
    server.fail("DescribeStreamConsumer", refuse(400, "ResourceNotFoundException"))
    with pytest.raises(SourceUnavailable, match="the consumer is not registered; register it"):
        async with opened(server):
            pass
    server.fail("DescribeStreamConsumer", refuse(400, "AccessDeniedException"))
    with pytest.raises(SourceUnavailable, match="the credentials do not allow this"):
        async with opened(server):
            pass


@pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException"])
async def test_a_consumer_that_we_may_not_subscribe_as_is_said(server: KinesisServer, code: str) -> None:
    server.consumer_status = "ACTIVE"
    server.fail("SubscribeToShard", refuse(403, code))
    with pytest.raises(SourceUnavailable, match=rf"the credentials .* \(SubscribeToShard: {code}\)"):
        async with opened(server):
            pass


@pytest.mark.parametrize("code", ["ResourceInUseException", "LimitExceededException", "ValidationException"])
async def test_whoever_refuses_what_was_asked_serves_it(server: KinesisServer, code: str) -> None:
    server.fail("SubscribeToShard", refuse(400, code))
    async with opened(server) as source:
        assert source.handicap is None


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([say(b"oops", 500), say(b"oops", 500)], "SubscribeToShard is not served (HTTP status 500)"),
        ([refuse(400, "UnknownOperationException")], "SubscribeToShard is not served (HTTP status 400)"),
        ([send(b"")], "SubscribeToShard is not answered"),
    ],
)
async def test_where_nothing_is_pushed_shards_are_polled_and_it_is_told(
    server: KinesisServer, answers: list[Answer], why: str
) -> None:
    for answer in answers:
        server.fail("SubscribeToShard", answer)
    async with opened(server) as source:
        assert source.handicap == why
        append(server, b"a", aggregate(("k", b"b"), ("k", b"c")))
        assert await read_values(source, TRIM_HORIZON, 3) == [b"a", b"b", b"c"]
        assert operations(server) == ["GetShardIterator", "GetRecords"]


async def test_whoever_fails_only_where_no_record_is_serves_it(server: KinesisServer) -> None:
    server.fail("SubscribeToShard", say(b"oops", 500))
    async with opened(server) as source:
        assert source.handicap is None


async def test_polls_in_the_place_of_pushes_are_a_second_apart(server: KinesisServer) -> None:
    server.fail("SubscribeToShard", say(b"oops", 500), times=2)
    async with opened(server) as source:
        began_s = asyncio.get_running_loop().time()
        for _ in range(2):
            assert not (await read(source, TRIM_HORIZON)).rows
        assert asyncio.get_running_loop().time() - began_s >= 1.0


# --- subscriptions


async def test_what_is_pushed_comes_by_one_subscription(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, b"a")
        first = await read(source, TRIM_HORIZON)
        assert source.behind_ms(ONE) == 0
        append(server, b"b", aggregate(("k", b"c"), ("k", b"d")))
        assert await read_values(source, first.through, 3) == [b"b", b"c", b"d"]
        assert server.asked("SubscribeToShard") == [
            {"ConsumerARN": server.consumer_arn, "ShardId": ONE, "StartingPosition": {"Type": "TRIM_HORIZON"}}
        ]
        assert operations(server) == ["SubscribeToShard"]


async def test_subscriptions_begin_where_they_are_asked_to(server: KinesisServer) -> None:
    [record] = append(server, b"a")
    within = record.position << 24
    async with opened(server, wait_s=0.5) as source:
        for after in (within | 0xFFFFFF, TRIM_HORIZON, at_time(1_767_225_600_123), within):
            await read(source, after)
        number = str(record.position)
        assert [each["StartingPosition"] for each in server.asked("SubscribeToShard")] == [
            {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": number},
            {"Type": "TRIM_HORIZON"},
            {"Type": "AT_TIMESTAMP", "Timestamp": 1_767_225_600.123},
            {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": number},
        ]
        # Each takes the place of the one before.
        for _ in range(3):
            await server.http.abandoned.get()


async def test_more_than_was_asked_for_is_given_later(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, *[b"%d" % number for number in range(7)])
        assert await read_values(source, TRIM_HORIZON, 7, limit=3) == [b"%d" % number for number in range(7)]
        assert len(server.http.requests) == 1


async def test_a_read_that_waits_in_vain_ends_empty_and_keeps_the_subscription(server: KinesisServer) -> None:
    async with opened(server, wait_s=0.05) as source:
        await read(source, TRIM_HORIZON)
        for _ in range(2):
            chunk = await read(source, TRIM_HORIZON)
            assert (list(chunk.rows), chunk.through, chunk.ended) == ([], TRIM_HORIZON, False)
        append(server, b"a")
        assert await read_values(source, TRIM_HORIZON, 1) == [b"a"]
        assert len(server.http.requests) == 1


async def test_a_cancelled_read_keeps_the_subscription(server: KinesisServer) -> None:
    async with opened(server) as source:
        await read(source, TRIM_HORIZON)
        reading = asyncio.create_task(read(source, TRIM_HORIZON))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        append(server, b"a")
        assert await read_values(source, TRIM_HORIZON, 1) == [b"a"]
        assert len(server.http.requests) == 1


async def test_a_subscription_that_ends_is_renewed_without_gap_or_duplicate(server: KinesisServer) -> None:
    async with opened(server) as source:
        one, two, three = append(server, b"a", b"b", b"c")
        server.fail("SubscribeToShard", send(PUSHING + pushed(one), pushed(two)))
        assert await read_values(source, TRIM_HORIZON, 3) == [b"a", b"b", b"c"]
        assert [each["StartingPosition"] for each in server.asked("SubscribeToShard")] == [
            {"Type": "TRIM_HORIZON"},
            {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": str(two.position)},
        ]
        assert "GetRecords" not in operations(server)
        assert three.value == b"c"


async def test_the_end_of_a_shard_is_told_with_its_last_records(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, b"a", b"b", b"c")
        server.stream.split(ONE)
        chunk = await read(source, TRIM_HORIZON, 2)
        assert (len(chunk.rows), chunk.ended, chunk.more) == (2, False, True)
        chunk = await read(source, chunk.through, 2)
        assert (len(chunk.rows), chunk.ended, chunk.more) == (1, True, False)
        chunk = await read(source, chunk.through)
        assert (len(chunk.rows), chunk.ended) == (0, True)


async def test_closing_ends_all_subscriptions(server: KinesisServer) -> None:
    async with opened(server) as source:
        await read(source, TRIM_HORIZON)
        reading = asyncio.create_task(read(source, TRIM_HORIZON))
        await asyncio.sleep(0)
        await source.close()
        await server.http.abandoned.get()
        reading.cancel()
        await asyncio.wait({reading})


# --- what goes wrong


BROKEN = [
    (lambda record: send(PUSHING + pushed(record)[:-3] + b"???"), "checksum"),
    (lambda record: send(PUSHING + b"\0" * 20), "no frames"),
    (lambda record: send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + pushed(record)[:40]), "half a frame"),
    (
        lambda record: send(
            PUSHING + frame(b"{}", message_type="exception", exception_type="InternalFailureException")
        ),
        "exception",
    ),
    (lambda record: send(PUSHING + frame(b"x", message_type="event", event_type="SubscribeToShardEvent")), "no JSON"),
    (lambda record: say(b"oops", 500), "refused"),
    (lambda record: send(b""), "hung up"),
    (lambda record: stall(), "silent"),
]


@pytest.mark.parametrize("make", [make for make, _ in BROKEN], ids=[name for _, name in BROKEN])
async def test_a_subscription_that_breaks_off_loses_nothing(server: KinesisServer, make: Any) -> None:
    async with opened(server, call_s=2.0) as source:
        [record] = append(server, b"a")
        server.fail("SubscribeToShard", make(record))
        chunk = await read(source, TRIM_HORIZON)
        assert [source.codec.view(row)[1] for row in chunk.rows] == [b"a"]
        append(server, b"b")
        assert await read_values(source, chunk.through, 1) == [b"b"]
        assert operations(server) == ["SubscribeToShard", "GetShardIterator", "GetRecords", "SubscribeToShard"]


async def test_an_end_that_is_not_pushed_is_found_by_a_poll(server: KinesisServer) -> None:
    async with opened(server) as source:
        [record] = append(server, b"a")
        server.stream.split(ONE)
        half = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
        server.fail("SubscribeToShard", send(half + pushed(record)))
        chunk = await read(source, TRIM_HORIZON)
        assert (len(chunk.rows), chunk.ended) == (1, False)
        assert (await read(source, chunk.through)).ended


async def test_a_shard_that_is_subscribed_to_is_throttled(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, b"a")
        server.fail("SubscribeToShard", refuse(400, "ResourceInUseException"))
        with pytest.raises(Throttled, match=f"shard {ONE} is subscribed to already, or was less than 5 s ago"):
            await read(source, TRIM_HORIZON)
        server.fail("SubscribeToShard", refuse(400, "LimitExceededException"))
        with pytest.raises(Throttled, match="it is throttled"):
            await read(source, TRIM_HORIZON)
        assert await read_values(source, TRIM_HORIZON, 1) == [b"a"]


async def test_a_subscription_that_another_took_over_is_throttled(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, b"a")
        taken = frame(b"{}", message_type="exception", exception_type="ResourceInUseException")
        server.fail("SubscribeToShard", send(PUSHING + taken))
        with pytest.raises(Throttled, match="somebody else reads with this consumer: register one for each reader"):
            await read(source, TRIM_HORIZON)
        assert await read_values(source, TRIM_HORIZON, 1) == [b"a"]


async def test_what_is_not_there_is_said_as_by_a_poll(server: KinesisServer) -> None:
    async with opened(server) as source:
        with pytest.raises(PositionLost):
            await read(source, 77 << 24 | 0xFFFFFF)
        server.stream.split(ONE)
        server.stream.forget(ONE)
        with pytest.raises(ShardGone):
            await read(source, TRIM_HORIZON)


async def test_refused_credentials_are_read_anew(server: KinesisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(server) as source:
        append(server, b"a")
        server.fail("SubscribeToShard", refuse(403, "ExpiredTokenException"))
        with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
            await read(source, TRIM_HORIZON)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
        assert await read_values(source, TRIM_HORIZON, 1) == [b"a"]
        assert "AKIAOTHER" in server.http.requests[-1].headers["authorization"]
