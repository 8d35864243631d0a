"""HTTP on `listen`: readiness, metrics and the index, of mappings that cannot reach their source."""

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from random import Random

import aiohttp
import pytest

from router.api.access import AccessKey, Credentials
from router.board import Board
from router.core.model import KAFKA_RULES, EventSourceMapping
from router.daemon import EventsInfo, FunctionInfo, TargetInfo, UnfitInfo
from router.errors import CannotListen, SourceUnavailable
from router.http.web import Web
from router.life import MappingLife, MappingParts
from router.ports import KeepFailure
from router.stream_side import plug_stream
from router.supervisor import Supervisor, Unit
from router.telemetry import REASONS, Log, Metrics
from tests.fakes.failures import EVENT, entry
from tests.fakes.store import MemoryStore

OPEN = Credentials()


class AwaySource:
    """A source that says it is away once it is allowed to answer."""

    def __init__(self):
        self.answer = asyncio.Event()

    async def open(self):
        await self.answer.wait()
        raise SourceUnavailable("no broker at 127.0.0.1:1")

    async def close(self):
        pass


@dataclass
class FakeDaemon:
    supervisor: Supervisor
    store: MemoryStore
    metrics: Metrics
    listen: tuple = ("127.0.0.1", 0)
    version: str = "1.2.3"
    log_pipe: object = None
    log: Log = field(default_factory=Log)
    source: AwaySource = field(default_factory=AwaySource)
    misfits: tuple = ()

    def wall(self):
        return 0.0

    def functions(self):
        return [FunctionInfo("worker", "app.handle", workers=3, busy=2, waiting=5, events=EventsInfo(9, 1.5, "why"))]

    def event_targets(self):
        return [TargetInfo("on_failure arn:q", 4, 0.0, "away")]

    def unfit(self):
        return self.misfits


@dataclass
class LateLines:
    """A log whose reader was away."""

    dropped_lines: int


def life(name, source, store, metrics, *, enabled=True):
    mapping = EventSourceMapping(name, "worker", KAFKA_RULES)
    parts = MappingParts(mapping, enabled, f"kafka:{name}", lambda: source, plug_stream, None, None, None)
    return MappingLife(
        parts, store=store, replays=None, metrics=metrics.of(name), log=Log(), wall=lambda: 0.0, rng=Random(1)
    )


async def nothing():
    """Nothing goes on beside these mappings."""


def keep_all(_):
    """There are no failures here."""


@asynccontextmanager
async def serving(credentials=OPEN, **changes):
    """A daemon of two mappings, one of them disabled; gives it and a client."""
    store, metrics, source = MemoryStore(), Metrics(), AwaySource()
    supervisor = Supervisor(Log())
    supervisor.want(Unit(life("orders", source, store, metrics), nothing, nothing, keep_all))
    supervisor.want(Unit(life("clicks", source, store, metrics, enabled=False), nothing, nothing, keep_all))
    daemon = replace(FakeDaemon(supervisor, store, metrics, source=source), **changes)
    web = Web(daemon, Board(daemon), {}, credentials)
    running = asyncio.create_task(daemon.supervisor.run())
    await web.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.listen[1]}") as client:
            yield daemon, client
    finally:
        await web.close()
        running.cancel()


async def get(client, path):
    async with client.get(path) as response:
        return response.status, await response.json()


async def until_away(daemon, client):
    daemon.source.answer.set()
    while (await get(client, "/health/ready"))[0] == 503:
        pass  # every turn is a round trip that lets the mapping go on


async def test_it_is_live_from_the_start_and_ready_once_every_mapping_has_said_how_it_is():
    async with serving() as (daemon, client):
        assert (await get(client, "/health/live"))[0] == 200
        status, document = await get(client, "/health/ready")
        assert (status, document["ready"]) == (503, False)
        await until_away(daemon, client)
        status, document = await get(client, "/health/ready")
        assert (status, document["ready"]) == (200, True)
        assert document["mappings"] == [
            {
                "name": "orders",
                "state": "starting",
                "reason": {"code": "SourceUnavailable", "message": "no broker at 127.0.0.1:1"},
            },
            {
                "name": "clicks",
                "state": "stopped",
                "reason": {"code": "Disabled", "message": "The mapping has `enabled: false`."},
            },
        ]


async def test_readiness_of_one_mapping_is_whether_it_runs():
    async with serving() as (daemon, client):
        await until_away(daemon, client)
        status, document = await get(client, "/health/ready?mapping=orders")
        assert (status, [each["name"] for each in document["mappings"]]) == (503, ["orders"])
        assert (await get(client, "/health/ready?mapping=clicks"))[0] == 503
        assert (await get(client, "/health/ready?mapping=none"))[0] == 404


