"""The first result of one more worker, and what it holds: started anew, and forked (`snap_start`).

All workers that are there hold an invocation each, then one more comes: the time from handing it to the pool until its
result is there is that of a further worker. That one is given the next invocation to hold, and so on. Both ways take
turns within each repeat, with the same handlers: one that imports nothing, and one that imports boto3 and makes a
client and a table at import, as handlers of AWS do.

Memory is proportional (PSS): a page that n processes share counts as an n-th of it in each. It is that of one worker
among all at the end, and what one more adds to that of all processes together, with the one that forks them.

    .venv/bin/python -m bench.scale_up [--repeats 5] [--workers 10] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from bench import procs
from bench.figures import keep, percentile, ratios, spread, table
from handlers.function import FunctionSpec
from handlers.logs import RotatingFile
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from router.core.model import Outcome, Returned
from router.ports import Invocation

HANDLERS = {
    "light": "",
    "boto3": """
import boto3
sqs = boto3.client("sqs", region_name="us-east-1")
table = boto3.resource("dynamodb", region_name="us-east-1").Table("orders")
""",
}
HANDLER = """
import os, time
def handle(event, context):
    while event and not os.path.exists(event):
        time.sleep(0.05)
    return os.getpid()
"""
WAYS = {"fresh": False, "snap_start": True}
#: Most milliseconds until the first result, by handler; least times that a fresh one takes; most MB each.
GOAL_MS = {"light": 5.0, "boto3": 10.0}
GOAL_RATIO = 10.0
GOAL_MB = 4.0


@dataclass(frozen=True, slots=True)
class Run:
    """One pool that grew by one worker at a time."""

    first_result_ms: list[float]
    #: Of each worker at the end.
    worker_mb: list[float]
    #: Of all processes together, with the first worker and at the end.
    total_mb: tuple[float, float]

    @property
    def added_mb(self) -> float:
        first, last = self.total_mb
        return (last - first) / (len(self.worker_mb) - 1)


async def measure(folder: Path, workers: int, *, snap_start: bool) -> Run:
    lock = WorkerLock(folder)
    spec = FunctionSpec(
        "bench",
        "app.handle",
        folder,
        timeout_s=60,
        memory_bytes=512 << 20,
        concurrency=workers,
        environment={"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"},
        snap_start=snap_start,
    )
    notes: list[str] = []
    pool = Pool(
        spec,
        state=folder,
        lock=lock,
        sink=RotatingFile(folder / "bench.log"),
        note=lambda event, **_: notes.append(event),
    )
    gate = folder / "gate"
    times_ms, pids, held, totals_mb = [], [], [], []
    for _ in range(workers):
        begun_s = time.perf_counter()
        pids.append(await invoke(pool, ""))
        times_ms.append((time.perf_counter() - begun_s) * 1000)
        held.append(invoke(pool, str(gate)))
        await asyncio.sleep(0.1)  # it begins, and what the start has left to do is done
        totals_mb.append(sum(map(proportional_mb, {*procs.children(os.getpid()), *pids})))
    run = Run(times_ms[1:], [proportional_mb(pid) for pid in pids], (totals_mb[0], totals_mb[-1]))
    assert notes == (["function.preloaded"] if snap_start else []), notes
    gate.touch()
    assert sorted(pids) == sorted(await asyncio.gather(*held)), "each worker holds one"
    gate.unlink()
    await pool.close()
    lock.close()
    return run


def invoke(pool: Pool, event: str) -> asyncio.Future[object]:
    ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        assert isinstance(outcome, Returned), outcome
        ended.set_result(outcome.body)

    pool.invoke(Invocation("bench", lambda: json.dumps(event).encode(), wants_body=True, done=done))
    return ended


def proportional_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def collect(repeats: int, workers: int) -> dict[str, dict[str, list[Run]]]:
    runs: dict[str, dict[str, list[Run]]] = {name: {way: [] for way in WAYS} for name in HANDLERS}
    for name, imports in HANDLERS.items():
        with tempfile.TemporaryDirectory() as path:
            folder = Path(path)
            (folder / "app.py").write_text(imports + HANDLER)
            for _ in range(repeats):
                for way, snap_start in WAYS.items():
                    runs[name][way].append(uvloop.run(measure(folder, workers, snap_start=snap_start)))
    return runs


def row(name: str, way: str, runs: Sequence[Run], fresh: Sequence[Run]) -> tuple[str, ...]:
    medians = [statistics.median(run.first_result_ms) for run in runs]
    faster = ratios([statistics.median(run.first_result_ms) for run in fresh], medians)
    return (
        name,
        way,
        spread(medians, ".1f"),
        spread([percentile(run.first_result_ms, 90) for run in runs], ".1f"),
        spread(faster, ".0f"),
        spread([statistics.median(run.worker_mb) for run in runs], ".1f"),
        spread([run.added_mb for run in runs], ".1f"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=10, help="of each pool, at the end")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    before = procs.clock()
    runs = collect(options.repeats, options.workers)
    busy = procs.busy_share(before, procs.clock())
    results = {
        name: {way: [asdict(run) for run in each] for way, each in by_way.items()} for name, by_way in runs.items()
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    head = ("handler", "worker", "first result ms", "p90 ms", "times faster", "PSS MB each", "MB added by each")
    print(table(head, [row(name, way, each, by["fresh"]) for name, by in runs.items() for way, each in by.items()]))
    goals = ", ".join(f"{name} {most_ms:.0f} ms" for name, most_ms in GOAL_MS.items())
    print(f"Goals: {goals}, {GOAL_RATIO:.0f} times, {GOAL_MB:.0f} MB each. Cores in use: {busy:.0%}.")
    print(keep("scale_up", results))


if __name__ == "__main__":
    main()
