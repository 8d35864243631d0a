"""What docs/sqs.md, docs/fifo.md and docs/s3.md say of failures, leases, order and reports, on a real server.

The function does what its messages ask for, and notes each invocation: the numbers of its messages, and how often
the queue has given them out.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import Daemon, whole_lines
from tests.live.queue_rig import Queue, Queues, add_mapping
from tests.live.s3_rig import CREATED, S3Rig, open_rig

OBEDIENT = """
import json, os, time

def handle(event, context):
    records = [(json.loads(record["body"]), record) for record in event["Records"]]
    receives = [(wish["n"], int(record["attributes"]["ApproximateReceiveCount"])) for wish, record in records]
    with open(os.environ["LEDGER"], "a") as ledger:
        print(json.dumps(receives), file=ledger)
    time.sleep(sum(wish.get("takes_s", 0) for wish, _ in records))
    if any(wish.get("raises") for wish, _ in records):
        raise KeyError("price")
    reported = [
        {"itemIdentifier": record["messageId"]}
        for (wish, record), (_, receive) in zip(records, receives)
        if receive <= wish.get("reported", 0)
    ]
    return {"batchItemFailures": reported}
"""
REPORTS: dict[str, Any] = {"function_response_types": ["ReportBatchItemFailures"]}
#: What is in the queue at the start is in one batch, though several receives may bring it.
TOGETHER: dict[str, Any] = {"batch_size": 10, "maximum_batching_window_in_seconds": 2}

Invocation = list[tuple[int, int]]


class Place(Daemon):
    """A daemon with the obedient function."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ledger = folder / "ledger"
        self._ledger.touch()

    def obey(self, queue: Queue, *, timeout_s: int = 5, workers: int = 1, **parameters: Any) -> None:
        """Map a queue to the function; what stands in the `sqs` block is given as `sqs`."""
        self.function(
            "orders",
            OBEDIENT,
            timeout=timeout_s,
            reserved_concurrency=workers,
            environment={"LEDGER": str(self._ledger)},
        )
        add_mapping(self, "orders", queue.source(**parameters.pop("sqs", {})), **parameters)

    def ledger(self) -> list[Invocation]:
        """Give all invocations: numbers and receives of their messages."""
        return [[(n, receives) for n, receives in json.loads(line)] for line in whole_lines(self._ledger)]

    def order(self) -> list[int]:
        """Give the numbers of all messages as the function has had them."""
        return [n for invocation in self.ledger() for n, _ in invocation]

    async def until_ran(self, *numbers: int) -> None:
        await self.until(lambda: self.order() == list(numbers), f"it ran {numbers}")


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as made:
        yield made


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as made:
        yield made


# --- what is checked


async def test_a_visibility_timeout_shorter_than_the_functions_is_refused(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="29")
    place.obey(queue, timeout_s=30)
    await queue.send({"n": 1})
    place.write()
    done = await place.command("check", "--connect")
    assert done.status == 1
    assert "Queue visibility timeout: 29 seconds is less than Function timeout: 30 seconds" in done.out
    assert await queue.counts() == (1, 0)


# --- what becomes of a failed batch


async def test_what_fails_goes_back_and_the_redrive_policy_counts(place: Place, queues: Queues) -> None:
    dead = await queues.make()
    redrive = {"deadLetterTargetArn": await dead.arn(), "maxReceiveCount": 2}
    queue = await queues.make(VisibilityTimeout="5", RedrivePolicy=redrive)
    place.obey(queue)
    await place.start()
    await queue.send({"n": 1, "raises": True})
    await dead.until((1, 0))
    assert place.ledger() == [[(1, 1)], [(1, 2)]]
    assert await place.failures() == []
    assert await queue.counts() == (0, 0)


async def test_what_is_not_reported_is_deleted(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="5")
    await queue.send(*({"n": n, "reported": n == 3} for n in range(6)))
    place.obey(queue, **REPORTS)
    await place.start()
    await queue.until((0, 0))
    assert sorted(place.order()) == [0, 1, 2, 3, 3, 4, 5]
    assert place.ledger()[-1] == [(3, 2)]


async def test_a_report_that_is_not_asked_for_means_nothing(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="5")
    place.obey(queue)
    await place.start()
    await queue.send({"n": 1, "reported": 9})
    await queue.until((0, 0))
    assert place.ledger() == [[(1, 1)]]


