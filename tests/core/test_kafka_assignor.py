"""How the leader of a group assigns partitions: evenly, and each where it was if that can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from aiokafka.coordinator.protocol import ConsumerProtocol
from hypothesis import given
from hypothesis import strategies as st

from connectors.kafka_member import Assignor

TOPIC = "orders"
Owners = dict[int, str]


class Cluster:
    """As much of the client's view of a cluster as an assignment asks for."""

    def __init__(self, partitions: int) -> None:
        self._partitions = set(range(partitions))

    def topics(self) -> set[str]:
        return {TOPIC}

    def partitions_for_topic(self, _: str) -> set[int]:
        return self._partitions


class Group:
    """Members that assign in the way that all of them offer."""

    def __init__(self, partitions: int, *, turns: bool = False) -> None:
        self._cluster = Cluster(partitions)
        self._turns = turns
        self._generation = 0
        self.members: dict[str, Assignor] = {}

    def rebalance(self, members: Sequence[str]) -> Owners:
        self.members = {name: self.members.get(name, Assignor()) for name in members}
        self._generation += 1
        chosen = "roundrobin" if self._turns else "sticky"
        said = {}
        for name, assignor in self.members.items():
            offered = {assignor.name: assignor.metadata([TOPIC]).encode(), **dict(assignor.offers([TOPIC]))}
            said[name] = ConsumerProtocol.METADATA.decode(offered[chosen])
            assignor.joined(self._generation, chosen)
        leader = next(iter(self.members.values()))
        owners = {}
        for name, assignment in leader.assign(self._cluster, said).items():
            self.members[name].on_assignment(assignment)
            owners.update(dict.fromkeys((each.partition for each in assignment.partitions()), name))
        return owners


def moved(before: Mapping[int, str], after: Mapping[int, str]) -> int:
    return sum(after[partition] != owner for partition, owner in before.items())


def courses(partitions: int, *, turns: bool) -> list[int]:
    """Three members, then a fourth joins, goes, and another of the first goes: partitions moved at each step."""
    group = Group(partitions, turns=turns)
    steps = [["a", "b", "c"], ["a", "b", "c", "d"], ["a", "b", "c"], ["b", "c"]]
    owners = [group.rebalance(members) for members in steps]
    return [moved(before, after) for before, after in pairwise(owners)]


def test_fewer_partitions_move_than_in_turns() -> None:
    assert courses(12, turns=False) == [3, 3, 4]
    assert courses(12, turns=True) == [9, 9, 8]


def test_state_is_one_consumers_own() -> None:
    one, other = Group(4), Group(4)
    assert one.rebalance(["a", "b"])
    fresh = other.rebalance(["b", "a"])
    assert len(fresh) == 4
    assert Assignor().metadata([TOPIC]).user_data == b""


@given(st.integers(1, 24), st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=2, max_size=8))
def test_what_need_not_move_stays(partitions: int, memberships: list[set[str]]) -> None:
    group = Group(partitions)
    before: Owners = {}
    for members in memberships:
        after = group.rebalance(sorted(members))
        assert after.keys() == set(range(partitions))
        counts = [sum(owner == name for owner in after.values()) for name in members]
        assert max(counts) - min(counts) <= 1
        if before:
            # Those of members that are gone must move, and what the others have over their even share.
            share, over = divmod(partitions, len(members))
            kept = sorted((sum(owner == name for owner in before.values()) for name in members), reverse=True)
            excess = sum(max(0, had - share - (place < over)) for place, had in enumerate(kept))
            orphans = sum(owner not in members for owner in before.values())
            assert moved(before, after) == orphans + excess
        before = after


def test_a_member_that_comes_back_with_what_it_once_had_takes_nothing_from_who_has_it_now() -> None:
    group = Group(12)
    group.rebalance(["a", "b", "c"])
    asleep = group.members["a"]
    between = group.rebalance(["b", "c"])
    group.members["a"] = asleep
    after = group.rebalance(["a", "b", "c"])
    assert moved(between, after) == 4
