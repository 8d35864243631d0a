"""What the stream engine asks for, fact by fact: shards, reads, commits, stores, replays, and how it stops."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core import facts as f
from router.core.model import (
    NOT_READ,
    Backoff,
    Batch,
    Cancelled,
    Chunk,
    FunctionError,
    Outcome,
    Pace,
    Refused,
    Returned,
    ShardInfo,
)
from router.core.streams import FORCE_S, REPLAY_WAIT_S, StreamEngine
from tests.core.columns import BOOM, RAISED, at, chunk_of, identify, mapping_of

GOOD = Returned(NOT_READ)


class Play:
    """Feeds an engine by hand, and remembers what it asked for last."""

    def __init__(self, **settings: Any) -> None:
        self.engine = StreamEngine(mapping_of(**{"batch_size": 2, **settings}), identify, Random(1))
        self.now_s = 0.0
        self.asked: list[f.Command] = []
        self.running: dict[str, Batch] = {}
        self.wakes: list[float] = []

    def feed(self, fact: f.Fact) -> list[f.Command]:
        """Give what the fact leads to, without notes and wake-ups."""
        commands = self.engine.feed(fact, at(self.now_s))
        self.wakes += [command.mono_s for command in commands if isinstance(command, f.WakeAt)]
        self.running.update({c.batch.id: c.batch for c in commands if isinstance(c, f.Invoke)})
        self.asked = [command for command in commands if not isinstance(command, f.Note | f.WakeAt)]
        return self.asked

    def wait(self) -> list[f.Command]:
        """Let time pass to the next wake-up."""
        self.now_s = max(self.now_s, min(self.wakes))
        self.wakes = [mono_s for mono_s in self.wakes if mono_s > self.now_s]
        return self.feed(f.Due())

    def open(self, *shards: str, unit: str = "unit", checkpoint: int = -1) -> list[f.Command]:
        return [c for shard in shards for c in self.feed(f.ShardOpened(shard, unit, checkpoint))]

    def read(self, *chunks: Chunk, unit: str = "unit") -> list[f.Command]:
        return self.feed(f.ChunksRead(unit, chunks))

    def end(self, outcome: Outcome = GOOD) -> list[f.Command]:
        """End the invocation that has run for longest."""
        batch_id = next(iter(self.running))
        del self.running[batch_id]
        return self.feed(f.InvocationEnded(batch_id, outcome))

    def only(self, kind: type) -> Any:
        (command,) = [command for command in self.asked if isinstance(command, kind)]
        return command


def invoked(commands: list[f.Command]) -> list[list[int]]:
    return [command.batch.positions() for command in commands if isinstance(command, f.Invoke)]


def read_of(**demand: tuple[int, int]) -> f.Read:
    return f.Read("unit", {shard: f.Demand(*wanted) for shard, wanted in demand.items()})


# --- shards come


def test_a_start_position_is_committed_before_the_first_read():
    play = Play()
    assert play.feed(f.ShardOpened("s", "unit", None)) == [f.Locate("s", lost=False)]
    assert play.feed(f.Located("s", 41)) == [f.Commit({"s": f.Progress(41, "")})]
    assert play.feed(f.Committed()) == [read_of(s=(41, 1000))]


def test_locating_is_tried_again_until_the_source_answers():
    play = Play()
    play.feed(f.ShardOpened("s", "unit", None))
    assert play.feed(f.LocateFailed("s", "no broker")) == []
    assert play.engine.why_stuck() == ("SourceUnavailable", "no broker")
    assert 0.4 <= play.wakes[0] <= 0.6
    assert play.wait() == [f.Locate("s", lost=False)]
    play.feed(f.LocateFailed("s", "no broker"))
    play.feed(f.ShardLost("s"))
    assert play.wait() == []
    assert play.engine.why_stuck() is None


def test_answers_for_shards_that_are_gone_are_not_heard():
    play = Play()
    for fact in (
        f.Located("s", 4),
        f.LocateFailed("s", "late"),
        f.ShardLost("s"),
        f.KeepFailed("id", "x"),
        f.Kept("id"),
    ):
        assert play.feed(fact) == []


def test_a_shard_that_is_opened_again_starts_anew():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    first = next(iter(play.running))
    assert play.open("s", checkpoint=0) == [f.Cancel(first), read_of(s=(0, 1000))]


def test_after_a_loss_a_lane_waits_for_the_end_of_what_still_runs():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    assert play.feed(f.ShardLost("s")) == [f.Cancel(next(iter(play.running)))]
    play.open("s")
    assert invoked(play.read(chunk_of([0, 1]))) == []
    assert invoked(play.end(GOOD)) == [[0, 1]]


def test_a_lane_of_a_lost_shard_is_not_woken():
    play = Play(window_s=5.0)
    play.open("s")
    play.read(chunk_of([0]))
    play.feed(f.ShardLost("s"))
    while play.wakes:
        assert play.wait() == []
    assert play.now_s == 5.0


def test_a_lane_that_was_woken_for_a_retry_still_wakes_for_its_window():
    play = Play(window_s=5.0)
    play.open("s")
    play.read(chunk_of([0]))
    play.now_s = 3.0
    play.read(chunk_of([1]))
    play.end(RAISED)
    play.feed(f.Committed())
    while not invoked(play.wait()):
        pass
    assert play.now_s == pytest.approx(3.2)
    play.end()
    play.read(chunk_of([2]))
    while not invoked(play.wait()):
        pass
    assert play.now_s == pytest.approx(8.2)


def test_an_invocation_may_outlive_its_shard_for_good():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardLost("s"))
    assert play.end(Cancelled()) == []


# --- reading


def test_shards_of_a_unit_are_read_together_and_a_new_one_replaces_the_read():
    play = Play()
    assert play.open("a", "b") == [read_of(a=(-1, 1000)), read_of(a=(-1, 1000), b=(-1, 1000))]


def test_a_shard_that_comes_back_is_read_from_where_it_is_now():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardLost("s"))
    assert play.open("s") == [read_of(s=(-1, 1000))]


def test_a_page_that_does_not_follow_is_not_taken():
    play = Play()
    play.open("s")
    assert play.read(chunk_of([7, 8])) == [read_of(s=(-1, 1000))]
    assert play.read(chunk_of([0], shard="unknown")) == [read_of(s=(-1, 1000))]
    assert play.read(chunk_of([], before=-1)) == [read_of(s=(-1, 1000))]
    assert invoked(play.read(chunk_of([0, 1]))) == [[0, 1]]


def test_a_failed_read_is_tried_again_later_and_the_reason_told():
    play = Play()
    play.open("s")
    assert play.feed(f.ReadFailed("unit", "connection refused")) == []
    assert play.engine.why_stuck() == ("SourceUnavailable", "connection refused")
    assert play.feed(f.Unheld()) == []
    assert play.wait() == [read_of(s=(-1, 1000))]
    play.read(chunk_of([0]))
    assert play.engine.why_stuck() is None


PACE = Pace(idle_s=1.0, busy_s=0.2)


def next_read_s(play: Play) -> float:
    """Wait for the next read; give how long that took."""
    since_s = play.now_s
    for _ in range(10):
        if any(isinstance(command, f.Read) for command in play.wait()):
            return play.now_s - since_s
    raise AssertionError("it is asked to wake up again and again")


def following(page: Chunk) -> Chunk:
    """Give a page like this one, that comes next."""
    positions = [position + 10 for position in page.positions]
    through = positions[-1] if positions else page.through
    return replace(page, before=page.through, through=through, positions=positions)


@pytest.mark.parametrize(
    ("page", "pause_s"),
    [
        (chunk_of([]), 1.0),
        (chunk_of([], more=True), 0.2),
        (chunk_of([], through=7), 1.0),
        (chunk_of([0]), 0.2),
        (chunk_of([0], more=True), 0.2),
        (chunk_of([0], kept=[]), 0.2),
    ],
)
def test_a_stream_is_read_at_its_pace_from_the_start_of_one_read_to_that_of_the_next(page: Chunk, pause_s: float):
    play = Play(pace=PACE)
    assert play.open("s") == [read_of(s=(-1, 1000))]
    play.now_s = 0.1
    play.read(replace(page))
    # The first pause of an idle shard may be shorter, so that not all are read at one time.
    assert PACE.busy_s <= next_read_s(play) + 0.1001 <= pause_s + 0.0002
    play.now_s += 0.1
    play.read(following(page))
    assert next_read_s(play) == pytest.approx(pause_s - 0.1)


def test_a_read_that_took_longer_than_its_pace_is_followed_by_the_next_at_once():
    play = Play(pace=PACE)
    play.open("s")
    play.now_s = 0.3
    assert read_of(s=(0, 1000)) in play.read(chunk_of([0]))
    play.now_s = 1.4
    assert play.read(chunk_of([], before=0)) == [read_of(s=(0, 1000))]


def test_nothing_hurries_a_stream_beyond_its_pace():
    play = Play(pace=PACE, buffer_count=2)
    play.open("s")
    assert play.read(chunk_of([0, 1])) == [play.only(f.Invoke)]
    for fact in (f.Unheld(), f.Due(), f.Due()):
        assert play.feed(fact) == []
    assert next_read_s(play) == pytest.approx(0.2)


def test_a_stream_that_is_read_too_often_waits_longer_each_time_and_then_goes_on_at_its_pace():
    play = Play(pace=PACE)
    play.open("s")
    pauses_s = []
    for _ in range(6):
        assert play.feed(f.ReadFailed("unit", "too many reads", throttled=True)) == []
        pauses_s.append(next_read_s(play))
    assert pauses_s[:3] == [pytest.approx(0.5 * 2**retry, rel=0.2) for retry in range(3)]
    assert pauses_s[-1] == pytest.approx(5.0, rel=0.2)
    for _ in range(2):
        play.read(chunk_of([]))
        pauses_s.append(next_read_s(play))
    assert pauses_s[-1] == pytest.approx(1.0)


def test_without_a_pace_a_stream_that_waits_by_itself_is_read_on_at_once():
    play = Play()
    play.open("s")
    for _ in range(3):
        assert play.read(chunk_of([])) == [read_of(s=(-1, 1000))]
    assert play.wakes == []


@given(data=st.data())
def test_an_engine_never_asks_to_be_woken_for_nothing(data: st.DataObject):
    """Whatever comes, each wake-up is later than the last, or something is done at it."""
    play = Play(pace=data.draw(st.sampled_from((PACE, Pace(0.25, 0.25), Pace()))), window_s=1.0, commit_interval_s=0.5)
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    play.open("s", unit="s")
    position = -1
    for step in data.draw(st.lists(st.sampled_from(("page", "empty", "more", "fails", "throttled")), max_size=12)):
        match step:
            case "page":
                play.read(chunk_of([position + 1], before=position), unit="s")
                position += 1
            case "empty" | "more":
                play.read(chunk_of([], before=position, more=step == "more"), unit="s")
            case _:
                play.feed(f.ReadFailed("s", "no", throttled=step == "throttled"))
        for _ in range(data.draw(st.integers(0, 4))):
            if not play.wakes:
                break
            idle = 0
            before_s = play.now_s
            while play.wait() == [] and play.wakes and play.now_s <= before_s:
                idle += 1
                assert idle < 5, "it spins"


def test_a_full_shard_is_read_again_when_a_batch_leaves_it():
    play = Play(buffer_count=4)
    play.open("s")
    assert play.read(chunk_of(range(4))) == [play.only(f.Invoke), read_of(s=(3, 2))]
    play.read(chunk_of([4, 5]))
    assert play.asked == []
    assert invoked(play.end()) == [[2, 3]]
    assert read_of(s=(5, 2)) in play.asked


def test_a_full_shard_is_read_again_when_all_it_held_has_expired():
    play = Play(buffer_count=2, maximum_record_age_s=60)
    play.open("s")
    assert play.read(chunk_of([0, 1], times_ms=[0, 0])) == [play.only(f.Keep), read_of(s=(1, 2))]


def test_while_memory_is_full_only_shards_that_hold_nothing_are_read():
    play = Play(memory_bytes=50, window_s=60.0, batch_size=10)
    play.open("a", "b")
    play.feed(f.Held("full"))
    assert play.read(chunk_of(range(6), shard="a")) == [read_of(b=(-1, 10))]
    assert play.read(chunk_of([0], shard="b")) == []
    assert play.feed(f.ShardLost("a")) == [read_of(b=(0, 999))]


def test_shards_that_are_read_at_once_are_asked_for_a_batch_each_as_soon_as_more_might_not_fit():
    play = Play(memory_bytes=1_500_000, batch_size=10, parallelization_factor=2)
    wanted = [play.open(name, unit=name) for name in "abc"]
    assert [read.demand[name].limit for name, (read,) in zip("abc", wanted, strict=True)] == [1000, 1000, 20]


def test_a_window_is_not_cut_because_reads_of_other_shards_may_bring_much():
    play = Play(memory_bytes=1_500_000, batch_size=1000, window_s=60.0)
    for name in "abc":
        play.open(name, unit=name)
    assert play.read(chunk_of([0], shard="a"), unit="a") == [f.Read("a", {"a": f.Demand(0, 1000)})]


def test_shards_that_have_nothing_new_are_read_at_times_of_their_own_and_then_at_their_pace():
    play = Play(pace=Pace(idle_s=1.0, busy_s=0.2))
    for name in "ab":
        play.open(name, unit=name)
        play.read(chunk_of([], shard=name), unit=name)
    times_s: dict[str, list[float]] = {"a": [], "b": []}
    while play.now_s < 4:
        for command in play.wait():
            assert isinstance(command, f.Read)
            (name,) = command.demand
            times_s[name].append(play.now_s)
            play.read(chunk_of([], shard=name), unit=name)
    for mine in times_s.values():
        assert 0.2 <= mine[0] <= 1.0
        assert mine[:3] == pytest.approx([mine[0], mine[0] + 1, mine[0] + 2])
    assert times_s["a"][0] != times_s["b"][0]


def test_a_shard_that_has_no_room_does_not_wait_for_its_window():
    play = Play(buffer_count=2, window_s=60.0, batch_size=10)
    play.open("s")
    assert invoked(play.read(chunk_of([0, 1]))) == [[0, 1]]


# --- a position that is gone


def test_a_lost_position_is_located_again_and_what_is_in_memory_goes_on():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1, 2]))
    assert play.feed(f.PositionGone("unit", "s", "out of range")) == [f.Locate("s", lost=True)]
    assert play.end() == []
    assert play.feed(f.Located("s", 50)) == [f.Commit({"s": f.Progress(1, "")})]
    assert invoked(play.feed(f.Committed())) == [[2]]
    assert read_of(s=(50, 1000)) in play.asked
    play.feed(f.PositionGone("unit", "unknown", "out of range"))
    play.end()
    assert play.wait() == [f.Commit({"s": f.Progress(50, "")})]


def test_an_unchanged_position_is_read_on_without_a_commit():
    play = Play()
    play.open("s", checkpoint=5)
    play.feed(f.PositionGone("unit", "s", "leader epoch"))
    assert play.feed(f.Located("s", 5)) == [read_of(s=(5, 1000))]


def test_a_log_that_was_made_anew_is_read_from_its_beginning():
    play = Play()
    play.open("s", checkpoint=40)
    play.read(chunk_of([41, 42]))
    play.feed(f.PositionGone("unit", "s", "out of range"))
    cancel = f.Cancel(next(iter(play.running)))
    assert play.feed(f.Located("s", -1)) == [cancel, f.Commit({"s": f.Progress(-1, "")})]


def lose(play: Play) -> None:
    assert play.feed(f.PositionGone("unit", "s", "trimmed")) == [f.Locate("s", lost=True)]


def test_a_shard_whose_oldest_position_nobody_knows_is_read_from_its_oldest_record_and_what_is_in_memory_goes_on():
    play = Play(commit_interval_s=0.0)
    play.open("s")
    play.read(chunk_of([0, 1, 2]))
    lose(play)
    assert play.end() == [f.Commit({"s": f.Progress(1, "")})]
    assert [*invoked(play.feed(f.Rewound("s"))), play.only(f.Read)] == [[2], read_of(s=(-1, 1000))]
    assert play.read(chunk_of([])) == [read_of(s=(-1, 1000))]
    assert play.read(chunk_of([7, 8], before=-1)) == [read_of(s=(8, 998))]
    play.feed(f.Committed())
    assert invoked(play.end()) == [[7, 8]]
    assert play.only(f.Commit) == f.Commit({"s": f.Progress(2, "")})


def test_a_shard_that_was_rewound_and_holds_nothing_comes_to_its_end():
    play = Play()
    play.open("s", checkpoint=40)
    lose(play)
    play.feed(f.Rewound("s"))
    assert play.read(chunk_of([], ended=True)) == [f.Commit({"s": f.Progress(40, "", ended=True)})]


@pytest.mark.parametrize("lanes", [1, 2])
def test_work_from_before_a_restart_whose_records_are_gone_holds_nothing_up(lanes: int):
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1], keys=[b"a", b"a"]))
    play.end(RAISED)
    again = Play(parallelization_factor=lanes)
    again.feed(f.ShardOpened("s", "unit", -1, play.only(f.Commit).done["s"].retry_state))
    lose(again)
    again.feed(f.Rewound("s"))
    again.read(chunk_of([], more=True))
    assert invoked(again.feed(f.ReplayRequested("failure", chunk_of([0, 1], keys=[b"a", b"a"])))) == []
    assert invoked(again.read(chunk_of([]))) == [[0, 1]]
    assert f.Replayed("failure", ()) in again.end(GOOD)


def test_a_shard_that_was_made_anew_is_read_from_its_beginning():
    play = Play(commit_interval_s=0.0)
    play.open("s", checkpoint=40)
    play.read(chunk_of([41, 42], before=40))
    cancel = f.Cancel(next(iter(play.running)))
    lose(play)
    play.feed(f.Rewound("s"))
    assert play.read(chunk_of([3, 4], before=-1))[0] == cancel
    assert invoked(play.end(Cancelled())) == [[3, 4]]
    assert invoked(play.end()) == []
    assert play.feed(f.Committed()) == [f.Commit({"s": f.Progress(4, "")})]


def test_a_rewind_of_a_shard_that_is_gone_is_not_heard():
    play = Play()
    assert play.feed(f.Rewound("s")) == []
    play.open("s")
    assert play.feed(f.Rewound("s")) == []


# --- shards that are found


def find(*shards: ShardInfo, remade: bool = False, **settings: Any) -> Play:
    """Open a stream that lists these shards; gives what is to be opened."""
    play = Play(**settings)
    assert play.feed(f.StreamOpened(frozenset(), frozenset(), remade)) == [f.List()]
    play.feed(f.ShardsListed(shards))
    return play


PARENT, CHILD = ShardInfo("s", (), closed=True), ShardInfo("c", ("s",))


def test_a_shard_is_finished_when_its_end_is_committed_and_then_its_children_are_read():
    play = find(PARENT, CHILD)
    assert play.asked == [f.Open("s")]
    play.open("s", unit="s")
    play.read(chunk_of([0, 1], ended=True), unit="s")
    assert play.end() == [f.Commit({"s": f.Progress(1, "", ended=True)})]
    assert play.feed(f.Committed()) == [f.Release("s", finished=True), f.Open("c")]
    assert [shard.shard for shard in play.engine.status(at(0))] == []


def test_children_are_read_when_another_replica_has_finished_their_parent():
    play = find(PARENT, CHILD)
    assert play.feed(f.ShardsFinished(["s"])) == [f.Open("c")]
    assert play.feed(f.ShardsFinished(["c"])) == [f.List()]
    assert play.feed(f.ShardsFinished(["s", "c"])) == []  # nothing new: nobody is asked


def test_a_replay_that_waits_for_a_shard_runs_when_another_replica_has_finished_it():
    play = find(PARENT, CHILD)
    play.feed(f.ReplayRequested("failure", chunk_of([0], shard="s")))
    assert play.running == {}
    play.feed(f.ShardsFinished(["s"]))
    assert [batch.replays for batch in play.running.values()] == ["failure"]


def test_a_shard_that_ends_while_a_batch_is_tried_again_is_not_finished_before_that_is_settled():
    play = find(PARENT, CHILD, maximum_retry_attempts=1)
    play.open("s", unit="s")
    play.read(chunk_of([0, 1], ended=True), unit="s")
    play.end(RAISED)
    assert not play.only(f.Commit).done["s"].ended
    assert play.feed(f.Committed()) == []
    play.wait()
    play.end(RAISED)
    keep = play.only(f.Keep)
    assert play.feed(f.Kept(keep.failure.id)) == [f.Commit({"s": f.Progress(1, "", ended=True)})]
    assert play.feed(f.Committed()) == [f.Release("s", finished=True), f.Open("c")]


def test_what_was_read_of_a_shard_that_is_deleted_is_finished():
    play = find(PARENT, CHILD)
    play.open("s", unit="s")
    play.read(chunk_of([0, 1]), unit="s")
    assert play.feed(f.ShardDeleted("s", "s", "no such shard")) == []
    assert play.end() == [f.Commit({"s": f.Progress(1, "", ended=True)})]
    assert play.feed(f.Committed()) == [f.Release("s", finished=True), f.Open("c")]


def test_a_shard_that_is_deleted_while_it_is_closing_is_left_as_it_is():
    play = find(ShardInfo("s"))
    play.open("s", unit="s")
    play.read(chunk_of([0, 1]), unit="s")
    play.feed(f.DrainRequested(30.0))
    assert play.feed(f.ShardDeleted("s", "s", "no such shard")) == []
    assert play.end() == [f.Commit({"s": f.Progress(1, "")})]


def test_why_shards_cannot_be_listed_is_told():
    play = Play()
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    assert play.feed(f.ListFailed("access denied")) == []
    assert play.engine.why_stuck() == ("SourceUnavailable", "access denied")
    assert play.wait() == [f.List()]


def test_that_a_stream_was_made_again_is_told():
    commands = Play().engine.feed(f.StreamOpened(frozenset(), frozenset(), remade=True), at(0))
    assert f.Note("stream.remade", "", {}) in commands


def test_a_restart_with_other_lanes_first_ends_what_was_begun_and_lets_the_rest_wait():
    play = Play(parallelization_factor=2)
    play.open("s")
    play.read(chunk_of([0, 1, 2, 3], keys=[b"a", b"a", b"a", b"a"]))
    play.end(RAISED)
    state = play.only(f.Commit).done["s"].retry_state
    again = Play()
    again.feed(f.ShardOpened("s", "unit", -1, state))
    assert invoked(again.read(chunk_of([0, 1, 2, 3], keys=[b"a"] * 4))) == []
    assert invoked(again.wait()) == [[0, 1]]
    assert invoked(again.end()) == [[2, 3]]
    again.end()
    again.feed(f.Committed())
    while not again.wait():
        pass
    assert again.asked == [f.Commit({"s": f.Progress(3, "")})]


def test_unfinished_work_of_other_lanes_that_belongs_to_another_checkpoint_is_void():
    play = Play(parallelization_factor=2)
    play.open("s")
    play.read(chunk_of([0, 1], keys=[b"a", b"a"]))
    play.end(RAISED)
    state = play.only(f.Commit).done["s"].retry_state
    again = Play()
    again.feed(f.ShardOpened("s", "unit", 7, state))
    assert invoked(again.read(chunk_of([8, 9]))) == [[8, 9]]


def test_what_is_missing_of_unfinished_work_when_a_shard_ends_is_gone():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end(RAISED)
    state = play.only(f.Commit).done["s"].retry_state
    again = find(PARENT, CHILD)
    again.feed(f.ShardOpened("s", "s", -1, state))
    again.read(chunk_of([0], ended=True), unit="s")
    assert invoked(again.wait()) == [[0]]
    assert again.end() == [f.Commit({"s": f.Progress(0, "", ended=True)})]


# --- committing


def test_successes_are_committed_together_and_late():
    play = Play(commit_interval_s=1.0)
    play.open("s")
    play.read(chunk_of(range(4)))
    assert not any(isinstance(command, f.Commit) for command in play.end() + play.end())
    assert play.wakes == [1.0]
    assert play.wait() == [f.Commit({"s": f.Progress(3, "")})]
    assert play.feed(f.Committed()) == []


def test_a_failed_try_is_committed_before_the_next():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end(RAISED)
    state = play.only(f.Commit).done["s"]
    assert state.checkpoint == -1
    assert '"p":[[[[1,2]]' in state.retry_state
    assert play.wait() == []
    assert invoked(play.feed(f.Committed())) == [[0, 1]]


def test_one_commit_at_a_time_also_covers_what_changes_meanwhile():
    play = Play(parallelization_factor=2, bisect=True)
    play.open("s")
    play.read(chunk_of(range(4)))
    play.end(RAISED)
    play.only(f.Commit)
    assert play.end(RAISED) == []
    assert invoked(play.feed(f.Committed())) == [[0]]
    play.only(f.Commit)
    assert invoked(play.feed(f.Committed())) == [[1]]


def test_a_failed_commit_is_tried_again_and_the_reason_told():
    play = Play(commit_interval_s=0.0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end()
    assert play.feed(f.CommitFailed("rebalance")) == []
    assert play.engine.why_stuck() == ("CommitFailed", "Progress cannot be committed: rebalance")
    assert play.wait() == [f.Commit({"s": f.Progress(1, "")})]
    play.feed(f.Committed())
    assert play.engine.why_stuck() is None


def test_a_commit_of_a_lost_shard_is_not_tried_again():
    play = Play(commit_interval_s=0.0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end()
    play.feed(f.ShardLost("s"))
    assert play.feed(f.CommitFailed("not ours")) == []
    assert play.engine.why_stuck() is None
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end()
    play.feed(f.ShardLost("s"))
    assert play.feed(f.Committed()) == []


# --- holding, and what cannot be stored


def test_while_held_nothing_starts_and_the_reason_is_told():
    play = Play()
    play.open("s")
    play.feed(f.Held("12 undelivered failures"))
    assert invoked(play.read(chunk_of([0, 1]))) == []
    assert play.engine.why_stuck() == ("FailureBacklogFull", "12 undelivered failures")
    assert invoked(play.feed(f.Unheld())) == [[0, 1]]
    assert play.engine.why_stuck() is None


def test_what_failed_can_be_replayed_while_held_but_nothing_else_runs():
    play = Play()
    play.open("s", checkpoint=10)
    play.feed(f.Held("1,000 undelivered failures"))
    assert invoked(play.read(chunk_of([11, 12], before=10))) == []
    assert invoked(play.feed(request(4))) == [[4]]
    assert invoked(play.end(RAISED)) == []
    while not invoked(play.wait()):
        assert play.now_s < 10.0
    assert play.end() == [f.Replayed("failure", ())]
    assert invoked(play.feed(f.Unheld())) == [[11, 12]]


def test_a_failed_batch_is_stored_before_anything_passes_it():
    play = Play(maximum_retry_attempts=0)
    play.open("s")
    play.read(chunk_of(range(4)))
    play.end(RAISED)
    keep = play.only(f.Keep)
    assert (keep.failure.first_position, keep.failure.last_position, keep.failure.attempts) == (0, 1, 1)
    assert play.feed(f.KeepFailed(keep.failure.id, "disk full")) == []
    assert play.engine.why_stuck() == ("FailureStoreUnavailable", "A failed batch cannot be stored: disk full")
    assert play.wait() == [keep]
    assert play.feed(f.Kept(keep.failure.id))[0] == f.Invoke(next(reversed(play.running.values())))
    assert play.only(f.Commit).done["s"].checkpoint == 1
    assert play.engine.why_stuck() is None


def test_storing_for_an_earlier_life_of_a_shard_does_not_disturb_the_next():
    play = Play(maximum_retry_attempts=0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end(RAISED)
    keep = play.only(f.Keep)
    play.feed(f.KeepFailed(keep.failure.id, "disk full"))
    play.feed(f.ShardLost("s"))
    assert play.engine.why_stuck() is None
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end(RAISED)
    again = play.only(f.Keep)
    assert again.failure.id == keep.failure.id
    assert play.wait() == []
    play.feed(f.Kept(again.failure.id))
    assert play.only(f.Commit).done["s"] == f.Progress(1, "")


def test_failures_of_a_log_that_was_made_anew_have_other_ids():
    ids = set()
    for time_ms in (1, 2):
        play = Play(maximum_retry_attempts=0)
        play.open("s")
        play.read(chunk_of([0, 1], times_ms=[time_ms] * 2))
        play.end(RAISED)
        ids.add(play.only(f.Keep).failure.id)
    assert len(ids) == 2


# --- giving shards back, and stopping


def test_a_revoked_shard_is_given_back_when_its_work_is_committed():
    play = Play()
    play.open("s")
    play.read(chunk_of(range(4)))
    assert play.feed(f.ShardRevoking("s")) == [f.Cancel(next(iter(play.running)), waiting_only=True)]
    assert play.end() == [f.Commit({"s": f.Progress(1, "")})]
    assert play.feed(f.Committed()) == [f.Release("s")]
    assert play.wait() == []


def test_what_was_not_started_is_left_to_the_next_owner():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardRevoking("s"))
    assert play.end(Cancelled()) == [f.Release("s")]


def test_a_revoked_shard_without_work_is_given_back_at_once():
    play = Play()
    play.open("s")
    assert play.feed(f.ShardRevoking("s")) == [f.Release("s")]
    assert play.feed(f.ShardRevoking("s")) == [f.Release("s")]


def test_a_revoked_shard_is_given_back_after_its_deadline_as_soon_as_nothing_of_it_runs():
    play = Play(drain_s=30.0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    batch_id = next(iter(play.running))
    play.feed(f.ShardRevoking("s"))
    while play.wait() != [f.Cancel(batch_id)]:
        assert play.asked == []
    assert play.now_s == 30.0
    assert play.wait() == [f.Cancel(batch_id)]
    assert play.now_s == 30.0 + FORCE_S
    assert play.end(Cancelled()) == [f.Release("s")]


def test_a_shard_that_comes_back_or_is_lost_before_it_could_be_given_back_is_not():
    for fact in (f.ShardOpened("s", "unit", 0), f.ShardLost("s")):
        play = Play(drain_s=0.0)
        play.open("s")
        play.read(chunk_of([0, 1]))
        play.feed(f.ShardRevoking("s"))
        while play.now_s < FORCE_S:
            play.wait()
        play.feed(fact)
        assert f.Release("s") not in play.end(Cancelled())


def test_what_comes_back_at_a_drain_is_given_back_when_nothing_of_it_runs_whoever_asks_for_it():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardLost("s"))
    play.feed(f.DrainRequested(10.0))
    assert play.feed(f.ShardOpened("s", "unit", 0)) == []
    assert play.feed(f.ShardRevoking("s")) == []
    assert play.end(Cancelled()) == [f.Release("s", leaving=True), f.Finished()]


def test_what_ends_soon_after_the_deadline_is_still_committed():
    play = Play(drain_s=30.0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardRevoking("s"))
    while not play.wait():
        pass
    assert play.end() == [f.Commit({"s": f.Progress(1, "")})]
    assert play.feed(f.Committed()) == [f.Release("s")]
    assert play.wait() == []


def test_a_shard_that_could_not_be_committed_is_not_called_released():
    play = Play(drain_s=30.0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardRevoking("s"))
    assert play.end() == [f.Commit({"s": f.Progress(1, "")})]
    told: list[str] = []
    while "shard.abandoned" not in told:
        play.now_s += 5.0
        assert play.now_s < 60.0
        told += [each.event for each in play.engine.feed(f.Due(), at(play.now_s)) if isinstance(each, f.Note)]
    assert "shard.released" not in told


def test_a_failure_is_stored_before_its_shard_is_given_back():
    play = Play(maximum_retry_attempts=0)
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.feed(f.ShardRevoking("s"))
    play.end(RAISED)
    keep = play.only(f.Keep)
    assert play.feed(f.Kept(keep.failure.id)) == [f.Commit({"s": f.Progress(1, "")})]
    assert play.feed(f.Committed()) == [f.Release("s")]


def test_a_drain_ends_what_is_in_flight_and_starts_nothing():
    play = Play()
    play.open("a", "b")
    play.read(chunk_of(range(4), shard="a"))
    batch_id = next(iter(play.running))
    drained = play.feed(f.DrainRequested(10.0))
    assert drained == [f.Read("unit", {}), f.Cancel(batch_id, waiting_only=True), f.Release("b", leaving=True)]
    assert play.feed(f.DrainRequested(10.0)) == [f.Read("unit", {})]
    assert play.read(chunk_of([4, 5], before=3, shard="a")) == []
    assert play.feed(f.ShardOpened("c", "unit", 0)) == [f.Release("c", leaving=True)]
    assert play.end() == [f.Commit({"a": f.Progress(1, "")})]
    assert play.feed(f.Committed()) == [f.Release("a", leaving=True), f.Finished()]
    assert play.feed(f.Due()) == []


def test_a_drain_that_is_asked_for_again_ends_sooner():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    batch_id = next(iter(play.running))
    play.feed(f.DrainRequested(900.0))
    play.feed(f.DrainRequested(10.0))
    play.now_s = 9.9
    assert play.feed(f.Due()) == []
    play.now_s = 10.0
    assert play.feed(f.Due()) == [f.Cancel(batch_id)]


def test_an_idle_mapping_is_drained_at_once():
    play = Play()
    assert play.feed(f.DrainRequested(10.0)) == [f.Finished()]


# --- replaying


def request(*positions: int, shard: str = "s", failure_id: str = "failure") -> f.ReplayRequested:
    return f.ReplayRequested(failure_id, chunk_of(positions, shard=shard))


def test_a_replay_runs_in_its_lanes_and_ends_when_all_of_it_has():
    play = Play(parallelization_factor=2)
    play.open("s", checkpoint=10)
    assert invoked(play.feed(request(4, 5, 6))) == [[4, 6], [5]]
    assert play.feed(request(4, 5, 6)) == []
    assert play.end() == []
    assert play.end() == [f.Replayed("failure", ())]


def test_a_replay_waits_for_the_live_batch_of_its_lane_and_spends_its_own_attempts():
    play = Play(maximum_retry_attempts=1)
    play.open("s", checkpoint=10)
    play.read(chunk_of([11, 12]))
    assert invoked(play.feed(request(4, 5))) == []
    assert invoked(play.end()) == [[4, 5]]
    assert play.end(RAISED) == []
    assert invoked(play.wait()) == [[4, 5]]
    play.end(RAISED)
    keep = play.only(f.Keep)
    assert (keep.failure.parent, keep.failure.attempts) == ("failure", 2)
    assert play.feed(f.Kept(keep.failure.id)) == [f.Replayed("failure", (keep.failure.id,))]


def test_a_replay_waits_a_while_for_its_shard():
    play = Play()
    assert play.feed(request(4)) == []
    assert play.feed(request(4)) == []
    play.open("other", unit="elsewhere")
    assert invoked(play.open("s", checkpoint=10)) == [[4]]
    play.feed(request(7, shard="away", failure_id="late"))
    play.wakes = [REPLAY_WAIT_S]
    (refused,) = play.wait()
    assert isinstance(refused, f.ReplayRefused)
    assert (refused.failure_id, "away" in refused.reason) == ("late", True)


def test_a_replay_begins_anew_when_its_shard_comes_back():
    play = Play(parallelization_factor=2)
    play.open("s", checkpoint=10)
    play.feed(request(4, 5))
    cancels = [f.Cancel(batch_id) for batch_id in play.running]
    asked = play.feed(f.ShardLost("s"))
    assert [command for command in asked if isinstance(command, f.Cancel)] == cancels
    assert play.end() == play.end() == []
    assert invoked(play.open("s", checkpoint=10)) == [[4], [5]]
    play.end()
    assert play.end() == [f.Replayed("failure", ())]


def test_a_drain_refuses_what_is_left_of_a_replay():
    play = Play(parallelization_factor=2)
    play.open("s", checkpoint=10)
    play.feed(request(4, 5))
    play.feed(f.DrainRequested(1.0))
    assert play.end() == []
    refused = f.ReplayRefused("failure", "the mapping is stopping")
    assert play.end(Cancelled()) == [refused, f.Release("s", leaving=True), f.Finished()]


def test_a_drain_refuses_replays():
    play = Play()
    play.feed(request(4))
    stopping = f.ReplayRefused("failure", "the mapping is stopping")
    assert play.feed(f.DrainRequested(1.0)) == [stopping, f.Finished()]
    assert play.feed(request(4)) == [stopping]


GONE = Refused(FunctionError("ResourceNotFoundException", "Function not found: orders"))
WITHOUT = f.ReplayRefused("failure", "its function is gone: Function not found: orders; see `headrace status`")


def test_a_replay_ends_when_its_function_is_gone_and_live_records_wait_for_it():
    play = Play()
    play.open("s", checkpoint=10)
    play.read(chunk_of([11]))
    play.feed(request(4))
    assert invoked(play.end(GONE)) == [[4]]
    assert WITHOUT in play.end(GONE)
    assert invoked(play.wait()) == [[11]]


def test_a_replay_in_several_lanes_ends_without_its_function_once_none_of_it_runs():
    play = Play(parallelization_factor=2)
    play.open("s", checkpoint=10)
    play.feed(request(4, 5))
    assert WITHOUT not in play.end(GONE)
    assert play.end() == [WITHOUT]


def stray(*positions: int, shard: str = "s", failure_id: str = "failure") -> f.ReplayRequested:
    """Ask for a replay that is another replica's if the shard is."""
    return f.ReplayRequested(failure_id, chunk_of(positions, shard=shard), waits=False)


