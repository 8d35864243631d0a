"""Asynchronous events of running daemons: kills, stops, full disks, throttles, and replicas that die with events."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.live.daemon import PATIENCE_S, Daemon, whole_lines
from tests.live.fleet_rig import FleetRig

#: Notes that an event begins and ends, with its request id; takes as long as the file `slow` says.
NOTING = """
    import json, os, pathlib, time

    HERE = pathlib.Path(os.environ["NOTES"])


    def note(*what):
        handle = os.open(HERE / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, (json.dumps(what) + "\\n").encode())
        os.close(handle)


    def handle(event, context):
        note("begin", event["n"], context.aws_request_id)
        slow = HERE / "slow"
        if slow.exists():
            time.sleep(float(slow.read_text()))
        note("end", event["n"], context.aws_request_id)
"""


class Caller:
    """Who invokes a function of one daemon with events."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http = http
        self._url = f"http://127.0.0.1:{port}/2015-03-31/functions"
        #: Request ids of what was accepted, by number.
        self.accepted: dict[int, str] = {}

    async def invoke(self, number: int, pad: str = "") -> int:
        """Invoke it; gives the status of the answer, 0 where none came."""
        body = json.dumps({"n": number, "pad": pad})
        headers = {"X-Amz-Invocation-Type": "Event"}
        try:
            async with self._http.post(f"{self._url}/orders/invocations", data=body, headers=headers) as answer:
                await answer.read()
                if answer.status == 202:
                    self.accepted[number] = answer.headers["x-amzn-RequestId"]
                return answer.status
        except aiohttp.ClientError:
            return 0


@asynccontextmanager
async def caller(port: int) -> AsyncIterator[Caller]:
    async with aiohttp.ClientSession() as http:
        yield Caller(http, port)


