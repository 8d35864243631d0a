"""What mappings cost that have nothing to do: `python -m bench.idle --help`.

Many mappings, each with a queue of its own, all empty; behind all of them is one `bench.sqs_endpoint`, which lets a
receive wait as SQS does. Polls cost CPU whoever makes them, so a process that makes the same long polls with the same
client, and nothing else, takes turns with the daemon (`bench.peers.idle_polls`). What the daemon takes beyond it is the
mappings' own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench import procs
from bench.figures import keep, spread, table
from bench.queues import Endpoint, Peer, headrace, sqs

#: From here on every queue has been polled in vain at least once, and polls are at their floor.
_WARM_S = 65.0
#: Receives that an idle queue has under way at once (docs/sqs.md).
_AT_ONCE = 2
_PEER = ("-m", "bench.peers.idle_polls")


@dataclass(frozen=True, slots=True)
class Idle:
    """One process that waits, watched for some seconds."""

    seconds: float
    cpu_s: float
    receives: int
    rss_mb: float
    peak_rss_mb: float
    #: Until the first queues' mappings had all said that they are open; 0 for the peer.
    start_s: float
    machine_busy: float

    @property
    def core_share(self) -> float:
        return self.cpu_s / self.seconds

    @property
    def receive_us(self) -> float:
        return self.cpu_s / self.receives * 1e6


async def _observe(endpoint: Endpoint, pid: int, options: argparse.Namespace, start_s: float) -> Idle:
    await asyncio.sleep(options.warm)
    first, before, clock = await endpoint.report(), procs.usage(pid), procs.clock()
    await asyncio.sleep(options.seconds)
    last, after = await endpoint.report(), procs.usage(pid)
    return Idle(
        last["at_s"] - first["at_s"],
        after.cpu_s - before.cpu_s,
        last["receives"] - first["receives"],
        after.rss_mb,
        after.peak_rss_mb,
        start_s,
        procs.busy_share(clock, procs.clock()),
    )


async def run(name: str, options: argparse.Namespace) -> Idle:
    async with Endpoint(["--messages", "0"]) as endpoint:
        if name == "polls":
            command = (*_PEER, endpoint.url, str(options.mappings), str(_AT_ONCE))
            async with Peer([sys.executable, *command]) as peer:
                [pid] = peer.pids()
                return await _observe(endpoint, pid, options, 0.0)
        mappings = {f"idle-{number:04d}": sqs(f"idle-{number:04d}") for number in range(options.mappings)}
        began_s = time.monotonic()
        async with headrace(endpoint, mappings) as daemon:
            return await _observe(endpoint, daemon.pid, options, time.monotonic() - began_s)


async def measure(options: argparse.Namespace) -> dict[str, list[Idle]]:
    found: dict[str, list[Idle]] = {name: [] for name in ("polls", "headrace")}
    for repeat in range(options.repeats):
        for name, mine in found.items():
            mine.append(one := await run(name, options))
            print(
                f"{repeat + 1}/{options.repeats} {name}: {one.core_share:.1%} of a core, {one.receives} receives, "
                f"{one.rss_mb:.0f} MB, machine {one.machine_busy:.0%} busy",
                file=sys.stderr,
                flush=True,
            )
    return found


def summary(found: Mapping[str, Sequence[Idle]]) -> str:
    rows = [
        [
            name,
            spread((100 * one.core_share for one in mine), ".1f"),
            spread((one.receives / one.seconds for one in mine), ".0f"),
            spread((one.receive_us for one in mine), ".0f"),
            spread((one.rss_mb for one in mine), ".0f"),
            spread((one.start_s for one in mine), ".1f"),
        ]
        for name, mine in found.items()
    ]
    rows.append(
        [
            "headrace beyond polls",
            spread(
                (
                    100 * (ours.receive_us - theirs.receive_us) * ours.receives / ours.seconds / 1e6
                    for theirs, ours in zip(found["polls"], found["headrace"], strict=True)
                ),
                ".1f",
            ),
            *[""] * 4,
        ]
    )
    return table(["", "% of a core", "receives/s", "CPU us/receive", "RSS MB", "start s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--mappings", type=int, default=1000)
    parser.add_argument("--warm", type=float, default=_WARM_S, help="seconds before it counts")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    raw = {"options": vars(options), "runs": {name: [asdict(one) for one in mine] for name, mine in found.items()}}
    path = keep("idle", raw)
    print(json.dumps(raw) if options.json else summary(found))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
