"""Replicas that share a Kafka group and a Redis while they come, go, freeze and are killed, judged by a ledger."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiokafka import AIOKafkaProducer

from bench.ledger import COMMIT_GRACE_S, COMMIT_INTERVAL_S, HANDLER, Stalls, end_of
from bench.ledger_judge import Kill, Place, Produced, Verdict, judge, read
from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, committed, plain, produce
from tests.live.fleet_rig import FleetRig, Replica
from tests.live.kafka_proxy import KafkaProxy

KEYS = 40
RETRIES = 3
RATE = 200
STEP_S = 0.02
PARTITIONS = 12
SESSION_S = 6.0
STORM_S = 60.0

#: The function of the ledger, but that while there is a file `slow` it takes longer than it may when it is frozen.
SLOW_HANDLER = HANDLER.replace(
    'time.sleep(0.001 * (rows[0][1]["n"] % 40))',
    'time.sleep(10 if os.path.exists(os.environ["LEDGER"] + ".slow") else 0.01)',
)
assert SLOW_HANDLER != HANDLER

#: Reports every second record as failed, until there is a file FIXED.
HALF = """
import os
def handle(event, context):
    records = [record for records in event["records"].values() for record in records]
    if os.path.exists(os.environ["FIXED"]):
        return None
    return {"batchItemFailures": [
        {"itemIdentifier": {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}}
        for record in records if record["offset"] % 2
    ]}
