"""All functions of a daemon by name: who gets workers, who waits, who is told that there is no room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from router.core.model import Cancelled, FunctionError, Outcome, Refused, Returned
from router.functions import (
    ASKED_LIMIT,
    IDLE_S,
    LIMIT_EXCEEDED,
    NOT_FOUND,
    RESERVED_EXCEEDED,
    THROTTLED,
    Chosen,
    NamedFunction,
    Opened,
    Reserved,
    RunningFunctions,
)
from router.ports import Invocation, Told


@dataclass
class Hands:
    """Workers that end what they run when they are told to."""

    key: str
    running: dict[str, Invocation] = field(default_factory=dict)
    is_closed: bool = False
    is_released: bool = False
    hurries: int = 0

    def invoke(self, invocation: Invocation) -> None:
        self.running[invocation.request_id] = invocation

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        if request_id in self.running and not waiting_only:
            self.end(request_id, Cancelled())

    def hurry(self) -> None:
        self.hurries += 1

    def end(self, request_id: str, outcome: Outcome | None = None) -> None:
        self.running.pop(request_id).done(outcome or Returned(b"1"))

    async def close(self) -> None:
        self.is_closed = True
        for request_id in list(self.running):
            self.end(request_id, Cancelled())

    async def release(self) -> None:
        self.is_released = True


class Site:
    """Functions with such hands, and how what was invoked ended."""

    def __init__(self) -> None:
        self.known = {"orders", "orders:1", "orders:2", "bills"}
        self.reserved: dict[str, Reserved] = {}
        self.made: list[Hands] = []
        self.counted: list[tuple[str, Outcome]] = []
        self.ends: dict[str, Outcome] = {}
        self.now_s = 1000.0
        self.functions = RunningFunctions(
            open_version=self._open,
            reserved=self.reserved.get,
            count=lambda name, outcome: self.counted.append((name, outcome)),
            mono=lambda: self.now_s,
        )

    def _open(self, key: str) -> Opened | None:
        if key not in self.known:
            return None
        hands = Hands(key)
        self.made.append(hands)
        return Opened(hands, key, hands.release)

    def invocation(self, request_id: str) -> Invocation:
        def done(outcome: Outcome) -> None:
            assert request_id not in self.ends, "it ends twice"
            self.ends[request_id] = outcome

        return Invocation(request_id, lambda: b"{}", True, done)

    async def ask(self, request_id: str, function: str = "orders", version: str = "$LATEST") -> Outcome | None:
        """Invoke by name; what it ended as, if it did at once."""
        self.functions.invoke(function, version, self.invocation(request_id))
        assert request_id not in self.ends, "done() came from inside invoke()"
        await asyncio.sleep(0)
        return self.ends.get(request_id)

    def mapping(self, function: str = "orders", choose: Callable[[], Chosen | FunctionError] | None = None):
        return NamedFunction(self.functions, function, choose or (lambda: Chosen(function)))


@pytest.fixture
async def site() -> Site:
    return Site()


async def test_a_version_gets_workers_when_it_is_invoked_first(site: Site) -> None:
    assert await site.ask("a") is None
    assert await site.ask("b") is None
    assert await site.ask("c", version="2") is None
    assert [hands.key for hands in site.made] == ["orders", "orders:2"]
    site.made[0].end("a")
    assert site.ends == {"a": Returned(b"1")}
    assert site.counted == [("orders", Returned(b"1"))]


async def test_a_function_that_is_not_there_is_refused(site: Site) -> None:
    outcome = await site.ask("a", "nobody")
    assert isinstance(outcome, Refused)
    assert outcome.error.error_type == NOT_FOUND
    site.known.add("nobody")
    assert await site.ask("b", "nobody") is None, "it is looked for anew"


async def test_reserved_concurrency_holds_for_all_versions_together(site: Site) -> None:
    site.reserved["orders"] = Reserved(2, is_shared=True)
    await site.ask("a")
    await site.ask("b", version="1")
    assert site.functions.throttle("orders", "2") == RESERVED_EXCEEDED
    refused = await site.ask("c", version="2")
    assert refused == Refused(FunctionError(THROTTLED, RESERVED_EXCEEDED))
    assert await site.ask("d", "bills") is None, "that of another function"
    site.made[0].end("a")
    assert site.functions.throttle("orders", "2") is None
    assert await site.ask("e", version="2") is None


async def test_mappings_wait_for_room_in_the_order_they_came(site: Site) -> None:
    site.reserved["orders"] = Reserved(1, is_shared=True)
    await site.ask("a", version="1")
    mapping = site.mapping()
    mapping.invoke(site.invocation("b"))
    mapping.invoke(site.invocation("c"))
    first = site.made[0]
    first.end("a")
    (latest,) = site.made[1:]
    assert list(latest.running) == ["b"]
    latest.end("b")
    assert list(latest.running) == ["c"]


async def test_nothing_runs_with_no_concurrency_until_there_is_some(site: Site) -> None:
    site.reserved["orders"] = Reserved(0, is_shared=True)
    assert isinstance(await site.ask("a"), Refused)
    site.mapping().invoke(site.invocation("b"))
    assert not site.made
    del site.reserved["orders"]
    site.functions.look_at_reserved()
    assert list(site.made[0].running) == ["b"]


async def test_concurrency_of_a_function_of_one_version_is_left_to_its_workers(site: Site) -> None:
    site.reserved["orders"] = Reserved(1)
    mapping = site.mapping()
    mapping.invoke(site.invocation("a"))
    mapping.invoke(site.invocation("b"))
    assert list(site.made[0].running) == ["a", "b"]
    assert isinstance(await site.ask("c"), Refused)


async def test_so_many_wait_and_no_more(site: Site) -> None:
    for number in range(ASKED_LIMIT):
        assert await site.ask(f"{number}") is None
    assert site.functions.throttle("bills", "$LATEST") == LIMIT_EXCEEDED
    assert isinstance(await site.ask("one more", "bills"), Refused)
    site.mapping("bills").invoke(site.invocation("of a mapping"))
    assert list(site.made[1].running) == ["of a mapping"]
    site.made[0].end("0")
    assert await site.ask("another", "bills") is None


async def test_workers_of_mappings_go_with_the_last_of_them(site: Site) -> None:
    site.functions.hold("orders")
    site.functions.hold("orders")
    (hands,) = site.made
    site.mapping().invoke(site.invocation("a"))
    hands.end("a")
    await site.functions.let_go("orders")
    assert not hands.is_closed
    await site.functions.let_go("orders")
    assert (hands.is_closed, hands.is_released) == (True, True)


async def test_workers_that_were_invoked_by_name_stay_until_nobody_has_for_a_while(site: Site) -> None:
    await site.ask("a")
    (hands,) = site.made
    site.now_s += 2 * IDLE_S
    await site.functions.close_idle()
    assert not hands.is_closed, "it runs"
    hands.end("a")
    site.now_s += IDLE_S - 1
    await site.functions.close_idle()
    assert not hands.is_closed
    site.now_s += 1
    await site.functions.close_idle()
    assert hands.is_closed
    assert await site.ask("b") is None
    assert len(site.made) == 2


async def test_a_version_that_an_alias_of_a_mapping_has_left_goes_after_a_while(site: Site) -> None:
    site.functions.hold("orders")
    mapping = site.mapping(choose=lambda: Chosen("orders", version))
    for version in ("1", "2"):
        mapping.invoke(site.invocation(version))
        site.made[-1].end(version)
        site.now_s += 1
    await site.functions.close_idle()
    assert list(site.functions.opened) == ["orders", "orders:1", "orders:2"]
    site.now_s += IDLE_S
    await site.functions.close_idle()
    assert list(site.functions.opened) == ["orders", "orders:2"], "what is in use stays, however quiet it is"
    assert [hands.is_closed for hands in site.made] == [False, True, False]


async def test_what_became_another_function_ends_with_what_it_runs(site: Site) -> None:
    await site.ask("a")
    site.functions.retire("orders")
    await site.ask("b")
    former, present = site.made
    assert (list(former.running), list(present.running)) == (["a"], ["b"])
    former.end("a")
    await site.functions.close()
    assert former.is_released
    assert site.ends == {"a": Returned(b"1"), "b": Cancelled()}


async def test_what_has_nothing_to_do_goes_at_once_where_it_is_no_function_any_more(site: Site) -> None:
    await site.ask("a")
    (hands,) = site.made
    hands.end("a")
    site.functions.retire("orders")
    await site.functions.close()
    assert hands.is_closed


async def test_a_mapping_asks_each_time_what_its_function_is(site: Site) -> None:
    choices = iter(
        [
            Chosen("orders", "1", Told("arn:live")),
            FunctionError(NOT_FOUND, "Function not found: arn:live"),
            Chosen("orders", "2", Told("arn:live")),
        ]
    )
    mapping = site.mapping(choose=lambda: next(choices))
    for name in "abc":
        mapping.invoke(site.invocation(name))
    assert not site.ends, "done() came from inside invoke()"
    await asyncio.sleep(0)
    assert site.ends == {"b": Refused(FunctionError(NOT_FOUND, "Function not found: arn:live"))}
    assert [(each.key, list(each.running)) for each in site.made] == [("orders:1", ["a"]), ("orders:2", ["c"])]
    assert site.made[0].running["a"].told == Told("arn:live")


async def test_a_mapping_cancels_what_waits_for_room_or_runs(site: Site) -> None:
    site.reserved["orders"] = Reserved(1, is_shared=True)
    mapping = site.mapping()
    mapping.invoke(site.invocation("a"))
    mapping.invoke(site.invocation("b"))
    mapping.cancel("b", waiting_only=True)
    mapping.cancel("a", waiting_only=True)
    await asyncio.sleep(0)
    assert site.ends == {"b": Cancelled()}
    mapping.cancel("a", waiting_only=False)
    assert site.ends["a"] == Cancelled()


async def test_who_waits_for_an_answer_does_not_wait_for_a_pause_between_tries(site: Site) -> None:
    await site.ask("a")
    await site.ask("b")
    (hands,) = site.made
    before = hands.hurries
    hands.end("a", Refused(FunctionError("KeyError", "x"), initialising=True))
    assert hands.hurries == before + 1
    hands.end("b", Refused(FunctionError("KeyError", "x"), initialising=True))
    assert hands.hurries == before + 1, "nobody waits"


async def test_at_the_end_everything_ends_as_cancelled(site: Site) -> None:
    site.reserved["orders"] = Reserved(1, is_shared=True)
    await site.ask("a")
    site.mapping().invoke(site.invocation("b"))
    await site.functions.close()
    assert await site.ask("c", "bills") == Cancelled()
    assert site.ends == dict.fromkeys("abc", Cancelled())
    await site.functions.close()
