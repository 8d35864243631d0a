"""Kills the daemon, a worker, or the way to the queue with -9 at random moments and proves that nothing was lost.

    python -m bench.queue_ledger --kind KIND [--kills N] [--seed N] [--round N]... [--rate N] [--out DIR] [--json]

Numbered messages of 40 keys flow through a real queue of LocalStack into a function that writes down every message at
the start and at the end of its batch: bodies of a standard queue (KIND sqs), groups of a FIFO queue (fifo), or objects
that are put into a bucket again and again (s3), one byte larger each time. One message in 200 is poison. Rounds differ
in partial responses, visibility heartbeat and what else the kind has; bisect is on, and up to three retries. After the
last kill the queue runs empty and the daemon drains; then ledger and failure store are held against the promises
(`bench.queue_judge`).

LocalStack keeps nothing over a restart, so the endpoint that is killed is not the server but a process of its own in
front of it, through which the daemon makes all its calls (`bench.queue_wire`). It is killed with -9 while calls are
under way, so that some are done although their answer never comes, and started again on its port after 0.1 to 3
seconds; other kills go on meanwhile. Messages are sent past it.

Everything raw stays in the output folder. Exit status 1 on any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.ledger import Stalls, end_of
from bench.ledger_judge import Kill, Place, Produced, read
from bench.queue_judge import Promise, QueueVerdict, judge
from bench.queue_wire import Wire
from connectors.store.reader import SqliteReader
from router.ports import Selection
from tests.live.daemon import Daemon
from tests.live.queue_rig import REGION, Queue, add_mapping, open_queues
from tests.live.s3_rig import CREATED, open_rig

OUT = Path(__file__).parent / "out"
KEYS: Final = 40
RETRIES: Final = 3
TARGETS: Final = ("daemon", "worker", "endpoint")
#: What an answer, a deletion or both may take on a busy machine, beyond what it stood still.
DELETE_LATE_S: Final = 1.5
#: Messages that are sent in one call.
SEND_AT_ONCE: Final = 5
#: Longest time until the queue is empty, after the last kill.
SETTLE_S: Final = 120.0
_SERVICES = Path(__file__).parents[1] / "tests" / "services" / "services"


def is_poison(key: int, number: int) -> bool:
    """Decide it for one message in 200, as the handler does."""
    return (37 * key + number) % 200 == 0


HANDLER = """
import json, os, time
from collections import Counter

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
REPORTS = os.environ["REPORTS"]

def row(record):
    if "s3" in record:
        name = record["s3"]["object"]["key"]
        return name, int(name.rpartition("-")[2]), record["s3"]["object"]["size"]
    body = json.loads(record["body"])
    return record["messageId"], body["key"], body["n"]

def write(request, rows, phases):
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    lines = [
        f"{now} {os.getpid()} {request} key-{key} {n} {key} {n} {phase}\\n"
        for (name, key, n), phase in zip(rows, phases)
    ]
    os.write(LEDGER, "".join(lines).encode())

