"""Asynchronous events from their acceptance to their last target, on virtual time: outages, restarts, bugs, stops."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
import structlog

from router.api.names import Here
from router.asynchronous.inbox import OWNERS_EVERY_S, AsyncEvents
from router.asynchronous.life import ENOUGH, LINGER_S, WRITE_AT_ONCE, Outside
from router.asynchronous.standing import Standings
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, InvokeConfig, Version
from router.core.asynchronous import AsyncEvent, Became, Condition, ForgetEvent, Owe, Settled, id_of
from router.core.model import Cancelled, Failed, FailureKind, FunctionError, Outcome, Refused, Returned, TooLarge
from router.errors import DestinationUnavailable, LeaseLost, StoreUnavailable
from router.event_ports import AcceptEvent, InboxChange, Waiting
from router.ports import Invocation
from router.ports import Told as Instructions
from router.replay.replay import Replayer
from router.supervisor import carry_on
from router.telemetry import Log, Metrics
from tests.fakes.inbox import MemoryInbox
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import VirtualTimeLoop, in_virtual_time

BOOM = Failed(FailureKind.RAISED, FunctionError("ValueError", "boom", ('  File "/var/task/a.py", line 1, in b',)))
OK = Returned(b'{"ok":true}')
ORDERS = ("run", "orders")


def version(number: str = "$LATEST") -> Version:
    return Version(number=number, runtime="python3.12", handler="a.b", role="", code=Code())


@dataclass
class Told:
    """Targets, and where failures are kept."""

    names: Sequence[str] = ()
    kept: list[Settled] = field(default_factory=list)
    told: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str | None] = field(default_factory=list)
    #: Targets that are away, those that have a bug, and whether nothing can be kept.
    away: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    is_full: bool = False
    #: Events that another replica has by now.
    others: set[str] = field(default_factory=set)
    #: Is nothing that was kept heard of?
    is_cut: bool = False
    #: Of how many events that have succeeded it was asked at once whether they had failed before.
    asked: list[int] = field(default_factory=list)
    ended: list[Settled] = field(default_factory=list)

    def targets(self, settled: Settled) -> tuple[str, ...]:
        self.ended.append(settled)
        return tuple(self.names)

    async def keep(self, settled: Settled, payload: bytes, targets: Sequence[str]) -> None:
        del payload, targets
        if self.is_full:
            raise StoreUnavailable("full")
        if settled.event.id in self.others:
            raise LeaseLost("it is another replica's now")
        self.kept.append(settled)
        if self.is_cut:
            await asyncio.Event().wait()

    async def outlived(self, succeeded: Sequence[Settled]) -> Collection[str]:
        self.asked.append(len(succeeded))
        failed = {each.event.id for each in self.kept if each.condition is not Condition.SUCCESS}
        return failed.intersection(settled.event.id for settled in succeeded)

    async def deliver(self, target: str, settled: Settled, payload: bytes) -> None:
        del payload
        await asyncio.sleep(0.1)
        if target in self.away:
            raise DestinationUnavailable(f"{target} is away")
        if target in self.broken:
            raise RuntimeError("a bug")
        self.told[settled.event.id, target] += 1

    async def note(self, settled: Settled, error: str | None, next_s: float = 0.0) -> None:
        del settled, next_s
        self.notes.append(error)


class Site:
    """A daemon's asynchronous events over what outlives it: the inbox and the catalogue."""

    def __init__(self, told: Told | None = None) -> None:
        self.inbox = MemoryInbox()
        self.told = told or Told()
        self.catalogue = Catalogue(MemoryStore(), is_shared=True)
        self.outcomes: list[Outcome] = []
        self.duration_s = 0.5
        #: Loop time, id, version and event of each try.
        self.tries: list[tuple[float, str, str, bytes]] = []
        self.invocations: list[Invocation] = []
        self.metrics = Metrics()
        self.invoker = MemoryInvoker(self._script)
        self.count = 0
        self.tenure = "alone"
        self.living = {"r1", "r2"}

    def _script(self, request_id: str, event: bytes) -> tuple[float, Outcome]:
        self.tries[-1] = (*self.tries[-1][:3], event)
        del request_id
        return self.duration_s, self.outcomes.pop(0) if self.outcomes else OK

    # --- the Functions port

    def throttle(self, function: str, version: str) -> str | None:
        del function, version

    def invoke(self, function: str, version: str, invocation: Invocation) -> None:
        del function
        self.tries.append((asyncio.get_running_loop().time(), invocation.request_id, version, b""))
        self.invocations.append(invocation)
        self.invoker.invoke(invocation)

    # --- functions

    async def make(self, name: str = "orders", **settings: object) -> None:
        await self.catalogue.load()
        function = Function(name=name, latest=version(), versions={"3": version("3")}, **settings)  # type: ignore[arg-type]
        await self.catalogue.put_function(function)

    # --- a life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AsyncEvents]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        log, rng, here = Log(), Random(1), Here("eu-west-1", "000000000000")
        insist = Replayer(MemoryStore(), log).insist
        events = AsyncEvents(
            Outside(
                self.inbox,
                self,
                self.told,
                Standings(self.catalogue, lambda: here, rng, lambda _: 2),
                insist,
                self.metrics.of_events(),
                log,
                loop.wall,
                rng,
                lambda: self.tenure,
                lambda: self.living,
            )
        )
        task = asyncio.create_task(carry_on(events.run, log))
        await asyncio.sleep(0)
        try:
            yield events
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.invoker = MemoryInvoker(self._script)

    async def accept(self, events: AsyncEvents, qualifier: str | None = None, function: str = "orders") -> str:
        self.count += 1
        event_id = f"e{self.count}"
        await events.accept(function, qualifier, b'{"order":17}', request_id=event_id, client_context="{}")
        return event_id

    async def emptied(self, within_s: float = 100_000.0) -> None:
        async with asyncio.timeout(within_s):
            while self.inbox.rows:  # noqa: ASYNC110 - time is virtual
                await asyncio.sleep(0.05)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"headrace_async_{name}", labels)


