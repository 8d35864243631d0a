"""Several replicas of one fleet on this machine: one folder, one file, a `headrace run` for each.

    async with FleetRig(tmp_path, redis_url, lease="5s") as fleet:
        fleet.reads("clicks", stream)
        a, b = await fleet.start("a", "b")
        await b.kill()
        await fleet.until_ended(100)
        assert fleet.ledger().wrong() == []

The function writes down when each of its invocations begins and ends, so that what the replicas have done together can
be judged: `Ledger`.
"""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.live.daemon import PATIENCE_S, Daemon, whole_lines
from tests.live.queue_rig import REGION
from tests.live.stream_rig import Stream, Table

#: Notes the beginning and the end of each invocation; the file `slow` beside the notes says how long one takes.
NOTING = """
import base64, json, os, pathlib, time

HERE = pathlib.Path(os.environ["NOTES"])


def rows(event):
    for record in event["Records"]:
        if "kinesis" in record:
            shard = record["eventID"].partition(":")[0]
            yield shard, record["kinesis"]["partitionKey"], base64.b64decode(record["kinesis"]["data"]).decode()
        else:
            image = record["dynamodb"]["NewImage"]
            yield "", image["key"]["S"], image["id"]["S"]


def note(*what):
    handle = os.open(HERE / "ledger", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, (json.dumps(what) + "\\n").encode())
    os.close(handle)


def handle(event, context):
    run = f"{os.getpid()}.{time.monotonic_ns()}"
    note("begin", run, time.monotonic(), list(rows(event)))
    slow = HERE / "slow"
    if slow.exists():
        time.sleep(float(slow.read_text()))
    note("end", run, time.monotonic())
"""


class Row(NamedTuple):
    shard: str
    key: str
    data: str


class Run(NamedTuple):
    """One invocation, on the monotonic clock of the machine; `end_s` is infinite where it did not end."""

    begin_s: float
    end_s: float
    pid: int
    rows: Sequence[Row]


class Ledger:
    """What the function has seen, in all replicas."""

    def __init__(self, file: Path) -> None:
        begun: dict[str, tuple[float, Sequence[Row]]] = {}
        ended: dict[str, float] = {}
        for line in whole_lines(file):
            what, run, at_s, *rows = json.loads(line)
            if what == "begin":
                begun[run] = at_s, [Row(*row) for row in rows[0]]
            else:
                ended[run] = at_s
        found = [
            Run(at_s, ended.get(run, float("inf")), int(run.partition(".")[0]), rows)
            for run, (at_s, rows) in begun.items()
        ]
        self.runs = sorted(found, key=lambda run: run.begin_s)

    @property
    def ended(self) -> set[str]:
        """Contents of the records that were seen to the end."""
        return {row.data for run in self.runs if run.end_s < float("inf") for row in run.rows}

    @property
    def begun(self) -> list[str]:
        """Contents of the records in the order in which they were seen, every time."""
        return [row.data for run in self.runs for row in run.rows]

    def seen_again(self) -> set[str]:
        """Give contents that were seen to the end more than once."""
        seen = [row.data for run in self.runs if run.end_s < float("inf") for row in run.rows]
        return {data for data in seen if seen.count(data) > 1}

    def wrong(self) -> list[str]:
        """Say what must not be: two runs of one key at a time, or keys whose records came first out of order.

        Records of a key are to have contents that sort as they were written. A run that was killed has ended by the
        time at which its process ended, which is not known here: it is held to have ended at once.
        """
        by_key: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            for key in {row.key for row in run.rows}:
                by_key[key].append(run)
        wrong = []
        for key, runs in by_key.items():
            wrong += [
                f"{key}: {after.pid} began {before.end_s - after.begin_s:.3f} s before {before.pid} ended"
                for before, after in pairwise(runs)
                if after.begin_s < before.end_s < float("inf")
            ]
            first = list(dict.fromkeys(row.data for run in runs for row in run.rows if row.key == key))
            wrong += [f"{key}: {after} after {before}" for before, after in pairwise(first) if after < before]
        return wrong