def astray(shard: str = "s") -> f.ReplayRefused:
    return f.ReplayRefused("failure", f"shard {shard} is not assigned to this daemon", astray=True)


def test_a_replay_that_does_not_wait_is_given_back_when_its_shard_is_not_ours():
    play = Play()
    play.open("other", unit="elsewhere")
    assert play.feed(request(9, shard="s", failure_id="patient")) == []
    assert play.feed(stray(4)) == [astray()]
    assert invoked(play.open("s", checkpoint=10)) == [[9]]


def test_a_replay_that_does_not_wait_is_given_back_once_nothing_of_its_shard_runs_any_more():
    play = Play(parallelization_factor=2)
    play.open("s", checkpoint=10)
    assert invoked(play.feed(stray(4, 5))) == [[4], [5]]
    assert not [each for each in play.feed(f.ShardLost("s")) if isinstance(each, f.ReplayRefused)]
    assert play.end(Cancelled()) == []
    assert play.end(Cancelled()) == [astray()]


def test_a_replay_that_does_not_wait_runs_here_when_its_shard_is_back_before_it_was_given_back():
    play = Play()
    play.open("s", checkpoint=10)
    play.feed(stray(4))
    play.feed(f.ShardLost("s"))
    play.open("s", checkpoint=10)
    assert invoked(play.end(Cancelled())) == [[4]]
    assert play.end() == [f.Replayed("failure", ())]


