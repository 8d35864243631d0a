"""What a record costs three replicas, and what it costs one: `python -m bench.replicas --help`.

A fleet of one and a fleet of three take turns at the same topic, from its start, with a function that does nothing; the
state is in Redis. All processor time of daemons and workers counts, from when every replica has begun to work. What
three processes cost each other on the same cores is measured too: three daemons that have nothing to do with each other
read a third each.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

from bench import topics
from bench.daemon import Headrace, Sample, kafka
from bench.figures import keep, ratios, spread, table

PARTITIONS = 12
LOOK_S = 0.25
ONE, APART, THREE = "one replica", "three daemons apart", "three replicas"
#: Shares of the records between which it counts: the group has come to rest, and nobody has run dry.
FIRST, LAST = 0.1, 0.95


@dataclass(frozen=True, slots=True)
class Run:
    """One fleet reading the topic once."""

    records: int
    seconds: float
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.records * 1e6


def fleet_of(servers: str, topic: str, state: str, replicas: int) -> list[Headrace]:
    fleet = f"headrace-bench-{uuid.uuid4().hex[:12]}"
    return [
        Headrace(
            {"bench": kafka(servers, topic, fleet)},
            environment={"HEADRACE_REPLICA": f"replica-{number}"},
            more={"state": state, "fleet": fleet, "local": "./local"},
        )
        for number in range(replicas)
    ]


async def run(daemons: Sequence[Headrace], records: int) -> Run:
    async with AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(daemon) for daemon in daemons))
        looks = [await _look(daemons)]
        while sum(sample.invoked for sample in looks[-1]) < records * LAST:
            await asyncio.sleep(LOOK_S)
            looks.append(await _look(daemons))
    inside = [look for look in looks if all(each.invoked for each in look) and _invoked(look) > records * FIRST]
    first, last = inside[0], inside[-1]
    return Run(_invoked(last) - _invoked(first), last[0].at_s - first[0].at_s, _cpu_s(last) - _cpu_s(first))


async def _look(daemons: Sequence[Headrace]) -> Sequence[Sample]:
    return await asyncio.gather(*(daemon.sample() for daemon in daemons))


def _invoked(look: Sequence[Sample]) -> int:
    return sum(each.invoked for each in look)


def _cpu_s(look: Sequence[Sample]) -> float:
    return sum(each.daemon_cpu_s + each.workers_cpu_s for each in look)


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, options.records, options.size, PARTITIONS)
    third = await topics.filled(servers, options.records // 3, options.size, PARTITIONS // 3)
    runs: dict[str, list[Run]] = {ONE: [], APART: [], THREE: []}
    for repeat in range(options.repeats):
        for name in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            if name == APART:
                daemons = [Headrace({"bench": kafka(servers, third)}) for _ in range(3)]
            else:
                daemons = fleet_of(servers, topic, options.state, 1 if name == ONE else 3)
            one = await run(daemons, options.records)
            runs[name].append(one)
            shown = f"{one.cpu_us:.2f} us CPU a record, {one.records / one.seconds:,.0f} records/s"
            print(f"{repeat + 1}/{options.repeats} {name}: {shown}", file=sys.stderr, flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--state", default="redis://127.0.0.1:26379/0", metavar="redis://...")
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--size", type=int, default=200, help="bytes of a value")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    path = keep(
        "replicas", {"options": vars(options), "runs": {n: [asdict(r) for r in mine] for n, mine in runs.items()}}
    )
    rows = []
    for name, mine in runs.items():
        cpu, rate = (
            spread(one.cpu_us for one in mine),
            spread((one.records / one.seconds / 1000 for one in mine), ".0f"),
        )
        bases = ([one.cpu_us for one in runs[base]] for base in (ONE, APART))
        rows.append([name, cpu, rate, *(spread(ratios([one.cpu_us for one in mine], base)) for base in bases)])
    print(table(["", "CPU us/record", "1000 records/s", f"CPU / {ONE}", f"CPU / {APART}"], rows))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
