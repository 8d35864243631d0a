"""Asynchronous events that are done with: who is told, what is kept of those that failed, and what may be done then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import astuple, replace
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from router.api.names import Here
from router.asynchronous.delivery import AsyncDelivery
from router.asynchronous.failures import AsyncFailures
from router.asynchronous.function_target import EVENT_BYTES, FunctionTarget
from router.asynchronous.targets import arn_of, function_here, targets_of
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, InvokeConfig, Version
from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Settled
from router.core.retention import Retention
from router.errors import DestinationUnavailable, LeaseLost, StoreUnavailable
from router.event_ports import EventTarget, TargetMessage
from router.failures.deliveries import deliver
from router.failures.shown import to_json, to_json_whole
from router.ports import Change, DeleteFailure, FailureEntry, Selection, Sent, SetStatus, Unclaim
from router.replay.replay import Replayer
from router.telemetry import Log, Metrics
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import in_virtual_time

HERE = Here("eu-west-1", "111122223333")
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders-dlq"
OLD_QUEUE = "arn:aws:sqs:eu-west-1:111122223333:old-dlq"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:failed"
OTHER = "arn:aws:sns:eu-west-1:111122223333:done"
NOW_S = 1_767_225_600.0
ERROR = b'{"errorMessage": "boom", "errorType": "ValueError", "requestId": "r", "stackTrace": ["  line 1"]}'
FAILED = LastAnswer(200, "$LATEST", "Unhandled", ERROR, "boom")
PAYLOAD = b'{"order": 17}'


def version(number: str, dead_letter: str | None = None) -> Version:
    return Version(
        number=number, runtime="python3.12", handler="a.b", role="r", code=Code(), dead_letter_arn=dead_letter
    )


FUNCTION = Function(
    name="worker",
    latest=version("$LATEST", QUEUE),
    versions={"1": version("1", OLD_QUEUE), "2": version("2")},
    aliases={"live": Alias(name="live", version="1", weights={"2": 0.5})},
    invoke_configs={
        "$LATEST": InvokeConfig(on_success=OTHER, on_failure=TOPIC),
        "live": InvokeConfig(on_failure=OTHER),
    },
)


def event(qualifier: str | None = None, **changes: Any) -> AsyncEvent:
    last = changes.pop("last", FAILED)
    return replace(AsyncEvent("id-1", "worker", qualifier, NOW_S - 200, 0.0, 13, tries=3, last=last), **changes)


def failed(qualifier: str | None = None, condition: Condition = Condition.RETRIES_EXHAUSTED, **changes: Any) -> Settled:
    return Settled(event(qualifier, **changes), condition, 3, NOW_S)


def succeeded(**changes: Any) -> Settled:
    return Settled(event(last=LastAnswer(200, "$LATEST", None, b"1"), **changes), Condition.SUCCESS, 1, NOW_S)


# --- who is told


@pytest.mark.parametrize(
    ("settled", "targets"),
    [
        (succeeded(), [f"on_success {OTHER}"]),
        (failed(), [f"on_failure {TOPIC}", f"dead_letter {QUEUE}"]),
        (failed("$LATEST"), [f"on_failure {TOPIC}", f"dead_letter {QUEUE}"]),
        (failed("1", last=replace(FAILED, executed_version="1")), [f"dead_letter {OLD_QUEUE}"]),
        (failed("2", last=replace(FAILED, executed_version="2")), []),
        (
            failed("live", last=replace(FAILED, executed_version="1")),
            [f"on_failure {OTHER}", f"dead_letter {OLD_QUEUE}"],
        ),
        (failed("live", last=replace(FAILED, executed_version="2")), [f"on_failure {OTHER}"]),
        (failed("live", last=LastAnswer(429)), [f"on_failure {OTHER}", f"dead_letter {OLD_QUEUE}"]),
        (failed("gone", last=LastAnswer(404)), [f"dead_letter {QUEUE}"]),
        (failed(condition=Condition.EVENT_AGE_EXCEEDED), [f"on_failure {TOPIC}", f"dead_letter {QUEUE}"]),
        (failed(condition=Condition.ZERO_RESERVED_CONCURRENCY), [f"on_failure {TOPIC}", f"dead_letter {QUEUE}"]),
    ],
)
def test_who_is_told(settled: Settled, targets: list[str]) -> None:
    assert list(targets_of(settled, FUNCTION)) == targets


def test_a_function_without_config_tells_nobody() -> None:
    bare = structs.replace(FUNCTION, invoke_configs={}, latest=version("$LATEST"))
    assert targets_of(succeeded(), bare) == targets_of(failed(), bare) == ()


@pytest.mark.parametrize(
    ("place", "arn"),
    [
        (QUEUE, QUEUE),
        ("sqs:q", "arn:aws:sqs:eu-west-1:111122223333:q"),
        ("sns:t", "arn:aws:sns:eu-west-1:111122223333:t"),
        ("lambda:function:f:live", "arn:aws:lambda:eu-west-1:111122223333:function:f:live"),
        ("events:event-bus/b", "arn:aws:events:eu-west-1:111122223333:event-bus/b"),
        ("s3:b", "arn:aws:s3:::b"),
    ],
)
def test_what_a_file_names_is_of_our_region_and_account(place: str, arn: str) -> None:
    assert arn_of(place, HERE) == arn


@pytest.mark.parametrize(
    ("arn", "found"),
    [
        (HERE.function("f"), ("f", None)),
        (HERE.function("f", "live"), ("f", "live")),
        ("arn:aws:lambda:us-east-1:111122223333:function:f", None),
        ("arn:aws:lambda:eu-west-1:000000000000:function:f", None),
        (QUEUE, None),
        ("f", None),
    ],
)
def test_which_functions_are_ours(arn: str, found: tuple[str, str | None] | None) -> None:
    assert function_here(arn, HERE) == found


# --- a world with scripted targets


class Target:
    def __init__(self, arn: str) -> None:
        self.name = arn
        self.error: str | None = None
        self.got: list[TargetMessage] = []
        self.is_closed = False

    async def send(self, message: TargetMessage) -> Sent:
        if self.error:
            raise DestinationUnavailable(self.error)
        self.got.append(message)
        return Sent.WHOLE

    async def check(self) -> None:
        """Nothing to reach."""

    async def close(self) -> None:
        self.is_closed = True


class Accepted:
    """Takes events in."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[AsyncEvent, bytes]] = asyncio.Queue()
        self.error: str | None = None
        #: Ids that may have been accepted before.
        self.known: set[str] = set()

    async def accept(
        self,
        function: str,
        qualifier: str | None,
        payload: bytes,
        *,
        request_id: str,
        client_context: str | None = None,
        trace_id: str | None = None,
        replays: str | None = None,
        is_new: bool = True,
    ) -> None:
        if self.error:
            raise StoreUnavailable(self.error)
        made = AsyncEvent(
            request_id, function, qualifier, NOW_S, NOW_S, len(payload), 0, 0, None, client_context, trace_id, replays
        )
        self.known |= set() if is_new else {request_id}
        self.events.put_nowait((made, payload))


