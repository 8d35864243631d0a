"""How much of the ideal order for each key leaves, with a slow handler on Kafka: `python -m bench.keyed --help`.

1,000 keys, and an `async def` handler that waits 5 ms for each record, one after the other: with 256 invocations in
flight that is 51,200 records a second at best, whatever the batch size. headrace gets there by partitions and
parallelization factor, 64 x 10 lanes here, enough that 256 of them always have something; two workers run 128
invocations each. Beside it runs the same in one process with plain aiokafka and the order kept by key
(`bench.peers.keyed_loop`), for the machine may not allow the ideal. Both read the same topic and are watched for some
seconds before its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import procs, topics
from bench.daemon import Headrace, kafka
from bench.figures import keep, ratios, spread, table

CONTENDERS = ("loop", "headrace-1", "headrace-10")
IN_FLIGHT = 256
WORK_S = 0.005
IDEAL = IN_FLIGHT / WORK_S
WORKERS = 2
PARTITIONS = 64
FACTOR = 10
SIZE_BYTES = 100

_ROOT = Path(__file__).parents[1]
_WARM_S = 3.0

HANDLER = f"""
import asyncio

async def handler(event, context):
    for records in event["records"].values():
        for _ in records:
            await asyncio.sleep({WORK_S})
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One contender for some seconds."""

    records: int
    seconds: float
    #: Of the process that reads, and of worker processes.
    cpu_s: float
    workers_cpu_s: float
    #: Share of the machine's cores in use meanwhile, by everybody.
    machine_busy: float

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """All CPU per record."""
        return (self.cpu_s + self.workers_cpu_s) / self.records * 1e6


async def run_loop(servers: str, topic: str, seconds: float) -> Run:
    arguments = map(str, (servers, topic, IN_FLIGHT, WORK_S, _WARM_S, seconds))
    began = procs.clock()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.peers.keyed_loop", *arguments), cwd=_ROOT, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, "the loop failed"
    busy = procs.busy_share(began, procs.clock())
    return Run(**json.loads(printed), workers_cpu_s=0.0, machine_busy=busy)


async def run_headrace(servers: str, topic: str, total: int, batch_size: int, seconds: float) -> Run:
    mapping = kafka(servers, topic, batch_size=batch_size, parallelization_factor=FACTOR)
    mapping["maximum_batching_window_in_seconds"] = 0
    workers = {"reserved_concurrency": WORKERS, "concurrency_per_worker": IN_FLIGHT // WORKERS}
    async with Headrace({"bench": mapping}, HANDLER, workers) as daemon:
        await daemon.follow(1)
        await asyncio.sleep(_WARM_S)
        first, began = await daemon.sample(), procs.clock()
        await asyncio.sleep(seconds)
        last, busy = await daemon.sample(), procs.busy_share(began, procs.clock())
    assert last.invoked < total, "there is more to do"
    return Run(
        last.invoked - first.invoked,
        last.at_s - first.at_s,
        last.daemon_cpu_s - first.daemon_cpu_s,
        last.workers_cpu_s - first.workers_cpu_s,
        busy,
    )


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, options.records, SIZE_BYTES, options.partitions)
    runs: dict[str, list[Run]] = {name: [] for name in options.only}
    for repeat in range(options.repeats):
        for name in options.only:
            if name == "loop":
                one = await run_loop(servers, topic, options.seconds)
            else:
                batch_size = int(name.removeprefix("headrace-"))
                one = await run_headrace(servers, topic, options.records, batch_size, options.seconds)
            runs[name].append(one)
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.rate:,.0f} records a second, {one.rate / IDEAL:.0%} of "
                f"the ideal, {one.cpu_us:.1f} us CPU a record, machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> str:
    rows = [
        [
            name,
            spread((one.rate for one in mine), ",.0f"),
            spread(one.rate / IDEAL for one in mine),
            spread((one.cpu_us for one in mine), ".1f"),
            spread((one.workers_cpu_s / one.records * 1e6 for one in mine), ".1f"),
            spread(ratios([one.rate for one in mine], [one.rate for one in runs["loop"]])) if "loop" in runs else "",
        ]
        for name, mine in runs.items()
    ]
    return table(["contender", "records/s", "of the ideal", "CPU us/record", "of it workers", "rate / loop"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--records", type=int, default=500_000, help="in the topic")
    parser.add_argument("--partitions", type=int, default=PARTITIONS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()}}
    path = keep("keyed", raw)
    print(json.dumps(raw) if options.json else summary(runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
