"""Tumbling windows through the engine: what is called when, what is committed, and what a restart goes on with."""

from __future__ import annotations

import json
from typing import Any

from router.core import facts as f
from router.core.describe import Repeat
from router.core.model import Chunk, Outcome, Returned, WindowCall
from router.core.tumbling import GRACE_S, STATE_LIMIT_BYTES
from tests.core.columns import RAISED, at, chunk_of
from tests.core.test_streams import Play

#: Wall time of the first window, which is 10 s long; the wall is 1000 s ahead of the monotonic clock.
START_S = 1000


class Windows(Play):
    """One shard in windows of 10 s whose function counts."""

    def __init__(self, text: str = "", checkpoint: int = -1, **settings: Any) -> None:
        super().__init__(**{"tumbling_window_s": 10, "batch_size": 10, "commit_interval_s": 0.0, **settings})
        self.last = -1
        self.committed = f.Progress(checkpoint, text)
        self.feed(f.ShardOpened("s", "unit", checkpoint, text))

    def feed(self, fact: f.Fact) -> list[f.Command]:
        commands = super().feed(fact)
        for commit in [each for each in commands if isinstance(each, f.Commit)]:
            self.committed = commit.done["s"]
            super().feed(f.Committed())
        return commands

    def arrive(self, *offsets_s: float) -> None:
        """Let records come, so many seconds after the first window's start."""
        positions = range(self.last + 1, self.last + 1 + len(offsets_s))
        times_ms = [round((START_S + each) * 1000) for each in offsets_s]
        self.read(chunk_of(positions, times_ms=times_ms, before=self.last))
        self.last = positions[-1]

    def nothing(self, **page: bool) -> None:
        """Let the source have nothing more."""
        chunk = Chunk("s", (), (), (), (), (), self.last, before=self.last, **page)
        self.read(chunk)

    @property
    def called(self) -> tuple[list[int], WindowCall]:
        """What is with the function now."""
        [batch] = self.running.values()
        assert batch.window
        return batch.positions(), batch.window

    def succeed(self, state: dict[str, Any] | None = None, **reply: Any) -> None:
        positions, window = self.called
        count = json.loads(window.state).get("n", 0) + len(positions)
        self.end(Returned({"state": {"n": count} if state is None else state, **reply}))

    def fail(self, outcome: Outcome = RAISED) -> None:
        self.end(outcome)

    def keep(self) -> None:
        self.feed(f.Kept(self.only(f.Keep).failure.id))


def first(state: bytes = b"{}", **flags: bool) -> WindowCall:
    return WindowCall(START_S, START_S + 10, state, **flags)


def test_a_window_is_closed_before_the_next_one_begins():
    play = Windows()
    play.arrive(1, 2, 12)
    assert play.called == ([0, 1], first())
    play.succeed()
    assert play.called == ([], first(b'{"n":2}', final=True))
    play.fail(Returned(None))
    assert play.called == ([2], WindowCall(START_S + 10, START_S + 20))


def test_an_idle_window_is_closed_when_the_source_is_found_to_have_nothing_more():
    play = Windows()
    play.arrive(1)
    play.succeed()
    play.nothing()
    play.now_s = 10 + GRACE_S - 1
    play.nothing()
    assert not play.running
    play.now_s += 1
    play.nothing(more=True)
    assert not play.running
    play.nothing()
    assert play.called == ([], first(b'{"n":1}', final=True))


def test_nothing_new_long_after_is_no_end_while_the_mapping_is_held():
    play = Windows()
    play.arrive(1)
    play.succeed()
    play.feed(f.Held("full"))
    play.nothing()
    play.now_s = 1000
    play.nothing()
    assert not play.running
    play.feed(f.Unheld())
    assert play.called[1].final


def test_the_end_of_a_shard_is_committed_once_its_window_is_closed():
    play = Windows()
    play.engine.feed(f.StreamOpened(frozenset({"s"}), frozenset()), at(play.now_s))
    play.arrive(1)
    play.succeed()
    play.nothing(ended=True)
    assert not play.committed.ended
    play.succeed()
    assert play.committed.ended


def test_a_drain_closes_no_window():
    play = Windows()
    play.arrive(1, 12)
    play.feed(f.DrainRequested(30))
    play.succeed()
    assert not play.running
    assert json.loads(play.committed.retry_state)["l"]["0"]["w"] == [START_S, START_S + 10, 0, '{"n":1}']