@in_virtual_time
async def test_an_event_is_run_once_with_what_it_was_invoked_with() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        event_id = await site.accept(events)
        await site.emptied()
    [(_, request_id, version, event)] = site.tries
    assert (request_id, version, event) == (event_id, "$LATEST", b'{"order":17}')
    told = site.invocations[0].told
    assert told
    assert (told.arn, told.client_context) == (None, "{}")
    [end] = site.told.ended
    assert (end.condition, end.event.last and end.event.last.payload) == (Condition.SUCCESS, b'{"ok":true}')
    assert site.value("events_accepted_total", function="orders") == 1
    assert site.value("events_finished_total", function="orders", condition="Success") == 1
    assert site.value("event_age_seconds_count", function="orders") == 1


@in_virtual_time
async def test_a_function_that_fails_is_tried_after_one_and_two_minutes_under_the_same_id() -> None:
    site = Site()
    await site.make()
    site.outcomes = [BOOM, BOOM, BOOM]
    async with site.running() as events:
        event_id = await site.accept(events)
        await site.emptied()
    begun = [at_s for at_s, *_ in site.tries]
    assert {request_id for _, request_id, *_ in site.tries} == {event_id}
    assert [round(later - earlier, 1) for earlier, later in pairwise(begun)] == [60.5, 120.5]
    [kept] = site.told.kept
    assert (kept.condition, kept.invoke_count) == (Condition.RETRIES_EXHAUSTED, 3)
    assert kept.event.last
    assert b'"errorMessage": "boom"' in (kept.event.last.payload or b"")
    assert site.value("events_retried_total", function="orders") == 2


