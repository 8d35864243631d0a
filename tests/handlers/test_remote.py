"""A target that refuses: how often it is asked, and who learns of it. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from handlers.remote import Remote
from router.core.model import Cancelled, FunctionError, Outcome, Refused, Returned
from router.ports import Answered, Invocation
from tests.handlers.conftest import Memory
from tests.sim.virtual_time import in_virtual_time

AWAY = FunctionError("Headrace.NotAccepted", "it is away")


class Scripted:
    """A target that answers by a function, after a while."""

    def __init__(self, answer: Callable[[str], Answered], takes_s: float = 0.01) -> None:
        self.answer = answer
        self.takes_s = takes_s
        self.called_at_s: list[float] = []
        self.now = 0
        self.most = 0
        self.is_closed = False

    async def call(self, request_id: str, event: bytes) -> Answered:
        self.called_at_s.append(asyncio.get_running_loop().time())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.takes_s)
            return self.answer(request_id)
        finally:
            self.now -= 1

    async def check(self) -> str:
        return "there"

    async def close(self) -> None:
        self.is_closed = True


def refusing(wait_s: float = 0.0) -> Callable[[str], Answered]:
    return lambda _: Answered(Refused(AWAY), wait_s=wait_s)


def start(remote: Remote, request_id: str) -> asyncio.Future[Outcome]:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    remote.invoke(Invocation(request_id, lambda: b"{}", wants_body=True, done=ended.set_result))
    return ended


@in_virtual_time
async def test_a_target_that_refuses_is_asked_ever_less_whatever_waits() -> None:
    target = Scripted(refusing())
    remote = Remote(target, concurrency=4)
    ended = [start(remote, f"r{number}") for number in range(20)]
    outcomes = [await each for each in ended]
    assert set(outcomes) == {Refused(AWAY)}
    assert remote.status.error == AWAY
    first, later = target.called_at_s[:4], target.called_at_s[4:]
    assert len(set(first)) == 1, "those that were allowed at once"
    gaps_s = [round(after - before, 1) for before, after in zip([first[0], *later], later, strict=False)]
    assert gaps_s[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(gaps_s[7:]) == {5.0}
    await remote.close()


@in_virtual_time
async def test_once_it_accepts_one_all_go_at_once_again() -> None:
    target = Scripted(refusing(), takes_s=1.0)
    remote = Remote(target, concurrency=4)
    [await start(remote, f"r{number}") for number in range(3)]
    target.answer = lambda _: Answered(Returned(b"1"))
    target.called_at_s.clear()
    outcomes = [await each for each in [start(remote, f"s{number}") for number in range(9)]]
    assert all(isinstance(each, Returned) and each.body == 1 for each in outcomes)
    first_s = target.called_at_s[0]
    assert [round(at_s - first_s) for at_s in target.called_at_s] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert remote.status.error is None
    await remote.close()


@in_virtual_time
async def test_it_is_left_alone_for_as_long_as_it_asks_within_bounds() -> None:
    for asked_s, waits_s in ((7.0, 7.0), (86400.0, 60.0), (0.0, 0.1)):
        target = Scripted(refusing(asked_s))
        remote = Remote(target, concurrency=1)
        ended = [start(remote, "a"), start(remote, "b")]
        [await each for each in ended]
        first_s, second_s = target.called_at_s
        assert round(second_s - first_s - target.takes_s, 3) == waits_s
        await remote.close()


@in_virtual_time
async def test_one_of_several_refusals_that_asks_for_longer_is_heard() -> None:
    waits_s = {"a": 0.0, "b": 30.0, "c": 1.0}
    target = Scripted(lambda request_id: Answered(Refused(AWAY), wait_s=waits_s.get(request_id, 0.0)))
    remote = Remote(target, concurrency=3)
    [await each for each in [start(remote, name) for name in ("a", "b", "c", "d")]]
    assert round(target.called_at_s[-1] - target.called_at_s[0], 1) == 30.0
    await remote.close()


@in_virtual_time
async def test_what_waits_while_it_is_left_alone_can_be_cancelled_and_closed() -> None:
    target = Scripted(refusing(50.0))
    remote = Remote(target, concurrency=1)
    await start(remote, "a")
    waiting = [start(remote, name) for name in ("b", "c")]
    assert (remote.status.busy, remote.status.waiting) == (0, 2)
    remote.cancel("b", waiting_only=True)
    assert await waiting[0] == Cancelled()
    await remote.close()
    assert await waiting[1] == Cancelled()
    assert target.is_closed
    assert len(target.called_at_s) == 1


@in_virtual_time
async def test_a_target_that_breaks_refuses_and_holds_nothing_up() -> None:
    def break_off(_: str) -> Answered:
        raise RuntimeError("a bug")

    remote = Remote(Scripted(break_off), concurrency=1)
    assert await start(remote, "a") == Refused(FunctionError("RuntimeError", "a bug"))
    assert await start(remote, "b") == Refused(FunctionError("RuntimeError", "a bug"))
    await remote.close()


@in_virtual_time
async def test_what_the_target_tells_of_the_log_goes_into_the_log() -> None:
    kept = Memory()
    logs = {"a": "printed\n", "b": ""}
    remote = Remote(Scripted(lambda name: Answered(Returned(b"null"), log=logs[name])), concurrency=2, sink=kept)
    [await each for each in [start(remote, "a"), start(remote, "b")]]
    assert kept.texts == [("a", "printed\n")]
    await remote.close()
