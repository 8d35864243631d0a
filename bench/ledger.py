"""Kills the daemon, or one worker, with -9 at random moments and proves from a ledger that nothing was lost.

    python -m bench.ledger [--kills N] [--seed N] [--rounds N] [--rate N] [--out DIR] [--json]

Numbered records of 40 keys flow through a real Kafka into a function that writes down every record at the start and at
the end of its batch. One record in 300 is poison. Rounds differ in parallelization factor, partial responses and group
membership; bisect is on. After the last kill the daemon drains, and ledger, failure store and committed offsets are
held against the promises. Everything raw stays in the output folder. Exit status 1 on any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from bench import topics
from bench.ledger_judge import Kill, Place, Produced, Verdict, judge, read
from tests.live.daemon import Daemon, await_committed

OUT = Path(__file__).parent / "out"
KEYS = 40
RETRIES = 3
COMMIT_INTERVAL_S = 1.0
#: What the commit itself, and a busy machine, may take beyond the interval, and beyond what it stood still.
COMMIT_GRACE_S = 1.0
STEP_S = 0.02

HANDLER = """
import base64, json, os, time

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
PARTIAL = bool(os.environ["PARTIAL"])

def write(request, rows, phases):
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    lines = [
        f"{now} {os.getpid()} {request} {row['key']} {row['n']} {record['partition']} {record['offset']} {phase}\\n"
        for (record, row), phase in zip(rows, phases)
    ]
    os.write(LEDGER, "".join(lines).encode())

def handle(event, context):
    records = [record for records in event["records"].values() for record in records]
    rows = [(record, json.loads(base64.b64decode(record["value"]))) for record in records]
    write(context.aws_request_id, rows, ["S"] * len(rows))
    time.sleep(0.001 * (rows[0][1]["n"] % 40))
    bad = [row["poison"] for _, row in rows]
    if any(bad) and not PARTIAL:
        write(context.aws_request_id, rows, ["bad"] * len(rows))
        raise ValueError("poison")
    write(context.aws_request_id, rows, ["bad" if each else "ok" for each in bad])
    failed = [
        {"itemIdentifier": {"partition": f"{record['topic']}-{record['partition']}", "offset": record["offset"]}}
        for (record, _), each in zip(rows, bad) if each
    ]
    return {"batchItemFailures": failed}
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One mapping's settings."""

    factor: int
    partial: bool
    static: bool

    @property
    def name(self) -> str:
        response, member = "partial" if self.partial else "whole", "static" if self.static else "dynamic"
        return f"{self.factor} lanes, {response}, {member}"


ROUNDS = (
    Round(4, partial=True, static=True),
    Round(1, partial=False, static=False),
    Round(4, partial=False, static=True),
    Round(1, partial=True, static=True),
    Round(4, partial=True, static=False),
)


@dataclass(slots=True)
class Stalls:
    """How long the machine stood still at most: what a daemon would have done meanwhile was not late."""

    longest_s: float = 0.0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(STEP_S)
            self.longest_s = max(self.longest_s, time.monotonic() - before_s - STEP_S)