@in_virtual_time
async def test_each_try_is_given_what_the_event_was_invoked_with() -> None:
    site = Site()
    await site.make()
    site.outcomes = [BOOM, Refused(FunctionError("TooManyRequestsException", "r")), BOOM]
    async with site.running() as events:
        await events.accept(
            "orders", "3", b"{}", request_id="e1", client_context='{"custom":{}}', trace_id="Root=1-2-3", replays="f1"
        )
        await site.emptied()
    assert len(site.tries) == 4
    assert {request_id for _, request_id, *_ in site.tries} == {"e1"}
    arn = "arn:aws:lambda:eu-west-1:000000000000:function:orders:3"
    assert {each.told for each in site.invocations} == {Instructions(arn, '{"custom":{}}', "Root=1-2-3")}
    assert [end.event.replays for end in site.told.kept] == ["f1"]


@pytest.mark.parametrize(
    ("outcome", "status", "tries"),
    [
        (Refused(FunctionError("TooManyRequestsException", "r")), 429, 0),
        (Refused(FunctionError("Spawn", "no interpreter")), 503, 0),
        (Refused(FunctionError("ResourceNotFoundException", "no code")), 503, 0),
        (Refused(FunctionError("Runtime.ImportModuleError", "no module"), initialising=True), 200, 1),
        (Refused(FunctionError("Headrace.NotAccepted", "it answered with 502"), initialising=True), 503, 0),
        (TooLarge(7_000_000), 200, 1),
        (Cancelled(), None, 0),
    ],
)
@in_virtual_time
async def test_what_a_try_came_to_decides_whether_it_is_spent(outcome: Outcome, status: int | None, tries: int) -> None:
    site = Site()
    await site.make()
    site.outcomes = [outcome]
    async with site.running() as events:
        await site.accept(events)
        await asyncio.sleep(0.6)
        [(_, row, _)] = site.inbox.rows.values()
        assert isinstance(row, AsyncEvent)
        assert (row.last and row.last.status, row.tries) == (status, tries)
        await site.emptied()
    assert site.told.ended[-1].condition is Condition.SUCCESS


@in_virtual_time
async def test_config_alias_and_concurrency_are_looked_up_at_each_try() -> None:
    site = Site()
    config = {"live": InvokeConfig(maximum_retry_attempts=1)}
    await site.make(aliases={"live": Alias(name="live", version="3")}, invoke_configs=config)
    site.outcomes = [BOOM]
    async with site.running() as events:
        await site.accept(events, "live")
        await asyncio.sleep(30.0)
        moved = {"live": Alias(name="live", version="$LATEST")}
        await site.make(aliases=moved, invoke_configs={"live": InvokeConfig(maximum_retry_attempts=0)})
        site.outcomes = [BOOM]
        await site.emptied()
        assert [version for _, _, version, _ in site.tries] == ["3", "$LATEST"]
        assert site.invocations[0].told
        assert site.invocations[0].told.arn == "arn:aws:lambda:eu-west-1:000000000000:function:orders:live"
        await site.make(reserved_concurrency=0)
        await site.accept(events)
        await site.emptied()
    assert [each.condition for each in site.told.kept] == [
        Condition.RETRIES_EXHAUSTED,
        Condition.ZERO_RESERVED_CONCURRENCY,
    ]


@in_virtual_time
async def test_a_function_that_was_deleted_keeps_the_limits_that_it_had() -> None:
    site = Site()
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=1)})
    site.outcomes = [BOOM]
    async with site.running() as events:
        await site.accept(events)
        await asyncio.sleep(1.0)
        await site.catalogue.drop_function("orders")
        await site.emptied()
        await site.accept(events, function="never-there")
        await site.emptied()
    first, second = site.told.kept
    assert (first.invoke_count, first.event.last and first.event.last.status) == (2, 404)
    assert (second.invoke_count, second.event.last and second.event.last.status) == (3, 404)


@in_virtual_time
async def test_a_function_that_is_not_known_yet_costs_its_events_no_try() -> None:
    site = Site()
    site.catalogue = Catalogue(MemoryStore(), is_shared=True)
    async with site.running() as events:
        await site.accept(events)
        await asyncio.sleep(60.0)
        [(_, row, _)] = site.inbox.rows.values()
        assert isinstance(row, AsyncEvent)
        assert (row.tries, row.last and row.last.status) == (0, 503)
        await site.make()
        await site.emptied(within_s=310.0)
    assert len(site.tries) == 1


