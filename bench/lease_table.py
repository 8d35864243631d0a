"""What one exchange with the table of leases costs: `python -m bench.lease_table --help`.

A Redis of the bench's own (`redis-server` on PATH), which writes its log to the disk every second. Replicas say that
they run 1,000 mappings each; what is idle neither moves nor is written. Counted by Redis itself (`INFO`): calls, bytes
and processor time of its main thread, network and all; and the processor time of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import keep, table
from connectors.redis.birth import Note, find_fleet
from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.link import RedisLink
from router.core.fleet import Give, LeaseKey, Mark, Said, Take
from tests.live.own_redis import OwnRedis

MAPPINGS = frozenset(f"team-{number % 17}-events-{number}" for number in range(1000))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one exchange."""

    what: str
    replicas: int
    leases: int
    round_trips: float
    sent_bytes: float
    received_bytes: float
    redis_us: float
    our_us: float


@dataclass(slots=True)
class Member:
    """A replica that is in the table."""

    table: RedisLeaseTable
    beat: int = 0
    known: int = 0
    tokens: dict[LeaseKey, int] | None = None

    async def say(
        self,
        takes: Sequence[Take] = (),
        gives: Sequence[Give] = (),
        marks: Sequence[Mark] = (),
        runs: frozenset[str] | None = None,
    ) -> None:
        self.beat += 1
        heard = await self.table.exchange(
            Said(self.beat, 0.25, draining=False, runs=runs, known=self.known, takes=takes, gives=gives, marks=marks)
        )
        self.known = heard.version
        self.tokens = (self.tokens or {}) | {key: taken.token for key, taken in heard.taken.items()}


@contextlib.asynccontextmanager
async def own_redis() -> AsyncIterator[RedisLink]:
    with tempfile.TemporaryDirectory() as folder, OwnRedis(Path(folder), "--appendonly", "yes") as server:
        link = await RedisLink.open(server.settings, "bench")
        await find_fleet(link, Note(None))
        yield link
        await link.close()


async def populate(link: RedisLink, replicas: int, leases: int) -> list[Member]:
    """Begin anew with so many replicas that share so many leases."""
    meta = link.key("meta")
    keys = [key for key in await link.command("KEYS", link.key("*")) if key.decode() != meta]
    if keys:
        await link.command("DEL", *keys)
    members = [Member(RedisLeaseTable(link, f"replica-{number:03}", "home", 30.0)) for number in range(replicas)]
    names = sorted(MAPPINGS)
    keys = [LeaseKey(names[n % len(names)], f"shardId-{n:012}") for n in range(leases)]
    for number, member in enumerate(members):
        await member.table.join()
        await member.say(runs=MAPPINGS, takes=[Take(key, 0) for key in keys[number::replicas]])
    for member in members:
        await member.say()
        await member.say()
    return members


async def counted(link: RedisLink) -> tuple[int, int, int, float]:
    """Give calls of scripts, bytes to and from Redis, and microseconds of its processor, until now."""
    commands = await link.command("INFO", "commandstats")
    stats = await link.command("INFO", "stats")
    calls = sum(commands[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in commands)
    cpu = await link.command("INFO", "cpu")
    cpu_s = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
    return calls, stats["total_net_input_bytes"], stats["total_net_output_bytes"], cpu_s * 1e6


async def cost(
    link: RedisLink,
    what: str,
    members: Sequence[Member],
    leases: int,
    each: Sequence[Member],
    say: Callable[[Member], Awaitable[None]],
) -> Cost:
    """Let these say something, one after the other, and take the mean."""
    info = await counted(link)
    overhead = [after - before for before, after in zip(info, await counted(link), strict=True)]
    before, our_s = await counted(link), time.process_time()
    for member in each:
        await say(member)
    our_s = time.process_time() - our_s
    after = await counted(link)
    calls, sent, received, redis_us = ((b - a - o) / len(each) for a, b, o in zip(before, after, overhead, strict=True))
    return Cost(what, len(members), leases, calls, sent, received, redis_us, our_s * 1e6 / len(each))


async def anew(member: Member) -> None:
    member.known = 0
    member.table._lists = {}  # noqa: SLF001 - as one that has just started
    await member.say()


async def measure(options: argparse.Namespace) -> list[Cost]:
    found = []
    async with own_redis() as link:
        for replicas in options.replicas:
            for leases in options.leases:
                members = await populate(link, replicas, leases)
                rounds = members * max(1, options.exchanges // replicas)
                found.append(await cost(link, "nothing to say", members, leases, rounds, Member.say))
                found.append(await cost(link, "told all", members, leases, members[:10], anew))
                if leases:
                    found += await busy(link, members, leases)
                print(f"{replicas} replicas, {leases} leases: done", file=sys.stderr, flush=True)
    return found


async def busy(link: RedisLink, members: Sequence[Member], leases: int) -> list[Cost]:
    """Let some of them say something."""

    async def mark(member: Member) -> None:
        key, token = next(iter(member.tokens.items()))
        await member.say(marks=[Mark(key, token, "", 0.5)])

    async def take(member: Member) -> None:
        own = list(member.tokens.items())[:100]
        await member.say(takes=[Take(key, token) for key, token in own])

    async def give(member: Member) -> None:
        own = list(member.tokens.items())[:100]
        await member.say(gives=[Give(key, token, "", 0.5) for key, token in own])

    per_member = min(100, leases // len(members))
    few = members[:10]
    return [
        await cost(link, "1 load marked", members, leases, few, mark),
        await cost(link, f"{per_member} taken", members, leases, few, take),
        await cost(link, f"{per_member} given", members, leases, few, give),
    ]


def summary(found: Sequence[Cost]) -> str:
    rows = [
        [
            one.what,
            f"{one.replicas}",
            f"{one.leases:,}",
            f"{one.round_trips:.2f}",
            f"{one.sent_bytes:,.0f}",
            f"{one.received_bytes:,.0f}",
            f"{one.redis_us:,.0f}",
            f"{one.our_us:,.0f}",
        ]
        for one in found
    ]
    head = ["", "replicas", "leases", "round trips", "bytes sent", "bytes received", "Redis CPU us", "our CPU us"]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--replicas", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--leases", type=int, nargs="+", default=[0, 1000, 10_000])
    parser.add_argument("--exchanges", type=int, default=1000, help="exchanges with nothing to say, of each kind")
    parser.add_argument("--json", action="store_true", help="print raw results")
    options = parser.parse_args()
    found = asyncio.run(measure(options))
    raw = {"options": vars(options), "costs": [asdict(one) for one in found]}
    path = keep("lease-table", raw)
    print(json.dumps(raw) if options.json else summary(found))
    print(f"raw results: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