async def test_a_batch_that_found_no_function_is_kept_and_spends_no_receive(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="60")
    place.obey(queue)
    place.function("orders", "syntax error", **_without_handler(place))
    await queue.send({"n": 1})
    await place.start()
    await place.line("batch.refused", mapping="orders")
    await place.until_reason("orders", "FunctionUnavailable")
    place.function("orders", OBEDIENT, **_without_handler(place))
    await queue.until((0, 0))
    assert place.ledger() == [[(1, 1)]]


def _without_handler(place: Place) -> dict[str, Any]:
    document = place.document["functions"]["orders"]
    return {key: value for key, value in document.items() if key not in ("handler", "code")}


# --- the knobs that AWS refuses


async def test_a_bad_message_is_bisected_out_goes_back_and_then_runs_alone(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="5")
    await queue.send(*({"n": n, "raises": n == 5} for n in range(8)))
    place.obey(queue, bisect_batch_on_function_error=True)
    await place.start()
    await queue.until((0, 1))
    assert sorted(set(place.order())) == list(range(8))
    assert place.ledger()[0] == [(n, 1) for n in range(8)]
    await queue.send({"n": 8}, {"n": 9})
    await place.until(lambda: [(5, 2)] in place.ledger(), "it runs alone as it comes again")
    assert await place.failures() == []


async def test_attempts_survive_a_kill_and_retries_may_be_later_than_the_lease(place: Place, queues: Queues) -> None:
    queue, failed = await queues.make(VisibilityTimeout="1"), await queues.make()
    place.obey(
        queue,
        maximum_retry_attempts=2,
        retry_backoff={"base": "2s", "cap": "2s"},
        destination_config={"on_failure": failed.source()},
    )
    await place.start()
    await queue.send({"n": 1, "raises": True})
    await place.line("batch.failed", attempts=1)
    await queue.until((0, 1))
    await place.kill()
    await place.start()
    await place.line("batch.discarded", mapping="orders", attempts=3)
    receives = [receives for [(_, receives)] in place.ledger()]
    assert len(receives) == 3
    assert receives == sorted(set(receives)), "each try came by the queue"
    await failed.until((1, 0))
    await queue.until((0, 0))


# --- leases


@pytest.mark.parametrize("heartbeat", [True, False], ids=["heartbeat", "without"])
async def test_a_heartbeat_keeps_a_message_from_others(place: Place, queues: Queues, *, heartbeat: bool) -> None:
    queue = await queues.make(VisibilityTimeout="5")
    place.obey(queue, timeout_s=20, sqs={"visibility_heartbeat": heartbeat})
    await place.start()
    await queue.send({"n": 1, "takes_s": 11})
    await place.until_ran(1)
    answer = await queues.client.receive_message(QueueUrl=queue.url, WaitTimeSeconds=9, VisibilityTimeout=0)
    assert ("Messages" in answer) is not heartbeat
    await queue.until((0, 0))
    assert place.order() == [1]


async def test_no_more_is_received_than_can_run(place: Place, queues: Queues) -> None:
    queue = await queues.make(VisibilityTimeout="30")
    await queue.send(*({"n": n, "takes_s": 5} for n in range(4)))
    place.obey(queue, timeout_s=10, workers=8, batch_size=1, scaling_config={"maximum_concurrency": 2})
    await place.start()
    await place.until(lambda: len(place.ledger()) == 2, "two run")
    assert await queue.counts() == (2, 2)
    await queue.until((0, 0))
    assert sorted(place.order()) == list(range(4))


# --- filters


async def test_what_does_not_match_is_deleted_without_the_function(place: Place, queues: Queues) -> None:
    queue = await queues.make()
    place.obey(queue, filter_criteria={"filters": [{"pattern": {"body": {"kind": ["order"]}}}]})
    await place.start()
    await queue.send({"n": 1, "kind": "order"}, {"n": 2, "kind": "offer"}, "no JSON")
    await queue.until((0, 0))
    assert place.order() == [1]


# --- FIFO


async def test_a_failed_batch_holds_back_only_its_groups(place: Place, queues: Queues) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="6")
    place.obey(queue, workers=2, **REPORTS)
    await place.start()
    await queue.send({"n": 10, "reported": 1}, group="a")
    await place.until_ran(10)
    await queue.send({"n": 11}, group="a")
    await queue.send({"n": 20}, group="b")
    await queue.until((0, 0))
    assert place.order() == [10, 20, 10, 11]


@pytest.mark.parametrize(("hold", "order"), [(False, [1, 2, 3, 2]), (True, [1, 2, 3, 2, 3])], ids=["aws", "hold"])
async def test_holding_a_group_keeps_its_order(place: Place, queues: Queues, *, hold: bool, order: list[int]) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="5")
    await queue.send({"n": 1}, {"n": 2, "reported": 1}, {"n": 3}, group="a")
    place.obey(queue, sqs={"hold_message_group": hold}, **REPORTS)
    await place.start()
    await queue.until((0, 0))
    assert place.order() == order


