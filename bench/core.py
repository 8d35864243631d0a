"""What the core alone costs per record: pages in, batches out, progress committed; nothing is encoded, sent or run.

    python bench/core.py [--records N] [--repeats N] [--json]

Every page has 500 records of 1000 keys. A read, an invocation and a commit end at once, so the time is the engine's.
Sizes are counted always. The baseline cuts a list into batches and does nothing else. Processor time, median and range.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import sys
from collections import deque
from random import Random
from statistics import median
from time import process_time

from router.core import facts as f
from router.core.model import NOT_READ, STREAM_RULES, Chunk, EventSourceMapping, Instant, Returned
from router.core.streams import StreamEngine

PAGE = 500
KEYS = 1000
#: Time that passes between two facts: 2000 of them fall into one commit interval.
STEP_S = 0.0005
CASES = [(100, 1), (100, 10), (10, 1), (10, 10)]


def pages(records: int) -> list[Chunk]:
    """Make the pages beforehand: they are the source's work, and its memory."""
    rng = Random(7)
    sizes = [rng.randrange(200, 1200) for _ in range(PAGE)]
    return [
        Chunk(
            shard="shard",
            positions=range(start, start + PAGE),
            sizes=sizes,
            times_ms=[0] * PAGE,
            # New objects, as a source makes them: nobody has hashed them yet.
            keys=[b"key-%d" % rng.randrange(KEYS) for _ in range(PAGE)],
            rows=range(PAGE),
            through=start + PAGE - 1,
            before=start - 1,
        )
        for start in range(0, records, PAGE)
    ]


def engine_ns(batch_size: int, factor: int, chunks: list[Chunk]) -> tuple[float, float]:
    """Give nanoseconds per record, and records per batch."""
    mapping = EventSourceMapping(
        "mapping", "function", STREAM_RULES, batch_size=batch_size, parallelization_factor=factor, window_s=1.0
    )
    feed = StreamEngine(mapping, lambda item, batch: None, Random(1)).feed
    returned = Returned(NOT_READ)
    facts: deque[f.StreamFact] = deque([f.ShardOpened("shard", "unit", -1)])
    unread = iter(chunks)
    batches = records = 0
    now = Instant(0.0, 0.0)
    begin_s = process_time()
    while facts:
        for command in feed(facts.popleft(), now):
            if isinstance(command, f.Invoke):
                batches += 1
                records += command.batch.count
                facts.append(f.InvocationEnded(command.batch.id, returned))
            elif isinstance(command, f.Read):
                chunk = next(unread, None)
                if chunk:
                    facts.append(f.ChunksRead("unit", [chunk]))
            elif isinstance(command, f.Commit):
                facts.append(f.Committed())
        now = Instant(now.mono_s + STEP_S, now.wall_s + STEP_S)
    return (process_time() - begin_s) / records * 1e9, records / batches


def baseline_ns(batch_size: int, chunks: list[Chunk]) -> float:
    """Give nanoseconds per record of slicing lists into batches."""
    columns = [list(range(PAGE)) for _ in chunks]
    begin_s = process_time()
    batches = [rows[start : start + batch_size] for rows in columns for start in range(0, PAGE, batch_size)]
    return (process_time() - begin_s) / sum(map(len, batches)) * 1e9


def measure(records: int, repeats: int) -> list[dict[str, object]]:
    chunks = pages(records)
    gc.freeze()
    rows: list[dict[str, object]] = []
    for batch_size in (100, 10):
        times = [baseline_ns(batch_size, chunks) for _ in range(repeats)]
        rows.append(row("slicing a list", batch_size, 1, batch_size, times))
    for batch_size, factor in CASES:
        runs = [engine_ns(batch_size, factor, chunks) for _ in range(repeats)]
        rows.append(row("core", batch_size, factor, runs[0][1], [ns for ns, _ in runs]))
    return rows


def row(what: str, batch_size: int, factor: int, filled: float, times: list[float]) -> dict[str, object]:
    figures = {"median_ns": median(times), "lowest_ns": min(times), "highest_ns": max(times)}
    rounded = {name: round(value, 1) for name, value in figures.items()}
    return {"what": what, "batch_size": batch_size, "factor": factor, "records_per_batch": round(filled, 1), **rounded}


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what the core costs per record.")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows = measure(asked.records, asked.repeats)
    if asked.json:
        print(json.dumps({"python": platform.python_version(), "machine": platform.machine(), "rows": rows}))
        return 0
    print(f"{'':16}{'batch':>7}{'factor':>8}{'filled':>8}{'ns a record':>13}   range")
    for entry in rows:
        print(
            f"{entry['what']:16}{entry['batch_size']:>7}{entry['factor']:>8}{entry['records_per_batch']:>8}"
            f"{entry['median_ns']:>13}   {entry['lowest_ns']} to {entry['highest_ns']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
