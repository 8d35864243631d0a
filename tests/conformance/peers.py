"""What every Peers does, whatever calls go through. Subclasses give the `bench` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from router.core.fleet import Bury, Give, LeaseKey
from router.errors import PeerGone
from router.ports import LeaseTable, PeerCall, Peers
from tests.conformance.lease_table import Talker

KEY = LeaseKey("orders", "shard-1")


class PeersBench(Protocol):
    """A fleet without replicas yet."""

    #: The lease of its replicas.
    lease_s: float

    def member(self, name: str) -> tuple[LeaseTable, Peers]:
        """Give a process of this replica; its home is the name."""
        ...


async def enter(bench: PeersBench, name: str) -> tuple[Talker, Peers]:
    table, peers = bench.member(name)
    await table.join()
    talker = Talker(table)
    await talker.say(runs=frozenset())
    return talker, peers


async def echo(call: PeerCall) -> None:
    await call.answer(b"%s %s %s" % (call.replica.encode(), call.what.encode(), call.body))


@asynccontextmanager
async def serving(
    peers: Peers, answer: Callable[[PeerCall], Awaitable[None]] = echo, nudges: asyncio.Queue[None] | None = None
) -> AsyncIterator[None]:
    async def serve() -> None:
        async for call in peers.calls():
            if call is not None:
                await answer(call)
            elif nudges is not None:
                nudges.put_nowait(None)

    task = asyncio.create_task(serve())
    yield
    await peers.close()
    await task


@asynccontextmanager
async def beating(bench: PeersBench, talker: Talker) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            await talker.say()
            await asyncio.sleep(bench.lease_s / 10)

    task = asyncio.create_task(beat())
    yield
    task.cancel()
    await asyncio.wait({task})


class PeersConformance:
    async def test_a_peer_answers(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        _, b = await enter(bench, "b")
        async with serving(b):
            assert await a.ask("b", "status", b"\x00{}", 10.0) == b"a status \x00{}"
            assert await a.ask("b", "drain", b"", 10.0) == b"a drain "
        await a.close()

    async def test_many_ask_at_once_and_each_has_its_own_answer(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        _, b = await enter(bench, "b")
        async with serving(b), serving(a):
            bodies = [b"%d" % number for number in range(300)]
            answers = await asyncio.gather(*(a.ask("b", "x", body, 10.0) for body in bodies), b.ask("a", "y", b"", 9.0))
            assert answers == [b"a x " + body for body in bodies] + [b"b y "]

    async def test_a_large_body_comes_whole(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        _, b = await enter(bench, "b")
        body = bytes(range(256)) * 4000
        async with serving(b):
            assert await a.ask("b", "x", body, 10.0) == b"a x " + body
        await a.close()

    async def test_one_may_ask_itself(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        async with serving(a):
            assert await a.ask("a", "x", b"1", 10.0) == b"a x 1"

    async def test_who_is_not_there_is_gone(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        with pytest.raises(PeerGone, match="nobody"):
            await a.ask("nobody", "x", b"", 10.0)
        await a.close()

    async def test_who_lives_and_does_not_answer_in_time_is_waited_for_no_longer(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        talker, b = await enter(bench, "b")
        async with beating(bench, talker):
            with pytest.raises(TimeoutError, match=r"b .*x"):
                await a.ask("b", "x", b"", 1.5 * bench.lease_s)
        await a.close()
        await b.close()

    async def test_who_leaves_before_it_answers_is_gone(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        talker, b = await enter(bench, "b")

        async def leave(_: PeerCall) -> None:
            await talker.table.leave()

        async with serving(b, leave):
            with pytest.raises(PeerGone, match="b"):
                await a.ask("b", "x", b"", 100 * bench.lease_s)
        await a.close()

    async def test_who_begins_anew_before_it_answers_is_gone(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        _, b = await enter(bench, "b")

        async def begin_anew(_: PeerCall) -> None:
            await enter(bench, "b")

        async with serving(b, begin_anew):
            with pytest.raises(PeerGone, match="b"):
                await a.ask("b", "x", b"", 100 * bench.lease_s)
        await a.close()

    async def test_whose_beat_stands_still_is_gone(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        await enter(bench, "b")
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with pytest.raises(PeerGone, match="b"):
            await a.ask("b", "x", b"", 100 * bench.lease_s)
        assert bench.lease_s <= loop.time() - started_s < 3 * bench.lease_s
        await a.close()

    async def test_a_new_process_is_not_asked_what_its_former_one_was(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        await enter(bench, "b")
        asking = asyncio.create_task(a.ask("b", "old", b"", 100 * bench.lease_s))
        await asyncio.sleep(0.01)
        _, again = await enter(bench, "b")
        async with serving(again):
            with pytest.raises(PeerGone):
                await asking
            assert await a.ask("b", "new", b"", 10.0) == b"a new "
        await a.close()

    async def test_who_joins_anew_hears_what_its_new_self_is_asked_and_nothing_else(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        talker, b = await enter(bench, "b")
        asking = asyncio.create_task(a.ask("b", "old", b"", 100 * bench.lease_s))
        async for call in b.calls():
            assert call is not None
            break
        await talker.table.join()
        async with serving(b):
            with pytest.raises(PeerGone):
                await asking
            assert await a.ask("b", "new", b"", 10.0) == b"a new "
        await a.close()

    async def test_the_heir_of_a_lease_is_nudged(self, bench: PeersBench) -> None:
        a, _ = await enter(bench, "a")
        _, b = await enter(bench, "b")
        token = await a.take(KEY)
        nudges: asyncio.Queue[None] = asyncio.Queue()
        async with serving(b, nudges=nudges):
            await a.say(gives=[Give(KEY, token, "b", 0.0)])
            await nudges.get()

    async def test_all_are_nudged_when_something_is_steered(self, bench: PeersBench) -> None:
        (a, ours), (_, theirs) = await enter(bench, "a"), await enter(bench, "b")
        nudges: asyncio.Queue[None] = asyncio.Queue()
        async with serving(ours, nudges=nudges), serving(theirs, nudges=nudges):
            await a.table.steered()
            await nudges.get()
            await nudges.get()

    async def test_nudges_that_nobody_has_heard_yet_are_one(self, bench: PeersBench) -> None:
        talker, a = await enter(bench, "a")
        _, b = await enter(bench, "b")
        for _ in range(100):
            await talker.table.steered()
        asking = asyncio.create_task(a.ask("b", "x", b"", 10.0))
        heard: list[str | None] = []
        async for call in b.calls():
            heard.append(call and call.what)
            if call is not None:
                await call.answer(b"")
                await b.close()
        assert heard == [None, "x"]
        await asking
        await a.close()

    async def test_one_that_was_buried_alive_can_be_asked_again(self, bench: PeersBench) -> None:
        talker, a = await enter(bench, "a")
        buried, b = await enter(bench, "b")
        async with serving(b):
            await talker.say(buries=[Bury("b", (await talker.say()).replicas["b"].beat)])
            with pytest.raises(PeerGone):
                await a.ask("b", "x", b"", 10.0)
            await buried.say()
            assert await a.ask("b", "x", b"1", 10.0) == b"a x 1"
        await a.close()

    async def test_calls_end_when_it_is_closed(self, bench: PeersBench) -> None:
        _, a = await enter(bench, "a")
        async with serving(a):
            await asyncio.sleep(0.01)
        await a.close()
        assert [call async for call in a.calls()] == []