def test_a_replay_that_has_not_begun_is_given_back_with_its_shard():
    play = Play()
    play.open("s", checkpoint=10)
    play.read(chunk_of([11, 12]))
    assert invoked(play.feed(stray(4, 5))) == []
    play.feed(f.ShardRevoking("s"))
    assert play.end() == [f.Commit({"s": f.Progress(12, "")})]
    assert astray() in play.feed(f.Committed())


def test_a_drain_gives_back_replays_that_do_not_wait():
    play = Play()
    play.open("s", checkpoint=10)
    play.feed(stray(4))
    play.feed(f.DrainRequested(1.0))
    assert astray() in play.end(Cancelled())
    assert play.feed(stray(4)) == [astray()]


# --- telling


def test_status_of_a_shard_that_retries():
    play = Play(maximum_record_age_s=900)
    play.open("s", checkpoint=10)
    play.read(chunk_of([11, 12, 13], times_ms=[999_000, 999_001, 999_002]))
    (running,) = play.engine.status(at(0))
    assert (running.shard, running.phase, running.checkpoint, running.in_flight) == ("s", "open", 10, 2)
    assert (running.attempts, running.next_try_s, running.last_error) == (0, None, None)
    assert running.oldest_ms == 999_000
    play.end(RAISED)
    (failing,) = play.engine.status(at(0))
    assert (failing.in_flight, failing.attempts, failing.last_error) == (0, 1, "boom")
    assert failing.next_try_s == pytest.approx(1000.2)


