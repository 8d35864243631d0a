"""The stream engine against recorded and documented cases of AWS Lambda's stream mappings.

Each case of tests/vectors/stream-cases.json gives settings, records with arrival times, scripted outcomes, and the
calls, failure records and checkpoints to expect. They run here in virtual time without a runner.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.core import facts as f
from router.core.model import (
    NOT_READ,
    STREAM_RULES,
    Backoff,
    Batch,
    Cancelled,
    Chunk,
    EventSourceMapping,
    Failed,
    FailureKind,
    FunctionError,
    Instant,
    Outcome,
    Refused,
    Returned,
    ShardInfo,
    TooLarge,
    WindowCall,
)
from router.core.shard import lane_of
from router.core.streams import StreamEngine
from router.core.tumbling import CALM_S, GRACE_S, STATE_LIMIT_BYTES

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "stream-cases.json").read_text())["cases"]

#: By then everything has happened; shards go on being listed.
END_MS = 3_600_000


class Simulation:
    """Plays the runner: records appear, calls take time, everything else is instant."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.records: dict[str, list[dict[str, Any]]] = {}
        for record in case["records"]:
            self.records.setdefault(record["shard"], []).append(record)
        self.script = {lane: list(outcomes) for lane, outcomes in case["script"].items()}
        self.now_ms = 0.0
        self.events: list[tuple[float, int, f.Fact]] = []
        self.order = count()
        self.reads: dict[Any, dict[str, f.Demand]] = {}
        self.invocations: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.report = bool(case["settings"].get("ReportBatchItemFailures"))
        #: When the source is found to have nothing more, long after a window.
        self.quiet_ms = set(self.grace_ends())
        self.engine = StreamEngine(mapping_of(case["settings"]), self.identify, Random(1))

    @property
    def instant(self) -> Instant:
        return Instant(self.now_ms / 1000, self.now_ms / 1000)

    def identify(self, item: object, batch: Batch) -> int | None:
        if not isinstance(item, str) or not item.isdigit():
            return None
        return int(item) if int(item) in batch.positions() else None

    def grace_ends(self) -> Iterator[int]:
        length_ms = self.case["settings"].get("TumblingWindowInSeconds", 0) * 1000
        for record in self.case["records"] if length_ms else ():
            end_ms = (record["arrival"] // length_ms + 1) * length_ms
            yield end_ms + (GRACE_S - CALM_S) * 1000
            yield end_ms + GRACE_S * 1000

    def run(self) -> None:
        self.post(0, f.StreamOpened(frozenset(), frozenset()))
        for quiet_ms in self.quiet_ms:
            self.post(quiet_ms, f.Due())
        for record in self.case["records"]:
            self.post(record["t"], f.Due())
        while self.events[0][0] < END_MS and len(self.invocations) < 100:
            self.now_ms, _, fact = heapq.heappop(self.events)
            self.feed(fact)
            while self.events and self.events[0][0] <= self.now_ms:
                self.feed(heapq.heappop(self.events)[2])
            self.serve_reads()

    def post(self, at_ms: float, fact: f.Fact) -> None:
        heapq.heappush(self.events, (at_ms, next(self.order), fact))

    def feed(self, fact: f.Fact) -> None:
        for command in self.engine.feed(fact, self.instant):
            match command:
                case f.Read(unit, demand):
                    self.reads[unit] = dict(demand)
                case f.Invoke(batch):
                    self.invoke(batch)
                case f.Keep(failure, batch):
                    self.keep(failure, batch)
                case f.Commit(done):
                    self.commit(done)
                case f.List():
                    self.post(self.now_ms, f.ShardsListed(self.shards()))
                case f.Open(shard):
                    self.post(self.now_ms, f.ShardOpened(shard, shard, -1))
                case f.WakeAt(mono_s):
                    self.post(mono_s * 1000, f.Due())
                case f.Release(_, finished):
                    assert finished
                case _:
                    assert isinstance(command, f.Note)

    def serve_reads(self) -> None:
        for unit, demand in list(self.reads.items()):
            chunks = [self.chunk(shard, wanted) for shard, wanted in demand.items()]
            is_quiet = self.now_ms in self.quiet_ms
            self.quiet_ms.discard(int(self.now_ms))
            if is_quiet or any(chunk.positions or chunk.ended for chunk in chunks):
                del self.reads[unit]
                self.feed(f.ChunksRead(unit, chunks))
                while self.events and self.events[0][0] <= self.now_ms:
                    self.feed(heapq.heappop(self.events)[2])
                return self.serve_reads()
        return None

    def shards(self) -> list[ShardInfo]:
        shards = self.case["shards"]
        return [ShardInfo(each["id"], tuple(each["parents"]), each["closed"] is not None) for each in shards]

    def is_closed(self, shard: str) -> bool:
        (closed_ms,) = [each["closed"] for each in self.case["shards"] if each["id"] == shard]
        return closed_ms is not None and closed_ms <= self.now_ms

    def chunk(self, shard: str, wanted: f.Demand) -> Chunk:
        rows = [r for r in self.records[shard] if r["t"] <= self.now_ms and int(r["seq"]) > wanted.after]
        positions = [int(record["seq"]) for record in rows]
        return Chunk(
            shard,
            positions,
            sizes=[100] * len(rows),
            times_ms=[record["arrival"] for record in rows],
            keys=[LANE_KEYS[record["lane"]] for record in rows],
            rows=rows,
            through=positions[-1] if positions else wanted.after,
            kept=[index for index, record in enumerate(rows) if record.get("match", True)],
            before=wanted.after,
            ended=self.is_closed(shard),
        )

    def invoke(self, batch: Batch) -> None:
        records = [record["i"] for record in batch.rows()]
        lane = lane_name(batch)
        script = self.script.get(lane, [])
        outcome = script.pop(0) if script else "ok"
        entry = {"t": self.now_ms, "lane": lane, "batch": batch.id, "records": records, "outcome": outcome}
        self.invocations.append(entry | told(batch))
        taken_ms = 0 if outcome in ("throttle", "too_large") else 10
        if isinstance(outcome, dict) and "do" in outcome:
            taken_ms = outcome.get("ms", 10)
            outcome = outcome["do"]
        result = counted(batch, outcome) if batch.window else self.outcome(outcome)
        self.post(self.now_ms + taken_ms, f.InvocationEnded(batch.id, result))

    def outcome(self, scripted: Any) -> Outcome:  # noqa: PLR0911 - one line an outcome
        by_index = {record["i"]: record["seq"] for record in self.case["records"]}
        match scripted:
            case "ok":
                return Returned(None)
            case "error":
                return Failed(FailureKind.RAISED, FunctionError("Boom", "boom"))
            case "throttle":
                return Refused(FunctionError("TooManyRequestsException", "Rate Exceeded."))
            case "too_large":
                return TooLarge(7_000_000)
            case {"report": indexes}:
                items = [{"itemIdentifier": by_index[index]} for index in indexes]
                return Returned({"batchItemFailures": items} if self.report else NOT_READ)
            case {"return": value}:
                return Returned(value if self.report else NOT_READ)
            case _:
                return Cancelled()

    def keep(self, failure: Any, batch: Batch) -> None:
        self.failures.append(
            {
                "lane": lane_name(batch),
                "condition": failure.reason.value,
                "approximateInvokeCount": failure.attempts,
                "records": [record["i"] for record in batch.rows()],
                # Not told of a final call.
                "batchSize": failure.batch_size or None,
                "timeWindowInfo": time_window(failure.window) if failure.window else None,
                "responseContext": {"statusCode": 200, "functionError": failure.function_error}
                if failure.responded
                else None,
            }
        )
        self.post(self.now_ms, f.Kept(failure.id))

    def commit(self, done: Any) -> None:
        for shard, progress in done.items():
            finished = sum(1 for record in self.records[shard] if int(record["seq"]) <= progress.checkpoint)
            if self.last_count(shard) != finished:
                self.checkpoints.append({"t": self.now_ms, "shard": shard, "count": finished})
        self.post(self.now_ms, f.Committed())

    def last_count(self, shard: str) -> int:
        return next((entry["count"] for entry in reversed(self.checkpoints) if entry["shard"] == shard), 0)


def lane_name(batch: Batch) -> str:
    rows = batch.rows()
    return f"{batch.shard}#{rows[0]['lane'] if rows else batch.lane}"


def time_window(call: WindowCall) -> dict[str, Any]:
    return {
        "window": [call.start_s * 1000, call.end_s * 1000],
        "isFinalInvokeForWindow": call.final,
        "isWindowTerminatedEarly": call.early,
    }


def told(batch: Batch) -> dict[str, Any]:
    """Give what the function is told of its tumbling window."""
    if not batch.window:
        return {}
    state = json.loads(batch.window.state)
    return {**time_window(batch.window), "state": {**state, "big": True} if state.pop("big", None) else state}


def counted(batch: Batch, outcome: str) -> Outcome:
    """Count the records of a window; a state that is too large is large by a text."""
    assert batch.window
    if outcome == "error":
        return Failed(FailureKind.RAISED, FunctionError("Boom", "boom"))
    state = json.loads(batch.window.state)
    large = {"big": "x" * STATE_LIMIT_BYTES} if outcome == "oversized" else {}
    return Returned({"state": {"n": state.get("n", 0) + batch.count, **large}})


def lane_keys() -> dict[int, bytes]:
    """Find a key for each lane of the cases that have two."""
    keys: dict[int, bytes] = {}
    for number in count():
        key = str(number).encode()
        keys.setdefault(lane_of(key, 2), key)
        if len(keys) == 2:
            return keys
    raise AssertionError


LANE_KEYS = lane_keys()


def mapping_of(settings: dict[str, Any]) -> EventSourceMapping:
    retries = settings.get("MaximumRetryAttempts", -1)
    age_s = settings.get("MaximumRecordAgeInSeconds", -1)
    return EventSourceMapping(
        "case",
        "function",
        STREAM_RULES,
        batch_size=settings["BatchSize"],
        window_s=settings.get("MaximumBatchingWindowInSeconds", 0),
        parallelization_factor=settings.get("ParallelizationFactor", 1),
        maximum_retry_attempts=None if retries < 0 else retries,
        maximum_record_age_s=None if age_s < 0 else age_s,
        bisect=settings.get("BisectBatchOnFunctionError", False),
        report_item_failures=settings.get("ReportBatchItemFailures", False),
        backoff=Backoff(0.2, 60.0, jitter=0.0),
        commit_interval_s=0.0,
        tumbling_window_s=settings.get("TumblingWindowInSeconds", 0),
    )


def by_lane(entries: list[dict[str, Any]], *members: str) -> dict[str, list[Any]]:
    lanes: dict[str, list[Any]] = {}
    for entry in entries:
        lanes.setdefault(entry["lane"], []).append(tuple(entry.get(member) for member in members))
    return lanes


def batches(entries: list[dict[str, Any]]) -> list[int]:
    """Number the batches by their first appearance."""
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(entry["batch"], len(numbers)) for entry in entries]