def handle(event, context):
    rows = [row(record) for record in event["Records"]]
    write(context.aws_request_id, rows, ["S"] * len(rows))
    time.sleep(0.001 * (rows[0][2] % 40))
    bad = [(37 * key + n) % 200 == 0 for name, key, n in rows]
    if REPORTS == "rest" and any(bad):
        first = bad.index(True)
        bad = [place >= first for place in range(len(rows))]
    failed = [name for (name, key, n), each in zip(rows, bad) if each]
    # A name that several records of a batch have cannot be reported.
    if failed and (not REPORTS or max(Counter(name for name, key, n in rows).values()) > 1):
        write(context.aws_request_id, rows, ["bad"] * len(rows))
        raise ValueError("poison")
    write(context.aws_request_id, rows, ["bad" if each else "ok" for each in bad])
    return {"batchItemFailures": [{"itemIdentifier": name} for name in failed]}
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One mapping's settings, and its queue's visibility timeout."""

    #: What the handler does about poison: raises (empty), reports `each`, or the first one and the `rest` behind it.
    reports: str
    visibility_s: int
    heartbeat: bool = False
    #: More keys of the source block and of the mapping.
    source: Mapping[str, Any] = field(default_factory=dict)
    mapping: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        response = f"reports {self.reports}" if self.reports else "raises"
        beats = ["heartbeat"] if self.heartbeat else []
        more = [
            f"{key.removesuffix('_in_seconds')} {value}" for key, value in (*self.source.items(), *self.mapping.items())
        ]
        return ", ".join([response, f"{self.visibility_s} s", *beats, *more])

    @property
    def holds(self) -> bool:
        return "hold_message_group" in self.source

    @property
    def by_sequencer(self) -> bool:
        return "order" in self.source


WINDOW: Final = {"batch_size": 20, "maximum_batching_window_in_seconds": 1}
ROUNDS: Final[Mapping[str, Sequence[Round]]] = {
    "sqs": (
        Round("", 6),
        Round("each", 5, heartbeat=True),
        Round("each", 8),
        Round("", 8, heartbeat=True, mapping=WINDOW),
    ),
    "fifo": (
        Round("", 6),
        Round("rest", 5, heartbeat=True),
        Round("each", 8, source={"hold_message_group": True}),
        Round("", 5, heartbeat=True),
    ),
    "s3": (
        Round("", 6),
        Round("each", 5, heartbeat=True),
        Round("each", 8, source={"order": "sequencer"}),
        Round("", 5, heartbeat=True, source={"order": "sequencer"}),
    ),
}


#: Sends the next numbers of a key.
Send = Callable[[int, Sequence[int]], Awaitable[None]]


@dataclass(slots=True)
class Course:
    """What happens in one round."""

    endpoint_url: str
    kind: str
    folder: Path
    settings: Round
    rng: random.Random
    rate: int
    daemon: Daemon = field(init=False)
    wire: Wire = field(init=False)
    produced: dict[Place, Produced] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)
    _outage: asyncio.Task[None] | None = None
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.txt"

    async def run(self, kills: int) -> QueueVerdict:
        self.folder.mkdir(parents=True)
        targets = [TARGETS[number % len(TARGETS)] for number in range(kills)]
        self.rng.shuffle(targets)
        async with AsyncExitStack() as opened:
            queues = await opened.enter_async_context(open_queues(self.endpoint_url))
            queue = await queues.make(fifo=self.kind == "fifo", VisibilityTimeout=str(self.settings.visibility_s))
            self.wire = await opened.enter_async_context(Wire(self.endpoint_url))
            self.daemon = await opened.enter_async_context(Daemon(self.folder))
            source = queue.source(self.wire.url, **self.settings.source)
            send = self._sender(queue)
            if self.kind == "s3":
                source, send = await self._bucket(opened, queue)
            self._configure(source)
            await self.daemon.start()
            flow = asyncio.create_task(self._send(send))
            watch = asyncio.create_task(self.stalls.watch())
            for target in targets:
                await self._kill(target)
            watch.cancel()
            self._is_over.set()
            await flow
            if self._outage:
                await self._outage
            await self._settled(queue)
            status = await self.daemon.terminate()
        verdict = await self._judge()
        if status:
            verdict.violations.append(f"the drain ended with status {status}")
        self._keep(verdict)
        return verdict

    def _configure(self, source: Mapping[str, Any]) -> None:
        settings = self.settings
        environment = {"LEDGER": str(self.ledger), "REPORTS": settings.reports}
        self.daemon.function("ledger", HANDLER, environment=environment, reserved_concurrency=4, logs="off")
        mapping = {
            "batch_size": 10,
            "maximum_retry_attempts": RETRIES,
            "bisect_batch_on_function_error": True,
            "function_response_types": ["ReportBatchItemFailures"] if settings.reports else [],
            **settings.mapping,
        }
        [(name, block)] = source.items()
        add_mapping(
            self.daemon, "ledger", {name: {**block, "visibility_heartbeat": settings.heartbeat}}, "ledger", **mapping
        )

    # --- sending

    def _sender(self, queue: Queue) -> Send:
        async def send(key: int, numbers: Sequence[int]) -> None:
            entries = [
                {"Id": str(number), "MessageBody": json.dumps({"key": key, "n": number})}
                | ({"MessageGroupId": f"key-{key}"} if self.kind == "fifo" else {})
                for number in numbers
            ]
            answer = await queue.queues.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
            assert not answer.get("Failed"), answer

        return send

    async def _bucket(self, opened: AsyncExitStack, queue: Queue) -> tuple[dict[str, Any], Send]:
        rig = await opened.enter_async_context(open_rig(self.endpoint_url))
        bucket = await rig.bucket()
        rule = {"Id": "all", "QueueArn": await queue.arn(), "Events": [CREATED]}
        await rig.notify(bucket, QueueConfigurations=[rule])

        async def send(key: int, numbers: Sequence[int]) -> None:
            for number in numbers:
                await rig.s3.put_object(Bucket=bucket, Key=f"key-{key}", Body=b"x" * number)

        [carrier] = queue.source(self.wire.url, **self.settings.source).values()
        return {"s3": {**carrier, "bucket": bucket, "events": [CREATED]}}, send

    async def _send(self, send: Send) -> None:
        """Send numbered messages at a steady rate until all is over; a key's number only grows by one."""
        numbers: Counter[int] = Counter()
        rng = random.Random(self.rng.random())
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while not self._is_over.is_set():
            key = rng.randrange(KEYS)
            count = rng.randint(1, SEND_AT_ONCE)
            new = range(numbers[key] + 1, numbers[key] + count + 1)
            await send(key, new)
            numbers[key] += count
            for number in new:
                self.produced[Place(key, number)] = Produced(f"key-{key}", number, is_poison(key, number))
            next_s = max(next_s + count / self.rate, loop.time() - 1)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), max(0.0, next_s - loop.time()))

    # --- killing

    async def _kill(self, target: str) -> None:
        """Let some time pass, then kill the daemon, one of its workers, or the endpoint; then start it again."""
        if target == "worker":
            await self.daemon.until(self.daemon.workers, "there are workers")
        if target == "endpoint" and self._outage:
            await self._outage
        await asyncio.sleep(self.rng.uniform(0.0, 1.5 if target == "worker" else 3.0))
        if target == "endpoint":
            self._outage = asyncio.create_task(self._be_away(self.rng.uniform(0.1, 3.0)))
            return
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

    async def _be_away(self, seconds: float) -> None:
        time_ns = time.monotonic_ns()
        await self.wire.kill()
        await asyncio.sleep(seconds)
        await self.wire.start()
        self.kills.append(Kill(time_ns, time.monotonic_ns(), "endpoint", ()))

    # --- the end

    async def _settled(self, queue: Queue) -> None:
        """Wait until the queue has nothing more, and everything that was sent has come."""
        empty = 0
        with suppress(TimeoutError):  # then the ledger shows what is missing
            async with asyncio.timeout(SETTLE_S):
                while empty < 2 or len(self._seen()) < len(self.produced):
                    await asyncio.sleep(0.5)
                    empty = empty + 1 if await queue.counts() == (0, 0) else 0

    def _seen(self) -> set[tuple[str, str]]:
        with self.ledger.open() as lines:
            return {(words[5], words[6]) for line in lines if len(words := line.split()) == 8}

    async def _judge(self) -> QueueVerdict:
        self.kills.sort(key=lambda kill: kill.time_ns)
        with self.ledger.open() as lines:
            deliveries = read(lines, self.kills)
        settings = self.settings
        promise = Promise(
            attempts_limit=RETRIES + 1,
            delete_late_s=DELETE_LATE_S + self.stalls.longest_s,
            ordered=self.kind == "fifo",
            by_key=self.kind == "fifo" or settings.by_sequencer,
            holds=settings.holds,
        )
        return judge(self.produced, deliveries, await self._given_up(), self.kills, promise)

    async def _given_up(self) -> dict[Place, int]:
        """Read what is stored as failed, and when that was decided, from the store that the daemon has left."""
        ahead_ns = time.time_ns() - time.monotonic_ns()
        given_up: dict[Place, int] = {}
        store = await SqliteReader.open_read_only(self.daemon.state)
        try:
            for entry in await store.failures(Selection(mapping="ledger")):
                event = await store.event(entry.batch.id)
                assert event is not None
                for record in json.loads(event)["Records"]:
                    given_up[_place(record)] = int(entry.batch.failed_at_s * 1e9) - ahead_ns
        finally:
            await store.close()
        return given_up

    def _keep(self, verdict: QueueVerdict) -> None:
        """Leave everything raw beside the configuration and the state."""
        for name, content in (
            ("kills.json", [asdict(kill) for kill in self.kills]),
            ("produced.json", [[*place, *message] for place, message in sorted(self.produced.items())]),
            ("log.json", self.daemon.lines),
            ("summary.json", asdict(verdict)),
        ):
            (self.folder / name).write_text(json.dumps(content))
        with gzip.open(f"{self.ledger}.gz", "wb") as packed:
            packed.write(self.ledger.read_bytes())
        self.ledger.unlink()