@dataclass(slots=True)
class Course:
    """What happens in one round."""

    servers: str
    topic: str
    folder: Path
    settings: Round
    rng: random.Random
    rate: int
    daemon: Daemon = field(init=False)
    produced: dict[Place, Produced] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.txt"

    async def run(self, kills: int) -> Verdict:
        self.folder.mkdir(parents=True)
        async with Daemon(self.folder) as self.daemon:
            self._configure()
            await self.daemon.start()
            flow = asyncio.create_task(self._produce())
            watch = asyncio.create_task(self.stalls.watch())
            for _ in range(kills):
                await self._kill_something()
            watch.cancel()
            flow.cancel()
            with suppress(asyncio.CancelledError):
                await flow
            ends = Counter({place.partition: 0 for place in self.produced})
            for place in self.produced:
                ends[place.partition] = max(ends[place.partition], place.offset + 1)
            await await_committed(self.servers, self.topic, ends)
            failures = await self.daemon.failures()
            status = await self.daemon.terminate()
        verdict = self._judge(failures)
        if status:
            verdict.violations.append(f"the drain ended with status {status}")
        self._keep(failures, verdict)
        return verdict

    def _configure(self) -> None:
        settings = self.settings
        environment = {"LEDGER": str(self.ledger), "PARTIAL": "1" if settings.partial else ""}
        self.daemon.function("ledger", HANDLER, environment=environment, reserved_concurrency=4, logs="off")
        kafka: dict[str, Any] = {"bootstrap_servers": self.servers.split(","), "topic": self.topic}
        if settings.static:
            kafka["group_instance_id"] = "ledger"
        self.daemon.mapping(
            "ledger",
            kafka,
            batch_size=50,
            parallelization_factor=settings.factor,
            maximum_retry_attempts=RETRIES,
            bisect_batch_on_function_error=True,
            function_response_types=["ReportBatchItemFailures"] if settings.partial else [],
        )

    async def _produce(self) -> None:
        """Write numbered records at a steady rate until cancelled; a key's number only grows by one."""
        numbers: Counter[str] = Counter()
        rng = random.Random(self.rng.random())
        async with AIOKafkaProducer(bootstrap_servers=self.servers, acks="all", enable_idempotence=True) as producer:
            sending: list[tuple[Produced, asyncio.Future[Any]]] = []
            try:
                while True:
                    for _ in range(round(self.rate * STEP_S)):
                        key = f"key-{rng.randrange(KEYS)}"
                        numbers[key] += 1
                        record = Produced(key, numbers[key], rng.random() < 1 / 300)
                        value = {"key": key, "n": record.number, "poison": record.poison}
                        sent = await producer.send(self.topic, json.dumps(value).encode(), key=key.encode())
                        sending.append((record, sent))
                    await asyncio.sleep(STEP_S)
            finally:
                await producer.flush()
                for record, sent in sending:
                    at = sent.result()
                    self.produced[Place(at.partition, at.offset)] = record

    async def _kill_something(self) -> None:
        """Let some time pass, then kill the daemon, which is started again at once, or one of its workers."""
        target = self.rng.choice(("daemon", "daemon", "worker"))
        if target == "worker":
            await self.daemon.until(self.daemon.workers, "there are workers")
        longest_s = 1.5 if target == "worker" else 4.0 if self.settings.static else 14.0
        await asyncio.sleep(self.rng.uniform(0.0, longest_s))
        if target == "worker":  # the last one may have been killed just before
            await self.daemon.until(self.daemon.workers, "there are workers")
        workers = self.daemon.workers()
        victims = tuple(workers) if target == "daemon" else (self.rng.choice(workers),)
        ends = [asyncio.ensure_future(end_of(victim)) for victim in victims]
        await asyncio.sleep(0)
        time_ns = time.monotonic_ns()
        if target == "daemon":
            await self.daemon.kill()
            await self.daemon.start(ready=False)
        else:
            with suppress(ProcessLookupError):
                os.kill(victims[0], signal.SIGKILL)
        gone_ns = max([time_ns, *await asyncio.gather(*ends)])
        self.kills.append(Kill(time_ns, gone_ns, target, victims))

    def _judge(self, failures: Sequence[Mapping[str, Any]]) -> Verdict:
        with self.ledger.open() as lines:
            deliveries = read(lines, self.kills)
        failed = {
            Place(int(each["shard"].rpartition("-")[2]), offset)
            for each in failures
            for offset in range(int(each["first_position"]), int(each["last_position"]) + 1)
        }
        late_s = COMMIT_INTERVAL_S + COMMIT_GRACE_S + self.stalls.longest_s
        return judge(self.produced, deliveries, failed, self.kills, attempts_limit=RETRIES + 1, commit_late_s=late_s)

    def _keep(self, failures: Sequence[Mapping[str, Any]], verdict: Verdict) -> None:
        """Leave everything raw beside the configuration and the state."""
        for name, content in (
            ("kills.json", [asdict(kill) for kill in self.kills]),
            ("produced.json", [[*place, *record] for place, record in sorted(self.produced.items())]),
            ("failures.json", failures),
            ("log.json", self.daemon.lines),
            ("summary.json", asdict(verdict)),
        ):
            (self.folder / name).write_text(json.dumps(content))
        with gzip.open(f"{self.ledger}.gz", "wb") as packed:
            packed.write(self.ledger.read_bytes())
        self.ledger.unlink()


async def end_of(process: int) -> int:
    """Give the time at which a process is seen to be gone."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return time.monotonic_ns()
    gone = asyncio.Event()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
        return time.monotonic_ns()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    servers = topics.bootstrap()
    rng = random.Random(arguments.seed)
    out = Path(arguments.out or OUT / f"ledger-{arguments.seed}")
    rounds = ROUNDS[: arguments.rounds]
    results = []
    for number, settings in enumerate(rounds):
        kills = arguments.kills // len(rounds) + (number < arguments.kills % len(rounds))
        async with topics.temporary(servers, "headrace-ledger") as topic:
            course = Course(servers, topic, out / f"round-{number + 1}", settings, rng, arguments.rate)
            verdict = await course.run(kills)
        targets = Counter(kill.target for kill in course.kills)
        counts = {"daemon_kills": targets["daemon"], "worker_kills": targets["worker"]}
        results.append({"round": settings.name, **counts, **asdict(verdict)})
    (out / "summary.json").write_text(json.dumps({"seed": arguments.seed, "rounds": results}, indent=1))
    return results


COLUMNS = (
    "daemon_kills",
    "worker_kills",
    "produced",
    "delivered",
    "cut_off",
    "finished",
    "failed",
    "duplicates",
    "oldest_duplicate_s",
    "poison",
    "most_attempts",
    "most_extra_attempts",
)


def show(results: Sequence[Mapping[str, Any]]) -> None:
    width = max(len(column) for column in COLUMNS)
    print(" " * width, *(f"{result['round']:>26}" for result in results))
    for column in COLUMNS:
        print(f"{column:{width}}", *(f"{round(result[column], 3):>26}" for result in results))
    print(f"{'violations':{width}}", *(f"{len(result['violations']):>26}" for result in results))
    for result in results:
        for violation in result["violations"][:50]:
            print(f"{result['round']}: {violation}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=len(ROUNDS), choices=range(1, len(ROUNDS) + 1))
    parser.add_argument("--rate", type=int, default=300, help="records a second")
    parser.add_argument("--out", help="folder that does not exist yet (bench/out/ledger-SEED)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments))
    if arguments.json:
        print(json.dumps(results))
    else:
        show(results)
    return int(any(result["violations"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