@in_virtual_time
async def test_a_replica_that_was_taken_for_dead_goes_on_with_what_is_its_own_by_then() -> None:
    site = Site()
    await site.make()
    site.tenure = ""
    async with site.running() as events:
        await asyncio.sleep(60.0)
        lost = await site.accept(events)
        assert not site.tries
        site.tenure = "first"
        await asyncio.sleep(0.3)
        assert [request_id for _, request_id, *_ in site.tries] == [lost]
        site.inbox.rows[lost] = ("r2", *site.inbox.rows[lost][1:])
        site.tenure = "second"
        mine = await site.accept(events)
        await asyncio.sleep(60.0)
    assert set(site.inbox.rows) == {lost}, "what is done with is another's to write"
    assert [request_id for _, request_id, *_ in site.tries] == [lost, mine]


@in_virtual_time
async def test_a_replica_that_was_taken_for_dead_starts_none_of_what_others_have_taken_over() -> None:
    site = Site()
    await site.make()
    site.duration_s = 10.0
    async with site.running() as events:
        for _ in range(5):
            await site.accept(events)
        await asyncio.sleep(1.0)
        assert len(site.tries) == 2
        for event_id, (_, row, payload) in list(site.inbox.rows.items()):
            site.inbox.rows[event_id] = ("r2", row, payload)
        site.tenure = "second"
        await asyncio.sleep(60.0)
    assert len(site.tries) == 2
    assert len(site.inbox.rows) == 5


@in_virtual_time
async def test_an_event_that_is_accepted_again_is_the_one_that_it_was() -> None:
    site = Site()
    await site.make()
    site.outcomes = [BOOM]
    async with site.running() as events:
        for _ in range(2):
            await events.accept("orders", None, b"{}", request_id="same", is_new=False)
        await asyncio.sleep(30.0)
        await events.accept("orders", None, b"{}", request_id="same", is_new=False)
        await asyncio.sleep(1.0)
        assert len(site.tries) == 1
        await site.emptied()
    assert len(site.tries) == 2


@in_virtual_time
async def test_targets_are_told_until_they_accept_also_after_restarts() -> None:
    site = Site(Told(["on_failure a", "dead_letter b"], away={"on_failure a"}))
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=0)})
    site.outcomes = [BOOM]
    async with site.running() as events:
        event_id = await site.accept(events)
        await asyncio.sleep(5.0)
        assert site.told.told == {(event_id, "dead_letter b"): 1}
        assert events.trouble(("tell", "on_failure a")) == "on_failure a is away"
    async with site.running() as events:
        await asyncio.sleep(3600.0)
        [(_, owe, _)] = site.inbox.rows.values()
        assert isinstance(owe, Owe)
        assert owe.targets == ("on_failure a",)
        assert events.trouble(("tell", "on_failure a"))
        site.told.away.clear()
        await site.emptied(within_s=400.0)
        assert events.trouble(("tell", "on_failure a")) is None
    assert site.told.told == {(event_id, "dead_letter b"): 1, (event_id, "on_failure a"): 1}
    assert site.told.notes[-1] is None
    assert "on_failure a is away" in site.told.notes


@in_virtual_time
async def test_a_kill_after_a_failure_was_kept_has_the_success_of_the_next_try_settle_it() -> None:
    site = Site(Told(is_cut=True))
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=0)})
    site.outcomes = [BOOM]
    async with site.running() as events:
        await site.accept(events)
        while not site.told.kept:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.05)
    site.told.is_cut = False
    async with site.running() as events:
        await site.emptied()
        await site.accept(events)
        await site.emptied()
    assert [(each.event.id, each.condition) for each in site.told.kept] == [
        ("e1", Condition.RETRIES_EXHAUSTED),
        ("e1", Condition.SUCCESS),
    ]
    assert len(site.tries) == 3