def _place(record: Mapping[str, Any]) -> Place:
    if "s3" in record:
        thing = record["s3"]["object"]
        return Place(int(thing["key"].rpartition("-")[2]), thing["size"])
    body = json.loads(record["body"])
    return Place(body["key"], body["n"])


def endpoint() -> str:
    """Give the URL of a LocalStack, and set its keys: HEADRACE_TEST_AWS, else one that the project's script starts."""
    if "HEADRACE_TEST_AWS" not in os.environ:
        subprocess.run([sys.executable, _SERVICES, "start", "localstack"], check=True, stdout=sys.stderr)
        shown = subprocess.run(
            [sys.executable, _SERVICES, "env", "localstack"], check=True, capture_output=True, text=True
        )
        os.environ |= dict(shlex.split(line)[1].split("=", 1) for line in shown.stdout.splitlines())
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", REGION),
    ):
        os.environ.setdefault(name, value)
    return os.environ["HEADRACE_TEST_AWS"]


async def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    endpoint_url = endpoint()
    rng = random.Random(arguments.seed)
    out = Path(arguments.out or OUT / f"queue-ledger-{arguments.kind}-{arguments.seed}")
    rounds = [ROUNDS[arguments.kind][number - 1] for number in arguments.round or range(1, 5)]
    results = []
    for number, settings in enumerate(rounds):
        kills = arguments.kills // len(rounds) + (number < arguments.kills % len(rounds))
        course = Course(endpoint_url, arguments.kind, out / f"round-{number + 1}", settings, rng, arguments.rate)
        verdict = await course.run(kills)
        targets = Counter(kill.target for kill in course.kills)
        counts = {f"{target}_kills": targets[target] for target in TARGETS}
        results.append({"round": f"{arguments.kind}: {settings.name}", **counts, **asdict(verdict)})
    (out / "summary.json").write_text(json.dumps({"seed": arguments.seed, "rounds": results}, indent=1))
    return results


