"""Jobs over failure records on virtual time: what runs again, what does not, and what goes on after a kill."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from router.core.model import (
    STREAM_RULES,
    Chunk,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Outcome,
    Pace,
    Returned,
    WindowCall,
)
from router.core.retention import Retention
from router.core.shard import lane_of
from router.errors import NotFound, RouterError, SourceUnavailable
from router.failures.failures import Failures
from router.life import MappingLife, MappingParts
from router.ports import PAGE_COUNT, QueueSource, Selection
from router.replay.end import JobOver, Prospect, RecordEnd
from router.replay.record_frames import ReadText
from router.replay.record_job import RecordReplays, RecordsAt
from router.replay.rehydrating import OUTAGE_S, MakePages
from router.replay.replay import PATIENCE_S, Replayer
from router.shard_side import plug_shards
from router.stream_names import StreamName
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.objects import MemoryObjects
from tests.fakes.queue_source import MemoryQueue, MemoryQueueSource
from tests.fakes.shard_stream import ShardStream, ShardStreamSource
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemoryRecord
from tests.sim.virtual_time import in_virtual_time

CLICKS = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
RAISED = Failed(FailureKind.RAISED, FunctionError("ValueError", "no total"))
#: When what failed was given up, and when the jobs of today begin, wall time.
YESTERDAY = "2026-01-01T00:00:00.000Z"
NOW_S = 1_767_312_000.0


class Service:
    """The mapping `clicks` over a stream, and a daemon's jobs over failure records; restarted by making another."""

    def __init__(
        self, stream: ShardStream | None = None, store: MemoryStore | None = None, *, passes: Any = None, **mapping: Any
    ) -> None:
        self.stream = stream or ShardStream(1, now_s=lambda: NOW_S)
        self.store = store or MemoryStore()
        self.queue = MemoryQueue("failed")
        self.objects = MemoryObjects()
        self.passes = passes
        self.mapping = EventSourceMapping(
            "clicks", "function", STREAM_RULES, maximum_retry_attempts=0, bisect=True, pace=Pace(1.0, 0.2), **mapping
        )
        #: Values that fail.
        self.bad: set[str] = set()
        #: Time and values of every invocation.
        self.runs: list[tuple[float, list[str]]] = []
        self.events: list[dict[str, Any]] = []
        self.takes_s = 0.01
        #: Days that the clock was put forward.
        self.days = 0
        #: What the next openings of the stream for replays raise, and how often it was opened.
        self.page_faults: list[RouterError] = []
        self.opened = 0
        self.replayer = Replayer(self.store, Log())
        self.replayer.records = self.records(self.make_pages)
        self.failures = Failures(
            "clicks",
            store=self.store,
            destination=None,
            retention=Retention(),
            batch_info=ShardStreamSource(self.stream).codec.batch_info,
            hold=lambda _: None,
            metrics=Metrics().of("clicks"),
            log=Log(),
            wall=self.wall,
            rng=Random(1),
        )
        parts = MappingParts(
            self.mapping,
            enabled=True,
            source_name="kinesis:clicks",
            make_source=lambda: ShardStreamSource(self.stream),
            plug=plug_shards,
            invoker=MemoryInvoker(self.invoke, 1000),
            passes=passes,
            keep=self.failures.keep,
        )
        self.life = MappingLife(
            parts,
            store=self.store,
            replays=self.replayer,
            metrics=Metrics().of("clicks"),
            log=Log(),
            wall=self.wall,
            rng=Random(1),
        )
        self.replayer.lives = {"clicks": self.life}

    def records(self, make_pages: MakePages) -> RecordReplays:
        return RecordReplays(
            self.store,
            Log(),
            self.replayer,
            streams=lambda: {"clicks": StreamName("kinesis", "clicks")},
            make_pages=make_pages,
            make_queue=self.make_queue,
            make_objects=lambda *_: self.objects,
            wall=self.wall,
        )

    def wall(self) -> float:
        return NOW_S + self.days * 86400.0 + asyncio.get_running_loop().time()

    def make_pages(self, _: str) -> ShardStreamSource:
        self.opened += 1
        source = ShardStreamSource(self.stream)
        if self.page_faults:
            source.fail("open", self.page_faults.pop(0))
        return source

    def make_queue(self, queue: str, _: str | None) -> QueueSource:
        if queue != "failed":
            raise SourceUnavailable(f"SQS queue {queue}: the queue does not exist there")
        return MemoryQueueSource(self.queue)

    def invoke(self, _: str, event: bytes) -> tuple[float, Outcome]:
        values = values_of(event)
        self.runs.append((asyncio.get_running_loop().time(), values))
        self.events.append(json.loads(event))
        return self.takes_s, RAISED if self.bad & set(values) else Returned({"state": {"sum": 1}})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it, once all that is in the stream by now has run."""
        works = [asyncio.create_task(work()) for work in (self.life.run, self.replayer.run)]
        await self.life.running.wait()
        await asyncio.sleep(60.0)
        self.runs.clear()
        self.events.clear()
        yield
        for work in works:
            work.cancel()
        await asyncio.wait(works)

    async def replay(self, records: Sequence[str | bytes], **wanted: Any) -> tuple[list[RecordEnd], JobOver]:
        """Replay a file with these lines."""
        return await self.job(RecordsAt("file:/failed.jsonl", None, **wanted), lines(records))

    async def job(self, wanted: RecordsAt, records: Any = None) -> tuple[list[Any], JobOver]:
        job = await self.replayer.records.start(wanted, records)
        told: list[Any] = []
        while not isinstance(each := await job.next(), JobOver):
            assert each is not None
            told.append(each)
        assert await job.next() is None
        return told, each

    async def stored(self) -> list[str | None]:
        """Give the parents of what is stored as failures."""
        return [each.batch.parent for each in await self.store.failures(Selection())]

    @property
    def values(self) -> list[str]:
        return [value for _, values in self.runs for value in values]


async def lines(records: Sequence[str | bytes]) -> AsyncIterator[ReadText]:
    for number, each in enumerate(records, 1):
        yield ReadText(f"failed.jsonl:{number}", each if isinstance(each, bytes) else each.encode())


def values_of(event: bytes) -> list[str]:
    return [base64.b64decode(each["value"]).decode() for each in json.loads(event)["records"]]


def record(*failed: MemoryRecord, count: int | None = None, payload: bytes | None = None, **changes: Any) -> str:
    """Write the failure record of a batch from the first of these records to the last."""
    info = {
        "shardId": failed[0].shard,
        "startSequenceNumber": str(failed[0].position),
        "endSequenceNumber": str(failed[-1].position),
        "approximateArrivalOfFirstRecord": "2026-01-02T00:00:00.000Z",
        "batchSize": len(failed) if count is None else count,
        "streamArn": CLICKS,
    }
    carried = {} if payload is None else {"payload": payload.decode()}
    return json.dumps({"timestamp": YESTERDAY, **carried, "KinesisBatchInfo": {**info, **changes}})


def put(stream: ShardStream, *values: str, key: str | None = None) -> list[MemoryRecord]:
    return [stream.put(value.encode(), (key or value).encode()) for value in values]


def outcomes(ends: Sequence[RecordEnd]) -> list[str]:
    return [end.outcome for end in sorted(ends, key=lambda end: end.where)]


# --- what runs


@in_virtual_time
async def test_exactly_the_range_runs_again() -> None:
    service = Service()
    _, b, _, d, _ = put(service.stream, "a", "b", "c", "d", "e")
    async with service.running():
        [end], over = await service.replay([record(b, d, count=3)])
    assert (end.outcome, end.reason, end.gone, end.mapping) == ("replayed", None, 0, "clicks")
    assert over == JobOver(None)
    assert [values for _, values in service.runs] == [["b", "c", "d"]]


@in_virtual_time
async def test_the_filters_hold_as_they_did() -> None:
    def passes(_: Mapping[str, object], data: bytes | None) -> bool:
        return data != b"dropped"

    service = Service(passes=passes)
    a, _, c = put(service.stream, "a", "dropped", "c")
    async with service.running():
        [end], _ = await service.replay([record(a, c, count=2)])
    assert (end.outcome, end.reason) == ("replayed", None)
    assert service.values == ["a", "c"]


@in_virtual_time
async def test_of_a_range_over_several_lanes_only_the_lane_that_failed_runs() -> None:
    service = Service(parallelization_factor=4)
    records = [service.stream.put(f"{key}{turn}".encode(), key.encode()) for turn in range(3) for key in "abcdefgh"]
    mine = [each for each in records if each.key == b"c"]
    lane = [each for each in records if each.key is not None and lane_of_(each) == lane_of_(mine[0])]
    async with service.running():
        [end], _ = await service.replay([record(*lane)])
        assert (end.outcome, end.reason) == ("replayed", None)
        assert sorted(service.values) == sorted((each.value or b"").decode() for each in lane)
        # As many as there are in no lane: all run, and it is told.
        service.runs.clear()
        [end], _ = await service.replay([record(lane[0], lane[-1], count=2)])
    inside = [each for each in records if lane[0].position <= each.position <= lane[-1].position]
    assert "held 2 failed records, and now" in (end.reason or "")
    assert len(service.values) == len(inside) > len(lane)


def lane_of_(each: MemoryRecord) -> int:
    assert each.key is not None
    return lane_of(each.key, 4)


@in_virtual_time
async def test_records_of_a_shard_that_was_split_long_ago_run_again() -> None:
    service = Service()
    a, b = put(service.stream, "a", "b")
    service.stream.split(a.shard)
    async with service.running():
        [end], _ = await service.replay([record(a, b)])
    assert (end.outcome, service.values) == ("replayed", ["a", "b"])


@in_virtual_time
async def test_a_record_that_carries_its_event_runs_without_the_stream() -> None:
    service = Service()
    a, b = put(service.stream, "a", "b")
    event = ShardStreamSource(service.stream).codec.event([a, b])
    async with service.running():
        service.stream.trim(a.shard, b.position + 1)
        [end], _ = await service.replay([record(a, b, payload=event)])
    assert (end.outcome, service.values, service.opened) == ("replayed", ["a", "b"], 0)


@in_virtual_time
async def test_what_fails_again_is_a_new_failure_whose_parent_is_the_record() -> None:
    service = Service()
    service.bad = {"b"}
    a, b = put(service.stream, "a", "b")
    async with service.running():
        before = await service.stored()
        [end], _ = await service.replay([record(a, b)])
        assert (end.outcome, len(end.new_failures)) == ("failed_again", 1)
        assert await service.stored() == [*before, end.id]
        # It is settled: the failure is where it can be replayed from.
        [again], _ = await service.replay([record(a, b)])
    assert again.outcome == "settled"


@in_virtual_time
async def test_records_of_a_shard_begin_in_the_order_they_come_in() -> None:
    service = Service()
    records = put(service.stream, *"abcdefghijklmnop", key="k")
    async with service.running():
        ends, _ = await service.replay([record(each) for each in records])
    assert outcomes(ends) == ["replayed"] * 16
    assert service.values == list("abcdefghijklmnop")


@in_virtual_time
async def test_no_more_is_read_than_has_failed_until_there_is_more_of_the_same_shard() -> None:
    read: list[tuple[int, int]] = []

    class Counted(ShardStreamSource):
        async def page(self, shard: str, first: int, limit: int = PAGE_COUNT) -> Chunk:
            chunk = await super().page(shard, first, limit)
            read.append((limit, len(chunk.positions)))
            return chunk

    service = Service()
    records = put(service.stream, *(f"v{number}" for number in range(2500)))
    async with service.running():
        service.replayer.records = service.records(lambda _: Counted(service.stream))
        await service.replay([record(*records[7:9])])
        assert read == [(2, 2)]
        read.clear()
        service.runs.clear()
        ends, _ = await service.replay([record(each) for each in records[100:2200:3]])
    assert outcomes(ends) == ["replayed"] * 700
    assert read == [(1, 1), (1000, 1000), (1000, 1000), (1000, 393)]
    assert service.values == [f"v{number}" for number in range(100, 2200, 3)]


@in_virtual_time
async def test_records_of_a_tumbling_window_begin_with_an_empty_state_and_a_final_call_runs_from_its_event() -> None:
    service = Service(tumbling_window_s=10)
    a, b = put(service.stream, "a", "b")
    bounds = {"start": "2026-01-02T00:00:00Z", "end": "2026-01-02T00:00:10Z"}
    codec = ShardStreamSource(service.stream).codec
    start_s = int(NOW_S)
    final = codec.window_event(a.shard, [], WindowCall(start_s, start_s + 10, b'{"sum":7}', final=True))
    of_window = json.loads(record(a, b))
    last = {**of_window, "payload": final.decode(), "KinesisBatchInfo": {"shardId": a.shard, "streamArn": CLICKS}}
    of_window["timeWindowInfo"] = {"window": bounds}
    async with service.running():
        service.events.clear()
        [end], _ = await service.replay([json.dumps(of_window)])
        assert (end.outcome, "it begins with {}" in (end.reason or "")) == ("replayed", True)
        assert service.values == ["a", "b"]
        [event] = service.events
        assert (event["window"], event["state"], event["isFinalInvokeForWindow"]) == (bounds, {}, False)
        service.events.clear()
        [end], _ = await service.replay([json.dumps(last)])
        assert (end.outcome, end.reason) == ("replayed", None)
        [event] = service.events
    assert (event["records"], event["state"], event["isFinalInvokeForWindow"]) == ([], {"sum": 7}, True)


# --- what is gone


@in_virtual_time
async def test_what_is_left_of_a_range_runs_and_what_is_gone_is_named() -> None:
    service = Service()
    a, b, c = put(service.stream, "a", "b", "c")
    async with service.running():
        service.stream.trim(a.shard, b.position)
        [end], _ = await service.replay([record(a, c, count=3)])
    assert (end.outcome, end.gone, service.values) == ("replayed", 1, ["b", "c"])
    where = f"{a.shard} from {a.position} to {c.position}"
    held = f"the stream still holds only what begins at {b.position}"
    assert end.reason == f"1 of 3 records of {where} are gone: {held}"


@in_virtual_time
async def test_a_range_that_is_gone_is_refused_by_name() -> None:
    service = Service()
    a, b, c = put(service.stream, "a", "b", "c")
    async with service.running():
        service.stream.trim(a.shard, c.position)
        [end], _ = await service.replay([record(a, b)])
    assert (end.outcome, service.values) == ("refused", [])
    where = f"{a.shard} from {a.position} to {b.position}"
    assert (end.reason, end.gone) == (f"2 of 2 records of {where} are gone: the stream still holds nothing", 2)


@in_virtual_time
async def test_a_shard_or_stream_that_is_gone_is_named() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    async with service.running():
        [end], _ = await service.replay([record(a, shardId="memory-17")])
        assert (end.outcome, "memory-17 is not there any more" in (end.reason or "")) == ("refused", True)
        [end], _ = await service.replay([record(a, approximateArrivalOfFirstRecord="2025-01-02T00:00:00.000Z")])
        assert (end.outcome, "deleted and made again" in (end.reason or "")) == ("refused", True)
    assert service.values == []


# --- what does not run


@in_virtual_time
async def test_what_is_wrong_with_one_holds_up_no_other() -> None:
    service = Service()
    a, b = put(service.stream, "a", "b")
    other = CLICKS.replace("clicks", "views")
    records = [
        b"\xff",
        record(b, a),
        record(a, streamArn=other),
        json.dumps({"Records": []}),
        record(a, payload=b"7"),
        record(b),
    ]
    async with service.running():
        ends, over = await service.replay(records)
    assert over == JobOver(None)
    ends = sorted(ends, key=lambda end: end.where)
    assert [end.outcome for end in ends] == ["refused"] * 5 + ["replayed"]
    for end, said in zip(
        ends,
        ("no JSON", "inverted", f"no mapping reads kinesis:{other}", "no failure record", "cannot be read"),
        strict=False,
    ):
        assert said in (end.reason or "")
    assert service.values == ["b"]


@in_virtual_time
async def test_a_record_of_another_stream_than_the_mapping_s_is_refused_by_name() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    other = CLICKS.replace("clicks", "views")
    async with service.running():
        wanted = RecordsAt("file:/failed", "clicks")
        [end], _ = await service.job(wanted, lines([record(a, streamArn=other)]))
        assert end.reason == f"it is of {other}, and mapping clicks reads kinesis:clicks"
        for mapping, said in (("nobody", "there is no mapping 'nobody'"), ("orders", "reads no stream")):
            service.replayer.lives = {"clicks": service.life, "orders": service.life}
            with pytest.raises(NotFound, match=said):
                await service.replayer.records.start(RecordsAt("file:/failed", mapping), lines([]))


@in_virtual_time
async def test_a_paused_mapping_refuses_and_keeps_what_is_to_come() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    async with service.running():
        service.life.pause(NOW_S)
        [end], _ = await service.replay([record(a)])
        assert (end.outcome, "`headrace mapping resume clicks` first" in (end.reason or "")) == ("refused", True)
        service.life.resume()
        [end], _ = await service.replay([record(a)])
    assert (end.outcome, service.values) == ("replayed", ["a"])


@in_virtual_time
async def test_a_stream_that_lets_nobody_in_is_tried_for_a_while_and_refuses_the_rest_at_once() -> None:
    service = Service()
    records = put(service.stream, *"abcdef")
    async with service.running():
        service.page_faults = [SourceUnavailable("the credentials are not accepted") for _ in range(100)]
        began_s = asyncio.get_running_loop().time()
        ends, _ = await service.replay([record(each) for each in records])
        assert outcomes(ends) == ["refused"] * 6
        assert {end.reason for end in ends} == {"its stream cannot be read again: the credentials are not accepted"}
        assert asyncio.get_running_loop().time() - began_s < OUTAGE_S + 5
        service.page_faults = [SourceUnavailable("throttled") for _ in range(3)]
        ends, _ = await service.replay([record(each) for each in records])
    assert outcomes(ends) == ["replayed"] * 6


@in_virtual_time
async def test_a_mapping_that_does_not_run_is_waited_for_once() -> None:
    service = Service()
    records = put(service.stream, *"abcdefghijklmnopqrstuvwxyz")
    works = [asyncio.create_task(service.replayer.run())]
    await asyncio.sleep(1.0)
    began_s = asyncio.get_running_loop().time()
    ends, _ = await service.replay([record(each) for each in records])
    assert outcomes(ends) == ["refused"] * 26
    assert asyncio.get_running_loop().time() - began_s < PATIENCE_S + 5
    for work in works:
        work.cancel()
    await asyncio.wait(works)


# --- going on


@in_virtual_time
async def test_what_is_settled_runs_once_whoever_was_killed() -> None:
    first = Service()
    records = [record(each) for each in put(first.stream, *"abcdefghijkl")]
    first.takes_s = 10.0
    async with first.running():
        job = await first.replayer.records.start(RecordsAt("file:/failed.jsonl", None), lines(records[:6]))
        settled = [await job.next() for _ in range(3)]
        assert all(isinstance(each, RecordEnd) and each.outcome == "replayed" for each in settled)
    done = first.values
    second = Service(first.stream, first.store)
    async with second.running():
        # Lines may be added, moved or repeated meanwhile.
        ends, _ = await second.replay([records[11], *records, records[0]])
        assert sum(end.outcome == "settled" for end in ends) == 3 + 2
        assert set(second.values).isdisjoint(done[:3])
        assert sorted([*done[:3], *second.values]) == list("abcdefghijkl")
        second.runs.clear()
        ends, _ = await second.replay(records)
        assert (set(outcomes(ends)), second.values) == ({"settled"}, [])
        ends, _ = await second.replay(records[:2], again=True)
    assert (outcomes(ends), second.values) == (["replayed"] * 2, ["a", "b"])


@in_virtual_time
async def test_a_full_store_holds_what_is_settled_until_it_can_be_noted() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    async with service.running():
        service.store.write_fault = "the disk is full"
        job = await service.replayer.records.start(RecordsAt("file:/failed", None), lines([record(a)]))
        telling = asyncio.create_task(job.next())
        await asyncio.sleep(30.0)
        assert (service.values, telling.done()) == (["a"], False)
        service.store.write_fault = None
        end = await telling
        assert isinstance(end, RecordEnd)
        assert end.outcome == "replayed"
    assert service.values == ["a"]


@in_virtual_time
async def test_what_is_settled_is_forgotten_after_a_month() -> None:
    service = Service()
    a, b = put(service.stream, "a", "b")
    async with service.running():
        await service.replay([record(a)])
        service.days += 20
        await service.replay([record(b)])
        service.days += 15
        service.runs.clear()
        ends, _ = await service.replay([record(a), record(b)])
        assert (outcomes(ends), service.values) == (["replayed", "settled"], ["a"])
        service.days += 40
        await service.job(RecordsAt("s3://bucket/failed", None))
    assert not [key for key in service.store.texts if key[0].startswith("replay:")]


@in_virtual_time
async def test_whoever_reads_the_records_may_go() -> None:
    async def cut_off() -> AsyncIterator[ReadText]:
        yield ReadText("failed.jsonl:1", record(a).encode())
        raise ConnectionError

    service = Service()
    [a] = put(service.stream, "a")
    async with service.running():
        ends, over = await service.job(RecordsAt("file:/failed", None), cut_off())
    assert (outcomes(ends), over) == (["replayed"], JobOver("who read the records to us has gone"))


@in_virtual_time
async def test_a_rate_is_kept() -> None:
    service = Service()
    records = put(service.stream, *"abcdef")
    async with service.running():
        await service.replay([record(each) for each in records], interval_s=2.0)
    times = [time_s for time_s, _ in service.runs]
    assert [round(later - earlier) for earlier, later in pairwise(times)] == [2] * 5


@in_virtual_time
async def test_a_record_that_is_there_twice_runs_once() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    async with service.running():
        ends, _ = await service.replay([record(a)] * 5)
        assert sorted(end.outcome for end in ends) == ["replayed", *["settled"] * 4]
        for _ in range(3):
            service.queue.send(record(a))
        service.runs.clear()
        ends, _ = await service.job(RecordsAt("sqs:failed", None))
    assert (len(ends), service.values, list(service.queue.messages)) == (3, ["a"], [])


# --- queues


@in_virtual_time
async def test_messages_are_deleted_once_they_are_settled_and_all_others_stay() -> None:
    service = Service()
    service.bad = {"b"}
    a, b = put(service.stream, "a", "b")
    for body in (record(a), record(b), "nonsense", record(a, shardId="memory-17")):
        service.queue.send(body)
    async with service.running():
        ends, over = await service.job(RecordsAt("sqs:failed", None))
        assert over == JobOver(None)
        assert sorted(end.outcome for end in ends) == ["failed_again", "refused", "refused", "replayed"]
        assert {end.where for end in ends if end.outcome == "refused"} == {
            f"sqs:{each}" for each in service.queue.messages
        }
        assert [held.body for held in service.queue.messages.values()] == ["nonsense", record(a, shardId="memory-17")]
        # They are to be had again at once.
        ends, _ = await service.job(RecordsAt("sqs:failed", "clicks"))
        assert outcomes(ends) == ["refused"] * 2


@in_virtual_time
async def test_leases_are_kept_while_records_run() -> None:
    service = Service()
    service.takes_s = 200.0
    [a] = put(service.stream, "a")
    service.queue.send(record(a))
    async with service.running():
        await asyncio.sleep(200.0)
        service.runs.clear()
        ends, _ = await service.job(RecordsAt("sqs:failed", None))
    assert (outcomes(ends), service.values, list(service.queue.messages)) == (["replayed"], ["a"], [])


@in_virtual_time
async def test_records_that_are_made_meanwhile_are_for_the_next_job() -> None:
    service = Service()
    [a] = put(service.stream, "a")
    made_now = json.dumps({**json.loads(record(a)), "timestamp": "2026-01-02T12:00:00.000Z"})
    service.queue.send(record(a))
    for _ in range(3):
        service.queue.send(made_now)
    async with service.running():
        ends, over = await service.job(RecordsAt("sqs:failed", None))
        assert (over, sorted(end.outcome for end in ends)) == (JobOver(None), ["later"] * 3 + ["replayed"])
        assert len(service.queue.messages) == 3


@in_virtual_time
async def test_a_queue_that_is_not_there_is_told_before_anything_runs() -> None:
    service = Service()
    async with service.running():
        for ask in (service.replayer.records.start, service.replayer.records.count):
            with pytest.raises(SourceUnavailable, match="does not exist"):
                await ask(RecordsAt("sqs:nothing", None))


# --- buckets


@in_virtual_time
async def test_objects_run_and_stay_and_one_that_cannot_be_read_is_named() -> None:
    service = Service()
    records = put(service.stream, *"abcdefg")
    service.objects.objects = {f"failed/{number}": record(each).encode() for number, each in enumerate(records)}
    service.objects.faults = {"failed/2": SourceUnavailable("slow down"), "failed/4": NotFound("it was deleted")}
    async with service.running():
        assert await service.replayer.records.count(RecordsAt("s3://bucket/failed/", None)) == 7
        ends, over = await service.job(RecordsAt("s3://bucket/failed/", None))
        assert over == JobOver(None)
        told = {end.where: (end.outcome, end.reason) for end in ends}
        assert told["failed/2"] == ("refused", "slow down")
        assert told["failed/4"] == ("refused", "it was deleted")
        assert sorted(service.values) == ["a", "b", "d", "f", "g"]
        service.objects.faults = {}
        service.runs.clear()
        ends, _ = await service.job(RecordsAt("s3://bucket/failed/", None))
        assert sorted(service.values) == ["c", "e"]
    assert service.objects.closed == 3


@in_virtual_time
async def test_a_bucket_that_goes_away_stops_the_job() -> None:
    service = Service()
    records = put(service.stream, *"abcdefg")
    service.objects.objects = {f"failed/{number}": record(each).encode() for number, each in enumerate(records)}
    service.objects.faults = {key: SourceUnavailable("S3 is away") for key in service.objects.objects}
    async with service.running():
        ends, over = await service.job(RecordsAt("s3://bucket/failed/", None))
        assert (outcomes(ends), over) == (["refused"] * 2, JobOver("S3 is away"))
        service.objects.objects = {}
        with pytest.raises(NotFound, match="there is no object in s3://bucket/failed/"):
            await service.replayer.records.count(RecordsAt("s3://bucket/failed/", None))
        service.objects.away = "S3 is away"
        with pytest.raises(SourceUnavailable, match="S3 is away"):
            await service.replayer.records.start(RecordsAt("s3://bucket/failed/", None))


# --- a dry run


@in_virtual_time
async def test_a_look_says_what_would_run_and_runs_nothing() -> None:
    service = Service()
    a, b, c, d = put(service.stream, "a", "b", "c", "d")
    event = ShardStreamSource(service.stream).codec.event([a])
    async with service.running():
        await service.replay([record(d)])
        service.runs.clear()
        service.stream.trim(a.shard, b.position)
        texts = [record(a, c, count=3), record(a, payload=event), record(d), record(a), b"{"]
        told, over = await service.job(RecordsAt("file:/failed.jsonl", None, only_look=True), lines(texts))
        assert over == JobOver(None)
        ranged, carried, settled, gone, broken = told
        assert all(isinstance(each, Prospect) for each in told)
        assert (ranged.mapping, ranged.ranges) == ("clicks", [(a.shard, str(a.position), str(c.position))])
        assert (ranged.records, ranged.held, ranged.gone, ranged.why_not) == (3, 2, 1, None)
        assert (carried.has_event, carried.held, carried.gone) == (True, None, 0)
        assert (settled.is_settled, settled.held) == (True, None)
        assert "1 of 1 records" in gone.why_not
        assert (broken.where, "no JSON" in broken.why_not) == ("failed.jsonl:5", True)

        service.queue.send(record(b))
        [seen], _ = await service.job(RecordsAt("sqs:failed", None, only_look=True))
        assert (seen.held, len(service.queue.messages)) == (1, 1)
        ends, _ = await service.job(RecordsAt("sqs:failed", None))
    assert (outcomes(ends), service.values) == (["replayed"], ["b"])
