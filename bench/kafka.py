"""How fast records come from Kafka to a no-op handler, and at what CPU: `python -m bench.kafka --help`.

Beside `headrace run` with one isolated worker run plain aiokafka (`getmany` with its defaults: no group, no commit, no
handler) and FastStream's batch subscriber (its handler in its own process, no event made). All of them take turns, so
that what else the machine does hits all alike. Each reads the same topic from its start; start-up is not measured. With
`--state redis://...` each of ours takes a turn with its state there too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import procs, topics
from bench.daemon import Headrace, Sample, kafka
from bench.figures import keep, ratios, spread, table
from bench.peers import environment

CONTENDERS = ("getmany", "headrace-100", "headrace-10", "faststream")

#: Behind the name of one of ours that has its state where `--state` says.
_SHARED = "+redis"

_ROOT = Path(__file__).parents[1]
#: Share of the records that must be done before it counts: start-up is over.
_WARM = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One contender reading the topic once."""

    records: int
    seconds: float
    #: Of the process that reads, and of worker processes.
    cpu_s: float
    workers_cpu_s: float
    peak_rss_mb: float
    #: Share of the machine's cores in use meanwhile, by everybody.
    machine_busy: float

    @property
    def rate(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us(self) -> float:
        """All CPU per record."""
        return (self.cpu_s + self.workers_cpu_s) / self.records * 1e6


async def run_headrace(servers: str, topic: str, records: int, batch_size: int, state: str | None = None) -> Run:
    began = procs.clock()
    group = f"headrace-bench-{uuid.uuid4().hex[:12]}"
    more = {"state": state, "fleet": group, "local": "./local"} if state else {}
    async with Headrace({"bench": kafka(servers, topic, group, batch_size=batch_size)}, more=more) as daemon:
        first, last = _measured(await daemon.follow(records), records)
        peak_rss_mb = procs.usage(daemon.pid).peak_rss_mb
    assert await topics.committed(servers, group) == records, "a drained daemon has committed everything"
    return Run(
        last.invoked - first.invoked,
        last.at_s - first.at_s,
        last.daemon_cpu_s - first.daemon_cpu_s,
        last.workers_cpu_s - first.workers_cpu_s,
        peak_rss_mb,
        procs.busy_share(began, procs.clock()),
    )


def _measured(samples: Sequence[Sample], records: int) -> tuple[Sample, Sample]:
    """Give the looks that mark the measured span: after start-up, and before the last record."""
    inside = [sample for sample in samples if records * _WARM < sample.invoked < records]
    assert len(inside) > 1, "too few records: all were read between two looks"
    return inside[0], inside[-1]


async def run_peer(python: Path, peer: str, *arguments: object) -> Run:
    began = procs.clock()
    process = await asyncio.create_subprocess_exec(
        python, "-m", f"bench.peers.{peer}", *map(str, arguments), cwd=_ROOT, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, f"{peer} failed"
    measured = json.loads(printed)
    busy = procs.busy_share(began, procs.clock())
    return Run(measured["records"], measured["seconds"], measured["cpu_s"], 0.0, measured["peak_rss_mb"], busy)


async def run(contender: str, servers: str, topic: str, options: argparse.Namespace) -> Run:
    records, peer_records = options.records, options.peer_records
    if contender == "getmany":
        return await run_peer(Path(sys.executable), "getmany", servers, topic, records)
    if contender == "faststream":
        return await run_peer(environment.python(), "faststream_batch", servers, topic, min(records, peer_records))
    batch_size = int(contender.removeprefix("headrace-").removesuffix(_SHARED))
    return await run_headrace(servers, topic, records, batch_size, options.state if _SHARED in contender else None)


async def measure(options: argparse.Namespace) -> dict[str, list[Run]]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, options.records, options.size)
    if "faststream" in options.only:
        environment.python()
    runs: dict[str, list[Run]] = {}
    for contender in options.only:
        runs[contender] = []
        if options.state and contender.startswith("headrace-"):
            runs[contender + _SHARED] = []
    for repeat in range(options.repeats):
        # The machine's mood changes slowly: who was first is last in the next turn.
        for contender in list(runs)[:: 1 if repeat % 2 == 0 else -1]:
            one = await run(contender, servers, topic, options)
            runs[contender].append(one)
            print(
                f"{repeat + 1}/{options.repeats} {contender}: {one.rate:,.0f} records/s, "
                f"{one.cpu_us:.2f} us CPU a record, machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return runs


def summary(runs: Mapping[str, Sequence[Run]]) -> str:
    head = ["contender", "CPU us/record", "of it workers", "records/s (1000s)", "peak RSS MB"]
    bases = [name for name in ("getmany", "faststream") if name in runs]
    bases += [name.removesuffix(_SHARED) for name in runs if name.endswith(_SHARED)]
    head += [f"{what} / {name}" for name in bases for what in ("rate", "CPU")]
    rows = []
    for name, mine in runs.items():
        row = [
            name,
            spread(one.cpu_us for one in mine),
            spread(one.workers_cpu_s / one.records * 1e6 for one in mine),
            spread((one.rate / 1000 for one in mine), ".0f"),
            spread((one.peak_rss_mb for one in mine), ".0f"),
        ]
        for base in bases:
            row.append(spread(ratios([one.rate for one in mine], [one.rate for one in runs[base]])))
            row.append(spread(ratios([one.cpu_us for one in mine], [one.cpu_us for one in runs[base]])))
        rows.append(row)
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--peer-records", type=int, default=300_000, help="read at most so many with a slow peer")
    parser.add_argument("--size", type=int, default=200, help="bytes of a value")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", nargs="+", default=CONTENDERS, metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--state", metavar="redis://...", help="have ours run with its state in this Redis too")
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    runs = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": {name: [asdict(one) for one in mine] for name, mine in runs.items()}}
    path = keep(f"kafka-{options.size}", raw)
    print(json.dumps(raw) if options.json else summary(runs))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
