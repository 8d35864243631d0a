"""When a stream's shards are listed, and which are opened then."""

from __future__ import annotations

from random import Random

import pytest

from router.core import facts as f
from router.core.agenda import Agenda
from router.core.discovery import LIST_S, Discovery
from router.core.model import OUTAGE_BACKOFF, ShardInfo
from tests.core.columns import at

ROOT = ShardInfo("r", (), closed=True)
CHILD = ShardInfo("a", ("r",))


class Play:
    """A discovery on an agenda of its own."""

    def __init__(self, *, begun: tuple[str, ...] = (), finished: tuple[str, ...] = ()) -> None:
        self.agenda = Agenda()
        self.now_s = 100.0
        self.said: list[f.Command] = []
        self.discovery = Discovery(self.agenda, self.said.append, Random(1))
        self.discovery.open(f.StreamOpened(frozenset(begun), frozenset(finished)), at(self.now_s))

    def wait(self, seconds: float = 0.0) -> list[f.Command]:
        """Let time pass; gives what was asked for meanwhile."""
        until_s = self.now_s + seconds
        while self.agenda.first_s <= until_s:
            self.now_s = max(self.now_s, self.agenda.first_s)
            self.agenda.run_due(at(self.now_s))
        self.now_s = until_s
        return self.taken()

    def taken(self) -> list[f.Command]:
        said = [*self.said]
        self.said.clear()
        return said

    def listed(self, *shards: ShardInfo) -> list[f.Command]:
        self.discovery.listed(f.ShardsListed(shards), at(self.now_s))
        return self.taken()

    def finished(self, shard: str) -> list[f.Command]:
        self.discovery.finished([shard], at(self.now_s))
        return self.taken()

    def next_listing_s(self) -> float:
        """Give how long it takes until it lists again."""
        since_s = self.now_s
        while self.wait(max(0.0, self.agenda.first_s - self.now_s)) != [f.List()]:
            pass
        return self.now_s - since_s


def test_it_lists_at_once_and_then_every_now_and_then():
    play = Play()
    assert play.wait() == [f.List()]
    assert play.listed(CHILD._replace(parents=())) == [f.Open("a")]
    assert play.wait(LIST_S - 0.1) == []
    assert play.wait(0.1) == [f.List()]
    assert play.wait(10 * LIST_S) == [], "one listing at a time"


def test_the_children_of_a_shard_that_is_finished_are_opened_without_a_listing():
    play = Play()
    play.wait()
    assert play.listed(ROOT, CHILD) == [f.Open("r")]
    assert play.discovery.waiting() == {"a": ["r"]}
    assert play.finished("r") == [f.Open("a")]
    assert play.discovery.waiting() == {}
    assert play.wait(LIST_S - 0.1) == []


def test_children_that_are_not_known_yet_are_asked_for_with_growing_pauses():
    play = Play()
    play.wait()
    play.listed(ROOT._replace(closed=False))
    assert play.finished("r") == []
    assert play.next_listing_s() == 0.0
    pauses_s = []
    for _ in range(9):
        assert play.listed(ROOT) == []
        pauses_s.append(play.next_listing_s())
    assert pauses_s[:3] == [pytest.approx(0.5 * 2**retry, rel=OUTAGE_BACKOFF.jitter) for retry in range(3)]
    assert pauses_s[-1] == pytest.approx(OUTAGE_BACKOFF.cap_s, rel=OUTAGE_BACKOFF.jitter)
    assert play.listed(ROOT, CHILD) == [f.Open("a")]
    assert play.next_listing_s() == pytest.approx(LIST_S)


def test_a_listing_that_failed_is_asked_for_again_with_growing_pauses_and_the_reason_kept():
    play = Play()
    play.wait()
    for retry in range(4):
        wait_s = play.discovery.failed("access denied", at(play.now_s))
        assert wait_s == pytest.approx(0.5 * 2**retry, rel=OUTAGE_BACKOFF.jitter)
        assert play.discovery.error == "access denied"
        assert play.next_listing_s() == pytest.approx(wait_s)
    assert play.listed(CHILD._replace(parents=())) == [f.Open("a")]
    assert play.discovery.error is None
    assert play.next_listing_s() == pytest.approx(LIST_S)


def test_a_shard_that_ends_while_a_listing_is_under_way_is_listed_again():
    play = Play()
    play.wait()
    play.listed(ROOT._replace(closed=False))
    play.wait(LIST_S)
    assert play.finished("r") == []
    assert play.wait() == []
    assert play.listed(ROOT) == []
    assert play.next_listing_s() == pytest.approx(0.5, rel=OUTAGE_BACKOFF.jitter)


def test_a_parent_that_is_not_listed_is_looked_for_once_more():
    play = Play()
    play.wait()
    assert play.listed(CHILD) == []
    assert play.next_listing_s() == pytest.approx(0.5, rel=OUTAGE_BACKOFF.jitter)
    assert play.listed(CHILD) == [f.Open("a")]
    assert play.next_listing_s() == pytest.approx(LIST_S)


def test_what_is_finished_and_not_known_to_the_stream_any_more_is_forgotten():
    play = Play(begun=("r",), finished=("r",))
    play.wait()
    other = ShardInfo("z")
    assert play.listed(other) == [f.Open("z")]
    assert play.listed(other) == [f.Forget(["r"])]
    assert play.listed(other) == []


def test_what_was_begun_is_opened_and_what_is_over_known():
    play = Play(begun=("r", "a"), finished=("r",))
    assert not play.discovery.is_over("a")
    assert play.discovery.is_over("r")
    play.wait()
    assert play.listed(ROOT, CHILD) == [f.Open("a")]


def test_of_shards_that_are_assigned_nothing_is_known():
    discovery = Discovery(Agenda(), print, Random(1))
    assert not discovery.is_over("a")
    assert discovery.waiting() == {}