@in_virtual_time
async def test_what_succeeds_after_a_restart_is_looked_up_together_among_the_failures() -> None:
    site = Site()
    await site.make()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    now_s = loop.wall()
    events = [AsyncEvent(f"e{number}", "orders", None, now_s, now_s, 2) for number in range(2 * ENOUGH)]
    await site.inbox.apply([AcceptEvent(event, b"{}") for event in events])
    site.duration_s = 0.0001
    async with site.running():
        await site.emptied()
    assert sum(site.told.asked) == len(site.tries) == 2 * ENOUGH
    assert len(site.told.asked) <= 4
    assert not site.told.kept


@in_virtual_time
async def test_a_failure_that_cannot_be_kept_stays_in_the_inbox_until_it_can() -> None:
    site = Site(Told(is_full=True))
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=0)})
    site.outcomes = [BOOM]
    async with site.running() as events:
        await site.accept(events)
        await asyncio.sleep(600.0)
        assert site.inbox.rows
        assert events.trouble(ORDERS) == "full"
        site.told.is_full = False
        await site.emptied()
        assert events.trouble(ORDERS) is None
    assert len(site.told.kept) == len(site.tries) == 1


@in_virtual_time
async def test_a_store_that_is_away_accepts_nothing_and_loses_nothing() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        await site.accept(events)
        site.inbox.broken = "disk is full"
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await site.accept(events)
        await asyncio.sleep(120.0)
        assert len(site.tries) == 1, "it ran, and that waits to be written"
        site.inbox.broken = None
        await site.emptied()
    assert len(site.tries) == 1


@in_virtual_time
async def test_what_a_killed_daemon_had_runs_again_and_nothing_else() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        done = await site.accept(events)
        await site.emptied()
        cut_off = await site.accept(events)
    async with site.running():
        await site.emptied()
    assert Counter(request_id for _, request_id, *_ in site.tries) == {done: 1, cut_off: 2}


@in_virtual_time
async def test_what_was_accepted_before_it_runs_is_found() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        pass
    event_id = await site.accept(events)
    async with site.running():
        await site.emptied()
    assert [request_id for _, request_id, *_ in site.tries] == [event_id]


@in_virtual_time
async def test_a_stop_lets_what_runs_end_and_gives_the_rest_to_the_next_daemon() -> None:
    site = Site()
    await site.make()
    site.duration_s = 10.0
    async with site.running() as events:
        for _ in range(5):
            await site.accept(events)
        await asyncio.sleep(1.0)
        events.stop()
        await events.settle(30.0)
        assert (len(site.tries), len(site.inbox.rows)) == (2, 3)
        late = await site.accept(events)
    async with site.running():
        await site.emptied()
    assert len(site.tries) == 6
    assert late in {request_id for _, request_id, *_ in site.tries}


@in_virtual_time
async def test_a_stop_waits_no_longer_than_it_is_told_to() -> None:
    site = Site()
    await site.make()
    site.duration_s = 600.0
    async with site.running() as events:
        await site.accept(events)
        await asyncio.sleep(1.0)
        events.stop()
        begun_s = asyncio.get_running_loop().time()
        await events.settle(30.0)
        assert asyncio.get_running_loop().time() - begun_s == pytest.approx(30.0)
        await site.invoker.close()
    [(_, row, _)] = site.inbox.rows.values()
    assert isinstance(row, AsyncEvent)
    assert (row.tries, row.last) == (0, None)


@in_virtual_time
async def test_a_stop_that_comes_before_the_inbox_is_ours_starts_nothing() -> None:
    site = Site()
    await site.make()
    site.tenure = ""
    async with site.running() as events:
        await site.accept(events)
        events.stop()
        site.tenure = "first"
        await asyncio.sleep(60.0)
    assert not site.tries
    assert len(site.inbox.rows) == 1


@in_virtual_time
async def test_a_bug_ends_no_event_and_runs_none_beside_itself() -> None:
    site = Site()
    await site.make()
    site.duration_s = 10.0
    with structlog.testing.capture_logs() as logs:
        async with site.running() as events:
            first = await site.accept(events)
            site.told.targets = None  # type: ignore[assignment,method-assign]
            await asyncio.sleep(10.5)
            del site.told.targets
            second = await site.accept(events)
            await site.emptied()
    assert "background.crashed" in {each["event"] for each in logs}
    assert Counter(request_id for _, request_id, *_ in site.tries) == {first: 2, second: 1}