def test_status_of_a_shard_that_waits_or_holds_nothing():
    play = Play(window_s=9.0)
    play.open("s", checkpoint=10)
    (empty,) = play.engine.status(at(0))
    assert (empty.oldest_ms, empty.in_flight) == (None, 0)
    play.read(chunk_of([11], times_ms=[5]))
    (waiting,) = play.engine.status(at(0))
    assert waiting.oldest_ms == 5


def test_status_tells_of_a_function_that_cannot_start():
    play = Play()
    play.open("s")
    play.read(chunk_of([0, 1]))
    play.end(Refused(BOOM))
    (refused,) = play.engine.status(at(0))
    assert (refused.attempts, refused.refusals, refused.last_error) == (0, 1, "boom")


def test_notes_tell_of_tries_that_did_not_succeed():
    play = Play(bisect=True, report_item_failures=True, maximum_retry_attempts=5)
    play.open("s")
    play.read(chunk_of([0, 1]))
    told = []
    for outcome in (
        Refused(BOOM),
        Returned({"batchItemFailures": [{"itemIdentifier": 1}]}),
        RAISED,
    ):
        commands = play.engine.feed(f.InvocationEnded(next(reversed(play.running)), outcome), at(play.now_s))
        told += [command.event for command in commands if isinstance(command, f.Note)]
        play.wakes += [command.mono_s for command in commands if isinstance(command, f.WakeAt)]
        if any(isinstance(command, f.Commit) for command in commands):
            play.feed(f.Committed())
        else:
            play.wait()
    assert told == ["batch.refused", "batch.partly_failed", "batch.failed"]


