"""Which shards may be read: each behind its parents, and each once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.lineage import Lineage, finished_at_latest
from router.core.model import ShardInfo

ROOT = ShardInfo("r", (), closed=True)
LEFT = ShardInfo("a", ("r",), closed=True)
RIGHT = ShardInfo("b", ("r",), closed=True)
MERGED = ShardInfo("m", ("a", "b"))


def lineage_of(*shards: ShardInfo, begun: Sequence[str] = (), finished: Sequence[str] = ()) -> Lineage:
    lineage = Lineage(begun, finished)
    lineage.listed(shards)
    return lineage


def test_children_start_when_their_parent_is_finished_and_what_was_merged_when_both_are():
    lineage = lineage_of(MERGED, RIGHT, LEFT, ROOT)
    assert lineage.start() == ["r"]
    assert lineage.waiting() == {"m": ["a", "b"], "b": ["r"], "a": ["r"]}
    lineage.finish("r")
    assert lineage.start() == ["b", "a"]
    lineage.finish("b")
    assert lineage.waiting() == {"m": ["a"]}
    assert lineage.start() == []
    lineage.finish("a")
    assert lineage.start() == ["m"]
    assert (lineage.start(), lineage.waiting()) == ([], {})


def test_a_parent_that_two_listings_do_not_have_is_trimmed():
    lineage = lineage_of(LEFT, MERGED)
    assert lineage.start() == []
    assert lineage.wants_listing
    lineage.listed([LEFT, MERGED])
    assert not lineage.wants_listing
    assert lineage.start() == ["a"]
    lineage.finish("a")
    assert lineage.start() == ["m"]


def test_a_parent_that_one_listing_overlooked_is_waited_for():
    lineage = lineage_of(LEFT)
    lineage.listed([ROOT, LEFT])
    assert lineage.start() == ["r"]
    lineage.listed([LEFT])
    lineage.listed([LEFT])
    assert lineage.start() == []
    lineage.finish("r")
    assert lineage.start() == ["a"]


def test_a_shard_waits_for_its_grandparent_when_its_parent_is_gone_unread():
    lineage = lineage_of(ROOT, LEFT, ShardInfo("c", ("a",)))
    assert lineage.start() == ["r"]
    for _ in range(2):
        lineage.listed([ShardInfo("c", ("a",))])
        assert lineage.start() == []
    lineage.finish("r")
    assert lineage.start() == ["c"]


def test_what_was_begun_goes_on_whether_it_is_listed_or_not():
    lineage = lineage_of(begun=["a"])
    assert lineage.start() == ["a"]
    assert not lineage.is_over("a")


def test_what_was_finished_before_is_not_read_again():
    lineage = lineage_of(ROOT, LEFT, RIGHT, begun=["r", "a"], finished=["r"])
    assert lineage.start() == ["a", "b"]
    assert [lineage.is_over(name) for name in ("r", "a", "b", "x")] == [True, False, False, True]


def test_a_finished_shard_is_forgotten_once_when_two_listings_know_nothing_of_it():
    lineage = lineage_of(ROOT, begun=["r"], finished=["r"])
    lineage.listed([LEFT])
    lineage.listed([LEFT])
    assert lineage.forget() == []
    lineage.listed([MERGED])
    assert lineage.forget() == []
    lineage.listed([MERGED])
    assert lineage.forget() == ["r"]
    assert lineage.forget() == []


def test_a_finished_shard_that_one_listing_overlooked_is_remembered():
    lineage = lineage_of(ROOT, begun=["r"], finished=["r"])
    for shards in ([], [ROOT], [], [ROOT]):
        lineage.listed(shards)
        assert lineage.forget() == []


def test_the_children_of_what_has_just_ended_are_wanted_until_they_are_listed():
    lineage = lineage_of(ROOT)
    lineage.start()
    assert not lineage.wants_listing
    lineage.finish("r")
    assert lineage.wants_listing
    lineage.listed([ROOT, LEFT, RIGHT])
    assert not lineage.wants_listing


def test_at_latest_what_is_closed_has_nothing_to_read():
    assert finished_at_latest([ROOT, LEFT, MERGED]) == ["r", "a"]


# --- whatever a stream does


@dataclass
class Forest:
    """A stream that is split and merged at random, and loses its oldest shards; and what must be true of its reader."""

    rng: Random
    parents: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leaves: list[str] = field(default_factory=list)
    trimmed: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    overlooked: frozenset[str] = frozenset()

    def grow(self) -> None:
        """Split or merge, or begin with a root."""
        old = self.rng.sample(self.leaves, min(len(self.leaves), self.rng.choice((1, 1, 2))))
        self.leaves = [leaf for leaf in self.leaves if leaf not in old]
        for _ in range(1 if len(old) == 2 else self.rng.choice((1, 2))):
            name = f"s{len(self.parents)}"
            self.parents[name] = tuple(old)
            self.leaves.append(name)

    def trim(self) -> None:
        """Lose a closed shard whose own parents are lost already."""
        old = [name for name in self.parents if name not in self.trimmed and name not in self.leaves]
        roots = [name for name in old if self.trimmed.issuperset(self.parents[name])]
        if roots:
            self.trimmed.add(self.rng.choice(roots))

    def listing(self) -> list[ShardInfo]:
        """List what there is, in any order; a page that was overlooked is there the next time."""
        names = [name for name in self.parents if name not in self.trimmed]
        hidden = {name for name in names if self.rng.random() < 0.2} - self.overlooked
        self.overlooked = frozenset(hidden)
        self.rng.shuffle(names)
        return [ShardInfo(name, self.parents[name], name not in self.leaves) for name in names if name not in hidden]

    def start(self, lineage: Lineage) -> None:
        for name in lineage.start():
            assert name not in self.started, "it is read twice"
            waits = [each for each in self.parents[name] if each not in self.trimmed | self.finished]
            waits += [each for each in self.ancestors(name) if each in self.running]
            assert not waits, f"{name} starts before {waits}"
            self.started.append(name)

    def ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        names = [*self.parents[name]]
        while names:
            each = names.pop()
            if each not in found:
                found.add(each)
                names += self.parents[each]
        return found

    @property
    def running(self) -> list[str]:
        return [name for name in self.started if name not in self.finished]

    def finish(self, lineage: Lineage) -> None:
        ended = [name for name in self.running if name not in self.leaves]
        if ended:
            name = self.rng.choice(ended)
            self.finished.add(name)
            lineage.finish(name)


def reborn(forest: Forest, committed: Mapping[str, bool]) -> Lineage:
    """Go on after a restart: what has no checkpoint was not begun."""
    forest.started = list(committed)
    return Lineage(committed, [name for name, ended in committed.items() if ended])


@settings(max_examples=400, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), steps=st.integers(5, 80))
def test_in_any_forest_no_shard_comes_before_its_parents_and_each_comes_once(seed: int, steps: int):
    forest = Forest(Random(seed))
    forest.grow()
    lineage = Lineage((), ())
    remembered: set[str] = set()
    for _ in range(steps):
        step = forest.rng.choice(("grow", "list", "list", "finish", "finish", "trim", "restart"))
        if step == "grow":
            forest.grow()
        elif step == "trim":
            forest.trim()
        elif step == "finish":
            forest.finish(lineage)
        elif step == "restart":
            kept = [name for name in forest.started if name in remembered and (name in forest.finished or steps % 2)]
            again = [name for name in kept if name not in forest.finished]
            lineage = reborn(forest, {name: name in forest.finished for name in kept})
            forest.started = [name for name in kept if name not in again]
        else:
            lineage.listed(forest.listing())
            gone = lineage.forget()
            assert forest.trimmed.issuperset(gone), "it is forgotten although the stream has it"
            remembered.difference_update(gone)
        forest.start(lineage)
        remembered.update(forest.started)
    settle(forest, lineage)


def settle(forest: Forest, lineage: Lineage) -> None:
    """See that all there is, is read in the end."""
    forest.rng = Random(0)
    for _ in range(3 * len(forest.parents) + 3):
        there = [name for name in forest.parents if name not in forest.trimmed]
        lineage.listed([ShardInfo(name, forest.parents[name], name not in forest.leaves) for name in there])
        forest.start(lineage)
        forest.finish(lineage)
    missed = [name for name in forest.parents if name not in (*forest.trimmed, *forest.started)]
    assert not missed
    assert set(forest.running) <= set(forest.leaves)
