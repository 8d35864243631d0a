"""How fast failures are replayed over replicas: `python -m bench.fleet_replays --help`.

The failures are of a Kafka mapping of eight partitions, spread over them as they are over the replicas; the state is in
a Redis of our own, append-only and synced at every write. The job is asked of the first replica: what belongs to
partitions of the others runs there, and costs a call and its answer through Redis. All share this machine. Each
invocation waits a while, as one that calls something does; with none, what is measured is what Headrace itself costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path

from bench import topics
from bench.chaos_redis import Redis
from bench.daemon import Headrace, kafka
from bench.failures import MAPPING, SIZE_BYTES, failures, replayed_per_s
from bench.figures import keep, spread, table
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings

FLEET = "bench"
#: As long as a group may take to give everybody a part.
SETTLE_S = 8.0
_AT_ONCE = 500

HANDLER = """
import asyncio, os

WAIT_S = float(os.environ["WAIT_S"])


async def handler(event, context):
    if WAIT_S:
        await asyncio.sleep(WAIT_S)
"""


async def fill(redis: Redis, folder: Path, topic: str, servers: str, count: int) -> None:
    host, _, port = redis.address.partition(":")
    store = await RedisStore.open(RedisSettings(False, host, int(port), 0), FLEET, replica="fill", folder=folder)
    made = failures(topic, servers, count, 1)
    while group := list(islice(made, _AT_ONCE)):
        await store.apply(group)
    await store.close()


async def rate(servers: str, topic: str, replicas: int, count: int, wait_s: float) -> float:
    """Give the failures that so many replicas replay a second."""
    mapping = kafka(servers, topic, group=f"headrace-bench-{uuid.uuid4().hex[:12]}", parallelization_factor=10)
    mapping["starting_position"] = "LATEST"
    function = {"environment": {"WAIT_S": str(wait_s)}, "concurrency_per_worker": 100, "logs": "off"}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-bench-")))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        await fill(redis, folder / "fill", topic, servers, count)
        daemons = [
            await stack.enter_async_context(
                Headrace(
                    {MAPPING: mapping},
                    HANDLER,
                    function,
                    {"HEADRACE_REPLICA": f"r{number}"},
                    {"state": redis.url, "fleet": FLEET},
                )
            )
            for number in range(replicas)
        ]
        await asyncio.sleep(SETTLE_S)
        state = daemons[0].folder / ".headrace" / "r0"
        return await asyncio.to_thread(replayed_per_s, state, count)


async def run(options: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    servers = topics.bootstrap()
    topic = await topics.filled(servers, 1000, SIZE_BYTES)
    found: dict[str, dict[int, list[float]]] = {}
    for wait_s in options.waits:
        of_wait = found[f"{wait_s * 1000:g}"] = {replicas: [] for replicas in options.replicas}
        for _ in range(options.repeats):
            for replicas in options.replicas:  # in turns, so that the machine's moods meet all
                of_wait[replicas].append(await rate(servers, topic, replicas, options.failures, wait_s))
    return found


def summary(found: dict[str, dict[int, list[float]]]) -> str:
    rows: list[Sequence[str]] = []
    for wait, of_wait in found.items():
        first = of_wait[min(of_wait)]
        for replicas, rates in of_wait.items():
            share = sum(rates) / len(rates) / (sum(first) / len(first))
            rows.append([wait, str(replicas), spread(rates, ",.0f"), f"{share:.2f}"])
    return table(["invocation, ms", "replicas", "failures/s", "to one"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--failures", type=int, default=10_000, help="of one record each, that are replayed")
    parser.add_argument("--waits", type=float, nargs="+", default=[0.0, 0.1], help="of an invocation, seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    found = asyncio.run(run(options))
    raw = {"options": {name: str(value) for name, value in vars(options).items()}, "runs": found}
    print(json.dumps(raw) if options.json else summary(found))
    print(f"raw results: {keep('fleet-replays', raw)}", file=sys.stderr)


if __name__ == "__main__":
    main()