"""


class Scene:
    """A fleet whose function writes a ledger of all it was given."""

    def __init__(self, fleet: FleetRig, bootstrap: str, topic: str, rng: random.Random) -> None:
        self.fleet = fleet
        self.produced: dict[Place, Produced] = {}
        self.kills: list[Kill] = []
        self._stalls = Stalls()
        self._bootstrap = bootstrap
        self._topic = topic
        self._rng = rng

    def configure(self, handler: str = HANDLER, *, rate_factor: int = 2, **kafka: object) -> None:
        environment = {"LEDGER": str(self.fleet.folder / "ledger"), "PARTIAL": "1"}
        scratch = Replica(self.fleet, "unused")
        scratch.function("ledger", handler, environment=environment, reserved_concurrency=4, timeout=30, logs="off")
        scratch.mapping(
            "ledger",
            {**plain(self._bootstrap, self._topic), "session_timeout": f"{SESSION_S:g}s", **kafka},
            batch_size=20,
            parallelization_factor=rate_factor,
            maximum_retry_attempts=RETRIES,
            bisect_batch_on_function_error=True,
            function_response_types=["ReportBatchItemFailures"],
        )

    def running(self) -> list[str]:
        return [name for name, each in self.fleet.replicas.items() if each.process.returncode is None]

    async def kill(self, name: str) -> None:
        """Kill a replica; its workers end with it."""
        replica = self.fleet.replicas[name]
        victims = tuple(replica.workers())
        ends = [asyncio.ensure_future(end_of(victim)) for victim in victims]
        await asyncio.sleep(0)
        time_ns = time.monotonic_ns()
        await replica.kill()
        await self._note(time_ns, ends, victims)

    async def freeze(self, name: str) -> None:
        """Stop a replica as a debugger would, and wait until none of its workers is left."""
        replica = self.fleet.replicas[name]
        victims = tuple(replica.workers())
        ends = [asyncio.ensure_future(end_of(victim)) for victim in victims]
        await asyncio.sleep(0)
        time_ns = time.monotonic_ns()
        replica.pause()
        async with asyncio.timeout(SESSION_S):
            await self._note(time_ns, ends, victims)

    async def _note(self, time_ns: int, ends: list[asyncio.Future[int]], victims: tuple[int, ...]) -> None:
        gone_ns = max([time_ns, *await asyncio.gather(*ends)])
        self.kills.append(Kill(time_ns, gone_ns, "daemon", victims))

    @asynccontextmanager
    async def flow(self, rate: int = RATE) -> AsyncIterator[None]:
        """Write numbered records of some keys at a steady rate meanwhile; one in 300 is poison."""
        writing = asyncio.create_task(self._write(rate))
        watching = asyncio.create_task(self._stalls.watch())
        try:
            yield
        finally:
            watching.cancel()
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    async def _write(self, rate: int) -> None:
        numbers: Counter[str] = Counter()
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True) as producer:
            sending = []
            try:
                while True:
                    for _ in range(round(rate * STEP_S)):
                        key = f"key-{self._rng.randrange(KEYS)}"
                        numbers[key] += 1
                        record = Produced(key, numbers[key], self._rng.random() < 1 / 300)
                        value = {"key": key, "n": record.number, "poison": record.poison}
                        sent = await producer.send(self._topic, json.dumps(value).encode(), key=key.encode())
                        sending.append((record, sent))
                    await asyncio.sleep(STEP_S)
            finally:
                await producer.flush()
                for record, sent in sending:
                    at = sent.result()
                    self.produced[Place(at.partition, at.offset)] = record

    async def verdict(self) -> Verdict:
        """Wait until all that was written is committed, look at the failures, end all replicas, and judge."""
        ends = Counter({place.partition: 0 for place in self.produced})
        for place in self.produced:
            ends[place.partition] = max(ends[place.partition], place.offset + 1)
        await await_committed(self._bootstrap, self._topic, ends)
        left = [self.fleet.replicas[name] for name in self.running()]
        failed = set()
        for each in await left[0].failures():
            partition = int(each["shard"].rpartition("-")[2])
            offsets = range(int(each["first_position"]), int(each["last_position"]) + 1)
            failed |= {Place(partition, offset) for offset in offsets}
        for replica in left:
            assert await replica.terminate() == 0
        with (self.fleet.folder / "ledger").open() as lines:
            deliveries = read(lines, self.kills)
        late_s = COMMIT_INTERVAL_S + COMMIT_GRACE_S + self._stalls.longest_s
        return judge(self.produced, deliveries, failed, self.kills, attempts_limit=RETRIES + 1, commit_late_s=late_s)


async def test_when_one_of_three_is_killed_the_others_go_on_within_its_session(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic, redis_url: str
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    name = await topic(PARTITIONS)
    async with FleetRig(tmp_path, redis_url) as fleet:
        scene = Scene(fleet, kafka_bootstrap, name, random.Random(seed))
        scene.configure()
        await fleet.start("a", "b", "c")
        async with scene.flow():
            await asyncio.sleep(4)
            await scene.kill("c")
            await asyncio.sleep(SESSION_S + 4)
        found = await scene.verdict()
    assert not found.violations, f"seed {seed}: {found}"
    assert found.finished + found.failed == found.produced > 1000, f"seed {seed}: {found}"


async def test_a_replica_that_is_frozen_past_its_session_with_a_running_handler_runs_beside_nobody(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic, redis_url: str
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    name = await topic(PARTITIONS)
    async with FleetRig(tmp_path, redis_url, lease="30s") as fleet:
        scene = Scene(fleet, kafka_bootstrap, name, random.Random(seed))
        scene.configure(SLOW_HANDLER, session_timeout="60s")
        replicas = await fleet.start("a", "b", "c")
        # What may be waited for is the file's as it is now.
        scene.configure(SLOW_HANDLER)
        replicas[0].write()
        for each in replicas:
            await each.line("mapping.changed", mapping="ledger")
        slow = tmp_path / "ledger.slow"
        async with scene.flow():
            await asyncio.sleep(3)
            slow.touch()
            await asyncio.sleep(1)
            await scene.freeze("c")
            slow.unlink()
            await asyncio.sleep(SESSION_S + 3)
            fleet.replicas["c"].go_on()
            await asyncio.sleep(4)
        found = await scene.verdict()
    assert not found.violations, f"seed {seed}: {found}"
    assert found.cut_off, f"seed {seed}: nothing ran when it was frozen: {found}"
    assert found.finished + found.failed == found.produced > 500, f"seed {seed}: {found}"


async def test_replicas_that_come_go_freeze_and_are_killed_every_few_seconds_break_no_promise(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic, redis_url: str
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    name = await topic(PARTITIONS)
    async with FleetRig(tmp_path, redis_url) as fleet:
        scene = Scene(fleet, kafka_bootstrap, name, rng)
        scene.configure()
        await fleet.start("a")
        began_s = time.monotonic()
        async with scene.flow():
            while time.monotonic() - began_s < STORM_S:
                running = scene.running()
                absent = [each for each in "abc" if each not in running]
                what = rng.random()
                if absent and (len(running) == 1 or what < 0.5):
                    await fleet.start(rng.choice(absent), ready=False)
                elif what < 0.75:
                    await scene.kill(rng.choice(running))
                elif what < 0.9:
                    # It may not have begun to listen to signals yet.
                    assert await fleet.replicas[rng.choice(running)].terminate() in (0, -signal.SIGTERM)
                else:
                    frozen = rng.choice(running)
                    await scene.freeze(frozen)
                    await asyncio.sleep(SESSION_S)
                    fleet.replicas[frozen].go_on()
                await asyncio.sleep(rng.uniform(0.5, 4.0))
        if not scene.running():
            await fleet.start("a")
        found = await scene.verdict()
    assert not found.violations, f"seed {seed}: {found}"
    assert found.finished + found.failed == found.produced > 1000, f"seed {seed}: {found}"


async def test_retry_state_too_large_for_kafka_goes_with_the_partition_to_another_replica(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic, redis_url: str
) -> None:
    name = await topic(1)
    fixed = tmp_path / "fixed"
    async with FleetRig(tmp_path, redis_url) as fleet:
        scratch = Replica(fleet, "unused")
        scratch.function("half", HALF, environment={"FIXED": str(fixed)}, timeout=30)
        scratch.mapping(
            "half",
            plain(kafka_bootstrap, name),
            batch_size=3000,
            maximum_batching_window_in_seconds=2,
            maximum_retry_attempts=50,
            function_response_types=["ReportBatchItemFailures"],
        )
        await produce(kafka_bootstrap, name, [(None, number) for number in range(3000)])
        [first] = await fleet.start("a")
        await first.line("batch.failed", attempts=3)
        assert (await committed(kafka_bootstrap, name))[0][1].startswith("store:")
        await first.kill()
        reached = max(line["attempts"] for line in first.events("batch.failed"))
        [second] = await fleet.start("b")
        failed = await second.line("batch.failed")
        # A kill forgets the last attempt at most.
        assert failed["attempts"] in (reached, reached + 1)
        assert not second.events("retry_state.voided")
        fixed.touch()
        await await_committed(kafka_bootstrap, name, {0: 3000})
        assert await second.failures() == []
        assert await second.terminate() == 0


async def test_a_static_replica_is_expected_back_after_sigterm_and_not_after_sigint(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic, redis_url: str
) -> None:
    name = await topic(4)
    async with FleetRig(tmp_path, redis_url) as fleet:
        scene = Scene(fleet, kafka_bootstrap, name, random.Random(1))
        scene.configure(group_instance_id="ledger-{replica}", session_timeout="30s")
        a, b = await fleet.start("a", "b")
        async with scene.flow():
            await fleet.until_shared(4, a, b, fewest=2)
            had, opened, before = b.shards, len(a.events("shard.opened")), len(b.lines)
            assert await b.terminate() == 0
            await fleet.start("b")

            def again() -> set[str]:
                return {line["shard"] for line in b.lines[before:] if line.get("event") == "shard.opened"}

            await b.until(lambda: len(again()) == 2, "it has as many shards again")
            assert again() == had
            assert len(a.events("shard.opened")) == opened, "nothing of the other moved"
            b.process.send_signal(signal.SIGINT)
            assert await b.exit() == 0
            began_s = time.monotonic()
            await fleet.until_shared(4, a)
            assert time.monotonic() - began_s < 20, "its session would have been 30 s"
        found = await scene.verdict()
    assert not found.violations, found
    assert found.duplicates == 0


async def test_of_two_daemons_that_are_one_static_member_the_older_stops_and_says_why(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with Daemon(tmp_path / "one") as one, Daemon(tmp_path / "two") as two:
        for daemon in (one, two):
            daemon.function("orders", "def handle(event, context): ...")
            daemon.mapping("orders", {**plain(kafka_bootstrap, name), "group_instance_id": "same"})
        await one.start()
        await one.line("shard.opened")
        await two.start()
        await one.line("mapping.refused", reason="InstanceTaken")
        status = await one.status("orders")
        assert (status["state"], status["reason"]["code"]) == ("failed", "InstanceTaken")
        assert f"has joined group {name} as same" in status["reason"]["message"]
        await produce(kafka_bootstrap, name, [(None, 1)])
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await two.terminate() == 0
        after = len(one.lines)
        assert (await one.command("mapping", "accept", "orders")).status == 0
        await one.line("shard.opened", after=after)
        await produce(kafka_bootstrap, name, [(None, 2)])
        await await_committed(kafka_bootstrap, name, {0: 2})
        assert not two.events("mapping.refused")
        assert await one.terminate() == 0


async def test_a_daemon_that_is_cut_off_from_its_group_ends_what_runs_before_another_begins_it(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(2)
    wire = KafkaProxy(kafka_bootstrap)
    await wire.mend()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    slow = tmp_path / "ledger.slow"
    slow.touch()
    ledger = tmp_path / "ledger"
    ledger.touch()
    async with Daemon(tmp_path / "one") as one, Daemon(tmp_path / "two") as two:
        for daemon, bootstrap in ((one, wire.address), (two, kafka_bootstrap)):
            environment = {"LEDGER": str(ledger), "PARTIAL": "1"}
            # It is to be with the function still when the session is over, whenever the wire was stalled.
            handler = SLOW_HANDLER.replace("sleep(10 ", "sleep(50 ")
            daemon.function("ledger", handler, environment=environment, timeout=60)
            daemon.mapping("ledger", plain(bootstrap, name))
        await one.start()
        await one.until(lambda: len(one.events("shard.opened")) == 2, "it has both partitions")
        produced = {Place(partition, 0): Produced(f"key-{partition}", 1, poison=False) for partition in range(2)}
        for place, record in produced.items():
            value = {"key": record.key, "n": 1, "poison": False}
            await produce(kafka_bootstrap, name, [(record.key, value)], partition=place.partition)
        await one.until(lambda: len(ledger.read_text().splitlines()) == 2, "both are with the function")
        victims = tuple(one.workers())
        ends = [asyncio.ensure_future(end_of(victim)) for victim in victims]
        time_ns = time.monotonic_ns()
        wire.stall()
        slow.unlink()
        await two.start(ready=False)
        gone_ns = max(await asyncio.gather(*ends))
        await await_committed(kafka_bootstrap, name, {0: 1, 1: 1})
        kills = [Kill(time_ns, gone_ns, "daemon", victims)]
        deliveries = read(ledger.read_text().splitlines(), kills)
        found = judge(produced, deliveries, set(), kills, attempts_limit=RETRIES + 1, commit_late_s=2.0)
        assert (found.cut_off, found.finished, found.violations) == (2, 2, []), found
        assert await two.terminate() == 0
        await one.kill()
    await wire.cut()


async def test_a_static_member_is_moved_without_waiting_for_its_session(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", "def handle(event, context): ...")
        static = {**plain(kafka_bootstrap, name), "group_instance_id": "one", "session_timeout": "60s"}
        daemon.mapping("orders", static)
        await produce(kafka_bootstrap, name, [(None, 1), (None, 2)])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 2})
        done = await daemon.command("mapping", "seek", "orders", "--to", "TRIM_HORIZON", "--apply", "--yes")
        assert done.status == 0, done.err
        await daemon.until(lambda: len(daemon.events("shard.opened")) == 2, "it reads again")
        await await_committed(kafka_bootstrap, name, {0: 2})
        assert await daemon.terminate() == 0
