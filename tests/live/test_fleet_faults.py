"""A fleet in bad company: other fleets, other clocks, replicas that freeze, come and go, full disks."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from connectors.redis.reader import RedisReader
from connectors.settings import RedisSettings
from router.checkpoints import SHARD
from tests.live.daemon import PATIENCE_S
from tests.live.fleet_rig import FleetRig
from tests.live.stream_rig import Streams

SHARDS = 4
LEASE_S = 3.0

#: Puts the clock of whoever loads it ahead, and leaves the monotonic one alone.
AHEAD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long ahead(void) { const char *text = getenv("AHEAD_S"); return text ? atol(text) : 0; }

int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, at);
    if (!status && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += ahead();
    return status;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


def rows(first: int, count: int) -> list[tuple[str, str]]:
    """Give records of eight keys, whose contents sort as they are written."""
    return [(f"k{number % 8}", f"k{number % 8}-{number:06}") for number in range(first, first + count)]


@pytest.fixture
async def fleet(tmp_path: Path, redis_url: str) -> AsyncIterator[FleetRig]:
    async with FleetRig(tmp_path, redis_url, lease=f"{LEASE_S:g}s") as made:
        yield made


@pytest.fixture
def clock_ahead(tmp_path: Path) -> Iterator[Path]:
    """A library that puts the wall clock of a process ahead by AHEAD_S seconds."""
    source, library = tmp_path / "ahead.c", tmp_path / "ahead.so"
    source.write_text(AHEAD)
    try:
        done = subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("another clock needs a C compiler (cc)")
    assert done.returncode == 0, done.stderr
    return library


async def test_two_fleets_in_one_database_know_nothing_of_each_other(
    tmp_path: Path, redis_url: str, streams: Streams
) -> None:
    stream = await streams.make(2)
    await stream.put(*rows(0, 30))
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with FleetRig(folders[0], redis_url) as one, FleetRig(folders[1], redis_url) as two:
        for rig in (one, two):
            rig.reads("clicks", stream)
        [a] = await one.start("a")
        [also_a] = await two.start("a")  # the same name in another fleet is another replica
        await one.until_ended(30)
        await two.until_ended(30)
        assert (await a.command("mapping", "pause", "clicks")).status == 0
        await stream.put(*rows(30, 10))
        await two.until_ended(40)
        assert len(one.ledger().ended) == 30
        assert (await a.status("clicks"))["state"] == "paused"
        assert (await also_a.status("clicks"))["state"] != "paused"


async def test_replicas_whose_files_differ_are_told_in_what(
    fleet: FleetRig, streams: Streams, tmp_path: Path, redis_url: str
) -> None:
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    (tmp_path / "elsewhere").mkdir()
    async with FleetRig(tmp_path / "elsewhere", redis_url, lease=f"{LEASE_S:g}s", name=fleet.name) as elsewhere:
        elsewhere.reads("clicks", stream, batch_size=7)
        [a], [b] = await fleet.start("a"), await elsewhere.start("b")
        for replica in (a, b):
            told = await replica.line("fleet.mixed")
            assert {"file", "mapping clicks"} <= told["differences"].keys()
            assert told["differences"]["mapping clicks"].keys() == {"a", "b"}
        assert "Replicas differ in mapping clicks" in (await a.command("status")).out
        await stream.put(*rows(0, 80))  # they work all the same
        await a.until(lambda: len(fleet.ledger().ended | elsewhere.ledger().ended) == 80, "80 records were seen")


async def test_a_replica_whose_clock_is_ahead_keeps_what_it_has_and_takes_what_is_free(
    fleet: FleetRig, streams: Streams, clock_ahead: Path
) -> None:
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream)
    fleet.document["lease"] = "10s"  # so that none ends because the machine stands still for some seconds
    [a] = await fleet.start("a")
    fleet.environment = {"LD_PRELOAD": str(clock_ahead), "AHEAD_S": "30"}
    [b] = await fleet.start("b")
    fleet.environment = {"LD_PRELOAD": str(clock_ahead), "AHEAD_S": "-30"}
    [c] = await fleet.start("c")
    await fleet.until_shared(SHARDS, a, b, c, fewest=1)
    for part in range(6):
        await stream.put(*rows(part * 20, 20))
        await fleet.until_ended((part + 1) * 20)
        await asyncio.sleep(2)  # so that leases that went by another's clock would have ended
    for replica in (a, b, c):
        assert replica.events("lease.lost") == replica.events("replica.died") == []
    await b.kill()
    await stream.put(*rows(120, 40))
    await fleet.until_ended(160)
    await fleet.until_shared(SHARDS, a, c, fewest=1)
    assert fleet.ledger().wrong() == []


async def committed(settings: RedisSettings, fleet: FleetRig, mapping: str) -> Mapping[str, int]:
    """Give the sequence number of each shard through which the fleet has committed; none where nothing is."""
    store = await RedisReader.open_read_only(settings, fleet.name)
    try:
        texts = await store.states(mapping)
    finally:
        await store.close()
    checkpoints = {
        key.removeprefix(SHARD): json.loads(text)["checkpoint"] for key, text in texts.items() if key.startswith(SHARD)
    }
    return {shard: int(checkpoint) for shard, checkpoint in checkpoints.items() if checkpoint.isdecimal()}


async def test_a_replica_frozen_past_its_lease_wakes_and_commits_nothing(
    fleet: FleetRig, streams: Streams, redis_settings: RedisSettings
) -> None:
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream, slow_s=0.3, commit_interval="300ms")
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    records = rows(0, 160)
    numbers = await stream.put(*records)
    place = {data: int(number) for (_, data), number in zip(records, numbers, strict=True)}
    async with asyncio.timeout(PATIENCE_S):
        while not a.shards & (before := await committed(redis_settings, fleet, "clicks")).keys():
            pass  # every turn asks
    a.pause()
    await b.line("replica.died", replica="a")
    workers = a.workers()
    handed_over = [row for run in fleet.ledger().runs if run.pid in workers for row in run.rows]
    await fleet.until_shared(SHARDS, b, fewest=SHARDS)
    await fleet.until_ended(120)
    begun = len(b.lines)
    a.go_on()
    await a.line("lease.lost")
    await fleet.until_ended(160)
    await fleet.until_shared(SHARDS, a, b)  # it lives, and is given its part again
    assert not b.events("checkpoint.refused")[begun:]
    # What it had begun and not committed when it froze may run again, and nothing else does.
    uncommitted = {row.data for row in handed_over if place[row.data] > before.get(row.shard, -1)}
    assert fleet.ledger().seen_again() <= uncommitted
    assert fleet.ledger().wrong() == []
    assert await a.terminate() == 0
    assert await b.terminate() == 0


async def test_replicas_that_come_and_go_every_few_seconds_disturb_nothing(fleet: FleetRig, streams: Streams) -> None:
    rng = random.Random(7)
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream, slow_s=0.05)
    await fleet.start("a")
    names = ["b", "c", "d"]
    written = 0
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 60
    while loop.time() < end_s:
        await stream.put(*rows(written, 20))
        written += 20
        name = rng.choice(names)
        replica = fleet.replicas.get(name)
        if replica is None or replica.process.returncode is not None:
            await fleet.start(name, ready=False)
        elif rng.random() < 0.5:
            await replica.kill()
        else:
            assert await replica.terminate() in (0, -signal.SIGTERM)  # the latter before it could hear it
        await asyncio.sleep(rng.uniform(0.5, 3.0))  # the storm itself
    await fleet.start(*(name for name in names if _is_away(fleet, name)))
    await fleet.until_ended(written)
    await fleet.until_shared(SHARDS, *fleet.replicas.values(), fewest=1)
    assert fleet.ledger().wrong() == []
    crashes = [line for each in fleet.replicas.values() for line in each.events("mapping.crashed")]
    assert crashes == []


def _is_away(fleet: FleetRig, name: str) -> bool:
    return name not in fleet.replicas or fleet.replicas[name].process.returncode is not None


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB in place of the local folder of replica a."""
    local = tmp_path / ".headrace" / "a"
    local.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", local]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield local
    subprocess.run(["umount", "-l", local], check=True)


def fill(folder: Path) -> Path:
    """Leave no room in a folder's file system; gives the file that took it."""
    file = folder / "fill"
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while opened.write(bytes(65536)):
            pass
    return file


async def test_a_full_disk_of_one_replica_loses_nothing(fleet: FleetRig, streams: Streams, local: Path) -> None:
    stream = await streams.make(SHARDS)
    fleet.reads("clicks", stream, slow_s=0.05)
    fleet.document["lease"] = "10s"  # so that none ends because the machine stands still for some seconds
    a, b = await fleet.start("a", "b")
    await fleet.until_shared(SHARDS, a, b)
    filling = fill(local)
    await stream.put(*rows(0, 80))
    refused = await a.line("batch.refused")  # it has no room to start a worker
    assert "No space left" in refused["error_message"]
    assert refused["attempts"] == 0
    filling.unlink()
    await fleet.until_ended(80)
    assert fleet.ledger().wrong() == []
    assert fleet.ledger().seen_again() == set()
    assert await a.terminate() == 0
    assert await b.terminate() == 0
