"""Replays in a queue's engine that end before all of their pieces do."""

from __future__ import annotations

from router.core import facts as f
from router.core.model import Cancelled, FunctionError, Polling, Refused
from tests.core.columns import RAISED
from tests.core.queue_play import Play, invoked, page

NO_WORKER = Refused(FunctionError("Headrace.NotStarted", "no worker"))
GONE = Refused(FunctionError("ResourceNotFoundException", "Function not found: orders"))
WITHOUT = f.ReplayRefused("a", "its function is gone: Function not found: orders; see `headrace status`")
FAILED = f.ReplayRefused("sqs:a", "Boom: boom", failed=True)


def halved(*, concurrency: int = 2) -> Play:
    """Make an engine that runs both halves of a message with two records, which has a place of its own."""
    play = Play(bisect=True, polling=Polling(function_concurrency=concurrency))
    play.feed(f.ReplayRequested("sqs:a", page([1, 2]), elsewhere=True))
    play.end(RAISED)
    return play


def test_what_has_a_place_is_not_stored_whichever_half_fails_and_ends_with_the_last() -> None:
    play = halved()
    assert invoked(play.asked) == [[1], [2]]
    assert play.end(RAISED) == []
    assert play.end(RAISED) == [FAILED]


def test_what_has_a_place_failed_although_its_last_half_succeeds() -> None:
    play = halved()
    assert play.end(RAISED) == []
    assert play.end() == [FAILED]


def test_a_half_that_is_not_begun_goes_with_the_other() -> None:
    play = halved(concurrency=1)
    assert invoked(play.asked) == [[1]]
    assert play.end(RAISED) == [FAILED]
    assert not play.running


def test_a_half_that_waits_for_the_function_frees_its_place() -> None:
    play = halved()
    assert play.end(NO_WORKER, which=1) == []
    assert play.end(RAISED) == [FAILED]
    play.wait_until(100.0)
    play.receive(page([3, 4, 5, 6]))
    assert invoked(play.asked) == [[3, 4], [5, 6]]


def test_a_replay_ends_when_its_function_is_gone() -> None:
    play = Play()
    play.feed(f.ReplayRequested("a", page([1])))
    assert play.end(GONE) == [WITHOUT]
    assert play.wait_until(300.0) == []


def test_replays_that_have_no_room_end_with_what_a_message_learns_of_their_function() -> None:
    play = Play(polling=Polling(function_concurrency=1))
    play.receive(page([3, 4]))
    play.feed(f.ReplayRequested("a", page([1])))
    assert invoked(play.asked) == []
    assert play.end(GONE) == [WITHOUT]
    play.wait_until(play.wakes[-1])
    assert invoked(play.asked) == [[3, 4]]


def test_the_same_replay_may_begin_again_only_when_all_of_it_is_over() -> None:
    play = halved()
    play.end(RAISED)
    again = f.ReplayRequested("sqs:a", page([1, 2]), elsewhere=True)
    assert play.feed(again) == []
    assert play.end() == [FAILED]
    assert invoked(play.feed(again)) == [[1, 2]]
    assert play.end() == [f.Replayed("sqs:a", ())]


def test_a_drain_refuses_when_what_runs_has_ended() -> None:
    play = Play(bisect=True, maximum_retry_attempts=0)
    play.feed(f.ReplayRequested("a", page([1, 2, 3, 4])))
    play.end(RAISED)
    assert [batch.positions() for batch in play.running.values()] == [[1, 2], [3, 4]]
    play.end(NO_WORKER)
    play.feed(f.DrainRequested(30.0))
    (waiting,) = play.running
    assert play.asked == [f.Cancel(waiting, waiting_only=True)]
    assert play.end(Cancelled()) == [f.ReplayRefused("a", "the mapping is stopping"), f.Finished()]


def test_a_drain_waits_for_what_is_being_stored() -> None:
    play = Play(bisect=True, maximum_retry_attempts=0)
    play.feed(f.ReplayRequested("a", page([1, 2])))
    play.end(RAISED)
    play.end(RAISED)
    keep = play.only(f.Keep)
    play.end(NO_WORKER)
    play.feed(f.DrainRequested(30.0))
    assert play.asked == []
    assert play.feed(f.Kept(keep.failure.id)) == [f.ReplayRefused("a", "the mapping is stopping"), f.Finished()]


def test_a_replay_that_fails_without_a_limit_of_retries_is_kept_and_not_left_to_the_queue() -> None:
    play = Play()
    play.feed(f.ReplayRequested("a", page([1])))
    (keep,) = play.end(RAISED)
    assert isinstance(keep, f.Keep)
    assert play.feed(f.Kept(keep.failure.id)) == [f.Replayed("a", (keep.failure.id,))]