async def test_a_group_goes_on_when_its_bad_message_is_given_up(place: Place, queues: Queues) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="30")
    await queue.send({"n": 1}, {"n": 2, "raises": True}, {"n": 3}, {"n": 4}, group="a")
    place.obey(
        queue,
        maximum_retry_attempts=1,
        bisect_batch_on_function_error=True,
        retry_backoff={"base": "100ms", "cap": "100ms"},
    )
    await place.start()
    await queue.until((0, 0))
    assert place.ledger() == [[(n, 1) for n in each] for each in ([1, 2, 3, 4], [1, 2], [1], [2], [2], [3, 4])]
    [failure] = await place.failures("--key", "a")
    assert (failure["batch_size"], failure["attempts"]) == (1, 2)


async def test_without_bisecting_a_batch_is_given_up_whole(place: Place, queues: Queues) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="30")
    await queue.send({"n": 1}, {"n": 2, "raises": True}, {"n": 3}, group="a")
    place.obey(queue, maximum_retry_attempts=0)
    await place.start()
    await queue.until((0, 0))
    [failure] = await place.failures()
    assert failure["batch_size"] == 3
    assert place.order() == [1, 2, 3]


async def test_what_waits_behind_a_bad_message_is_moved_away_with_it(place: Place, queues: Queues) -> None:
    dead = await queues.make(fifo=True)
    redrive = {"deadLetterTargetArn": await dead.arn(), "maxReceiveCount": 1}
    queue = await queues.make(fifo=True, VisibilityTimeout="5", RedrivePolicy=redrive)
    await queue.send({"n": 1}, {"n": 2, "reported": 9}, {"n": 3}, group="a")
    place.obey(queue, sqs={"hold_message_group": True}, **REPORTS)
    await place.start()
    await dead.until((2, 0))
    assert place.order() == [1, 2, 3]


@pytest.mark.parametrize(
    ("bisect", "given_up", "order"),
    [(False, 2, [1, 2, 3, 2, 3]), (True, 1, [1, 2, 3, 2, 3, 2, 3])],
    ids=["whole", "bisected"],
)
async def test_what_was_listed_is_given_up_together_unless_it_is_bisected(
    place: Place, queues: Queues, *, bisect: bool, given_up: int, order: list[int]
) -> None:
    queue = await queues.make(fifo=True, VisibilityTimeout="30")
    await queue.send({"n": 1}, {"n": 2, "reported": 9}, {"n": 3}, group="a")
    place.obey(
        queue,
        sqs={"hold_message_group": True},
        maximum_retry_attempts=0,
        bisect_batch_on_function_error=bisect,
        **REPORTS,
    )
    await place.start()
    await queue.until((0, 0))
    [failure] = await place.failures()
    assert failure["batch_size"] == given_up
    assert place.order() == order


# --- S3

UPLOADS = """
import json, os
from urllib.parse import unquote_plus

def handle(event, context):
    things = [record["s3"]["object"] for record in event["Records"]]
    first = not os.path.exists(os.environ["LEDGER"])
    with open(os.environ["LEDGER"], "a") as ledger:
        print(json.dumps([(unquote_plus(thing["key"]), thing["sequencer"]) for thing in things]), file=ledger)
    names = [thing[os.environ["NAME"]] for thing in things if thing["key"].startswith("in/bad") and first]
    return {"batchItemFailures": [{"itemIdentifier": name} for name in names]}
"""