async def test_metrics_say_why_a_mapping_is_stuck_and_what_waits_for_its_destination():
    async with serving() as (daemon, client):
        await until_away(daemon, client)
        await daemon.store.apply([KeepFailure(entry("f1"), EVENT)])
        async with client.get("/metrics") as response:
            assert response.status == 200
            lines = (await response.text()).splitlines()
        assert 'headrace_mapping_stuck{mapping="orders",reason="SourceUnavailable"} 1.0' in lines
        assert 'headrace_undelivered_failures{mapping="orders"} 1.0' in lines
        for gauge in ("max_offset_lag", "sum_offset_lag", "lag_seconds", "in_flight_records"):
            assert f'headrace_{gauge}{{mapping="orders"}} 0.0' in lines
        assert {"SourceUnavailable", "Disabled"} <= set(REASONS)


async def test_a_mapping_that_cannot_be_made_to_run_is_told_of_with_those_that_run():
    info = UnfitInfo("uuid", "worker:live", "kafka:orders", "its brokers are not known")
    async with serving(misfits=(info, replace(info, name="orders"))) as (daemon, client):
        await until_away(daemon, client)
        _, document = await get(client, "/health/ready")
        assert [each["name"] for each in document["mappings"]] == ["orders", "clicks", "uuid"]
        status, document = await get(client, "/health/ready?mapping=uuid")
        reason = {"code": "Unfit", "message": "its brokers are not known"}
        assert (status, document["mappings"]) == (503, [{"name": "uuid", "state": "failed", "reason": reason}])
        async with client.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        assert [line for line in lines if '"uuid"' in line] == [
            'headrace_mapping_stuck{mapping="uuid",reason="Unfit"} 1.0'
        ]
        told = Board(daemon).status()["mappings"][-1]
        assert [told[key] for key in ("name", "made_by", "function", "source", "state")] == [
            "uuid",
            "api",
            "worker:live",
            "kafka:orders",
            "failed",
        ]


async def test_metrics_say_what_functions_and_the_daemon_do():
    async with serving(log_pipe=LateLines(7)) as (_, client):
        async with client.get("/metrics") as response:
            lines = dict(line.rsplit(" ", 1) for line in (await response.text()).splitlines() if line[0] != "#")
        assert lines['headrace_function_workers{function="worker"}'] == "3.0"
        assert lines['headrace_function_concurrent_executions{function="worker"}'] == "2.0"
        assert lines['headrace_function_waiting_invocations{function="worker"}'] == "5.0"
        assert lines['headrace_async_events_waiting{function="worker"}'] == "9.0"
        assert lines['headrace_async_event_overdue_seconds{function="worker"}'] == "1.5"
        assert lines['headrace_async_deliveries_waiting{target="on_failure arn:q"}'] == "4.0"
        assert lines["headrace_log_lines_dropped_total"] == "7.0"
        assert float(lines["process_resident_memory_bytes"]) > 1e6
        assert any(line.startswith('headrace_build_info{python="3.') for line in lines)


async def test_metrics_are_there_while_the_store_cannot_be_read():
    async with serving() as (daemon, client):
        daemon.store.read_fault = "gone"
        async with client.get("/metrics") as response:
            assert response.status == 200
            assert "headrace_polled_event_count_total" in await response.text()


async def test_the_index_names_the_paths_and_there_are_no_others():
    async with serving() as (_, client):
        _, document = await get(client, "/")
        assert document["version"] == "1.2.3"
        for path in document["paths"]:
            async with client.get(path) as response:
                assert response.status in (200, 503)
        async with client.get("/nothing") as response:
            assert response.status == 404
        async with client.post("/health/live", data=b"x") as response:
            assert response.status == 405


async def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            async with serving(listen=("127.0.0.1", port)):
                pass


async def test_elsewhere_than_on_loopback_only_health_is_open_and_tells_no_names():
    key = {"AKIA": AccessKey("secret")}
    async with serving(Credentials(key, "token"), listen=("0.0.0.0", 0)) as (daemon, client):
        await until_away(daemon, client)
        assert await get(client, "/health/ready") == (200, {"ready": True})
        assert await get(client, "/health/live") == (200, {"live": True})
        for path in ("/", "/metrics", "/health/ready?mapping=orders", "/nothing", "/2015-03-31/functions"):
            assert (await get(client, path))[0] == 403
        async with client.get("/metrics", headers={"Authorization": "Bearer token"}) as response:
            assert response.status == 200


async def test_a_page_that_a_name_was_made_to_lead_here_for_sees_nothing():
    async with serving() as (daemon, client):
        await until_away(daemon, client)
        rebound = {"Host": f"rebound.example:{daemon.listen[1]}"}
        async with client.get("/health/ready", headers=rebound) as response:
            assert await response.json() == {"ready": True}
        for path in ("/", "/metrics"):
            async with client.get(path, headers=rebound) as response:
                assert response.status == 403
                assert "set `api.keys`" in (await response.json())["message"]