class NotingStore(MemoryStore):
    """Notes when a claim is given back."""

    def __init__(self) -> None:
        super().__init__()
        self.given_back = asyncio.Event()

    async def apply(self, changes: Sequence[Change]) -> None:
        await super().apply(changes)
        if any(isinstance(each, Unclaim) for each in changes):
            self.given_back.set()


class World:
    def __init__(self, *, is_shared: bool = False) -> None:
        self.store = NotingStore()
        self.catalogue = Catalogue(self.store)
        self.targets: dict[str, Target] = {}
        self.metrics = Metrics()
        self.retention = Retention()
        self.now_s = NOW_S
        self.accepted = Accepted()
        self.tasks: set[asyncio.Task[None]] = set()
        log = Log("debug")
        self.delivery = AsyncDelivery(
            self.catalogue,
            lambda: HERE,
            self.store,
            self._make_target,
            retention=lambda: self.retention,
            metrics=self.metrics,
            log=log,
            is_shared=is_shared,
        )
        ids = (f"new-{number}" for number in range(100))
        self.failures = AsyncFailures(
            self.delivery,
            self.catalogue,
            self.store,
            accepts=self.accepted,
            new_id=lambda: next(ids),
            retention=lambda: self.retention,
            spawn=self._spawn,
            wall=lambda: self.now_s,
            log=log,
        )
        self.replayer = Replayer(self.store, log)
        self.replayer.replay_event = self.failures.replay

    def _make_target(self, arn: str) -> EventTarget:
        return self.targets.setdefault(arn, Target(arn))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def target(self, arn: str) -> Target:
        return self.targets.setdefault(arn, Target(arn))

    async def entry(self, **selected: Any) -> FailureEntry:
        [found] = await self.store.failures(Selection(**selected))
        return found

    async def give_up(self, settled: Settled) -> FailureEntry:
        """What the runner of the inbox does with a failed event until the first delivery."""
        await self.delivery.keep(settled, PAYLOAD, self.delivery.targets(settled))
        return (await self.store.failures(Selection()))[-1]

    def count(self, metric: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_{metric}_total", {"function": "worker"})


@pytest.fixture
async def world() -> World:
    made = World()
    await made.catalogue.put_function(FUNCTION)
    return made


# --- telling


async def test_a_destination_gets_the_record_and_a_dead_letter_queue_the_event(world: World) -> None:
    for target in world.delivery.targets(failed()):
        await world.delivery.deliver(target, failed(), PAYLOAD)
    [record], [letter] = world.target(TOPIC).got, world.target(QUEUE).got
    assert json.loads(record.body)["requestContext"] == {
        "requestId": "id-1",
        "functionArn": "arn:aws:lambda:eu-west-1:111122223333:function:worker:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert letter.body == PAYLOAD
    assert letter.attributes["ErrorMessage"] == ("String", "boom")


async def test_a_refusal_is_counted_logged_and_raised_and_nothing_is_dropped(world: World) -> None:
    world.target(TOPIC).error = world.target(QUEUE).error = "it is away"
    with capture_logs() as lines:
        for target in world.delivery.targets(failed()):
            with pytest.raises(DestinationUnavailable, match="it is away"):
                await world.delivery.deliver(target, failed(), PAYLOAD)
    assert world.count("destination_delivery_failures") == 1
    assert world.count("dead_letter_errors") == 1
    assert [line["event"] for line in lines] == ["event.not_told"] * 2
    assert not any("17" in str(line) for line in lines), "payloads are never logged"


async def test_targets_of_a_function_that_was_deleted_are_still_told(world: World) -> None:
    await world.catalogue.drop_function("worker")
    gone = failed(last=LastAnswer(404))
    assert world.delivery.targets(gone) == (f"on_failure {TOPIC}", f"dead_letter {QUEUE}")
    await world.delivery.deliver(f"dead_letter {QUEUE}", gone, PAYLOAD)
    [letter] = world.target(QUEUE).got
    assert letter.attributes["ErrorMessage"][1] == f"Function not found: {HERE.function('worker', '$LATEST')}"


async def test_targets_of_a_function_that_the_file_does_not_have_any_more_are_still_told(world: World) -> None:
    await world.catalogue.drop_function("worker")
    world.catalogue.show_file({"filed": structs.replace(FUNCTION, name="filed", is_of_file=True)}, {})
    gone = failed(function="filed", last=LastAnswer(404))
    world.catalogue.show_file({}, {})
    assert world.catalogue.function("filed") is None
    assert world.delivery.targets(gone) == (f"on_failure {TOPIC}", f"dead_letter {QUEUE}")


async def test_targets_of_an_alias_or_version_that_was_deleted_are_still_told(world: World) -> None:
    left = structs.replace(
        FUNCTION, versions={}, aliases={}, invoke_configs={"$LATEST": FUNCTION.invoke_configs["$LATEST"]}
    )
    await world.catalogue.put_function(left)
    assert world.delivery.targets(failed("live", last=LastAnswer(404))) == (
        f"on_failure {OTHER}",
        f"dead_letter {OLD_QUEUE}",
    )
    assert world.delivery.targets(failed("1", last=LastAnswer(404))) == (f"dead_letter {OLD_QUEUE}",)
    assert world.delivery.targets(failed("never", last=LastAnswer(404))) == (f"dead_letter {QUEUE}",)
    await world.catalogue.put_function(structs.replace(left, aliases={"live": Alias(name="live", version="$LATEST")}))
    assert world.delivery.targets(failed("live")) == (f"dead_letter {QUEUE}",), "it is there again, without a config"


async def test_a_config_that_was_deleted_is_not_remembered(world: World) -> None:
    await world.catalogue.put_function(structs.replace(FUNCTION, invoke_configs={}))
    assert world.delivery.targets(failed("live", last=LastAnswer(429))) == (f"dead_letter {OLD_QUEUE}",)


async def test_connections_of_targets_are_kept_and_in_the_end_closed(world: World) -> None:
    await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    assert not world.target(TOPIC).is_closed
    await world.delivery.close()
    assert world.target(TOPIC).is_closed


# --- what is kept


async def test_a_failed_event_is_a_failure_that_people_can_read(world: World) -> None:
    entry = await world.give_up(failed())
    shown = to_json_whole(entry, await world.store.event(entry.batch.id))
    assert shown == {
        "id": entry.batch.id,
        "mapping": "async:worker",
        "function": "worker",
        "shard": "$LATEST",
        "reason": "RetryAttemptsExhausted",
        "first_position": "id-1",
        "last_position": "id-1",
        "batch_size": 1,
        "attempts": 3,
        "error_type": "ValueError",
        "error_message": "boom",
        "failed_at": "2026-01-01T00:00:00.000Z",
        "status": "stored",
        "destination": "sns:failed, sqs:orders-dlq",
        "parent": None,
        "delivery": {"state": "waiting", "tries": 0, "last_error": None, "next_try": None},
        "event": {"order": 17},
        "tries": [
            {
                "when": "2026-01-01T00:00:00.000Z",
                "request_id": "id-1",
                "records": 1,
                "error": {"type": "ValueError", "message": "boom", "trace": ["  line 1"]},
            }
        ],
    }


@pytest.mark.parametrize(
    ("settled", "reason", "error_type", "message"),
    [
        (failed(condition=Condition.EVENT_AGE_EXCEEDED), "EventAgeExceeded", "ValueError", "boom"),
        (
            failed(condition=Condition.EVENT_AGE_EXCEEDED, last=LastAnswer(429)),
            "EventAgeExceeded",
            "TooManyRequestsException",
            "Rate Exceeded.",
        ),
        (
            failed("gone", last=LastAnswer(404)),
            "RetryAttemptsExhausted",
            "ResourceNotFoundException",
            f"Function not found: {HERE.function('worker', 'gone')}",
        ),
        (
            failed(condition=Condition.ZERO_RESERVED_CONCURRENCY, last=None),
            "ZeroReservedConcurrency",
            "ZeroReservedConcurrency",
            "Function not invoked. Function isconfigured with zero reserved concurrent executions",
        ),
        *(
            (
                failed(last=replace(FAILED, payload=payload, error_message="strange")),
                "RetryAttemptsExhausted",
                "Unhandled",
                "strange",
            )
            for payload in (
                b"no json",
                b"[1]",
                b'{"errorType": 3}',
                b'{"stackTrace": ' + b"[" * 9000 + b"]" * 9000 + b"}",
            )
        ),
    ],
)
async def test_why_an_event_failed_is_said(
    world: World, settled: Settled, reason: str, error_type: str, message: str
) -> None:
    shown = to_json(await world.give_up(settled))
    assert (shown["reason"], shown["error_type"], shown["error_message"]) == (reason, error_type, message)
    assert shown["shard"] == (settled.event.qualifier or "$LATEST")


async def test_what_is_kept_twice_is_one_failure_and_successes_are_none(world: World) -> None:
    await world.give_up(failed())
    await world.give_up(failed())
    await world.delivery.keep(succeeded(), PAYLOAD, ())
    assert await world.store.count(Selection()) == 1


@pytest.mark.parametrize("settled", [failed(), succeeded()])
async def test_of_what_another_replica_has_taken_over_nothing_is_kept(settled: Settled) -> None:
    world = World(is_shared=True)
    await world.delivery.keep(failed(), PAYLOAD, ())
    [kept] = await world.store.failures(Selection())
    ours = replace(settled, event=replace(settled.event, id="id-2", replays=kept.batch.id))
    world.store.others_events.add("id-2")
    ends = list[str]()
    world.delivery.replay_ended = lambda failure, _: ends.append(failure)
    with pytest.raises(LeaseLost):
        await world.delivery.keep(ours, PAYLOAD, ())
    assert (await world.store.failures(Selection()), ends) == ([kept], [])
    world.store.others_events.clear()
    await world.delivery.keep(ours, PAYLOAD, ())
    assert ends == [kept.batch.id]


async def test_what_failed_before_a_kill_and_then_succeeded_waits_for_nobody(world: World) -> None:
    entry = await world.give_up(failed())
    with capture_logs() as logs:
        for _ in range(2):
            await world.delivery.keep(succeeded(), PAYLOAD, ())
    await world.delivery.note(succeeded(), "what is told of a success is no matter of the failure")
    after = await world.entry(ids=(entry.batch.id,))
    assert (entry.status, after.status, after.delivery_error) == ("stored", "replayed", None)
    [told] = [line for line in logs if line["event"] == "failure.replayed"]
    assert (told["failure"], told["outcome"]) == (entry.batch.id, "replayed")


async def test_of_many_that_succeed_those_are_named_that_had_failed_before_a_kill(world: World) -> None:
    entry = await world.give_up(failed())
    event = succeeded().event
    several = [Settled(replace(event, id=name), Condition.SUCCESS, 1, NOW_S) for name in ("before", event.id, "behind")]
    assert set(await world.delivery.outlived(several)) == {event.id}
    await world.store.claim([entry.batch.id])
    assert not await world.delivery.outlived(several)


async def test_what_is_replayed_while_its_event_runs_once_more_ends_as_its_replay_does(world: World) -> None:
    entry = await world.give_up(failed())
    await world.store.claim([entry.batch.id])
    await world.delivery.keep(succeeded(), PAYLOAD, ())
    assert (await world.entry(ids=(entry.batch.id,))).status == "replaying"


async def test_a_failure_is_delivered_once_all_targets_have_accepted(world: World) -> None:
    entry = await world.give_up(failed())
    await world.delivery.note(failed(), "it is away", NOW_S + 60)
    shown = to_json(await world.entry(ids=(entry.batch.id,)))
    assert shown["status"] == "stored"
    assert shown["delivery"] == {
        "state": "waiting",
        "tries": 1,
        "last_error": "it is away",
        "next_try": "2026-01-01T00:01:00.000Z",
    }
    await world.delivery.note(failed(), None)
    shown = to_json(await world.entry(ids=(entry.batch.id,)))
    assert (shown["status"], shown["delivery"]["state"]) == ("delivered", "accepted")
    await world.delivery.note(succeeded(), None)


async def test_what_was_dropped_is_not_told_any_more(world: World) -> None:
    entry = await world.give_up(failed())
    await world.store.drop([entry.batch.id])
    await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    assert not world.target(TOPIC).got


async def test_a_failure_that_cannot_be_looked_up_is_told_of(world: World) -> None:
    await world.give_up(failed())
    world.store.read_fault = "it is away"
    await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    assert len(world.target(TOPIC).got) == 1


async def test_at_the_limit_nothing_more_is_kept_and_that_is_said(world: World) -> None:
    world.retention = Retention(keep_bytes=len(PAYLOAD))
    await world.give_up(failed())
    with pytest.raises(StoreUnavailable, match=r"keep_bytes allows 13; .*list --mapping async:worker`"):
        await world.delivery.keep(failed(id="id-2"), PAYLOAD, ())
    world.retention = Retention(keep_bytes=len(PAYLOAD), drop_oldest=True)
    await world.delivery.keep(failed(id="id-2"), PAYLOAD, ())
    await world.failures.tidy()
    left = await world.store.failures(Selection())
    assert len(left) < 2


async def test_what_is_settled_and_old_is_let_go_of(world: World) -> None:
    entry = await world.give_up(failed())
    world.now_s = NOW_S + world.retention.keep_for_s + 1
    await world.failures.tidy()
    assert await world.store.count(Selection()) == 1, "it is not settled"
    await world.store.drop([entry.batch.id])
    await world.failures.tidy()
    assert await world.store.count(Selection()) == 0


# --- deliver now


async def ends(world: World, failure: str) -> list[dict[str, Any]]:
    found = await deliver(world.store, world.failures.deliveries(), [failure])
    told = []
    while (end := await found.next()) is not None:
        told.append(end)
    return [{"outcome": end.outcome, "reason": end.reason, "form": end.form} for end in told if hasattr(end, "outcome")]


async def test_what_waits_is_told_at_once_when_somebody_asks_and_not_once_more_in_its_turn(world: World) -> None:
    await world.catalogue.put_function(structs.replace(FUNCTION, latest=version("$LATEST")))
    entry = await world.give_up(failed())
    world.target(TOPIC).error = "it is away"
    with pytest.raises(DestinationUnavailable):
        await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    await world.delivery.note(failed(), "it is away", NOW_S + 300)
    assert await ends(world, entry.batch.id) == [{"outcome": "not_delivered", "reason": "it is away", "form": None}]
    world.target(TOPIC).error = None
    assert await ends(world, entry.batch.id) == [{"outcome": "delivered", "reason": None, "form": "whole"}]
    assert (await world.entry(ids=(entry.batch.id,))).status == "delivered"
    await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    assert len(world.target(TOPIC).got) == 1


async def test_of_two_that_have_refused_each_is_told_once_however_often_somebody_asks(world: World) -> None:
    entry = await world.give_up(failed())
    targets = {f"on_failure {TOPIC}": world.target(TOPIC), f"dead_letter {QUEUE}": world.target(QUEUE)}
    for name, target in targets.items():
        target.error = "it is away"
        with pytest.raises(DestinationUnavailable):
            await world.delivery.deliver(name, failed(), PAYLOAD)
    world.target(QUEUE).error = None
    assert [each["outcome"] for each in await ends(world, entry.batch.id)] == ["not_delivered"]
    world.target(TOPIC).error = None
    assert [each["outcome"] for each in await ends(world, entry.batch.id)] == ["delivered"]
    assert (await world.entry(ids=(entry.batch.id,))).status == "stored", "that is for the turn of the last to say"
    for name in targets:
        await world.delivery.deliver(name, failed(), PAYLOAD)
    await world.delivery.note(failed(), None)
    assert [len(target.got) for target in targets.values()] == [1, 1]
    assert (await world.entry(ids=(entry.batch.id,))).status == "delivered"


async def test_what_has_met_no_refusal_here_is_left_to_its_turn(world: World) -> None:
    entry = await world.give_up(failed())
    [end] = await ends(world, entry.batch.id)
    assert end["outcome"] == "refused"
    assert "told again by itself" in end["reason"]


# --- replays


@pytest.fixture
async def replaying(world: World) -> AsyncIterator[World]:
    task = asyncio.ensure_future(world.replayer.run())
    await asyncio.sleep(0)
    yield world
    task.cancel()
    await asyncio.wait([task])


async def replayed(world: World, failures: Sequence[str]) -> list[Any]:
    found = world.replayer.start(Selection(ids=tuple(failures)), 0.0)
    told = []
    while (end := await found.next()) is not None:
        told.append(end)
    return told


async def test_a_replay_is_another_event_of_the_same_and_its_end_is_the_failures(replaying: World) -> None:
    world = replaying
    entry = await world.give_up(failed("live", client_context='{"a": 1}', trace_id="Root=1"))
    job = asyncio.ensure_future(replayed(world, [entry.batch.id]))
    made, payload = await world.accepted.events.get()
    assert payload == PAYLOAD
    assert (made.id, made.function, made.qualifier) == ("new-0", "worker", "live")
    assert (made.client_context, made.trace_id, made.replays) == ('{"a": 1}', "Root=1", entry.batch.id)
    assert (await world.entry(ids=(entry.batch.id,))).status == "replaying"
    await world.delivery.keep(Settled(made, Condition.SUCCESS, 1, NOW_S), payload, ())
    end, _ = await job
    assert (end.outcome, end.new_failures) == ("replayed", ())
    assert (await world.entry(ids=(entry.batch.id,))).status == "replayed"


async def test_a_replay_that_fails_again_is_a_failure_of_its_own(replaying: World) -> None:
    world = replaying
    entry = await world.give_up(failed())
    job = asyncio.ensure_future(replayed(world, [entry.batch.id]))
    made, payload = await world.accepted.events.get()
    again = Settled(replace(made, tries=3, last=FAILED), Condition.RETRIES_EXHAUSTED, 3, NOW_S + 200)
    await world.delivery.keep(again, payload, ())
    end, _ = await job
    new = await world.entry(ids=tuple(end.new_failures))
    assert end.outcome == "failed_again"
    assert new.batch.parent == entry.batch.id
    assert (await world.entry(ids=(entry.batch.id,))).status == "failed_again"
    await world.delivery.deliver(f"on_failure {TOPIC}", failed(), PAYLOAD)
    assert not world.target(TOPIC).got, "its replay is told of in its place"


@pytest.mark.parametrize(
    ("written", "end"),
    [
        ([SetStatus("", "replayed")], ("replayed", None)),
        ([SetStatus("", "failed_again")], ("failed_again", None)),
        ([Unclaim("")], ("refused", "another replica has taken its replay over, and writes how it ends")),
        ([DeleteFailure("")], ("refused", "another replica has taken its replay over, and writes how it ends")),
    ],
)
@in_virtual_time
async def test_a_replay_that_another_replica_has_taken_over_is_waited_for_no_more(
    written: list[Any], end: tuple[str, str | None]
) -> None:
    world = World()
    await world.catalogue.put_function(FUNCTION)
    entry = await world.give_up(failed())
    failure = entry.batch.id
    await world.store.claim([failure])
    waiting = asyncio.ensure_future(world.failures.replay(entry))
    await asyncio.sleep(1000.0)
    assert not waiting.done(), "it is ours"
    world.store.read_fault = "it is away"
    await asyncio.sleep(100.0)
    world.store.read_fault = None
    await world.store.apply([type(each)(failure, *astuple(each)[1:]) for each in written])
    async with asyncio.timeout(100.0):
        found = await waiting
    assert (found.outcome, found.reason) == end


async def test_what_cannot_be_replayed_is_given_back(replaying: World) -> None:
    world = replaying
    entry = await world.give_up(failed())
    world.accepted.error = "the disk is full"
    [end, _] = await replayed(world, [entry.batch.id])
    assert (end.outcome, end.reason) == ("refused", "the disk is full")
    await world.catalogue.drop_function("worker")
    [end, _] = await replayed(world, [entry.batch.id])
    assert (end.outcome, end.reason) == ("refused", "there is no function worker any more")
    assert (await world.entry(ids=(entry.batch.id,))).status == "stored"


async def test_a_replay_goes_on_over_a_restart_and_writes_how_it_ends(world: World) -> None:
    entry = await world.give_up(failed())
    await world.store.claim([entry.batch.id])
    task = asyncio.ensure_future(world.replayer.run())
    async with asyncio.timeout(10):
        await world.store.given_back.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (await world.entry(ids=(entry.batch.id,))).status == "stored"
    await world.delivery.keep(succeeded(replays=entry.batch.id), PAYLOAD, ())
    assert (await world.entry(ids=(entry.batch.id,))).status == "replayed"


# --- a function of ours as target


async def test_a_function_of_ours_gets_the_record_as_its_event_and_twice_the_same(world: World) -> None:
    target = FunctionTarget(HERE.function("worker", "live"), "worker", "live", world.catalogue, world.accepted)
    message = TargetMessage("id-1", b"{}", small=b"1")
    assert await target.send(message) is Sent.WHOLE
    assert await target.send(message) is Sent.WHOLE
    (first, body), (second, _) = world.accepted.events.get_nowait(), world.accepted.events.get_nowait()
    assert (first.function, first.qualifier, body) == ("worker", "live", b"{}")
    assert first.id == second.id != "id-1"
    assert world.accepted.known == {first.id}
    assert await target.send(replace(message, body=b"x" * EVENT_BYTES)) is Sent.WHOLE
    assert len(world.accepted.events.get_nowait()[1]) == EVENT_BYTES
    assert await target.send(replace(message, body=b"x" * (EVENT_BYTES + 1))) is Sent.WITHOUT_PAYLOADS
    assert world.accepted.events.get_nowait()[1] == b"1"


async def test_a_function_of_ours_that_cannot_take_it_is_told_again(world: World) -> None:
    message = TargetMessage("id-1", b"{}")
    gone = FunctionTarget(HERE.function("nobody"), "nobody", None, world.catalogue, world.accepted)
    with pytest.raises(DestinationUnavailable, match="there is no such function"):
        await gone.send(message)
    world.accepted.error = "the disk is full"
    here = FunctionTarget(HERE.function("worker"), "worker", None, world.catalogue, world.accepted)
    with pytest.raises(DestinationUnavailable, match="function worker: the disk is full"):
        await here.send(message)
