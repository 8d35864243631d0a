"""A fleet on virtual time: shared out by load, followed within the lease, and still when nothing changes."""

from __future__ import annotations

import pytest

from tests.sim.course import seeds
from tests.sim.fleet_world import FleetWorld, worst

LEASE_S = 10.0
#: What nobody notices of a loss: others take over so long after the lease at the latest.
GRACE_S = 2.0


def load(chance):
    return 0.0 if chance.random() < 0.5 else chance.lognormvariate(-4, 1)


def fleet(seed, *, replicas=8, shards=200, costs=load):
    world = FleetWorld(shards, lease_s=LEASE_S, seed=seed, load=costs)
    for number in range(replicas):
        world.at(world.chance.uniform(0, 3), lambda number=number: world.join(f"replica-{number}"))
    tally = world.run(150)
    assert world.unowned() == tally.overlaps == 0
    return world


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_a_fleet_shares_by_load_and_rests(seed):
    world = fleet(seed)
    assert world.balance() < 1.3
    tally = world.run(300)
    assert (tally.revokes, tally.losses, tally.overlaps) == (0, 0, 0)
    assert tally.exchanges < 300 * 8 * 1.2, "an exchange a tick"


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_one_that_joins_gets_its_share_by_few_moves(seed):
    world = fleet(seed, costs=lambda chance: 0.05)
    world.join("new")
    tally = world.run(60)
    assert world.balance() < 1.15
    assert tally.revokes <= 200 / 9 * 1.5
    assert worst(tally.idle_s["moved"]) < 1


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_what_killed_replicas_had_is_followed_within_the_lease_and_two_seconds(seed):
    world = fleet(seed)
    for name in world.pick(3):
        world.crash(name)
    tally = world.run(LEASE_S + GRACE_S)
    assert world.unowned() == tally.overlaps == 0
    assert LEASE_S - 1.1 < worst(tally.idle_s["killed"]) <= LEASE_S + GRACE_S


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_what_leaves_is_taken_at_once(seed):
    world = fleet(seed)
    for name in world.pick(2):
        world.leave(name)
    tally = world.run(5)
    assert world.unowned() == tally.overlaps == 0
    assert worst(tally.idle_s["moved"]) < 1


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_what_is_cut_off_ends_before_others_take_it(seed):
    world = fleet(seed)
    for name in world.pick(3):
        world.cut(name, 2 * LEASE_S)
    tally = world.run(LEASE_S + GRACE_S)
    assert world.unowned() == tally.overlaps == 0
    assert 0 < worst(tally.idle_s["cut off"]) <= 2 + GRACE_S
    tally = world.run(6 * LEASE_S)
    assert tally.overlaps == 0
    assert world.balance() < 1.4


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_an_outage_of_the_table_moves_nothing(seed):
    world = fleet(seed)
    owners = {key: site.name for key, site in world.holder.items()}
    for seconds in (LEASE_S / 3, 3 * LEASE_S):
        world.away(seconds)
        tally = world.run(seconds + 5)
        assert world.unowned() == tally.overlaps == 0
        assert {key: site.name for key, site in world.holder.items()} == owners


@pytest.mark.parametrize("seed", seeds("0:3"))
def test_a_storm_of_replicas_that_come_and_go_ends_level(seed):
    world = fleet(seed)
    for number in range(20):
        world.after(3 * number, lambda: world.crash(world.pick(1)[0]))
        world.after(3 * number + 1, lambda number=number: world.join(f"storm-{number}"))
    tally = world.run(60)
    assert tally.overlaps == 0
    tally = world.run(LEASE_S + GRACE_S)
    assert world.unowned() == tally.overlaps == 0
    world.run(90)
    assert world.balance() < 1.4
    assert world.run(100).revokes == world.unowned() == 0


def test_a_seed_gives_the_same_fleet():
    def course():
        world = fleet(5, replicas=4, shards=40)
        return [(key, site.name) for key, site in sorted(world.holder.items())], world.table.takes

    assert course() == course()