# --- bounds


def test_nothing_is_left_behind_by_many_failures():
    play = Play(window_s=300.0, batch_size=1, maximum_retry_attempts=1, backoff=Backoff(0.01, 0.01, jitter=0.0))
    play.open("s")
    for position in range(500):
        play.read(chunk_of([position]))
        for command in play.end(RAISED):
            if isinstance(command, f.Commit):
                play.feed(f.Committed())
        while not play.running:
            play.wait()
        play.end(RAISED)
        play.feed(f.Kept(play.only(f.Keep).failure.id))
        play.feed(f.Committed())
    engine = play.engine
    assert len(engine._agenda) < 10
    assert not engine._running
    assert not engine._keeping


def test_same_facts_and_seed_give_the_same_commands():
    def life() -> list[str]:
        play = Play(maximum_retry_attempts=1, backoff=Backoff())
        told = [str(play.open("s")), str(play.read(chunk_of([0, 1])))]
        play.end(RAISED)
        return [*told, str(play.asked), str(play.wakes)]

    first, second = life(), life()
    assert first[2:] == second[2:]


def test_only_what_the_function_succeeded_with_counts_as_done() -> None:
    play = Play(report_item_failures=True, maximum_retry_attempts=0)
    play.open("s")
    play.read(chunk_of([0, 1, 2, 3]))
    play.end(Returned({"batchItemFailures": [{"itemIdentifier": 1}]}))
    assert play.engine.records_done == 1
    play.feed(f.Committed())
    play.end(Returned({"batchItemFailures": []}))
    assert play.engine.records_done == 2
    play.end(RAISED)
    assert play.only(f.Keep).batch.positions() == [2, 3]
    assert play.engine.records_done == 2