@in_virtual_time
async def test_what_still_runs_when_a_bug_ends_all_the_rest_does_not_run_beside_itself() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        site.duration_s = 60.0
        long = await site.accept(events)
        await asyncio.sleep(0.5)
        site.duration_s = 1.0
        await site.accept(events)
        site.told.targets = None  # type: ignore[assignment,method-assign]
        await asyncio.sleep(2.0)
        del site.told.targets
        await site.emptied()
    first, again = [at_s for at_s, request_id, *_ in site.tries if request_id == long]
    assert again - first == pytest.approx(60.0, abs=1.0)


@in_virtual_time
async def test_what_a_dead_replica_has_left_runs_here() -> None:
    site = Site()
    await site.make()
    other = MemoryInbox("r2", site.inbox.rows)
    async with site.running() as events:
        wall_s = asyncio.get_running_loop().wall()  # type: ignore[attr-defined]
        left = [AsyncEvent(f"x{n}", "orders", None, wall_s, wall_s, 2) for n in range(3)]
        site.inbox.rows.update({each.id: (other.name, each, b"{}") for each in left})
        site.living = {"r1"}
        events.orphaned("r2")
        await site.emptied()
    assert {request_id for _, request_id, *_ in site.tries} == {id_of(each) for each in left}


@in_virtual_time
async def test_how_an_event_ends_that_another_has_taken_over_is_for_that_one_to_say() -> None:
    site = Site(Told(["dlq"]))
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=0)})
    site.outcomes = [BOOM]
    async with site.running() as events:
        taken = await site.accept(events)
        await MemoryInbox("r2", site.inbox.rows).adopt("r1")
        site.told.others.add(taken)
        await asyncio.sleep(10.0)
        assert [(owner, type(row)) for owner, row, _ in site.inbox.rows.values()] == [("r2", AsyncEvent)]
        assert (site.told.kept, site.told.told, events.lines()) == ([], {}, {})
        site.inbox.rows.clear()
        ours = await site.accept(events)
        await site.emptied()
    assert site.told.told == {(ours, "dlq"): 1}


@in_virtual_time
async def test_what_a_replica_has_that_lives_again_before_it_is_taken_over_stays_with_it() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        wall_s = asyncio.get_running_loop().wall()  # type: ignore[attr-defined]
        site.inbox.rows["x"] = "r2", AsyncEvent("x", "orders", None, wall_s, wall_s, 2), b"{}"
        site.living, site.inbox.broken = {"r1"}, "it is away"
        events.orphaned("r2")
        await asyncio.sleep(5.0)
        site.living, site.inbox.broken = {"r1", "r2"}, None
        await asyncio.sleep(100.0)
    assert (site.inbox.rows["x"][0], site.tries) == ("r2", [])


@in_virtual_time
async def test_what_a_replica_has_left_that_stopped_for_good_runs_here_and_that_of_others_does_not() -> None:
    site = Site()
    await site.make()
    async with site.running():
        wall_s = asyncio.get_running_loop().wall()  # type: ignore[attr-defined]
        left = {name: AsyncEvent(f"of {name}", "orders", None, wall_s, wall_s, 2) for name in ("r2", "r3", "r4")}
        site.inbox.rows.update({each.id: (name, each, b"{}") for name, each in left.items()})
        await asyncio.sleep(10.0)
        site.living = {"r1", "r2", "r4"}
        await asyncio.sleep(90.0)
        assert [request_id for _, request_id, *_ in site.tries] == ["of r3"]
        assert set(site.inbox.rows) == {"of r2", "of r4"}


