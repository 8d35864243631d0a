"""What the API is told of the lives of mappings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from router.api.mapping_running import Stage
from router.core.model import KAFKA_RULES, STREAM_RULES, EventSourceMapping
from router.errors import SourceUnavailable
from router.life import MappingLife, MappingParts
from router.mapping_lives import MappingLives
from router.stream_side import plug_stream
from router.supervisor import Supervisor, Unit
from router.telemetry import Log, Metrics
from tests.fakes.store import MemoryStore


class Away:
    """A source that cannot be opened, once it is known why."""

    identity, pinned, handicap = "away", False, None

    def __init__(self, why: str) -> None:
        self.why = why
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        self.asked.set()
        await self.goes_on.wait()
        raise SourceUnavailable(self.why)

    async def close(self) -> None: ...


async def nothing() -> None: ...


def unit(name: str, source: Away, *, enabled: bool = True, shown: str = "kafka:orders") -> Unit:
    rules = KAFKA_RULES if shown.startswith("kafka") else STREAM_RULES
    unused: Any = None
    made: Any = lambda: source  # noqa: E731 - a source of no port's whole
    parts = MappingParts(
        EventSourceMapping(name, "worker", rules), enabled, shown, made, plug_stream, unused, None, unused
    )
    life = MappingLife(
        parts,
        store=MemoryStore(),
        replays=unused,
        metrics=Metrics().of(name),
        log=Log(),
        wall=lambda: 0.0,
        rng=Random(1),
    )
    return Unit(life, nothing, nothing, lambda _: None)


@asynccontextmanager
async def running(*units: Unit) -> AsyncIterator[tuple[Supervisor, MappingLives]]:
    supervisor = Supervisor(Log())
    for each in units:
        supervisor.want(each)
    task = asyncio.create_task(supervisor.run())
    yield supervisor, MappingLives(supervisor, {"unfit": "its brokers are not known"}.get)
    task.cancel()
    await asyncio.wait([task])


async def until_known(lives: MappingLives) -> None:
    async with asyncio.timeout(30):
        while lives.stage("m") is Stage.OPENING:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0)


async def test_one_that_cannot_be_run_says_why() -> None:
    async with running() as (_, lives):
        assert lives.last_result("unfit") == "PROBLEM: It cannot be run here: its brokers are not known"
        assert [lives.stage(name) for name in ("unfit", "another")] == [Stage.OPEN, Stage.GONE]
        assert lives.last_result("another") == "No records processed"


async def test_it_is_open_when_it_has_said_why_it_cannot_and_gone_when_it_has_left() -> None:
    source = Away("brokers are away")
    async with running(unit("m", source)) as (supervisor, lives):
        await source.asked.wait()
        assert lives.stage("m") is Stage.OPENING
        assert lives.last_result("m") == "No records processed"
        source.goes_on.set()
        await until_known(lives)
        assert lives.stage("m") is Stage.OPEN
        supervisor.unwant("m", "deleted")
        assert lives.stage("m") is Stage.LEAVING
        assert await lives.gone("m")
        assert lives.stage("m") is Stage.GONE


async def test_what_is_disabled_or_not_there_does_not_run() -> None:
    async with running(unit("m", Away(""), enabled=False)) as (_, lives):
        assert lives.stage("m") is Stage.GONE
        assert lives.stage("nobody") is Stage.GONE
        assert lives.last_result("nobody") == "No records processed"
        assert await lives.gone("nobody")
        await lives.opened("nobody", 5.0)


async def test_one_that_does_not_open_is_waited_for_so_long() -> None:
    source = Away("")
    async with running(unit("m", source)) as (_, lives):
        await lives.opened("m", 0.01)
        assert lives.stage("m") is Stage.OPENING


async def test_a_daemon_that_ends_says_that_it_does_not_see_it_gone() -> None:
    source = Away("")
    async with running(unit("m", source)) as (supervisor, lives):
        await source.asked.wait()
        gone = asyncio.create_task(lives.gone("m"))
        await asyncio.sleep(0)
        supervisor.drain(0.0)
        source.goes_on.set()
        assert not await asyncio.wait_for(gone, 30)


@pytest.mark.parametrize(
    ("shown", "why", "result"),
    [
        (
            "kafka:orders",
            "a:9092: connection refused; check that the broker runs and listens on this port",
            "PROBLEM: Connection error. Please check your event source connection configuration. (a:9092: ",
        ),
        (
            "kafka:orders",
            "a:9092: authentication failed for user esm with PLAIN; check username, password and mechanism",
            "PROBLEM: SASL authentication failed (",
        ),
        (
            "kafka:orders",
            "a:9092: its certificate is not trusted (self-signed); check security ca and the address",
            "PROBLEM: Server failed to authenticate Lambda or Lambda failed to authenticate server (",
        ),
        (
            "kafka:orders",
            "Cannot use security certificate (a secret) with key (a secret): not a PEM file.",
            "PROBLEM: Provided certificate or private key is invalid (",
        ),
        (
            "kinesis:orders",
            "Kinesis stream orders: the stream does not exist there; create it",
            "PROBLEM: Kinesis stream orders: the stream does not exist there; create it",
        ),
    ],
)
async def test_what_keeps_it_from_its_source_is_told_in_the_words_of_aws_where_it_has_some(
    shown: str, why: str, result: str
) -> None:
    source = Away(why)
    source.goes_on.set()
    async with running(unit("m", source, shown=shown)) as (_, lives):
        await until_known(lives)
        assert lives.last_result("m").startswith(result)
