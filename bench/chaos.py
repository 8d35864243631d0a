"""Three replicas over every source at once, in trouble of every kind, and a ledger that proves that nothing was lost.

    python -m bench.chaos [--events N] [--seed N] [--sources NAME...] [--rate N] [--out DIR] [--docs] [--json]

One file is run by three replicas, and now and then by a fourth. Its mappings read a topic of a three-broker Kafka, a
standard and a FIFO queue, a Kinesis stream that is split and merged, and a table's stream (LocalStack). The state is in
a Redis of the run. Numbered records of some keys flow into all of them; one in 120 is poison. The function writes down
every record at the start and at the end of its batch (`bench.chaos_function`).

Meanwhile things go wrong, by a seed (`bench.chaos_schedule`): replicas are killed with -9, frozen past their lease,
restarted, join and leave; workers are killed; the way between one replica and Redis, or AWS, is cut, stalled and
delayed; Redis is killed, frozen and out of memory; brokers are killed; LocalStack is frozen; the disk is full. Then all
is mended, and what was sent has to be over within some time; the replicas drain, and ledger and stored failures are
held against the promises (`bench.chaos_judge`).

Everything raw stays in the output folder: ledger, events with their times, what was sent, failures, logs, verdict. With
`--docs` the summary goes to docs/chaos.json, and the page that shows it is made anew. Exit status 1 on any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiokafka.admin import AIOKafkaAdminClient

from bench import chaos_report, chaos_servers
from bench.chaos_commits import Commits
from bench.chaos_faults import Scene
from bench.chaos_fleet import FLEET, Replica, write_file
from bench.chaos_function import rows
from bench.chaos_judge import Delivery, Place, Promise, Verdict, judge, read
from bench.chaos_proxy import Link, Proxies
from bench.chaos_redis import Redis
from bench.chaos_schedule import GUEST, REPLICAS, Event, schedule
from bench.chaos_servers import LocalStack
from bench.chaos_sources import AWS_NAMES, NAMES, RETRIES, Source, open_sources
from bench.figures import environment
from bench.ledger import Stalls
from connectors.redis.reader import RedisReader
from connectors.settings import RedisSettings
from router.failures.shown import to_json_whole
from router.ports import Selection

OUT: Final = Path(__file__).parent / "out"
#: Interval of commits, and what one, a deletion or an answer may take on a busy machine, beyond what it stood still.
COMMIT_LATE_S: Final = 1.0 + 1.5
#: Of these it can be seen how far they are committed.
COMMITTED: Final = frozenset({"kafka", "kinesis", "dynamodb"})
#: Longest time until everything is over, after the last trouble.
SETTLE_S: Final = 180.0


@dataclass(slots=True)
class Course:
    """One run."""

    folder: Path
    events: Sequence[Event]
    names: Sequence[str]
    lease_s: float
    rate: float
    rng: random.Random
    scene: Scene = field(init=False)
    sources: Sequence[Source] = ()
    trouble_s: float = 0.0
    #: From the last trouble until all was over; None = it was not.
    settled_s: float | None = None
    failures: list[dict[str, Any]] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)
    #: What was seen to be committed, by source and shard: times and positions.
    commits: Mapping[str, Mapping[str, Sequence[tuple[int, int]]]] = field(default_factory=dict)
    has_disks: bool = False

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.txt"

    async def run(self) -> dict[str, Any]:
        self.folder.mkdir(parents=True)
        self.ledger.touch()
        async with AsyncExitStack() as opened:
            await self._set_up(opened)
            is_over = asyncio.Event()
            looking = asyncio.create_task(self._look_at_commits(opened))
            watching = asyncio.create_task(self.stalls.watch())
            async with asyncio.TaskGroup() as flows:
                for source in self.sources:
                    flows.create_task(source.flow(random.Random(self.rng.random()), self.rate, is_over))
                await self._suffer()
                is_over.set()
            watching.cancel()
            self.settled_s = await self._settled()
            self.failures = await self._failures()
            assert not looking.done(), looking.exception()
            looking.cancel()
            await asyncio.gather(*(self.scene.replicas[name].terminate() for name in REPLICAS))
        verdicts = self._judge()
        return self._keep(verdicts)

    # --- before

    async def _set_up(self, opened: AsyncExitStack) -> None:
        needed = ["toxiproxy"]
        if "kafka" in self.names:
            needed.append("kafka-cluster")
        if set(self.names) & set(AWS_NAMES):
            needed.append("localstack")
        where = await asyncio.to_thread(chaos_servers.start, needed)
        endpoint_url = where.get("HEADRACE_TEST_AWS", "")
        self.sources = await opened.enter_async_context(
            open_sources(self.names, where.get("HEADRACE_TEST_KAFKA_CLUSTER", ""), endpoint_url)
        )
        redis = await opened.enter_async_context(Redis(self.folder / "redis"))
        proxies = await opened.enter_async_context(Proxies(where["HEADRACE_TEST_TOXIPROXY"]))
        file = write_file(self.folder, self.sources, self.lease_s)
        replicas: dict[str, Replica] = {}
        redis_links: dict[str, Link] = {}
        aws_links: dict[str, Link] = {}
        for name in (*REPLICAS, GUEST):
            redis_links[name] = await proxies.link(f"chaos-{redis.address}-redis-{name}", redis.address)
            aws = urlsplit(endpoint_url or "http://127.0.0.1:1").netloc
            aws_links[name] = await proxies.link(f"chaos-{redis.address}-aws-{name}", aws)
            replicas[name] = Replica(
                name, file, f"redis://{redis_links[name].address}/0", f"http://{aws_links[name].address}"
            )
            self.has_disks = replicas[name].mount()
            opened.callback(replicas[name].unmount)
            opened.push_async_callback(_kill, replicas[name])
        localstack = LocalStack() if endpoint_url else None
        if localstack:
            opened.callback(localstack.thaw)
        by_name = {source.name: source for source in self.sources}
        self.scene = Scene(replicas, redis, redis_links, aws_links, localstack, by_name)
        for name in REPLICAS:
            await replicas[name].start()
        await asyncio.gather(*(replicas[name].ready() for name in REPLICAS))

    # --- in trouble

    async def _suffer(self) -> None:
        """Let everything go wrong at its time; what hits the same part waits for what hit it before."""
        parts: dict[str, asyncio.Lock] = {}
        began_s = time.monotonic()

        async def one(event: Event, lock: asyncio.Lock) -> None:
            async with lock:
                await self.scene.suffer(event)

        async with asyncio.TaskGroup() as tasks:
            for event in self.events:
                await asyncio.sleep(max(0.0, began_s + event.at_s - time.monotonic()))
                if event.number % 10 == 1:
                    print(f"{time.monotonic() - began_s:6.0f} s: event {event.number}", file=sys.stderr, flush=True)
                tasks.create_task(one(event, parts.setdefault(event.part, asyncio.Lock())))
        self.trouble_s = time.monotonic() - began_s
        for replica in self.scene.replicas.values():
            if replica.is_up == (replica.name == GUEST):
                await (replica.terminate() if replica.is_up else replica.start())

    # --- afterwards

    async def _settled(self) -> float | None:
        """Wait until every good record has succeeded and every poison record is stored; gives how long that took."""
        began_s = time.monotonic()
        good = {place for source in self.sources for place, is_bad in source.produced.items() if not is_bad}
        poison = {place for source in self.sources for place, is_bad in source.produced.items() if is_bad}
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._missing(good):  # noqa: ASYNC110 - other processes have no event for it
                    await asyncio.sleep(1)
                async with self._store() as store:
                    while await store.count(Selection()) < len(poison):  # noqa: ASYNC110 - as above
                        await asyncio.sleep(1)
                return time.monotonic() - began_s
        return None

    def _missing(self, good: set[Place]) -> set[Place]:
        with self.ledger.open() as lines:
            return good.difference(*(delivery.ok for delivery in read(lines)))

    async def _look_at_commits(self, opened: AsyncExitStack) -> None:
        where = next((source.mapping["source"]["kafka"] for source in self.sources if source.name == "kafka"), None)
        admin = None
        if where:
            admin = AIOKafkaAdminClient(bootstrap_servers=where["bootstrap_servers"])
            await admin.start()
            opened.push_async_callback(admin.close)
        names = [name for name in self.names if name in COMMITTED]
        async with self._store() as store:
            commits = Commits(store, admin, where["consumer_group"] if where else "", names)
            self.commits = commits.seen
            await commits.run()

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[RedisReader]:
        host, _, port = self.scene.redis.address.rpartition(":")
        store = await RedisReader.open_read_only(RedisSettings(tls=False, host=host, port=int(port), database=0), FLEET)
        try:
            yield store
        finally:
            await store.close()

    async def _failures(self) -> list[dict[str, Any]]:
        """Give what is stored, with its records, as `headrace failures show` does."""
        async with self._store() as store:
            entries = await store.failures(Selection())
            return [to_json_whole(entry, await store.event(entry.batch.id)) for entry in entries]

    def _judge(self) -> dict[str, Verdict]:
        ahead_ns = time.time_ns() - time.monotonic_ns()
        # What was stored, and was tried and stored once more as its commit was lost, bears the time of the last try.
        since: dict[str, datetime] = {}
        for failure_id, said_at in (each for replica in self.scene.replicas.values() for each in replica.given_up()):
            since[failure_id] = min(said_at, since.get(failure_id, said_at))
        given_up: dict[Place, int] = {}
        for failure in self.failures:
            failed_at = datetime.fromisoformat(failure["failed_at"])
            at_ns = int(min(failed_at, since.get(failure["id"], failed_at)).timestamp() * 1e9) - ahead_ns
            for row in rows(failure.get("event") or {"records": {}}):
                given_up[Place(row.source, row.key, row.number)] = at_ns
        with self.ledger.open() as lines:
            deliveries = read(lines)
        troubles = sorted((trouble for _, trouble in self.scene.troubles), key=lambda trouble: trouble.from_ns)
        promise = Promise(RETRIES + 1, COMMIT_LATE_S + self.stalls.longest_s)
        return {
            source.name: judge(
                source.name,
                source.produced,
                _of(source.name, deliveries),
                {place: at_ns for place, at_ns in given_up.items() if place.source == source.name},
                troubles,
                promise,
                self.commits.get(source.name),
            )
            for source in self.sources
        }

    def _keep(self, verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
        """Leave everything raw beside the configuration and the logs; gives the summary."""
        scene = self.scene
        counts = Counter(event.kind for event, _ in scene.troubles)
        oddities = [oddity for replica in scene.replicas.values() for oddity in replica.oddities]
        drains = {name: replica.drains for name, replica in scene.replicas.items()}
        violations = [*oddities]
        if self.settled_s is None:
            violations.append(f"not everything was over {SETTLE_S:.0f} s after the last trouble")
        if any(drains[name][-1] for name in REPLICAS):
            violations.append(f"the last drain did not end with status 0: {drains}")
        summary = {
            "environment": environment(),
            "asked_events": len(self.events),
            "lease_s": self.lease_s,
            "rate": self.rate,
            "trouble_s": self.trouble_s,
            "events": dict(counts.most_common()),
            "skipped": len(scene.skipped),
            "disk": "tmpfs" if self.has_disks else "not filled: mounting needs root",
            "settled_s": self.settled_s,
            "drains": drains,
            "sources": {name: asdict(verdict) for name, verdict in verdicts.items()},
            "violations": violations,
        }
        for name, content in (
            ("events.json", [{**asdict(event), **asdict(trouble)} for event, trouble in scene.troubles]),
            ("skipped.json", [asdict(event) for event in scene.skipped]),
            ("produced.json", [[*place, bad] for source in self.sources for place, bad in source.produced.items()]),
            ("failures.json", self.failures),
            ("commits.json", self.commits),
            ("summary.json", summary),
        ):
            (self.folder / name).write_text(json.dumps(content, indent=1))
        with gzip.open(f"{self.ledger}.gz", "wb") as packed:
            packed.write(self.ledger.read_bytes())
        self.ledger.unlink()
        return summary


async def _kill(replica: Replica) -> None:
    if replica.is_up:
        await replica.kill()


def _of(source: str, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
    return [delivery for delivery in deliveries if delivery.source == source]


def violations(summary: Mapping[str, Any]) -> list[str]:
    """Give all violations of a run."""
    own = [f"{name}: {each}" for name, verdict in summary["sources"].items() for each in verdict["violations"]]
    return [*summary["violations"], *own]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=340)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sources", nargs="+", default=NAMES, choices=NAMES, metavar="NAME")
    parser.add_argument("--rate", type=float, default=12.0, help="records a second of each source")
    parser.add_argument("--lease", type=float, default=6.0, help="seconds")
    parser.add_argument("--out", help="folder that does not exist yet (bench/out/chaos-SEED)")
    parser.add_argument("--docs", action="store_true", help="show the run in docs/reliability.md")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers go away is what is wanted
    events = schedule(arguments.seed, arguments.events, lease_s=arguments.lease, sources=arguments.sources)
    folder = Path(arguments.out or OUT / f"chaos-{arguments.seed}").absolute()
    rng = random.Random(arguments.seed)
    course = Course(folder, events, arguments.sources, arguments.lease, arguments.rate, rng)
    summary = {"seed": arguments.seed, **asyncio.run(course.run())}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary) if arguments.json else chaos_report.tables(summary))
    found = violations(summary)
    for each in found[:100]:
        print(each, file=sys.stderr)
    if arguments.docs:
        chaos_report.publish(summary)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
