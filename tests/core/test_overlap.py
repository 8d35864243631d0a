"""Replays in shards that are over: they run, and never beside live work of their keys."""

from __future__ import annotations

from typing import Any

from router.core import facts as f
from router.core.model import Chunk, ShardInfo
from router.core.shard import lane_of
from tests.core.columns import RAISED, at, chunk_of
from tests.core.test_streams import Play, invoked

LANE_0, LANE_1 = (next(key for key in (b"%d" % n for n in range(99)) if lane_of(key, 2) == lane) for lane in (0, 1))
SPLIT = [ShardInfo("parent", closed=True), ShardInfo("child", ("parent",))]


def keyed(shard: str, positions: list[int], keys: list[bytes | None], **columns: Any) -> Chunk:
    return chunk_of(positions, shard=shard, keys=keys, **columns)


def replay(failure_id: str, shard: str, positions: list[int], keys: list[bytes | None]) -> f.ReplayRequested:
    return f.ReplayRequested(failure_id, keyed(shard, positions, keys))


def play_of(**settings: Any) -> Play:
    """A stream whose parent is finished and whose child is open."""
    play = Play(**settings)
    play.feed(f.StreamOpened(frozenset({"parent"}), frozenset({"parent"})))
    assert play.feed(f.ShardsListed(SPLIT)) == [f.Open("child")]
    play.open("child", unit="child", checkpoint=100)
    return play


def test_a_replay_of_a_finished_shard_runs_where_nobody_has_its_key():
    play = play_of()
    play.read(keyed("child", [101], [b"other"], before=100), unit="child")
    assert invoked(play.feed(replay("failure", "parent", [5, 6], [b"key", None]))) == [[5, 6]]
    assert [shard.shard for shard in play.engine.status(at(0))] == ["child"]
    play.end()
    assert play.end() == [f.Replayed("failure", ())]


def test_a_replay_waits_for_live_work_of_its_key_and_then_has_the_next_turn():
    play = play_of(batch_size=1)
    play.read(keyed("child", [101, 102], [b"key", b"key"], before=100), unit="child")
    assert invoked(play.feed(replay("failure", "parent", [5], [b"key"]))) == []
    assert invoked(play.end()) == [[5]]
    assert invoked(play.end()) == [[102]]


def test_live_work_of_a_key_waits_for_its_replay_and_that_of_others_does_not():
    play = play_of(batch_size=1, parallelization_factor=2)
    play.feed(replay("failure", "parent", [5], [LANE_0]))
    assert invoked(play.read(keyed("child", [101, 102], [LANE_0, LANE_1], before=100), unit="child")) == [[102]]
    assert invoked(play.end()) == [[101]]


def test_a_read_that_is_still_under_way_ends_after_the_shard_was_finished_elsewhere_and_replayed_here():
    for answer in (f.ChunksRead("parent", [keyed("parent", [5], [b"key"], before=4)]), f.ReadFailed("parent", "away")):
        play = Play()
        play.feed(f.StreamOpened(frozenset(), frozenset()))
        play.feed(f.ShardsListed([ShardInfo("parent")]))
        assert f.Read("parent", {"parent": f.Demand(4, 1000)}) in play.open("parent", unit="parent", checkpoint=4)
        play.feed(f.ShardLost("parent"))
        play.feed(f.ShardsFinished(["parent"]))
        play.feed(replay("failure", "parent", [5], [b"key"]))
        assert play.end() == [f.Replayed("failure", ())]
        assert not [each for each in play.feed(answer) if isinstance(each, f.Invoke | f.Read)]


def test_a_replay_that_fails_is_kept_as_a_new_failure():
    play = play_of(maximum_retry_attempts=0)
    play.feed(replay("failure", "parent", [5], [b"key"]))
    play.end(RAISED)
    kept = play.only(f.Keep).failure
    assert play.feed(f.Kept(kept.id)) == [f.Replayed("failure", (kept.id,))]


def test_a_drain_refuses_the_rest_of_a_replay():
    play = play_of(maximum_retry_attempts=1)
    play.feed(replay("failure", "parent", [5], [b"key"]))
    play.feed(f.DrainRequested(5))
    refused = f.ReplayRefused("failure", "the mapping is stopping")
    assert play.end(RAISED) == [refused, f.Release("parent", leaving=True), f.Finished()]


def test_a_replay_that_waits_for_its_key_is_forgotten_with_its_shard():
    play = play_of(batch_size=1)
    play.read(keyed("child", [101], [b"key"], before=100), unit="child")
    play.feed(replay("failure", "parent", [5], [b"key"]))
    assert f.ReplayRefused("failure", "the mapping is stopping") in play.feed(f.DrainRequested(5))
    assert invoked(play.end()) == []


def test_a_shard_is_finished_when_the_replay_that_runs_in_it_has_ended():
    play = Play(commit_interval_s=0)
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    assert play.feed(f.ShardsListed([ShardInfo("parent")])) == [f.Open("parent")]
    play.open("parent", unit="parent", checkpoint=4)
    page = keyed("parent", [5], [b"key"], before=4)
    page.ended = True
    play.read(page, unit="parent")
    play.feed(replay("running", "parent", [2], [b"key"]))
    play.feed(replay("waiting", "parent", [3], [b"key"]))
    assert invoked(play.end()) == [[2]]
    assert play.only(f.Commit).done == {"parent": f.Progress(5, "")}
    play.feed(f.Committed())
    play.feed(f.Held("nothing else starts"))
    assert invoked(play.end()) == [[3]]
    assert play.end()[-1] == f.Commit({"parent": f.Progress(5, "", ended=True)})
    assert play.feed(f.Committed()) == [f.Release("parent", finished=True), f.List()]