COLUMNS: Final = (
    *(f"{target}_kills" for target in TARGETS),
    "produced",
    "delivered",
    "cut_off",
    "finished",
    "failed",
    "repeated_by_daemon",
    "repeated_by_worker",
    "repeated_by_endpoint",
    "oldest_repeat_s",
    "poison",
    "most_attempts",
    "most_extra_attempts",
)


def show(results: Sequence[Mapping[str, Any]]) -> None:
    width = max(len(column) for column in COLUMNS)
    for number, result in enumerate(results):
        print(f"{number + 1}: {result['round']}")
    print(" " * width, *(f"{number + 1:>10}" for number in range(len(results))))
    for column in COLUMNS:
        print(f"{column:{width}}", *(f"{round(result[column], 3):>10}" for result in results))
    print(f"{'violations':{width}}", *(f"{len(result['violations']):>10}" for result in results))
    for result in results:
        for violation in result["violations"][:50]:
            print(f"{result['round']}: {violation}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", default="sqs", choices=tuple(ROUNDS))
    parser.add_argument(
        "--kills", type=int, default=150, help="in all; a third of them each of daemon, worker, endpoint"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--round", type=int, action="append", choices=range(1, 5), help="1 to 4; all if not given")
    parser.add_argument("--rate", type=int, default=60, help="messages a second")
    parser.add_argument("--out", help="folder that does not exist yet (bench/out/queue-ledger-KIND-SEED)")
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
