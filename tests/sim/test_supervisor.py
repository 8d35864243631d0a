"""Mappings that come, go and are exchanged while others run, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

from router.core.model import KAFKA_RULES, EventSourceMapping, Returned
from router.life import MappingLife, MappingParts
from router.replay.replay import Replayer
from router.stream_side import plug_stream
from router.supervisor import Supervisor, Unit
from router.telemetry import Log, Metrics
from tests.fakes.invoker import MemoryInvoker
from tests.fakes.store import MemoryStore
from tests.fakes.stream_source import MemorySource, MemoryStream
from tests.sim.virtual_time import run

#: How long an invocation takes.
TAKES_S = 20.0


class Scene:
    """A supervisor whose mappings read one stream each, and what was seen of them."""

    def __init__(self) -> None:
        #: What happened, and when.
        self.seen: list[tuple[float, str]] = []
        self.forgotten: list[str] = []
        self.supervisor = Supervisor(Log(), self.forgotten.append)
        self.streams: dict[str, MemoryStream] = {}
        self.metrics = Metrics()

    def unit(self, name: str, *, version: int = 1, drain_s: float = 60.0, after: str | None = None) -> Unit:
        stream = self.streams.setdefault(name, MemoryStream())
        log, store = Log(), MemoryStore()
        parts = MappingParts(
            EventSourceMapping(name, "function", KAFKA_RULES, batch_size=1, drain_s=drain_s),
            enabled=True,
            source_name="memory",
            make_source=lambda: MemorySource(stream),
            plug=plug_stream,
            invoker=MemoryInvoker(self._invoked(f"{name}.{version}")),
            passes=None,
            keep=self._keep_nothing,
        )
        life = MappingLife(
            parts,
            store=store,
            replays=Replayer(store, log),
            metrics=self.metrics.of(name),
            log=log,
            wall=lambda: 1e9,
            rng=Random(1),
        )
        return Unit(life, lambda: self._beside(name), lambda: self._close(f"{name}.{version}"), lambda _: None, after)

    def _invoked(self, who: str) -> Callable[[str, bytes], tuple[float, Returned]]:
        def invoke(_: str, __: bytes) -> tuple[float, Returned]:
            self.note(f"{who} runs")
            return TAKES_S, Returned()

        return invoke

    async def _keep_nothing(self, *_: object) -> None:
        raise AssertionError("nothing fails here")

    async def _beside(self, name: str) -> None:
        await asyncio.get_running_loop().create_future()

    async def _close(self, who: str) -> None:
        self.note(f"{who} closed")

    def note(self, what: str) -> None:
        self.seen.append((asyncio.get_running_loop().time(), what))

    def whats(self, kind: str) -> list[str]:
        return [what for _, what in self.seen if what.endswith(kind)]

    def when(self, wanted: str) -> float:
        return next(at_s for at_s, what in self.seen if what == wanted)

    @asynccontextmanager
    async def running(self, *units: Unit) -> AsyncIterator[Supervisor]:
        """Run a supervisor with these mappings, until all have read what there is."""
        for unit in units:
            self.supervisor.want(unit)
        work = asyncio.create_task(self.supervisor.run())
        for unit in units:
            await unit.life.running.wait()
        yield self.supervisor
        self.supervisor.drain(60.0)
        await work


def test_a_mapping_that_is_exchanged_ends_what_is_in_flight_first_and_the_others_go_on() -> None:
    scene = Scene()

    async def main() -> None:
        async with scene.running(scene.unit("orders"), scene.unit("clicks")) as supervisor:
            other = supervisor.lives["clicks"]
            scene.streams["orders"].append("memory-0", b"1")
            await asyncio.sleep(5.0)
            supervisor.want(scene.unit("orders", version=2))
            assert supervisor.lives["orders"].health().state == "draining"
            scene.streams["clicks"].append("memory-0", b"1")
            scene.streams["orders"].append("memory-0", b"2")
            await asyncio.sleep(50.0)
            assert supervisor.lives["clicks"] is other
            assert not other.leaving.is_set()

    run(main())
    assert scene.whats("runs") == ["orders.1 runs", "clicks.1 runs", "orders.2 runs"]
    assert scene.when("orders.1 closed") - scene.when("orders.1 runs") >= TAKES_S


def test_what_follows_a_mapping_waits_until_nobody_moves_it() -> None:
    scene = Scene()

    async def main() -> None:
        async with scene.running(scene.unit("orders")) as supervisor:
            former = supervisor.lives["orders"]
            async with former.still():
                supervisor.want(scene.unit("orders", version=2))
                await asyncio.sleep(500.0)
                assert supervisor.lives["orders"] is former
                assert scene.whats("closed") == []
            await former.gone.wait()
            assert supervisor.lives["orders"] is not former

    run(main())


def test_a_mapping_that_is_taken_out_ends_and_is_forgotten() -> None:
    scene = Scene()

    async def main() -> None:
        async with scene.running(scene.unit("orders"), scene.unit("clicks")) as supervisor:
            gone = supervisor.lives["orders"].gone
            supervisor.unwant("orders")
            await gone.wait()
            assert list(supervisor.lives) == ["clicks"]
            assert scene.forgotten == ["orders"]

    run(main())


def test_one_that_goes_for_good_has_its_failures_sent_and_one_that_is_exchanged_leaves_them_to_the_next() -> None:
    scene, sent = Scene(), asyncio.Event()

    async def send() -> None:
        scene.note("orders sends")
        await sent.wait()

    async def main() -> None:
        async with scene.running(replace(scene.unit("orders"), sent=send)) as supervisor:
            former = supervisor.lives["orders"]
            supervisor.want(replace(scene.unit("orders", version=2), sent=send))
            await former.gone.wait()
            assert not scene.whats("sends")
            gone = supervisor.lives["orders"].gone
            supervisor.unwant("orders")
            await asyncio.sleep(60)
            assert scene.whats("sends") == ["orders sends"]
            assert scene.whats("closed") == ["orders.1 closed"]
            sent.set()
            await gone.wait()

    run(main())


def test_of_two_exchanges_in_quick_succession_only_the_last_comes_to_run() -> None:
    scene = Scene()

    async def main() -> None:
        async with scene.running(scene.unit("orders")) as supervisor:
            scene.streams["orders"].append("memory-0", b"1")
            await asyncio.sleep(5.0)
            supervisor.want(scene.unit("orders", version=2))
            last = scene.unit("orders", version=3)
            supervisor.want(last)
            await last.life.running.wait()
            scene.streams["orders"].append("memory-0", b"2")
            await asyncio.sleep(50.0)

    run(main())
    assert scene.whats("runs") == ["orders.1 runs", "orders.3 runs"]
    assert sorted(scene.whats("closed")) == ["orders.1 closed", "orders.2 closed", "orders.3 closed"]


def test_a_drain_of_all_cuts_an_exchange_short() -> None:
    scene = Scene()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        scene.supervisor.want(scene.unit("orders", drain_s=900.0))
        work = asyncio.create_task(scene.supervisor.run())
        await scene.supervisor.lives["orders"].running.wait()
        scene.streams["orders"].append("memory-0", b"1")
        await asyncio.sleep(5.0)
        scene.supervisor.want(scene.unit("orders", version=2))
        scene.supervisor.drain(2.0)
        await work
        return loop.time() - began_s

    assert run(main()) < TAKES_S
    assert scene.whats("runs") == ["orders.1 runs"]


def test_a_mapping_waits_for_the_one_that_it_follows() -> None:
    scene = Scene()

    async def main() -> None:
        async with scene.running(scene.unit("orders")) as supervisor:
            scene.streams["orders"].append("memory-0", b"1")
            await asyncio.sleep(5.0)
            supervisor.unwant("orders")
            follower = scene.unit("purchases", after="orders")
            supervisor.want(follower)
            await asyncio.sleep(5.0)
            assert not follower.life.running.is_set()
            await follower.life.running.wait()
            assert list(supervisor.lives) == ["purchases"]

    run(main())


def test_a_life_that_breaks_where_it_is_closed_does_not_take_the_others_down() -> None:
    scene = Scene()

    async def broken() -> None:
        raise ValueError("a bug")

    async def main() -> None:
        async with scene.running(replace(scene.unit("orders"), close=broken), scene.unit("clicks")) as supervisor:
            gone = supervisor.lives["orders"].gone
            supervisor.unwant("orders")
            await gone.wait()
            assert supervisor.lives["clicks"].health().state == "idle"

    run(main())