def test_a_state_that_is_too_large_is_closed_before_the_rest_of_its_batch():
    play = Windows(report_item_failures=True)
    play.arrive(1, 2, 3)
    large = {"x": "x" * STATE_LIMIT_BYTES}
    play.succeed(large, batchItemFailures=[{"itemIdentifier": 1}])
    positions, window = play.called
    assert (positions, window.final, window.early) == ([], True, True)
    assert json.loads(window.state) == large
    play.succeed()
    assert play.called == ([1, 2], first())


def test_after_a_restart_a_window_goes_on_with_the_state_of_its_checkpoint():
    play = Windows()
    play.arrive(1, 2)
    play.succeed()
    again = Windows(play.committed.retry_state, play.committed.checkpoint)
    again.last = 1
    again.arrive(3, 12)
    assert again.called == ([2], first(b'{"n":2}'))
    again.succeed()
    assert again.called == ([], first(b'{"n":3}', final=True))


def test_after_a_restart_a_final_call_goes_on_with_its_attempts():
    play = Windows(maximum_retry_attempts=1)
    play.arrive(1, 12)
    play.succeed()
    [batch] = play.running.values()
    play.fail()
    again = Windows(play.committed.retry_state, play.committed.checkpoint, maximum_retry_attempts=1)
    assert not again.running
    again.wait()
    [same] = again.running.values()
    assert (same.id, same.attempts, same.window) == (batch.id, 1, batch.window)
    again.fail()
    failure = again.only(f.Keep).failure
    assert (failure.attempts, failure.batch_size, failure.first_position, failure.last_position) == (2, 0, -1, -1)
    assert failure.window == first(b"", final=True)
    again.keep()
    again.last = 0
    again.arrive(12)
    assert again.called == ([1], WindowCall(START_S + 10, START_S + 20))


def test_a_final_call_that_is_with_the_function_is_told_without_positions():
    play = Windows()
    play.arrive(1, 12)
    play.succeed()
    assert play.engine.repeats() == [Repeat("s", records=0)]
    play.fail()
    assert [each.attempts for each in play.engine.status(at(play.now_s))] == [1]


def test_a_batch_that_is_given_up_leaves_the_state():
    play = Windows(maximum_retry_attempts=0, batch_size=1)
    play.arrive(1, 2, 12)
    play.succeed()
    play.fail()
    assert play.only(f.Keep).failure.window == first(b"")
    play.keep()
    assert play.called == ([], first(b'{"n":1}', final=True))


def test_a_replayed_call_is_told_what_it_was_and_changes_no_window():
    play = Windows()
    play.arrive(1)
    play.succeed()
    chunk = chunk_of([0], before=-1)
    chunk.window = WindowCall(10, 20, b'{"n":70}')
    play.feed(f.ReplayRequested("f1", chunk))
    assert play.called == ([0], chunk.window)
    play.succeed()
    assert f.Replayed("f1", ()) in play.asked
    play.arrive(2)
    assert play.called == ([1], first(b'{"n":1}'))


def test_a_replayed_final_call_has_no_records_and_may_fail_again():
    play = Windows(maximum_retry_attempts=0)
    call = WindowCall(10, 20, b'{"n":70}', final=True)
    play.feed(f.ReplayRequested("f1", Chunk("s", (), (), (), (), (), -1, window=call)))
    assert play.called == ([], call)
    play.fail()
    failure = play.only(f.Keep).failure
    assert (failure.parent, failure.batch_size) == ("f1", 0)
    play.keep()
    assert f.Replayed("f1", (failure.id,)) in play.asked


def test_what_was_begun_in_several_lanes_ends_its_windows_there():
    former = Play(parallelization_factor=2, batch_size=2, commit_interval_s=0.0)
    former.feed(f.ShardOpened("s", "unit", -1))
    times_ms = [(START_S + 1) * 1000] * 2
    former.read(chunk_of([0, 1], times_ms=times_ms, keys=[None, None]))
    former.feed(f.Committed())
    former.end(RAISED)
    progress = former.only(f.Commit).done["s"]
    play = Windows(progress.retry_state, progress.checkpoint)
    play.arrive(1, 1, 2)
    play.wait()
    assert play.called == ([0], first())
    play.succeed()
    assert play.called == ([], first(b'{"n":1}', final=True))
    play.succeed()
    assert play.called == ([1, 2], first())
