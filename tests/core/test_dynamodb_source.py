"""The source of a table's streams, against a service that is scripted: rolls, other streams, times, faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from connectors.dynamodb import DynamoDbSource
from connectors.dynamodb_check import check_dynamodb
from connectors.settings import DynamoDbSettings
from router.core.facts import Demand
from router.core.model import TRIM_HORIZON, Chunk, ShardInfo, at_time
from router.errors import PositionLost, ShardGone, SourceUnavailable, Throttled
from tests.fakes.dynamodb_server import FakeDynamoDb, FakeStream, serving
from tests.fakes.http_server import Answer, HttpServer, refuse, say, send

PATIENCE_S = 20.0
START_S = 1767225630.5
NO_ONE = {"pk": {"S": "nobody"}}


@dataclass
class Clock:
    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Rig:
    """The service, and sources that read it."""

    service: FakeDynamoDb
    server: HttpServer
    clock: Clock
    open_sources: list[DynamoDbSource] = field(default_factory=list)

    async def open(self, table: str = "orders") -> DynamoDbSource:
        source = DynamoDbSource(self.settings(table))
        self.open_sources.append(source)
        await source.open()
        return source

    def settings(self, table: str = "orders") -> DynamoDbSettings:
        return DynamoDbSettings("m", table, self.server.url, "eu-west-1")

    def asked(self, operation: str) -> list[Any]:
        return [request.json for request in self.server.requests if request.operation == operation]

    def fail(self, operation: str, *answers: Answer) -> None:
        self.service.faults[operation].extend(answers)

    def stream(self, shards: int = 1, **more: Any) -> tuple[FakeStream, list[str]]:
        """Make a table with a stream, or enable another; gives the stream and its shards."""
        if "orders" not in self.service.tables:
            self.service.create_table("orders")
        stream = self.service.enable("orders", shards=shards, **more)
        return stream, list(stream.shards)


@pytest.fixture
async def rig(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    clock = Clock()
    service = FakeDynamoDb(clock)
    async with serving(service) as server, asyncio.timeout(PATIENCE_S):
        rig = Rig(service, server, clock)
        yield rig
        for source in rig.open_sources:
            await source.close()


async def read(source: DynamoDbSource, shard: str, after: int = TRIM_HORIZON, limit: int = 1000) -> Chunk:
    [chunk] = await source.read(shard, {shard: Demand(after, limit)})
    return chunk


def by_name(shards: Any) -> dict[str, ShardInfo]:
    return {shard.name: shard for shard in shards}


# --- which streams


async def test_a_table_is_told_by_its_arn_and_the_services_clock(rig: Rig) -> None:
    rig.stream()
    source = await rig.open()
    assert source.identity == "arn:aws:dynamodb:eu-west-1:111122223333:table/orders"
    assert source.server_time_s == int(START_S)


async def test_all_streams_of_a_table_are_read_one_behind_the_other(rig: Rig) -> None:
    old, (a, b) = rig.stream(2)
    c, d = rig.service.roll(a, 2)
    rig.service.disable("orders")
    _, (e,) = rig.stream()
    [f] = rig.service.roll(e)
    source = await rig.open()
    shards = by_name(await source.shards())
    assert {name: shard.parents for name, shard in shards.items()} == {
        a: (),
        b: (),
        c: (a,),
        d: (a,),
        e: tuple(sorted((b, c, d))),
        f: (e,),
    }
    assert [name for name, shard in shards.items() if not shard.closed] == [f]
    position = rig.service.append(c, NO_ONE)
    [row] = (await read(source, c)).rows
    assert old.arn.encode() in row
    assert (await read(source, c, position)).ended


async def test_a_stream_that_is_named_by_its_arn_is_the_only_one(rig: Rig) -> None:
    _, (old,) = rig.stream()
    rig.service.disable("orders")
    stream, (new,) = rig.stream()
    source = await rig.open(stream.arn)
    assert source.identity == source.incarnation == stream.arn
    assert await source.shards() == [ShardInfo(new, (), closed=False)]
    with pytest.raises(ShardGone):
        await read(source, old)
    assert not rig.asked("ListStreams")


async def test_a_stream_without_shards_does_not_part_those_around_it(rig: Rig) -> None:
    _, (one,) = rig.stream()
    rig.service.disable("orders")
    rig.stream(0)
    rig.service.disable("orders")
    _, (two,) = rig.stream()
    shards = by_name(await (await rig.open()).shards())
    assert shards[two].parents == (one,)


async def test_a_shard_whose_parent_was_trimmed_comes_behind_the_stream_before_it_too(rig: Rig) -> None:
    _, (one,) = rig.stream()
    rig.service.disable("orders")
    stream, (two,) = rig.stream()
    [three] = rig.service.roll(two)
    del stream.shards[two]
    shards = by_name(await (await rig.open()).shards())
    assert shards[three].parents == (two, one)


async def test_disabling_and_enabling_the_stream_while_it_is_read_loses_nothing(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    first = rig.service.append(one, NO_ONE)
    assert (await read(source, one)).through == first
    last = rig.service.append(one, NO_ONE)
    rig.service.disable("orders")
    _, (two,) = rig.stream(view_type="KEYS_ONLY")
    rig.service.append(two, NO_ONE)
    chunk = await read(source, one, first)
    assert (list(chunk.positions), chunk.ended) == ([last], True)
    shards = by_name(await source.shards())
    assert (shards[one].closed, shards[two].parents) == (True, (one,))
    [row] = (await read(source, two)).rows
    assert b'"StreamViewType":"KEYS_ONLY"' in row


async def test_a_table_made_again_with_other_keys_comes_behind_the_one_that_was_deleted(rig: Rig) -> None:
    _, (one,) = rig.stream()
    last = rig.service.append(one, NO_ONE)
    source = await rig.open()
    incarnation = source.incarnation
    rig.service.delete_table("orders")
    _, (two,) = rig.stream()
    position = rig.service.append(two, {"id": {"N": "7"}, "at": {"B": "AA=="}})
    source = await rig.open()
    assert source.incarnation == incarnation
    assert by_name(await source.shards())[two].parents == (one,)
    chunk = await read(source, one)
    assert (list(chunk.positions), chunk.ended) == ([last], True)
    chunk = await read(source, two)
    assert (list(chunk.positions), list(chunk.keys)) == ([position], [b'{"at":{"B":"AA=="},"id":{"N":"7"}}'])


async def test_the_shards_of_a_stream_that_is_gone_are_gone(rig: Rig) -> None:
    old, (one,) = rig.stream()
    rig.service.append(one, NO_ONE)
    source = await rig.open()
    await read(source, one)
    rig.service.disable("orders")
    _, (two,) = rig.stream()
    rig.service.forget(old)
    for after in (TRIM_HORIZON, 400000000000000000000001):
        with pytest.raises(ShardGone, match=f"shard {one} does not exist any more"):
            await read(source, one, after)
    assert await source.shards() == [ShardInfo(two, (), closed=False)]
    with pytest.raises(ShardGone, match="does not exist any more"):
        await (await rig.open()).page(one, 1)


async def test_a_stream_that_goes_while_it_is_listed_is_left_out(rig: Rig) -> None:
    rig.stream()
    rig.service.disable("orders")
    _, (two,) = rig.stream()
    source = await rig.open()
    rig.fail("DescribeStream", refuse(400, "ResourceNotFoundException"))
    assert await source.shards() == [ShardInfo(two, (), closed=False)]


# --- pages of a listing


async def test_listings_of_many_pages_are_read_to_their_end(rig: Rig) -> None:
    rig.service.page_size = 2
    for _ in range(5):
        rig.stream(5)
        rig.service.disable("orders")
    shards = await (await rig.open()).shards()
    assert len(by_name(shards)) == len(shards) == 25
    assert [request.get("Limit") for request in rig.asked("ListStreams")] == [100] * 6


async def test_a_shard_list_that_changes_between_its_pages_is_read_whole(rig: Rig) -> None:
    stream, (one, two, three) = rig.stream(3)
    rig.service.page_size = 2
    source = await rig.open()
    children: list[str] = []
    rig.service.between_pages.append(lambda: children.extend(rig.service.roll(one, 2)))
    rig.service.between_pages.append(lambda: stream.shards.pop(two))
    shards = by_name(await source.shards())
    assert shards.keys() == {one, two, three, *children}
    assert [shards[child].parents for child in children] == [(one,), (one,)]


async def test_a_shard_that_is_read_stays_known_while_a_listing_lacks_it(rig: Rig) -> None:
    stream, (one,) = rig.stream()
    source = await rig.open()
    position = rig.service.append(one, NO_ONE)
    await read(source, one)
    late = stream.shards.pop(one)
    assert await source.shards() == []
    stream.shards[one] = late
    assert (await read(source, one, position)).through == position


@pytest.mark.parametrize("operation", ["ListStreams", "DescribeStream"])
async def test_a_listing_without_end_is_given_up(rig: Rig, operation: str) -> None:
    stream, _ = rig.stream()
    endless = {
        "ListStreams": say({"Streams": [], "LastEvaluatedStreamArn": "x"}),
        "DescribeStream": say({"StreamDescription": {"StreamArn": stream.arn, "LastEvaluatedShardId": "x"}}),
    }
    rig.service.always[operation] = endless[operation]
    with pytest.raises(SourceUnavailable, match=f"{operation}: its answers have no end; check endpoint_url"):
        await rig.open()


# --- reading


async def test_a_kept_iterator_saves_the_way_to_the_next_page(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    after = TRIM_HORIZON
    for _ in range(3):
        rig.service.append(one, NO_ONE)
        after = (await read(source, one, after)).through
        assert (await read(source, one, after)).through == after
    assert len(rig.asked("GetShardIterator")) == 1
    await read(source, one)
    assert len(rig.asked("GetShardIterator")) == 2


async def test_an_expired_iterator_is_got_anew_once(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    first = rig.service.append(one, NO_ONE)
    await read(source, one)
    rig.service.expire_iterators()
    second = rig.service.append(one, NO_ONE)
    assert list((await read(source, one, first)).positions) == [second]
    assert rig.asked("GetShardIterator")[-1]["SequenceNumber"] == str(first)
    rig.fail("GetRecords", *[refuse(400, "ExpiredIteratorException")] * 2)
    with pytest.raises(SourceUnavailable, match="ExpiredIteratorException"):
        await read(source, one, second)


async def test_no_more_is_asked_for_than_the_service_gives(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    for _ in range(3):
        rig.service.append(one, NO_ONE)
    chunk = await read(source, one, limit=2)
    assert (len(chunk.rows), chunk.more) == (2, True)
    chunk = await read(source, one, chunk.through, limit=50_000)
    assert (len(chunk.rows), chunk.more) == (1, False)
    assert [request["Limit"] for request in rig.asked("GetRecords")] == [2, 1000]


async def test_a_page_that_was_cut_at_the_end_of_a_shard_has_nothing_behind_it(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    rig.service.append(one, NO_ONE)
    rig.service.roll(one)
    chunk = await read(source, one, limit=1)
    assert (chunk.ended, chunk.more) == (True, False)


async def test_how_far_behind_is_the_age_of_the_last_record_until_there_is_none(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    rig.service.append(one, NO_ONE)
    rig.clock.now_s += 90
    chunk = await read(source, one)
    assert source.behind_ms(one) == 90_000
    await read(source, one, chunk.through)
    assert source.behind_ms(one) == 0


# --- from a time


async def test_a_time_leaves_out_what_is_older_by_a_second_or_more(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    for after_s in (-20, -10, -0.4, 0, 30):
        rig.clock.now_s = START_S + after_s
        rig.service.append(one, {"pk": {"S": f"{after_s}"}})
    chunk = await read(source, one, at_time(int(START_S * 1000)))
    assert list(chunk.keys) == [f'{{"pk":{{"S":"{after_s}"}}}}'.encode() for after_s in (-0.4, 0, 30)]


async def test_times_that_are_whole_minutes_may_be_younger_by_one(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    for minute in (-1, 0, 1):
        rig.clock.now_s = (START_S // 60 + minute) * 60
        rig.service.append(one, {"pk": {"S": f"{minute}"}})
    chunk = await read(source, one, at_time(int(START_S * 1000)))
    assert list(chunk.keys) == [b'{"pk":{"S":"0"}}', b'{"pk":{"S":"1"}}']


async def test_pages_before_a_time_are_passed_one_after_the_other(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    start = at_time(int(START_S * 1000) + 60_000)
    for _ in range(5):
        rig.service.append(one, NO_ONE)
    for _ in range(2):
        chunk = await read(source, one, start, limit=2)
        assert (list(chunk.rows), chunk.through, chunk.more) == ([], start, True)
    rig.clock.now_s += 120
    wanted = rig.service.append(one, NO_ONE)
    chunk = await read(source, one, start, limit=2)
    assert list(chunk.positions) == [wanted]
    assert len(rig.asked("GetShardIterator")) == 1
    assert (await read(source, one, wanted)).through == wanted


async def test_a_shard_that_ended_before_a_time_ends_without_records(rig: Rig) -> None:
    _, (one,) = rig.stream()
    rig.service.append(one, NO_ONE)
    rig.service.roll(one)
    source = await rig.open()
    start = at_time(int(START_S * 1000) + 60_000)
    chunk = await read(source, one, start)
    assert (list(chunk.rows), chunk.through, chunk.ended) == ([], start, True)


# --- what is trimmed


async def test_the_horizon_moves_on_under_a_kept_iterator(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    assert not (await read(source, one)).rows
    rig.fail("GetRecords", refuse(400, "TrimmedDataAccessException"))
    position = rig.service.append(one, NO_ONE)
    assert list((await read(source, one)).positions) == [position]
    rig.fail("GetRecords", *[refuse(400, "TrimmedDataAccessException")] * 2)
    with pytest.raises(SourceUnavailable, match="TrimmedDataAccessException"):
        await read(source, one)


@pytest.mark.parametrize("code", ["TrimmedDataAccessException", "ValidationException"])
async def test_a_position_that_the_shard_does_not_have_is_lost(rig: Rig, code: str) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    for reading in (read(source, one, 7), source.page(one, 8)):
        rig.fail("GetShardIterator", *[refuse(400, code)] * 2)
        with pytest.raises(PositionLost, match=rf"cannot be read behind 000000000000000000007 \({code}\)") as lost:
            await reading
        assert lost.value.shard == one
        rig.service.faults.clear()


async def test_pages_of_a_replay_follow_each_other_beside_what_is_read(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    positions = [rig.service.append(one, NO_ONE) for _ in range(1500)]
    rig.service.roll(one)
    assert list((await source.page(one, 0)).positions) == positions[:1000]
    page = await source.page(one, positions[0])
    assert list((await read(source, one)).positions) == positions[:1000]
    assert (list(page.positions), page.ended) == (positions[:1000], False)
    page = await source.page(one, page.through + 1)
    assert (list(page.positions), page.ended) == (positions[1000:], True)
    rig.fail("GetShardIterator", refuse(400, "ValidationException"))
    assert (await source.page(one, page.through + 1)).ended
    assert [request["ShardIteratorType"] for request in rig.asked("GetShardIterator")] == [
        "TRIM_HORIZON",
        "AT_SEQUENCE_NUMBER",
        "TRIM_HORIZON",
        "AT_SEQUENCE_NUMBER",
        "AFTER_SEQUENCE_NUMBER",
    ]


# --- faults

FAULTS = [
    (refuse(500, "InternalServerError"), "InternalServerError: it said no"),
    (refuse(400, "SerializationException"), "SerializationException: it said no"),
    (say(b"<html>go away</html>", 503), "HTTP status 503"),
    (say(b"{"), "what answers is not the service"),
    (say({"Records": 7}), "what answers is not the service"),
    (say([]), "what answers is not the service"),
    (send(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"Rec'), "it closed the connection"),
    (send(b"\x00\xff" * 40), "does not speak HTTP"),
]


@pytest.mark.parametrize(
    "operation", ["DescribeTable", "ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"]
)
async def test_a_fault_is_told_and_the_next_call_goes_on(rig: Rig, operation: str) -> None:
    _, (one,) = rig.stream()
    position = rig.service.append(one, NO_ONE)
    source = await rig.open()

    async def open_and_read() -> Chunk:
        await source.open()
        return await read(source, one)

    for answer, says in FAULTS:
        rig.fail(operation, answer)
        with pytest.raises(SourceUnavailable, match=f"DynamoDB table orders: .*{says}"):
            await open_and_read()
        assert (await open_and_read()).through == position


async def test_a_record_without_a_sequence_number_is_not_the_services(rig: Rig) -> None:
    stream, (one,) = rig.stream()
    source = await rig.open()
    rig.service.append(one, NO_ONE)
    [record] = stream.shards[one].records
    for number in ("", "x", "-5", 7, None):
        change = record["dynamodb"] | {"SequenceNumber": number}
        rig.fail("GetRecords", say({"Records": [record | {"dynamodb": change}]}))
        with pytest.raises(SourceUnavailable, match="what answers is not the service"):
            await read(source, one)


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException"]
)
async def test_throughput_that_is_exceeded_for_long_loses_nothing(rig: Rig, code: str) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    first = rig.service.append(one, NO_ONE)
    await read(source, one)
    second = rig.service.append(one, NO_ONE)
    rig.fail("GetRecords", *[refuse(400, code)] * 50)
    for _ in range(50):
        with pytest.raises(Throttled):
            await read(source, one, first)
    assert list((await read(source, one, first)).positions) == [second]
    assert len(rig.asked("GetShardIterator")) == 1


async def test_credentials_that_were_refused_are_read_anew(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    await read(source, one)
    rig.fail("GetRecords", refuse(400, "ExpiredTokenException"))
    with pytest.raises(SourceUnavailable, match="the credentials are not accepted"):
        await read(source, one)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANEW")
    await read(source, one)
    assert "Credential=AKIANEW/" in rig.server.requests[-1].headers["authorization"]


async def test_a_closed_source_says_so(rig: Rig) -> None:
    _, (one,) = rig.stream()
    source = await rig.open()
    await source.close()
    await source.close()
    with pytest.raises(SourceUnavailable, match="it is closed"):
        await read(source, one)


# --- what an operator is told


async def test_a_table_without_a_stream_says_how_to_enable_one(rig: Rig) -> None:
    rig.service.create_table("orders")
    enable = "aws dynamodb update-table --table-name orders --stream-specification StreamEnabled=true,"
    for opening in (rig.open(), check_dynamodb(rig.settings(), 3)):
        with pytest.raises(SourceUnavailable, match=f"the table has no stream; enable one: {enable}"):
            await opening


async def test_a_table_whose_last_stream_is_gone_is_told_until_there_is_another(rig: Rig) -> None:
    stream, _ = rig.stream()
    source = await rig.open()
    rig.service.delete_table("orders")
    rig.service.forget(stream)
    with pytest.raises(SourceUnavailable, match="the table has no stream; enable one"):
        await source.shards()
    _, (two,) = rig.stream()
    assert await source.shards() == [ShardInfo(two, (), closed=False)]


async def test_a_table_or_stream_that_is_not_there_is_told(rig: Rig) -> None:
    arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
    with pytest.raises(SourceUnavailable, match=r"DynamoDB table orders: the table does not exist there; create it"):
        await rig.open()
    with pytest.raises(SourceUnavailable, match=r"the stream does not exist there \(any more\); name the table"):
        await rig.open(arn)


async def test_an_endpoint_that_does_not_tell_its_time_is_refused(rig: Rig) -> None:
    stream, _ = rig.stream()
    rig.service.always["DescribeStream"] = say({"StreamDescription": {"StreamArn": stream.arn}})
    with pytest.raises(SourceUnavailable, match="does not say its time"):
        await rig.open()


async def test_a_check_tells_what_it_found_and_reads_nothing(rig: Rig) -> None:
    stream, (one, _) = rig.stream(2, view_type="NEW_IMAGE")
    rig.service.roll(one, 2)
    told = "table orders: NEW_IMAGE; open shards: 3"
    assert await check_dynamodb(rig.settings(stream.arn), 3) == told
    assert await check_dynamodb(rig.settings(), 3) == told
    rig.service.disable("orders")
    rig.stream(2)
    told = "table orders: NEW_AND_OLD_IMAGES; open shards: 2; streams: 2, each read when the one before it has ended"
    assert await check_dynamodb(rig.settings(), 3) == told
    assert not rig.asked("GetRecords")


async def test_a_check_finds_a_stream_that_is_disabled(rig: Rig) -> None:
    stream, _ = rig.stream()
    rig.service.disable("orders")
    for name in ("orders", stream.arn):
        with pytest.raises(SourceUnavailable, match="the stream is disabled, so that nothing new comes"):
            await check_dynamodb(rig.settings(name), 3)