class Uploads:
    """A bucket whose notifications reach a function by name."""

    def __init__(self, daemon: Daemon, rig: S3Rig, bucket: str, queue: Queue) -> None:
        self.daemon = daemon
        self.rig = rig
        self.bucket = bucket
        self.queue = queue
        self._ledger = daemon.folder / "keys"
        #: Messages in the queue, before anybody reads it: the test event.
        self._waiting = 1

    async def put(self, *keys: str, body: bytes = b"x") -> None:
        """Put objects while nobody reads the queue, and wait for their notifications, which are sent later."""
        for key in keys:
            await self.rig.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        self._waiting += len(keys)
        await self.queue.until((self._waiting, 0))

    async def send(self, key: str, *sequencers: str) -> None:
        """Send notifications as S3 does; those of LocalStack all have the same sequencer."""
        notification = json.loads((await self.daemon.command("event", "s3-put")).out)
        told = notification["Records"][0]["s3"]
        told["bucket"]["name"] = self.bucket
        for sequencer in sequencers:
            told["object"] |= {"key": key, "sequencer": sequencer}
            await self.queue.send(notification)

    async def start(self, name: str = "key", s3: dict[str, Any] | None = None, **parameters: Any) -> None:
        """Map the bucket; the function reports what begins with `in/bad` once, by this member."""
        self.daemon.function("uploads", UPLOADS, environment={"LEDGER": str(self._ledger), "NAME": name})
        place = self.queue.source()["sqs"]
        source = {"s3": {"bucket": self.bucket, **place, **(s3 or {})}}
        add_mapping(self.daemon, "uploads", source, function="uploads", **parameters)
        await self.daemon.start()

    def events(self, member: int = 0) -> list[list[str]]:
        """Give the keys (member 1: the sequencers) of each event."""
        return [[thing[member] for thing in json.loads(line)] for line in whole_lines(self._ledger)]


@pytest.fixture
async def uploads(tmp_path: Path, rig: S3Rig, queues: Queues) -> AsyncIterator[Uploads]:
    bucket, queue = await rig.bucket(), await queues.make(VisibilityTimeout="6")
    await rig.notify(bucket, QueueConfigurations=[{"Id": "all", "QueueArn": await queue.arn(), "Events": [CREATED]}])
    await queue.until((1, 0))  # the test event
    async with Daemon(tmp_path) as daemon:
        yield Uploads(daemon, rig, bucket, queue)


async def test_one_event_at_a_time_unless_asked_for_more(uploads: Uploads) -> None:
    await uploads.put("in/a", "in/b", "in/c")
    await uploads.start()
    await uploads.queue.until((0, 0))
    assert sorted(uploads.events()) == [["in/a"], ["in/b"], ["in/c"]]


async def test_a_larger_batch_is_one_event(uploads: Uploads) -> None:
    await uploads.put("in/a b", "in/c", "in/d")
    await uploads.start(**TOGETHER)
    await uploads.queue.until((0, 0))
    assert [sorted(event) for event in uploads.events()] == [["in/a b", "in/c", "in/d"]]


async def test_a_report_names_records_by_key(uploads: Uploads) -> None:
    await uploads.put("in/a", "in/bad one", "in/c")
    await uploads.start(**TOGETHER, **REPORTS)
    await uploads.queue.until((0, 0))
    assert [sorted(event) for event in uploads.events()] == [["in/a", "in/bad one", "in/c"], ["in/bad one"]]


async def test_a_report_names_records_by_sequencer(uploads: Uploads) -> None:
    await uploads.send("in/bad", "0A", "0B")
    await uploads.send("in/good", "0C")
    await uploads.start("sequencer", **TOGETHER, **REPORTS)
    await uploads.queue.until((0, 0))
    first, *again = uploads.events(1)
    assert sorted(first) == ["0A", "0B", "0C"]
    assert sorted(chain(*again)) == ["0A", "0B"]


async def test_a_name_of_several_messages_fails_the_batch(uploads: Uploads) -> None:
    await uploads.put("in/bad", "in/bad", "in/c")
    await uploads.start(**TOGETHER, **REPORTS)
    await uploads.queue.until((0, 0))
    first, *again = uploads.events()
    assert sorted(first) == sorted(chain(*again)) == ["in/bad", "in/bad", "in/c"]


async def test_patterns_see_the_record(uploads: Uploads) -> None:
    await uploads.put("in/empty", body=b"")
    await uploads.put("in/full")
    pattern = {"s3": {"object": {"size": [{"numeric": [">", 0]}]}}}
    await uploads.start(filter_criteria={"filters": [{"pattern": pattern}]})
    await uploads.queue.until((0, 0))
    assert uploads.events() == [["in/full"]]


async def test_what_is_no_event_of_the_bucket_is_left_to_the_queue(uploads: Uploads) -> None:
    await uploads.start()
    await uploads.queue.send("hello")
    line = await uploads.daemon.line("message.unfit", mapping="uploads")
    assert "not JSON" in line["error"]
    await uploads.queue.until((0, 1))
    assert uploads.events() == []


async def test_events_of_a_key_run_in_the_order_of_their_sequencers(uploads: Uploads) -> None:
    await uploads.send("in/a", "0A", "9", "00B", "0000000000000001")
    await uploads.start(s3={"order": "sequencer"}, **TOGETHER)
    await uploads.queue.until((0, 0))
    assert uploads.events(1) == [["0000000000000001", "9", "0A", "00B"]]