def test_a_shard_that_is_over_is_not_read_again_when_its_next_read_was_due():
    play = Play(pace=Pace(idle_s=1.0, busy_s=0.2))
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    play.feed(f.ShardsListed([ShardInfo("s", closed=True)]))
    play.open("s", unit="s")
    nothing = chunk_of([], before=-1)
    nothing.ended = True
    assert play.read(nothing, unit="s") == [f.Commit({"s": f.Progress(-1, "", ended=True)})]
    play.feed(f.Committed())
    assert play.engine.status(at(0)) == []
    play.now_s = 2.0
    assert not [command for command in play.wait() if isinstance(command, f.Read)]


# --- shards that end


def test_a_finished_shard_is_not_read_again_when_its_pace_would_have_it():
    play = Play(commit_interval_s=0, pace=Pace(idle_s=1.0, busy_s=0.2))
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    play.feed(f.ShardsListed([ShardInfo("s")]))
    play.open("s", unit="s", checkpoint=4)
    page = chunk_of([5], before=4)
    page.ended = True
    play.read(page, unit="s")
    play.end()
    assert play.only(f.Commit).done == {"s": f.Progress(5, "", ended=True)}
    play.feed(f.Committed())
    play.now_s = 1.0
    assert play.feed(f.Due()) == []