class Ledger:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "ledger"

    def rows(self) -> list[tuple[str, int, str]]:
        return [tuple(json.loads(line)) for line in whole_lines(self._file)]

    def ended(self) -> set[int]:
        return {number for what, number, _ in self.rows() if what == "end"}

    def begun(self) -> Counter[int]:
        return Counter(number for what, number, _ in self.rows() if what == "begin")

    def ids(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for _, number, request_id in self.rows():
            found.setdefault(number, set()).add(request_id)
        return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
async def daemon(tmp_path: Path, notes: Path) -> AsyncIterator[Daemon]:
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", NOTING, environment={"NOTES": str(notes)}, reserved_concurrency=2)
        yield daemon


async def test_what_was_accepted_runs_under_its_id_however_often_the_daemon_is_killed(
    daemon: Daemon, notes: Path
) -> None:
    chance, ledger = Random(1), Ledger(notes)
    accepted: dict[int, str] = {}
    number = 0
    for _ in range(4):
        await daemon.start()
        async with caller(daemon.port) as calls:

            async def call(calls: Caller) -> None:
                nonlocal number
                while True:
                    number += 1
                    await calls.invoke(number)

            tasks = [asyncio.create_task(call(calls)) for _ in range(8)]
            enough = chance.randint(30, 150)
            await daemon.until(lambda: len(calls.accepted) >= enough, f"{enough} events are accepted")  # noqa: B023
            await daemon.kill()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            accepted |= calls.accepted
    await daemon.start()
    await daemon.until(lambda: ledger.ended() >= accepted.keys(), "all that was accepted has run")
    assert len(accepted) > 100
    ids = ledger.ids()
    assert all(ids[each] == {request_id} for each, request_id in accepted.items())
    assert await daemon.terminate() == 0


async def test_what_is_killed_in_the_middle_runs_once_more(daemon: Daemon, notes: Path) -> None:
    ledger = Ledger(notes)
    (notes / "slow").write_text("60")
    daemon.document["functions"]["orders"]["timeout"] = 120
    await daemon.start()
    async with caller(daemon.port) as calls:
        assert await calls.invoke(1) == 202
        await daemon.until(ledger.begun, "it runs")
        await daemon.kill()
        (notes / "slow").unlink()
        await daemon.start()
        await daemon.until(ledger.ended, "it has run")
    assert ledger.begun() == {1: 2}
    assert await daemon.terminate() == 0


#: Ends once so many of its invocations run at once.
TOGETHER = """
    import asyncio, os, pathlib

    here, gate = 0, asyncio.Event()


    async def handle(event, context):
        global here
        here += 1
        if here == 50:
            gate.set()
        await gate.wait()
        (pathlib.Path(os.environ["NOTES"]) / str(event["n"])).touch()
"""


async def test_events_of_a_function_that_runs_several_at_once_run_beside_each_other(
    daemon: Daemon, notes: Path
) -> None:
    settings = {"timeout": 120, "reserved_concurrency": 1, "concurrency_per_worker": 50}
    daemon.function("orders", TOGETHER, environment={"NOTES": str(notes)}, **settings)
    await daemon.start()
    async with caller(daemon.port) as calls:
        for number in range(50):
            assert await calls.invoke(number) == 202
    await daemon.until(lambda: len(list(notes.iterdir())) == 50, "all have met")


async def test_a_stop_lets_what_runs_end_and_keeps_the_rest(daemon: Daemon, notes: Path) -> None:
    ledger = Ledger(notes)
    (notes / "slow").write_text("1")
    daemon.document["functions"]["orders"]["timeout"] = 30
    await daemon.start()
    async with caller(daemon.port) as calls:
        # More than two at a time can end before the stop, however late that comes.
        for number in range(40):
            assert await calls.invoke(number) == 202
        await daemon.until(ledger.begun, "some run")
        assert await daemon.terminate() == 0
        assert set(ledger.begun()) == ledger.ended()
        assert len(ledger.ended()) < 40
        (notes / "slow").unlink()
        await daemon.start()
        await daemon.until(lambda: len(ledger.ended()) == 40, "all have run")
    assert set(ledger.begun().values()) == {1}
    assert await daemon.terminate() == 0


async def test_a_stop_ends_what_runs_for_too_long_and_it_runs_again(daemon: Daemon, notes: Path) -> None:
    ledger = Ledger(notes)
    (notes / "slow").write_text("60")
    daemon.document["functions"]["orders"]["timeout"] = 120
    daemon.document["drain_timeout"] = "1s"
    await daemon.start()
    async with caller(daemon.port) as calls:
        assert await calls.invoke(1) == 202
        await daemon.until(ledger.begun, "it runs")
        assert await daemon.terminate() == 0
        (notes / "slow").unlink()
        await daemon.start()
        await daemon.until(ledger.ended, "it has run")
    assert ledger.begun() == {1: 2}
    assert not await daemon.failures()
    assert await daemon.terminate() == 0


async def test_status_says_what_waits_for_a_function_without_room(daemon: Daemon, notes: Path) -> None:
    (notes / "slow").write_text("60")
    daemon.document["functions"]["orders"]["timeout"] = 120
    await daemon.start()
    async with caller(daemon.port) as calls:
        for number in range(5):
            assert await calls.invoke(number) == 202
    # What waits is counted every two seconds.
    reason = "2 are with the function, the others wait for room"
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [function] = (await daemon.command("status", "--json")).json()["functions"]
            events = function["events"] or {"waiting": 0, "reason": None}
            if (events["waiting"], events["reason"]) == (5, reason):
                break
    printed = (await daemon.command("status")).out
    assert "orders: 5 asynchronous events wait: 2 are with the function, the others wait for room" in printed
    await daemon.kill()


@pytest.fixture
def small_state(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_full_disk_is_answered_as_such_and_what_was_accepted_runs_once_there_is_room(
    daemon: Daemon, notes: Path, small_state: Path
) -> None:
    ledger = Ledger(notes)
    ballast = small_state / "ballast"
    ballast.write_bytes(b"x" * 12 * 1024 * 1024)
    daemon.document["state"] = str(small_state / "state")
    (notes / "slow").write_text("5")
    daemon.document["functions"]["orders"] |= {"timeout": 30, "logs": "off"}
    await daemon.start()
    async with caller(daemon.port) as calls:
        statuses: list[int] = []
        number = 0
        while 503 not in statuses and number < 500:
            number += 1
            statuses.append(await calls.invoke(number, Random(number).randbytes(20_000).hex()))
        assert statuses[-1] == 503
        (notes / "slow").unlink()
        await asyncio.to_thread(ballast.unlink)
        accepted = set(calls.accepted)
        await daemon.until(lambda: ledger.ended() >= accepted, "all that was accepted has run")
        assert ledger.ended() == accepted
        assert await calls.invoke(1000) == 202
    assert await daemon.terminate() == 0


@pytest.mark.live
async def test_what_a_dead_replica_had_accepted_runs_with_another(tmp_path: Path, redis_url: str) -> None:
    async with FleetRig(tmp_path, redis_url, lease="8s") as fleet:
        ledger = Ledger(fleet.notes)
        fleet.function("orders", NOTING, reserved_concurrency=2, timeout="120s")
        (fleet.notes / "slow").write_text("60")
        dead, other = await fleet.start("a", "b")
        async with caller(dead.port) as calls:
            for number in range(20):
                assert await calls.invoke(number) == 202
            accepted = dict(calls.accepted)
        await dead.until(lambda: len(ledger.begun()) == 2, "two run")
        await dead.kill()
        (fleet.notes / "slow").unlink()
        await other.line("events.adopted", replica="a")
        await other.until(lambda: len(ledger.ended()) == 20, "all have run")
        begun = ledger.begun()
        assert sorted(begun.values()) == [1] * 18 + [2] * 2
        assert ledger.ids() == {number: {request_id} for number, request_id in accepted.items()}
        assert await other.terminate() == 0


@pytest.mark.live
async def test_what_a_replica_leaves_that_is_stopped_for_good_runs_with_another(tmp_path: Path, redis_url: str) -> None:
    async with FleetRig(tmp_path, redis_url, lease="8s") as fleet:
        ledger = Ledger(fleet.notes)
        fleet.function("orders", NOTING, reserved_concurrency=1, timeout="30s")
        fleet.document["drain_timeout"] = "30s"
        (fleet.notes / "slow").write_text("1")
        gone, other = await fleet.start("a", "b")
        async with caller(gone.port) as calls:
            for number in range(20):
                assert await calls.invoke(number) == 202
        await gone.until(ledger.begun, "one runs")
        assert await gone.terminate() == 0
        assert len(ledger.ended()) < 20
        (fleet.notes / "slow").unlink()
        async with asyncio.timeout(100.0):
            while len(ledger.ended()) < 20:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.5)
        assert set(ledger.begun().values()) == {1}
        assert await other.terminate() == 0