class Replica(Daemon):
    """One daemon of a fleet."""

    def __init__(self, fleet: FleetRig, name: str) -> None:
        super().__init__(fleet.folder, {"HEADRACE_REPLICA": name, **fleet.environment})
        self.name = name
        self.document = fleet.document
        self.state = fleet.folder / ".headrace" / name
        self.file_name = "headrace.yaml"
        self.options = ["--replica", name, "--listen", f"127.0.0.1:{self.port}"]

    @property
    def file(self) -> Path:
        return self.folder / self.file_name

    def write(self) -> None:
        """Write the file if it is not there as it is to be: the others look at it, too."""
        text = json.dumps(self.document, indent=1) if self.text is None else self.text
        if not self.file.exists() or self.file.read_text() != text:
            self.file.write_text(text)

    def pause(self) -> None:
        """Stop its process, and only that."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    @property
    def shards(self) -> set[str]:
        """The shards that it reads, as its log says."""
        held: set[str] = set()
        for line in self.lines:
            match line.get("event"):
                case "daemon.started":  # the one before may have been killed
                    held.clear()
                case "shard.opened":
                    held.add(line["shard"])
                case "shard.released" | "shard.lost" | "shard.finished" | "shard.abandoned":
                    held.discard(line["shard"])
        return held


class FleetRig:
    """The folder, the file, and the replicas that were started."""

    def __init__(
        self,
        folder: Path,
        redis_url: str,
        *,
        lease: str = "5s",
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.name = name or f"test-{uuid.uuid4().hex[:12]}"
        self.environment = environment or {}
        self.document: dict[str, Any] = {
            "state": redis_url,
            "fleet": self.name,
            "lease": lease,
            "functions": {},
            "event_source_mappings": {},
        }
        #: By name, also those that have ended.
        self.replicas: dict[str, Replica] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for replica in self.replicas.values():
            await replica.__aexit__(kind, error, trace)

    # --- what they run

    def function(self, name: str, source: str = NOTING, **parameters: Any) -> None:
        """Write a function; without a source it is the one that notes what it sees."""
        scratch = Replica(self, "unused")
        scratch.function(name, source, environment={"NOTES": str(self.notes)}, **parameters)

    def reads(self, name: str, stream: Stream | Table, *, slow_s: float | None = None, **mapping: Any) -> None:
        """Add a mapping of a stream, with a function of its name; an invocation takes `slow_s`."""
        self.function(name, reserved_concurrency=8, timeout="30s")
        self.slow(slow_s)
        kind = (
            {"kinesis": {"stream": stream.name}} if isinstance(stream, Stream) else {"dynamodb": {"table": stream.name}}
        )
        self.document["aws"] = {"endpoint_url": stream.streams.endpoint_url, "region": REGION}
        self.document["event_source_mappings"][name] = {
            "function": name,
            "source": kind,
            "starting_position": "TRIM_HORIZON",
            "batch_size": 10,
            **mapping,
        }

    def slow(self, seconds: float | None) -> None:
        """Let each invocation from now on take so long."""
        file = self.notes / "slow"
        file.unlink(missing_ok=True)
        if seconds is not None:
            file.write_text(str(seconds))

    # --- the replicas

    async def start(self, *names: str, ready: bool = True) -> list[Replica]:
        """Start replicas of these names together, the same ones again if they have ended."""
        started = []
        for name in names:
            if name not in self.replicas:
                self.replicas[name] = Replica(self, name)
            started.append(self.replicas[name])
        await asyncio.gather(*(each.start(ready=ready) for each in started))
        return started

    # --- what they have done

    def ledger(self) -> Ledger:
        return Ledger(self.notes / "ledger")

    async def until_ended(self, count: int) -> None:
        """Wait until so many different records were seen to the end."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.ledger().ended) < count:  # noqa: ASYNC110 - other processes have no event for it
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            tails = "\n".join(f"{each.name}: {line}" for each in self.replicas.values() for line in each.lines[-15:])
            raise AssertionError(
                f"{len(self.ledger().ended)} of {count} records; the ends of the logs:\n{tails}"
            ) from error

    async def until_shared(self, shards: int, *replicas: Replica, fewest: int = 1) -> None:
        """Wait until these replicas have so many shards together, and each of them the fewest at least."""

        def is_shared() -> bool:
            counts = [len(each.shards) for each in replicas]
            return sum(counts) == shards and min(counts) >= fewest

        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_shared():  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            held = {each.name: sorted(each.shards) for each in replicas}
            tails = "\n".join(f"{each.name}: {line}" for each in replicas for line in each.lines[-15:])
            raise AssertionError(f"not shared: {held}; the ends of the logs:\n{tails}") from error
