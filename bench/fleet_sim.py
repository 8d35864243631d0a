"""A fleet of a hundred replicas and ten thousand shards, on virtual time, through all that happens to a fleet.

    python -m bench.fleet_sim                              # as in docs/scaling.md; some minutes
    python -m bench.fleet_sim --replicas 10 --shards 500   # smaller
    python -m bench.fleet_sim --into docs/scaling.md       # and write the table there

The decisions are the real ones (router/core/tenant.py), the table of leases follows the rules of the one in Redis, and
everything between them is made up: see tests/sim/fleet_world.py. The same seed gives the same fleet.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.sim.fleet_world import FleetWorld, Tally, worst

COLUMNS = ("what happens", "time", "level after", "moved", "taken", "longest idle", "exchanges", "CPU")


def load(chance: Random) -> float:
    """Half of the shards rest; what the others cost differs by a hundred times."""
    return 0.0 if chance.random() < 0.5 else chance.lognormvariate(-4, 1)


class Course:
    """The simulation, act by act, and a row of the table for each."""

    def __init__(self, replicas: int, shards: int, lease_s: float, seed: int) -> None:
        self.world = FleetWorld(shards, lease_s=lease_s, seed=seed, load=load)
        self.replicas = replicas
        self.rows: list[tuple[str, ...]] = []
        self.overlaps = 0

    def play(self) -> None:
        world, few, lease_s = self.world, max(self.replicas // 10, 1), self.world.lease_s
        for number in range(self.replicas - few):
            world.at(world.chance.uniform(0, 5), lambda number=number: world.join(f"replica-{number:03}"))
        self.act("start of all but a tenth, within 5 s; what shards cost is not known yet", 150)
        self.act("nothing", 60)
        for number in range(few):
            world.after(number, lambda number=number: world.join(f"joined-{number:03}"))
        self.act("a tenth joins, one a second", 60)
        self.act("nothing", 60)
        for name in world.pick(few):
            world.crash(name)
        self.act("a tenth is killed at once", lease_s + 30)
        for name in world.pick(few):
            world.leave(name)
        self.act("a tenth of the rest is stopped as one stops a daemon", 30)
        for name in world.pick(few):
            world.cut(name, 1.5 * lease_s)
        self.act("a tenth of the rest is cut off for one and a half leases", 2 * lease_s + 30)
        world.away(lease_s / 3)
        self.act("Redis is away for a third of a lease", lease_s)
        world.away(2 * lease_s)
        self.act("Redis is away for two leases", 3 * lease_s + 30)
        for number in range(10):
            world.after(6 * number, lambda: world.crash(world.pick(1)[0]))
            world.after(6 * number + 3, lambda number=number: world.join(f"storm-{number:03}"))
        self.act("storm: every 3 s a replica is killed, or one joins, for a minute", 60)
        self.act("after the storm", lease_s + 30)
        self.act("nothing", 60)

    def act(self, title: str, seconds: float) -> None:
        """Run on; note when the loads were level again, which is when they were last not so."""
        world = self.world
        total = Tally()
        began_s = level_s = world.now_s
        balance = 0.0
        while world.now_s < began_s + seconds:
            tally = world.run(1.0)
            for name in ("exchanges", "grants", "revokes", "losses", "overlaps", "feeds", "cpu_s"):
                setattr(total, name, getattr(total, name) + getattr(tally, name))
            for why, idle_s in tally.idle_s.items():
                total.idle_s.setdefault(why, []).extend(idle_s)
            balance = world.balance()
            if balance > LEVEL or world.unowned():
                level_s = world.now_s
        self.overlaps += total.overlaps
        is_level = level_s < world.now_s
        self.rows.append(
            (
                title,
                f"{seconds:.0f} s",
                f"{level_s - began_s:.0f} s" if is_level else f"not: {balance:.2f}",
                str(total.revokes),
                str(total.grants),
                ", ".join(f"{why} {worst(idle_s):.2f} s" for why, idle_s in sorted(total.idle_s.items())) or "-",
                f"{total.exchanges / seconds:.0f}/s",
                f"{total.cpu_s / max(total.exchanges, 1) * 1e3:.2f} ms",
            )
        )
        print(" | ".join(self.rows[-1]), file=sys.stderr, flush=True)


#: The heaviest replica has at most this times the mean.
LEVEL = 1.25


def table(course: Course, settings: str) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *course.rows]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    overlaps = "never" if not course.overlaps else f"{course.overlaps} times"
    return f"`{settings}`; a shard had two owners {overlaps}.\n\n{text}\n"


def main(write: Callable[[str], object] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--replicas", type=int, default=100)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--lease", type=float, default=30.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, help="a page with the marks of this table")
    asked = parser.parse_args()
    course = Course(asked.replicas, asked.shards, asked.lease, asked.seed)
    course.play()
    settings = f"--replicas {asked.replicas} --shards {asked.shards} --lease {asked.lease:g} --seed {asked.seed}"
    text = table(course, settings)
    if asked.into:
        marks = r"(<!-- fleet_sim -->\n).*?(<!-- end -->)"
        asked.into.write_text(
            re.sub(marks, lambda found: found[1] + text + found[2], asked.into.read_text(), flags=re.DOTALL)
        )
    write(text)


if __name__ == "__main__":
    main()