@in_virtual_time
async def test_a_replica_that_is_missed_once_keeps_what_it_has() -> None:
    site = Site()
    await site.make()
    async with site.running():
        await asyncio.sleep(OWNERS_EVERY_S - 5.0)
        wall_s = asyncio.get_running_loop().wall()  # type: ignore[attr-defined]
        its = AsyncEvent("its", "orders", None, wall_s, wall_s, 2)
        site.inbox.rows[its.id] = ("r2", its, b"{}")
        site.living = {"r1"}
        await asyncio.sleep(OWNERS_EVERY_S - 10.0)
        site.living = {"r1", "r2"}
        await asyncio.sleep(4 * OWNERS_EVERY_S)
    assert not site.tries


@in_virtual_time
async def test_it_says_how_much_waits() -> None:
    site = Site()
    await site.make()
    site.duration_s = 60.0
    async with site.running() as events:
        for _ in range(5):
            await site.accept(events)
        await asyncio.sleep(5.0)
        assert events.waiting == {ORDERS: Waiting(5, events.waiting[ORDERS].due_s)}
        assert events.lines()[ORDERS].busy == 2
        await site.emptied()


@in_virtual_time
async def test_many_events_of_many_functions_all_end_though_everything_fails_now_and_then() -> None:
    chance = Random(5)
    site = Site(Told(["on_success a"]))
    names = [f"f{n}" for n in range(7)]
    for name in names:
        await site.make(name)
    site.duration_s = 1.0
    site.outcomes = chance.choices([OK, OK, OK, BOOM, Cancelled()], k=150)
    accepted = []
    for _ in range(4):
        async with site.running() as events:
            accepted += [await site.accept(events, function=chance.choice(names)) for _ in range(40)]
            site.told.away = {"on_success a"} if chance.random() < 0.5 else set()
            await asyncio.sleep(chance.uniform(0.0, 100.0))
    site.told.away = set()
    async with site.running():
        await site.emptied()
    assert {event_id for event_id, _ in site.told.told} == set(accepted)


@in_virtual_time
async def test_a_replica_that_was_taken_for_dead_runs_what_comes_later() -> None:
    site = Site()
    await site.make()
    site.tenure = "first"
    async with site.running() as events:
        await asyncio.sleep(10.0)
        site.tenure = "second"
        await asyncio.sleep(10.0)
        await site.accept(events)
        await site.emptied(within_s=10.0)
    assert len(site.tries) == 1


@in_virtual_time
async def test_what_the_store_writes_after_it_seemed_not_to_runs_all_the_same() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        site.inbox.broken = "no answer within 5 s"
        with pytest.raises(StoreUnavailable):
            await site.accept(events)
        await asyncio.sleep(1.0)
        site.inbox.broken = None
        await asyncio.sleep(10.0)
        now_s = asyncio.get_running_loop().time() + 1_700_000_000.0
        site.inbox.rows["late"] = ("r1", AsyncEvent("late", "orders", None, now_s, now_s, 2), b"{}")
        await site.emptied(within_s=5.0)
    assert [request_id for _, request_id, *_ in site.tries] == ["late"]


