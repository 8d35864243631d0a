"""The daemon around its parts: what breaks beside the mappings does not take them down."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

from router.daemon import Daemon
from router.replay.replay import Replayer
from router.service_manager import ServiceManager
from router.supervisor import CRASH_PAUSE_S, Supervisor
from router.telemetry import Log, Metrics
from tests.fakes.store import MemoryStore
from tests.sim.virtual_time import run


def make_daemon(**parts: Any) -> Daemon:
    store = MemoryStore()
    values: dict[str, Any] = {
        "version": "0",
        "state_dir": Path("state"),
        "listen": ("127.0.0.1", 0),
        "drain_s": 1.0,
        "store": store,
        "supervisor": Supervisor(Log()),
        "replayer": Replayer(store, Log()),
        "metrics": Metrics(),
        "log": Log(),
        "manager": ServiceManager({}, Log()),
        "wall": lambda: 0.0,
        "describe_functions": lambda: (),
        "await_predecessors": nobody,
    }
    return Daemon(**(values | parts))


async def nobody() -> None:
    """There was no daemon before."""


def test_background_work_that_breaks_begins_anew() -> None:
    began: list[float] = []

    async def serve() -> None:
        daemon = make_daemon()

        async def work() -> None:
            began.append(asyncio.get_running_loop().time())
            if len(began) < 3:
                raise ValueError("a bug")
            daemon.stop()

        daemon.background = [work]
        await daemon.run()

    run(serve())
    assert [later - earlier for earlier, later in pairwise(began)] == [CRASH_PAUSE_S, CRASH_PAUSE_S]


def test_a_signal_while_it_waits_for_its_predecessors_stops_it_in_order() -> None:
    closed: list[str] = []

    async def predecessors() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.1)

    async def close() -> None:
        closed.append("destination")

    async def serve() -> None:
        await make_daemon(await_predecessors=predecessors, closers=[close]).run()

    run(serve())
    assert closed == ["destination"]
