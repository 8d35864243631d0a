"""What a rebalance of a Kafka group costs: how long each partition has nothing with the function. `... --help`.

Three daemons read one topic whose partitions always have records; the function takes 100 ms for each record. Then a
fourth joins, it leaves by SIGTERM, and one of the three is killed; all of it several times. The function writes when it
began and ended which record; a partition's pause is the longest time within the span of an event in which none of its
records was with the function. Partitions that moved to another daemon are told apart from those that stayed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import topics
from bench.daemon import Headrace, kafka
from bench.figures import keep, percentile, table

PARTITIONS = 12
RECORDS = 60_000
#: Looked at before an event and after it; the second holds a session's end.
BEFORE_S = 1.0
SETTLED_S = 6.0

HANDLER = """
import asyncio, os, time

LEDGER = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

async def handler(event, context):
    began = time.monotonic_ns()
    await asyncio.sleep(float(os.environ["TAKES_S"]))
    [(name, _)] = event["records"].items()
    line = f"{name.rpartition('-')[2]} {began} {time.monotonic_ns()} {os.environ['REPLICA']}\\n"
    os.write(LEDGER, line.encode())
"""


@dataclass(frozen=True, slots=True)
class Pause:
    """One partition over one event."""

    event: str
    partition: int
    moved: bool
    seconds: float


@dataclass(slots=True)
class Group:
    """Daemons of one group, and what their function wrote."""

    servers: str
    topic: str
    ledger: Path
    takes_s: float
    session_s: float
    is_static: bool
    command: Sequence[str]
    group: str = ""
    count: int = 0

    def daemon(self, name: str) -> Headrace:
        mapping = kafka(self.servers, self.topic, self.group, batch_size=1, maximum_batching_window_in_seconds=0)
        mapping["source"]["kafka"]["session_timeout"] = f"{self.session_s:g}s"
        if self.is_static:
            mapping["source"]["kafka"]["group_instance_id"] = name
        environment = {"LEDGER": str(self.ledger), "TAKES_S": str(self.takes_s), "REPLICA": name}
        function = {"concurrency_per_worker": PARTITIONS, "environment": environment}
        more = {"command": self.command} if self.command else {}
        return Headrace({"bench": mapping}, code=HANDLER, function=function, **more)

    def pauses(self, event: str, at_ns: int, until_ns: int) -> list[Pause]:
        runs: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
        for line in self.ledger.read_text().splitlines():
            partition, began, ended, replica = line.split()
            if int(ended) > at_ns - BEFORE_S * 1e9 and int(began) < until_ns:
                runs[int(partition)].append((int(began), int(ended), replica))
        pauses = []
        for partition, mine in sorted(runs.items()):
            mine.sort()
            ended, longest = mine[0][1], 0
            for (_, before, _), (began, _, _) in pairwise(mine):
                ended = max(ended, before)
                longest = max(longest, began - ended)
            longest = max(longest, until_ns - max(run[1] for run in mine))
            moved = mine[0][2] != mine[-1][2]
            pauses.append(Pause(event, partition, moved, longest / 1e9))
        return pauses


async def measure(options: argparse.Namespace, folder: Path) -> list[Pause]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, RECORDS, 100, PARTITIONS)
    pauses: list[Pause] = []
    for repeat in range(options.repeats):
        ledger = folder / f"ledger-{repeat}"
        group = Group(servers, topic, ledger, options.takes, options.session, options.static, options.command)
        group.group = f"headrace-bench-{uuid.uuid4().hex[:12]}"
        pauses += await _round(group)
        print(f"{repeat + 1}/{options.repeats} done", file=sys.stderr, flush=True)
    return pauses


async def _round(group: Group) -> list[Pause]:
    pauses = []
    async with AsyncExitStack() as stack:
        daemons = {name: await stack.enter_async_context(group.daemon(name)) for name in "abc"}
        await asyncio.sleep(SETTLED_S)

        async def watch(event: str, span_s: float) -> None:
            await asyncio.sleep(span_s)
            now_ns = time.monotonic_ns()
            pauses.extend(group.pauses(event, now_ns - int(span_s * 1e9), now_ns))

        fourth = group.daemon("d")
        joining = asyncio.create_task(fourth.__aenter__())
        await watch("join", SETTLED_S)
        await joining
        leaving = asyncio.create_task(fourth.__aexit__(None, None, None))
        await watch("leave", SETTLED_S + (group.session_s if group.is_static else 0))
        await leaving
        daemons["c"].kill()
        await watch("kill", SETTLED_S + group.session_s)
    return pauses


def summary(pauses: Sequence[Pause]) -> str:
    head = ["event", "partitions that", "how many", "p50 s", "p99 s", "longest s"]
    rows = []
    for event in ("join", "leave", "kill"):
        for moved in (False, True):
            mine = [each.seconds for each in pauses if (each.event, each.moved) == (event, moved)]
            if mine:
                figures = (percentile(mine, 50), percentile(mine, 99), max(mine))
                words = "moved" if moved else "stayed"
                rows.append([event, words, str(len(mine)), *(f"{figure:.2f}" for figure in figures)])
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--takes", type=float, default=0.1, help="what the function takes, seconds")
    parser.add_argument("--session", type=float, default=10.0, help="session_timeout, seconds")
    parser.add_argument("--static", action="store_true", help="with group_instance_id")
    parser.add_argument("--command", nargs="+", default=(), help="another `headrace` to measure")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        pauses = asyncio.run(measure(options, Path(folder)))
    path = keep("rebalance", {"options": vars(options), "pauses": [asdict(each) for each in pauses]})
    print(summary(pauses))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