class Gated(MemoryInbox):
    """Writes what has become of events only while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        if any(isinstance(each, Became) for each in changes):
            await self.gate.wait()
        await super().apply(changes)


@in_virtual_time
async def test_more_than_is_written_at_once_is_written_all_the_same() -> None:
    site = Site()
    site.inbox = inbox = Gated()
    site.duration_s = 0.001
    names = [f"f{number}" for number in range(12)]
    for name in names:
        await site.make(name)
    now_s = asyncio.get_running_loop().time() + 1_700_000_000.0
    events = [AsyncEvent(f"{name}-{number}", name, None, now_s, now_s, 2) for name in names for number in range(100)]
    assert len(events) > 2 * WRITE_AT_ONCE
    await inbox.apply([AcceptEvent(event, b"{}") for event in events])
    async with site.running():
        while len(site.tries) < len(events):  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)
        inbox.gate.set()
        await site.emptied(within_s=5.0)


class SlowToSay(MemoryInbox):
    """Has an event long before it says so."""

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        await super().apply(changes)
        if any(isinstance(each, AcceptEvent) for each in changes):
            await asyncio.sleep(10.0)


@in_virtual_time
async def test_what_is_found_before_it_is_said_to_be_there_runs_once_and_then() -> None:
    site = Site()
    await site.make()
    site.inbox = SlowToSay()
    async with site.running() as events:
        began_s = asyncio.get_running_loop().time()
        await site.accept(events)
        await site.emptied()
    assert [at_s - began_s for at_s, *_ in site.tries] == [10.0]


@in_virtual_time
async def test_what_makes_room_in_a_full_inbox_does_not_wait_for_what_needs_some() -> None:
    site = Site(Told(["on_success a"]))
    await site.make()
    async with site.running() as events:
        needs = await site.accept(events)
        site.duration_s = 2.0
        await site.accept(events)
        site.inbox.is_full = True
        await asyncio.sleep(1.0)
        site.told.names = ()
        await asyncio.sleep(9.0)
        assert set(site.inbox.rows) == {needs}
        site.inbox.is_full = False
        await site.emptied()
    assert site.told.told == {(needs, "on_success a"): 1}
    assert len(site.tries) == 2


@in_virtual_time
async def test_a_bug_of_a_target_holds_up_nothing_else() -> None:
    site = Site(Told(["on_failure a", "dead_letter b"], broken={"on_failure a"}))
    await site.make(invoke_configs={"$LATEST": InvokeConfig(maximum_retry_attempts=0)})
    site.outcomes, site.duration_s = [BOOM], 60.0
    async with site.running() as events:
        failed = await site.accept(events)
        await asyncio.sleep(50.0)
        await site.accept(events)
        await asyncio.sleep(100.0)
        assert len(site.tries) == 2
        assert site.told.told[failed, "dead_letter b"] == 1
        assert "a bug" in (events.trouble(("tell", "on_failure a")) or "")
        site.told.broken.clear()
        await site.emptied()


@in_virtual_time
async def test_a_life_that_ends_as_there_is_enough_to_write_writes_nothing() -> None:
    site = Site()
    await site.make()
    async with site.running() as events:
        life = events._life
        assert life
        later_s = asyncio.get_running_loop().wall() + 500.0  # type: ignore[attr-defined]
        rows = [AsyncEvent(f"w{n}", "orders", None, later_s, later_s, 2) for n in range(ENOUGH)]
        site.inbox.rows.update({row.id: ("r1", row, b"{}") for row in rows})
        life._put(Became(ForgetEvent(rows[0].id), rows[0]))
        await asyncio.sleep(LINGER_S / 2)  # it waits for more by now
        for row in rows[1:]:
            life._put(Became(ForgetEvent(row.id), row))
        life.end()
        await asyncio.sleep(1.0)
        assert len(site.inbox.rows) == ENOUGH
        assert not life._works


class CountedInbox(MemoryInbox):
    """Knows how much each step has written of what became of events, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[float, int]] = []

    async def apply(self, changes: Sequence[InboxChange]) -> None:
        await super().apply(changes)
        became = sum(isinstance(each, Became) for each in changes)
        if became:
            self.steps.append((asyncio.get_running_loop().time(), became))


@in_virtual_time
async def test_what_ends_together_is_written_together_and_one_alone_waits_for_no_more_for_long() -> None:
    site = Site()
    site.inbox = inbox = CountedInbox()
    await site.make()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    now_s = loop.wall()
    for n in range(3 * ENOUGH):
        await inbox.apply([AcceptEvent(AsyncEvent(f"w{n:04}", "orders", None, now_s, now_s, 2), b"{}")])
    site.duration_s = 0.0001
    begun_s = loop.time()
    async with site.running() as events:
        await site.emptied()
        assert inbox.steps[0][0] - begun_s < LINGER_S
        assert len(inbox.steps) <= 4
        assert len(site.tries) == 3 * ENOUGH
        assert sum(became for _, became in inbox.steps) == 3 * ENOUGH
        begun_s = loop.time()
        await site.accept(events)
        await site.emptied()
    at_s, became = inbox.steps[-1]
    assert became == 1
    assert at_s - begun_s <= 0.1