# --- how much is read, and how soon


def test_what_was_read_is_paid_off_before_more_is_read():
    play = Play(pace=Pace(idle_s=1.0, busy_s=0.2, bytes_per_s=100))
    play.open("s")
    page = chunk_of([0, 1])
    page.read_bytes = 50
    assert not any(isinstance(command, f.Read) for command in play.read(page))
    play.now_s = 0.49
    assert play.feed(f.Due()) == []
    play.now_s = 0.5
    assert play.feed(f.Due()) == [read_of(s=(1, 1000))]


def test_reads_under_way_count_as_memory_and_a_shard_that_holds_nothing_can_fill_a_batch_of_each_lane():
    play = Play(memory_bytes=1_000_000, parallelization_factor=3)
    assert play.open("a", unit="a") == [f.Read("a", {"a": f.Demand(-1, 1000)})]
    assert play.open("b", unit="b") == [f.Read("b", {"b": f.Demand(-1, 6)})]
    play.read(chunk_of([], before=-1, shard="a"), unit="a")
    play.read(chunk_of([], before=-1, shard="b"), unit="b")
    play.open("c", unit="c")
    assert play.asked == [f.Read("c", {"c": f.Demand(-1, 6)})]


def test_a_stream_that_was_made_again_is_told():
    play = Play()
    assert f.Note("stream.remade", "", {}) in play.engine.feed(
        f.StreamOpened(frozenset(), frozenset(), remade=True), at(0)
    )


def test_a_listing_that_fails_says_why_nothing_moves():
    play = Play()
    play.feed(f.StreamOpened(frozenset(), frozenset()))
    play.feed(f.ListFailed("no answer"))
    assert play.engine.why_stuck() == ("SourceUnavailable", "no answer")
    assert play.wait() == [f.List()]
    play.feed(f.ShardsListed([]))
    assert play.engine.why_stuck() is None


def test_a_shard_that_went_while_it_was_read_is_not_told_as_deleted():
    play = Play()
    play.open("s")
    play.feed(f.ShardLost("s"))
    assert play.feed(f.ShardDeleted("unit", "s", "it is gone")) == []
