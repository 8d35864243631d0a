"""The Kinesis source against an endpoint in this process: iterators, refusals, what goes wrong on the way."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connectors.kinesis import KinesisSource
from connectors.kinesis_check import check_kinesis
from connectors.settings import KinesisSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Chunk, at_time
from router.errors import PositionLost, ShardGone, SourceUnavailable, Throttled
from tests.fakes.aggregates import aggregate
from tests.fakes.http_server import refuse, say, send, stall
from tests.fakes.kinesis_server import ITERATOR_S, REGION, KinesisServer, kinesis_server
from tests.fakes.shard_stream import ShardStream

PATIENCE_S = 20.0
ONE, TWO = "shardId-000000000000", "shardId-000000000001"
HEAD = b"HTTP/1.1 200 OK\r\n"


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
    server: KinesisServer, stream: str = "clicks", *, deaggregate: bool = False, **options: Any
) -> AsyncIterator[KinesisSource]:
    source = KinesisSource(KinesisSettings("m", stream, server.http.url, REGION, deaggregate), **options)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await source.open()
            yield source
    finally:
        await source.close()


async def read(source: KinesisSource, after: int, limit: int = 100, shard: str = ONE) -> Chunk:
    [chunk] = await source.read(shard, {shard: Demand(after, limit)})
    return chunk


def append(server: KinesisServer, *values: bytes) -> list[int]:
    return [server.stream.append(ONE, value, key=b"k").position for value in values]


# --- opening


async def test_a_stream_is_found_by_name_or_arn(server: KinesisServer) -> None:
    for stream in ("clicks", server.arn):
        async with opened(server, stream) as source:
            assert source.identity == server.arn
            assert source.handicap is None
            assert not source.pinned
    assert server.asked("DescribeStreamSummary") == [{"StreamName": "clicks"}, {"StreamARN": server.arn}]


async def test_a_stream_that_is_missing_is_said() -> None:
    async with kinesis_server() as server:
        with pytest.raises(SourceUnavailable, match="Kinesis stream other: the stream does not exist there; create it"):
            async with opened(server, "other"):
                pass


@pytest.mark.parametrize("status", ["CREATING", "DELETING"])
async def test_a_stream_that_comes_or_goes_is_waited_for(server: KinesisServer, status: str) -> None:
    server.status = status
    with pytest.raises(SourceUnavailable, match=f"it is {status.lower()}; wait until it is there"):
        async with opened(server):
            pass
    server.status = "UPDATING"
    async with opened(server):
        pass


async def test_the_clock_is_the_services_own_and_ours_less_a_margin_where_it_tells_no_time() -> None:
    async with kinesis_server(ShardStream(now_s=lambda: 1767225600.9)) as server:
        async with opened(server) as source:
            assert source.server_time_s == 1767225600
        server.fail("DescribeStreamSummary", say(server._DescribeStreamSummary({})))
        async with opened(server) as source:
            assert source.server_time_s <= time.time() - 60


async def test_it_answers_only_once_it_is_open(server: KinesisServer) -> None:
    source = KinesisSource(KinesisSettings("m", "clicks", server.http.url, REGION))
    with pytest.raises(SourceUnavailable, match="Kinesis stream clicks: it is not open yet"):
        await source.shards()
    assert source.behind_ms(ONE) is None
    await source.close()


async def test_nothing_is_asked_of_a_closed_one(server: KinesisServer) -> None:
    async with opened(server) as source:
        pass
    with pytest.raises(SourceUnavailable, match="it is closed"):
        await read(source, TRIM_HORIZON)


# --- shards


async def test_all_pages_of_the_list_are_read_and_the_later_word_counts(server: KinesisServer) -> None:
    for _ in range(3):
        server.stream.split(server.stream.open_shards[0])
    async with opened(server) as source:
        listed = await source.shards()
    assert [each.name for each in listed] == list(server.stream.shards)
    assert [each.name for each in listed if not each.closed] == server.stream.open_shards
    asked = server.asked("ListShards")
    assert asked[0] == {"StreamARN": server.arn, "MaxResults": 10_000}
    assert all(set(each) == {"NextToken", "MaxResults"} for each in asked[1:])


async def test_a_list_that_changes_between_pages_has_each_shard_once(server: KinesisServer) -> None:
    def shard(name: str, **changes: Any) -> dict[str, Any]:
        return {"ShardId": name, "SequenceNumberRange": {"StartingSequenceNumber": "1", **changes}}

    server.fail("ListShards", say({"Shards": [shard("a"), shard("b")], "NextToken": "t"}))
    server.fail("ListShards", say({"Shards": [shard("b", EndingSequenceNumber="9"), shard("c")]}))
    async with opened(server) as source:
        assert [(each.name, each.closed) for each in await source.shards()] == [("a", False), ("b", True), ("c", False)]


async def test_a_stream_made_again_is_noticed_with_the_list(server: KinesisServer) -> None:
    async with opened(server) as source:
        await source.shards()
        before = source.incarnation
        server.stream.recreate(1)
        await source.shards()
        assert source.incarnation != before


# --- reading


async def test_an_iterator_serves_as_long_as_reads_follow_each_other(server: KinesisServer) -> None:
    async with opened(server) as source:
        append(server, b"a")
        after = (await read(source, TRIM_HORIZON)).through
        for _ in range(3):
            assert (await read(source, after)).through == after
        [position] = append(server, b"b")
        assert list((await read(source, after, 7)).positions) == [position]
        assert len(server.asked("GetShardIterator")) == 1
        assert server.asked("GetRecords")[-1] == {
            "StreamARN": server.arn,
            "ShardIterator": server.asked("GetRecords")[-1]["ShardIterator"],
            "Limit": 7,
        }
        await read(source, TRIM_HORIZON, 50_000)
        assert server.asked("GetRecords")[-1]["Limit"] == 10_000


async def test_iterators_begin_where_they_are_asked_to(server: KinesisServer) -> None:
    async with opened(server) as source:
        [position] = append(server, b"a")
        for after in (position, TRIM_HORIZON, at_time(1_767_225_600_123)):
            await read(source, after)
    place = {"StreamARN": server.arn, "ShardId": ONE}
    assert server.asked("GetShardIterator") == [
        {**place, "ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": str(position)},
        {**place, "ShardIteratorType": "TRIM_HORIZON"},
        {**place, "ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1_767_225_600.123},
    ]


async def test_an_iterator_that_expired_costs_a_read_and_no_record() -> None:
    clock_s = 1_767_225_600.0
    async with kinesis_server(ShardStream(now_s=lambda: clock_s)) as server, opened(server) as source:
        first, second = append(server, b"a", b"b")
        await read(source, TRIM_HORIZON, 1)
        clock_s += ITERATOR_S + 1
        chunk = await read(source, first)
        assert (list(chunk.rows), chunk.through, chunk.more, chunk.ended) == ([], first, True, False)
        assert list((await read(source, first)).positions) == [second]


async def test_empty_pages_before_the_next_record_say_that_more_waits(server: KinesisServer) -> None:
    async with opened(server) as source:
        [position] = append(server, b"a")
        server.empty_pages = 2
        for _ in range(2):
            chunk = await read(source, TRIM_HORIZON)
            assert (list(chunk.rows), chunk.through, chunk.more) == ([], TRIM_HORIZON, True)
            assert source.behind_ms(ONE) == 1000
        chunk = await read(source, TRIM_HORIZON)
        assert (list(chunk.positions), chunk.more) == ([position], False)
        assert source.behind_ms(ONE) == 0
        assert len(server.asked("GetShardIterator")) == 1


async def test_the_end_of_a_shard_comes_with_its_last_records_and_again(server: KinesisServer) -> None:
    async with opened(server) as source:
        positions = append(server, b"a", b"b")
        server.stream.split(ONE)
        chunk = await read(source, TRIM_HORIZON, 1)
        assert (list(chunk.positions), chunk.ended, chunk.more) == (positions[:1], False, True)
        chunk = await read(source, positions[0])
        assert (list(chunk.positions), chunk.ended, chunk.more) == (positions[1:], True, False)
        for _ in range(2):
            chunk = await read(source, positions[1])
            assert (list(chunk.rows), chunk.ended) == ([], True)


async def test_a_large_page_comes_whole_and_in_order(server: KinesisServer) -> None:
    async with opened(server) as source:
        positions = append(server, *[b"x"] * 5001)
        chunk = await read(source, TRIM_HORIZON, 10_000)
        assert list(chunk.positions) == positions
        assert len(chunk.rows) == len(chunk.sizes) == len(chunk.times_ms) == len(chunk.keys) == 5001


async def test_a_cancelled_read_leaves_the_iterator_as_it_was(server: KinesisServer) -> None:
    async with opened(server) as source:
        first, second = append(server, b"a", b"b")
        await read(source, TRIM_HORIZON, 1)
        server.fail("GetRecords", stall())
        asked = len(server.http.requests)
        reading = asyncio.create_task(read(source, first))
        await server.http.asked(asked + 1)
        reading.cancel()
        await asyncio.wait({reading})
        assert list((await read(source, first)).positions) == [second]
        assert len(server.asked("GetShardIterator")) == 1


# --- aggregates


async def test_an_aggregate_is_given_in_as_many_reads_as_it_takes(server: KinesisServer) -> None:
    async with opened(server, deaggregate=True) as source:
        append(server, b"0", aggregate(*[("k", b"%d" % number) for number in range(1, 6)]), b"6")
        values: list[bytes | None] = []
        after = TRIM_HORIZON
        for count in (2, 2, 2, 1):
            chunk = await read(source, after, 2)
            assert len(chunk.rows) == count
            assert chunk.more is (count == 2)
            values += [source.codec.view(row)[1] for row in chunk.rows]
            after = chunk.through
        assert values == [b"%d" % number for number in range(7)]


async def test_reading_goes_on_within_an_aggregate_after_a_restart(server: KinesisServer) -> None:
    append(server, aggregate(*[("k", b"%d" % number) for number in range(3)]), b"3")
    for done in range(4):
        async with opened(server, deaggregate=True) as source:
            positions = list((await read(source, TRIM_HORIZON)).positions)
        async with opened(server, deaggregate=True) as source:
            chunk = await read(source, positions[done])
            assert [source.codec.view(row)[1] for row in chunk.rows] == [b"%d" % n for n in range(done + 1, 4)]


async def test_a_page_of_large_aggregates_comes_whole_and_in_order(server: KinesisServer) -> None:
    async with opened(server, deaggregate=True) as source:
        whole = [[b"%d-%d" % (number, place) for place in range(2000)] for number in range(20)]
        append(server, *[aggregate(*[("k", value + b"x" * 20) for value in each]) for each in whole])
        chunk = await read(source, TRIM_HORIZON, 100_000)
        given = [(source.codec.view(row)[1] or b"").rstrip(b"x") for row in chunk.rows]
        assert given == [value for each in whole for value in each]
        assert list(chunk.positions) == sorted(chunk.positions)


async def test_the_end_of_a_shard_waits_for_the_rest_of_an_aggregate(server: KinesisServer) -> None:
    async with opened(server, deaggregate=True) as source:
        append(server, aggregate(("k", b"0"), ("k", b"1")))
        server.stream.split(ONE)
        chunk = await read(source, TRIM_HORIZON, 1)
        assert (chunk.ended, chunk.more) == (False, True)
        assert (await read(source, chunk.through, 1)).ended


# --- pages for a replay


async def test_pages_follow_each_other_beside_what_is_read(server: KinesisServer) -> None:
    async with opened(server) as source:
        positions = append(server, *[b"x"] * 5)
        server.page_records = 2
        chunk = await read(source, TRIM_HORIZON, 1)
        first, pages = positions[1], []
        while first <= positions[-1]:
            pages.append(await source.page(ONE, first))
            first = pages[-1].through + 1
        assert [list(page.positions) for page in pages] == [positions[1:3], positions[3:5]]
        assert list((await read(source, chunk.through)).positions) == positions[1:3]
        assert len(server.asked("GetShardIterator")) == 2


async def test_a_page_behind_another_is_found_without_memory_of_it(server: KinesisServer) -> None:
    positions = append(server, b"a", b"b")
    async with opened(server) as source:
        assert list((await source.page(ONE, positions[0] + 1)).positions) == positions[1:]


async def test_the_first_page_of_all_begins_with_the_oldest_record(server: KinesisServer) -> None:
    positions = append(server, b"a", b"b", b"c")
    server.stream.trim(ONE, positions[1])
    async with opened(server) as source:
        assert list((await source.page(ONE, 0)).positions) == positions[1:]
        assert [each["ShardIteratorType"] for each in server.asked("GetShardIterator")] == ["TRIM_HORIZON"]
        with pytest.raises(PositionLost):
            await source.page(ONE, positions[0] - 1)


async def test_a_page_may_begin_within_an_aggregate(server: KinesisServer) -> None:
    append(server, aggregate(("k", b"0"), ("k", b"1")), b"2")
    async with opened(server, deaggregate=True) as source:
        positions = list((await read(source, TRIM_HORIZON)).positions)
        for number, first in enumerate(positions):
            assert list((await source.page(ONE, first)).positions) == positions[number:]


# --- refusals


async def test_a_position_that_is_none_of_the_shards_is_lost(server: KinesisServer) -> None:
    async with opened(server) as source:
        with pytest.raises(PositionLost, match="GetShardIterator: InvalidArgumentException"):
            await read(source, 77)
        # So stand-ins say it.
        server.fail("GetShardIterator", refuse(400, "ResourceNotFoundException"))
        with pytest.raises(PositionLost, match="GetShardIterator: ResourceNotFoundException"):
            await read(source, 77)


async def test_a_time_that_is_refused_is_no_lost_position(server: KinesisServer) -> None:
    async with opened(server) as source:
        server.fail("GetShardIterator", refuse(400, "InvalidArgumentException", "the time is yet to come"))
        with pytest.raises(SourceUnavailable, match="the time is yet to come"):
            await read(source, at_time(9_999_999_999_999))


async def test_a_shard_that_is_gone_is_told_apart_from_the_stream(server: KinesisServer) -> None:
    async with opened(server) as source:
        [position] = append(server, b"a")
        await read(source, TRIM_HORIZON)
        server.stream.split(ONE)
        server.stream.forget(ONE)
        for _ in range(2):
            with pytest.raises(ShardGone, match=f"shard {ONE} is not there any more") as gone:
                await read(source, position)
            assert gone.value.shard == ONE
        server.name = "another"
        with pytest.raises(SourceUnavailable, match="the stream does not exist there"):
            await read(source, position)


@pytest.mark.parametrize(
    "code",
    [
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ThrottlingException",
    ],
)
async def test_what_is_throttled_goes_on_where_it_was(server: KinesisServer, code: str) -> None:
    async with opened(server) as source:
        first, second = append(server, b"a", b"b")
        await read(source, TRIM_HORIZON, 1)
        server.fail("GetRecords", refuse(400, code), times=3)
        for _ in range(3):
            with pytest.raises(Throttled, match="it is throttled"):
                await read(source, first)
        assert list((await read(source, first)).positions) == [second]
        assert len(server.asked("GetShardIterator")) == 1


TROUBLE = [
    (say({"message": "oops"}, 500), "GetRecords: HTTP status 500"),
    (refuse(500, "InternalFailure"), "GetRecords: InternalFailure: it said no"),
    (refuse(400, "InvalidArgumentException"), "GetRecords: InvalidArgumentException"),
    (refuse(400, "KMSDisabledException", "the key is disabled"), "KMSDisabledException: the key is disabled"),
    (refuse(400, "AccessDeniedException"), "the credentials do not allow this; give their owner the permission"),
    (say(b"<html>"), "what answers is not the service .*; check endpoint_url"),
    (say({"Records": [{}]}), "what answers is not the service .*; check endpoint_url"),
    (
        say({"Records": [{"SequenceNumber": "x", "ApproximateArrivalTimestamp": 1, "Data": "", "PartitionKey": "k"}]}),
        "what answers is not the service .*; check endpoint_url",
    ),
    (send(HEAD + b"Content-Length: 100\r\n\r\n", b'{"Records":['), "it closed the connection"),
    (stall(HEAD), r"GetRecords: it did not answer within 2 s"),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLE, ids=[reason for _, reason in TROUBLE])
async def test_trouble_is_told_and_loses_nothing(server: KinesisServer, trouble: Any, reason: str) -> None:
    async with opened(server, call_s=2.0) as source:
        first, second = append(server, b"a", b"b")
        await read(source, TRIM_HORIZON, 1)
        server.fail("GetRecords", trouble)
        with pytest.raises(SourceUnavailable, match=f"Kinesis stream clicks: .*{reason}") as told:
            await read(source, first)
        assert not isinstance(told.value, Throttled)
        assert list((await read(source, first)).positions) == [second]


@pytest.mark.parametrize("operation", ["DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"])
async def test_credentials_that_are_refused_are_read_anew(
    server: KinesisServer, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server) as source:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "DescribeStreamSummary": source.shards,
            "ListShards": source.shards,
            "GetShardIterator": lambda: read(source, TRIM_HORIZON),
            "GetRecords": lambda: source.page(ONE, position),
        }
        [position] = append(server, b"a")
        server.fail(operation, refuse(403, "ExpiredTokenException"))
        with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
            await calls[operation]()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
        await calls[operation]()
    assert "AKIAOTHER" in server.http.requests[-1].headers["authorization"]


async def test_credentials_that_are_refused_at_first_are_read_anew(
    server: KinesisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fail("DescribeStreamSummary", refuse(403, "UnrecognizedClientException"))
    with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
        async with opened(server):
            pass
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    async with opened(server):
        pass
    assert "AKIAOTHER" in server.http.requests[-1].headers["authorization"]


@pytest.mark.parametrize(("given", "region"), [(None, "ap-south-1"), ("eu-north-1", "eu-north-1")])
async def test_an_arn_says_the_region_where_the_file_does_not(
    server: KinesisServer, given: str | None, region: str
) -> None:
    arn = server.arn.replace(REGION, "ap-south-1")
    source = KinesisSource(KinesisSettings("m", arn, server.http.url, given))
    with pytest.raises(SourceUnavailable, match="the stream does not exist there"):
        await source.open()
    assert f"/{region}/kinesis/aws4_request" in server.http.requests[0].headers["authorization"]


# --- the check


async def test_the_check_says_what_is_there(server: KinesisServer) -> None:
    server.stream.split(ONE)
    settings = KinesisSettings("m", "clicks", server.http.url, REGION)
    assert await check_kinesis(settings, 3.0) == f"stream {server.arn}: 3 open shards, 1 closed"
    server.fail("SubscribeToShard", say(b"", 500), times=2)
    consumer = KinesisSettings("m", server.consumer_arn, server.http.url, REGION)
    assert await check_kinesis(consumer, 3.0) == (
        f"stream {server.consumer_arn}: 3 open shards, 1 closed; SubscribeToShard is not served (HTTP status 500), "
        "shards are polled"
    )
    assert not server.asked("GetRecords")


async def test_the_check_says_what_is_missing(server: KinesisServer) -> None:
    with pytest.raises(SourceUnavailable, match="Kinesis stream other: the stream does not exist there"):
        await check_kinesis(KinesisSettings("m", "other", server.http.url, REGION), 3.0)