@pytest.mark.parametrize("case", CASES, ids=[f"{case['id']} {case['title']}" for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    simulation = Simulation(case)
    simulation.run()
    expect = case["expect"]
    members: tuple[str, ...] = ("records", "outcome")
    if "TumblingWindowInSeconds" in case["settings"]:
        members += ("window", "isFinalInvokeForWindow", "isWindowTerminatedEarly", "state")
    assert by_lane(simulation.invocations, *members) == by_lane(expect["invocations"], *members)
    for lane in by_lane(expect["invocations"], "t"):
        seen = [entry for entry in simulation.invocations if entry["lane"] == lane]
        wanted = [entry for entry in expect["invocations"] if entry["lane"] == lane]
        assert batches(seen) == batches(wanted)
        if case["times"] == "exact":
            assert [entry["t"] for entry in seen] == pytest.approx([entry["t"] for entry in wanted], abs=1)
    members = ("condition", "approximateInvokeCount", "records", "batchSize", "responseContext", "timeWindowInfo")
    assert by_lane(simulation.failures, *members) == by_lane(expect["failures"], *members)
    for shard in simulation.records:
        wanted_last = [entry["count"] for entry in expect["checkpoints"] if entry["shard"] == shard][-1:]
        assert [simulation.last_count(shard)] == wanted_last
    for seen_checkpoint in simulation.checkpoints:
        allowed = {e["count"] for e in expect["checkpoints"] if e["shard"] == seen_checkpoint["shard"]}
        assert seen_checkpoint["count"] in allowed
