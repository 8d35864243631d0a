"""What the queue engine asks for, fact by fact: receives, leases, deletions, tries, its memory, how it stops."""

from __future__ import annotations

import pytest

from router.core import facts as f
from router.core.message_state import RETENTION_S, MessageState, decode, encode
from router.core.model import UNKNOWN_TIME_MS, Backoff, Cancelled, Polling, Reason, Refused, TooLarge
from router.core.queues import FORCE_S, HELD_BATCHES
from tests.core.columns import BOOM, RAISED
from tests.core.queue_play import WALL_S, Play, deleted, invoked, page, report

REFUSED = Refused(BOOM)
FIFO = Polling(function_concurrency=2, fifo=True)
ONE = Polling(function_concurrency=1)


def state(
    piece: str = "piece", attempts: int = 1, *, next_s: float = 0.0, backoff_s: float = 0.0, noted_s: float = WALL_S
) -> str:
    return encode(MessageState(piece, attempts, next_s, backoff_s, noted_s))


def notes(play: Play) -> list[str]:
    return [note.event for note in play.notes]


# --- receiving


def test_a_queue_is_asked_once_it_is_open_for_what_can_run() -> None:
    play = Play(polling=Polling(maximum_concurrency=2, function_concurrency=8))
    assert [(each.limit, each.wait_s) for each in play.polls.values()] == [(4, 20.0)]
    play.receive(page([1, 2, 3, 4]))
    assert list(play.polls) == []
    play.end()
    assert [each.limit for each in play.polls.values()] == [2]


def test_a_batch_runs_and_is_deleted() -> None:
    play = Play()
    assert invoked(play.receive(page([1, 2]))) == [[1, 2]]
    assert play.end() == [f.Delete(1, {1: (1, 1), 2: (2, 1)})]
    assert play.engine.records_done == 2
    assert play.feed(f.Deleted(1, {})) == []
    assert len(play.engine._hand) == 0


def test_deletes_go_in_tens_and_what_is_finished_meanwhile_shares_the_next() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=5))
    play.receive(page([1, 2, 3]))
    assert deleted(play.end()) == [1]
    assert deleted(play.end()) == []
    assert deleted(play.end()) == []
    assert play.feed(f.Deleted(1, {})) == [f.Delete(2, {2: (2, 1), 3: (3, 1)})]
    many = Play(batch_size=25)
    many.receive(page(range(10)))
    many.receive(page(range(10, 20)))
    many.receive(page(range(20, 25)))
    many.wait_until(1.0)
    while many.running:
        many.end()
    assert sum(isinstance(command, f.Delete) for command in many.asked) <= 3


def test_what_the_filter_rejects_is_deleted_without_a_call() -> None:
    play = Play()
    commands = play.receive(page([1, 2, 3], kept=[1]))
    assert invoked(commands) == [[2]]
    assert deleted(commands) == [1, 3]
    assert play.engine.records_done == 0


def test_a_failing_queue_is_asked_again_after_a_while_and_says_why() -> None:
    play = Play()
    poll = next(iter(play.polls))
    del play.polls[poll]
    play.feed(f.ReceiveFailed(poll, "no route"))
    assert play.engine.why_stuck() == ("SourceUnavailable", "no route")
    assert notes(play)[-1] == "source.failed"
    assert not play.polls
    play.wait()
    assert play.polls
    play.receive(page([]))
    assert play.engine.why_stuck() is None


def test_a_queue_that_does_not_wait_is_asked_less_and_less_often() -> None:
    play = Play(polling=ONE)
    began_s = play.now_s
    for _ in range(12):
        while not play.polls:
            play.wait()
        play.receive(page([]))
    assert play.now_s - began_s > 4.0


def test_a_message_that_comes_again_while_it_runs_has_its_lease_and_receipt_renewed() -> None:
    play = Play(polling=Polling(function_concurrency=3))
    play.receive(page([1]))
    play.now_s = 29.0
    assert invoked(play.receive(page([1], receive=2))) == []
    assert play.end() == [f.Delete(1, {1: (1, 2)})]


def test_a_message_that_comes_again_while_it_is_deleted_is_deleted_by_its_new_receipt() -> None:
    play = Play()
    play.receive(page([1]))
    play.end()
    assert play.receive(page([1], receive=2)) == []
    assert play.feed(f.Deleted(1, {})) == [f.Delete(2, {1: (1, 2)})]
    assert play.feed(f.Deleted(2, {})) == []
    assert len(play.engine._hand) == 0


def test_a_receive_asked_before_a_message_was_deleted_that_brings_it_late_does_not_run_it_again() -> None:
    play = Play(polling=Polling(function_concurrency=1), batch_size=1)
    play.receive(page([1]), lease_s=2.0)
    play.wait_until(5.0)
    delete = play.end()[0]
    assert isinstance(delete, f.Delete)
    play.feed(f.Deleted(delete.call, {}))
    # Of the receives under way one was answered before the deletion, and that is heard only now.
    commands = play.receive(page([2, 1], receive=2))
    assert (invoked(commands), deleted(commands)) == ([[2]], [1])
    play.feed(f.Deleted(play.only(f.Delete).call, {}))
    delete = play.end()[0]
    assert isinstance(delete, f.Delete)
    play.feed(f.Deleted(delete.call, {}))
    # What was asked later finds what the queue still has, whatever it has said.
    assert invoked(play.receive(page([1], receive=3))) == [[1]]


def test_what_was_deleted_long_before_its_lease_ends_is_not_waited_for() -> None:
    play = Play(polling=Polling(function_concurrency=1), batch_size=1)
    play.receive(page([1]), lease_s=30.0)
    delete = play.end()[0]
    assert isinstance(delete, f.Delete)
    play.feed(f.Deleted(delete.call, {}))
    assert invoked(play.receive(page([1], receive=2))) == [[1]]


def test_what_no_event_can_be_made_of_goes_back_to_the_queue() -> None:
    play = Play()
    assert invoked(play.receive(page([1, 2], unfit={0: "it has no object"}))) == [[2]]
    assert notes(play)[-1] == "message.unfit"
    assert len(play.engine._hand) == 1


def test_what_is_behind_an_unfit_message_goes_back_with_it() -> None:
    play = Play(polling=FIFO)
    assert invoked(play.receive(page([1, 2, 3], keys=[b"a", b"a", b"b"], unfit={0: "no"}))) == [[3]]
    assert len(play.engine._hand) == 1


def test_an_unfit_message_is_given_up_where_the_mapping_gives_up() -> None:
    play = Play(polling=FIFO, maximum_retry_attempts=3)
    play.receive(page([1, 2], keys=[b"a", b"a"], unfit={0: "it has no object"}))
    keep = play.only(f.Keep)
    assert (keep.failure.reason, keep.failure.attempts, keep.failure.responded) == (Reason.UNFIT, 1, False)
    assert keep.failure.error.message == "it has no object"
    assert play.running == {}
    assert deleted(play.feed(f.Kept(keep.failure.id))) == [1]
    assert invoked(play.feed(f.Deleted(1, {}))) == [[2]]


def test_while_held_nothing_is_asked_for_or_started() -> None:
    play = Play(batch_size=1, polling=ONE)
    play.receive(page([1]))
    play.feed(f.Held("disk full"))
    assert not play.polls
    assert play.engine.why_stuck() == ("FailureBacklogFull", "disk full")
    play.end(REFUSED)
    assert play.wait_until(10.0) == []
    assert invoked(play.feed(f.Unheld())) == [[1]]
    assert play.polls == {}


# --- leases


def test_what_could_not_run_within_its_lease_is_left_to_the_queue() -> None:
    play = Play(batch_size=3, window_s=60.0, polling=ONE)
    play.receive(page([1]))
    assert invoked(play.wait_until(60.0)) == []
    assert len(play.engine._hand) == 0


def test_what_has_its_lease_runs_without_what_has_lost_it() -> None:
    play = Play(batch_size=4, window_s=60.0, polling=ONE)
    play.receive(page([1, 2]))
    play.wait_until(15.0)
    play.receive(page([3]), lease_s=300.0)
    assert invoked(play.wait_until(60.0)) == [[3]]
    assert [position for position, _ in play.engine._hand] == [3]


def test_a_group_loses_its_turn_with_the_first_lease() -> None:
    play = Play(batch_size=3, window_s=60.0, polling=FIFO)
    play.receive(page([1], keys=[b"a"]))
    play.now_s = 29.0
    play.receive(page([2], keys=[b"a"]), lease_s=300.0)
    play.wait_until(60.0)
    assert play.running == {}
    assert len(play.engine._hand) == 0


def test_a_heartbeat_extends_what_waits_or_runs_but_not_what_is_only_to_be_deleted() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=2, heartbeat=True))
    play.receive(page([1, 2]))
    play.end()
    play.wait_until(9.9)
    assert play.wait_until(10.1) == [f.Extend(1, {2: (2, 1)}, 30)]
    play.feed(f.Extended(1, {}))
    assert play.wait_until(19.9) == []
    play.wait_until(30.0)
    assert len(play.engine._hand) == 2


def test_a_lease_that_cannot_be_extended_is_told_and_tried_again() -> None:
    play = Play(batch_size=1, polling=Polling(heartbeat=True))
    play.receive(page([1]))
    [extend] = play.wait_until(10.1)
    assert isinstance(extend, f.Extend)
    play.feed(f.Extended(extend.call, {1: "gone"}))
    assert (notes(play)[-1], play.notes[-1].fields["error"]) == ("lease.not_extended", "gone")
    [extend] = play.wait_until(20.1)
    assert isinstance(extend, f.Extend)
    play.feed(f.ExtendFailed(extend.call, "away"))
    assert play.notes[-1].fields["error"] == "away"


def test_a_queue_without_leases_has_no_heartbeat() -> None:
    play = Play(batch_size=1, polling=Polling(heartbeat=True))
    assert invoked(play.receive(page([1]), lease_s=0.0)) == [[1]]
    assert play.wait_until(100.0) == []


# --- batches that the function does not take


def test_a_refused_batch_is_tried_again_within_its_lease_and_then_left() -> None:
    play = Play(batch_size=1, polling=ONE)
    play.receive(page([1]), lease_s=10.0)
    play.end(REFUSED)
    assert not play.polls, "its place is taken"
    assert invoked(play.wait_until(1.0)) == [[1]]
    play.end(REFUSED)
    assert invoked(play.wait_until(5.0)) == [[1]]
    play.end(REFUSED)
    [status] = play.engine.status(play.instant)
    assert (status.refusals, status.in_flight, status.attempts) == (3, 0, 0)
    assert play.wait_until(10.0) == []
    assert len(play.engine._hand) == 0
    assert play.polls


def test_a_refused_batch_is_not_started_where_its_lease_is_too_short_for_it() -> None:
    play = Play(batch_size=1, polling=Polling(needed_lease_s=8.0))
    play.receive(page([1]), lease_s=10.0)
    play.end(REFUSED)
    assert invoked(play.wait_until(1.0)) == [[1]]
    play.end(REFUSED)
    assert play.wait_until(10.0) == []
    assert len(play.engine._hand) == 0


def test_a_refused_batch_that_is_looked_at_late_still_comes_to_an_end() -> None:
    play = Play(batch_size=1, polling=Polling(needed_lease_s=9.0))
    play.receive(page([1]), lease_s=10.0)
    play.end(REFUSED)
    play.now_s = 1.5
    assert play.feed(f.Due()) == []
    assert play.wait_until(10.0) == []
    assert len(play.engine._hand) == 0


def test_a_lease_that_is_extended_covers_what_a_refused_batch_needs() -> None:
    play = Play(batch_size=1, polling=Polling(needed_lease_s=60.0, heartbeat=True))
    play.receive(page([1]), lease_s=30.0)
    play.end(REFUSED)
    assert invoked(play.wait_until(1.0)) == [[1]]


def test_a_refused_batch_whose_lease_was_renewed_meanwhile_waits_for_the_new_end() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=5, needed_lease_s=10.0))
    play.receive(page([1]), lease_s=10.0)
    play.end(REFUSED)
    play.now_s = 9.0
    play.receive(page([1], receive=2), lease_s=30.0)
    assert invoked(play.wait_until(10.0)) == [[1]]
    assert play.running.popitem()[1].rows() == [(1, 2)]


# --- failed batches without a limit of retries


def test_what_failed_is_left_to_the_queue() -> None:
    play = Play()
    play.receive(page([1, 2]))
    assert play.end(RAISED) == []
    assert (notes(play)[-1], play.notes[-1].fields["returned_to_queue"]) == ("batch.failed", True)
    assert len(play.engine._hand) == 0
    [status] = play.engine.status(play.instant)
    assert (status.attempts, status.last_error) == (1, "boom")
    assert invoked(play.receive(page([1, 2], receive=2))) == [[1, 2]]
    play.end()
    [status] = play.engine.status(play.instant)
    assert status.attempts == 0


def test_only_what_was_listed_is_left() -> None:
    play = Play(batch_size=3, report_item_failures=True)
    play.receive(page([1, 2, 3]))
    assert deleted(play.end(report(2))) == [1, 3]
    assert notes(play)[-1] == "batch.partly_failed"
    assert play.engine.records_done == 2


def test_halves_run_at_once_and_a_message_alone_goes_back_and_is_known_when_it_comes_again() -> None:
    play = Play(bisect=True)
    play.receive(page([1, 2]))
    play.end(RAISED)
    remember = play.only(f.Remember)
    assert sorted(remember.texts) == [1, 2]
    assert play.running == {}, "not before it is written"
    assert sorted(invoked(play.feed(f.Remembered(remember.call)))) == [[1], [2]]
    first = next(iter(play.running))
    play.end(RAISED)
    play.feed(f.Remembered(play.only(f.Remember).call))
    play.end()
    assert invoked(play.receive(page([3, 1], receive=2))) == [[1], [3]]
    assert first in play.running
    assert play.running[first].attempts == 1


def test_what_goes_back_has_no_wait_of_ours() -> None:
    play = Play(bisect=True, batch_size=1, backoff=Backoff(1000.0, 1000.0, jitter=0.0))
    for receive in range(1, 9):
        assert invoked(play.receive(page([1], receive=receive))) == [[1]]
        play.end(RAISED)
        play.feed(f.Remembered(play.only(f.Remember).call))


def test_a_message_that_comes_again_waits_until_its_last_try_is_written() -> None:
    play = Play(bisect=True, batch_size=1)
    play.receive(page([1]))
    play.end(RAISED)
    remember = play.only(f.Remember)
    assert invoked(play.receive(page([2], receive=1))) == [[2]]
    assert invoked(play.receive(page([1], receive=2))) == []
    assert invoked(play.feed(f.Remembered(remember.call))) == [[1]]


# --- failed batches with a limit


def test_a_failed_batch_is_tried_again_as_often_as_allowed_then_stored_and_deleted() -> None:
    play = Play(maximum_retry_attempts=2)
    play.receive(page([1, 2]), lease_s=60.0)
    for wait_s in (1.0, 2.0):
        play.end(RAISED)
        play.feed(f.Remembered(play.only(f.Remember).call))
        assert play.wait_until(play.now_s + wait_s - 0.01) == []
        assert invoked(play.wait_until(play.now_s + 0.01)) == [[1, 2]]
    keep = next(each for each in play.end(RAISED) if isinstance(each, f.Keep))
    assert (keep.failure.reason, keep.failure.attempts, keep.failure.batch_size) == (Reason.RETRIES, 3, 2)
    assert deleted(play.asked) == []
    assert deleted(play.feed(f.Kept(keep.failure.id))) == [1, 2]
    play.feed(f.Deleted(1, {}))
    assert play.wait_until(play.now_s + 1.0) == [f.Remember(3, {1: "", 2: ""})]
    assert play.engine.records_done == 0


def test_a_try_behind_the_end_of_the_lease_is_left_to_the_queue_until_then() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=5, backoff=Backoff(100.0, 1000.0, jitter=0.0))
    play.receive(page([1]))
    commands = play.end(RAISED)
    assert [type(command) for command in commands] == [f.Remember, f.Extend]
    assert play.only(f.Extend) == f.Extend(1, {1: (1, 1)}, 100)
    assert len(play.engine._hand) == 0
    play.feed(f.Remembered(1))
    assert play.wait_until(100.0) == []
    assert invoked(play.receive(page([1], receive=2))) == [[1]]
    assert next(iter(play.running.values())).attempts == 1


def test_a_heartbeat_keeps_what_waits_for_its_next_try() -> None:
    play = Play(
        batch_size=1,
        maximum_retry_attempts=5,
        backoff=Backoff(20.0, 1000.0, jitter=0.0),
        polling=Polling(heartbeat=True),
    )
    play.receive(page([1]), lease_s=10.0)
    play.end(RAISED)
    play.feed(f.Remembered(1))
    commands: list[f.Command] = []
    while not play.running:
        for command in play.wait():
            commands.append(command)
            if isinstance(command, f.Extend):
                play.feed(f.Extended(command.call, {}))
    assert play.now_s == 20.0
    assert sum(isinstance(command, f.Extend) for command in commands) >= 3


def test_too_many_batches_that_wait_are_left_to_the_queue() -> None:
    play = Play(
        batch_size=1,
        maximum_retry_attempts=5,
        backoff=Backoff(20.0, 1000.0, jitter=0.0),
        polling=Polling(function_concurrency=5),
    )
    position = 0
    while position <= HELD_BATCHES:
        position += 1
        play.receive(page([position]), lease_s=6000.0)
        play.end(RAISED)
        extended = [command for command in play.asked if isinstance(command, f.Extend)]
        assert bool(extended) == (position > HELD_BATCHES)
    [status] = play.engine.status(play.instant)
    assert status.attempts == 1
    assert status.next_try_s == pytest.approx(WALL_S + 20.0)


def test_listed_messages_run_again_at_once_in_a_batch_of_their_own() -> None:
    play = Play(batch_size=3, report_item_failures=True, maximum_retry_attempts=1)
    play.receive(page([1, 2, 3]))
    assert deleted(play.end(report(2, 3))) == [1]
    assert invoked(play.feed(f.Remembered(play.only(f.Remember).call))) == [[2, 3]]


def test_a_group_is_held_behind_a_listed_message() -> None:
    play = Play(
        batch_size=4,
        report_item_failures=True,
        maximum_retry_attempts=1,
        polling=Polling(function_concurrency=2, fifo=True, hold_group=True),
    )
    play.receive(page([1, 2, 3, 4], keys=[b"a", b"b", b"a", None]))
    assert deleted(play.end(report(1))) == [2, 4]
    play.feed(f.Remembered(play.only(f.Remember).call))
    assert invoked(play.feed(f.Deleted(1, {}))) == [[1, 3]]
    play.end(report(1))
    play.feed(f.Remembered(play.only(f.Remember).call))
    play.wait()
    play.end(report(1))
    assert play.only(f.Keep).failure.attempts == 2, "held back, it all failed: that spends attempts"


def test_what_is_too_large_is_halved_whatever_the_mapping_says_and_alone_spends_attempts() -> None:
    play = Play(maximum_retry_attempts=0)
    play.receive(page([1, 2]))
    play.end(TooLarge(7_000_000))
    play.feed(f.Remembered(play.only(f.Remember).call))
    play.end(TooLarge(7_000_000))
    assert play.only(f.Keep).failure.error.error_type == "RequestTooLargeException"


def test_what_is_too_old_is_given_up_and_the_rest_runs() -> None:
    play = Play(batch_size=3, window_s=5.0, maximum_record_age_s=60.0, maximum_retry_attempts=1)
    play.receive(page([1], sent_s=WALL_S - 100))
    play.receive(page([2, 3]))
    keep = play.only(f.Keep)
    assert (keep.failure.reason, keep.failure.first_position, keep.failure.batch_size) == (Reason.AGE, 1, 1)
    assert invoked(play.feed(f.Remembered(play.only(f.Remember).call))) == [[2, 3]]
    assert deleted(play.feed(f.Kept(keep.failure.id))) == [1]


def test_all_too_old_leaves_nothing_to_remember() -> None:
    play = Play(maximum_record_age_s=60.0, maximum_retry_attempts=1)
    assert [type(command) for command in play.receive(page([1, 2], sent_s=WALL_S - 100))] == [f.Keep]


def test_what_cannot_be_stored_is_stored_later_and_nothing_is_deleted_before() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=0)
    play.receive(page([1]))
    [keep] = play.end(RAISED)
    assert isinstance(keep, f.Keep)
    assert play.feed(f.KeepFailed(keep.failure.id, "disk full")) == []
    assert play.engine.why_stuck() == ("FailureStoreUnavailable", "A failed batch cannot be stored: disk full")
    assert play.wait() == [keep]
    assert deleted(play.feed(f.Kept(keep.failure.id))) == [1]
    assert play.engine.why_stuck() is None
    assert play.feed(f.Kept(keep.failure.id)) == []
    assert play.feed(f.KeepFailed(keep.failure.id, "disk full")) == []


# --- what is remembered


def test_what_cannot_be_remembered_is_not_tried_again_before_it_is() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=3)
    play.receive(page([1]))
    [remember] = play.end(RAISED)
    assert isinstance(remember, f.Remember)
    assert play.feed(f.RememberFailed(remember.call, "disk full")) == []
    assert play.engine.why_stuck() == ("StateUnavailable", "Attempts cannot be remembered: disk full")
    assert play.wait() == [remember]
    play.wait_until(5.0)
    assert play.running == {}
    assert invoked(play.feed(f.Remembered(remember.call))) == [[1]]
    assert play.engine.why_stuck() is None


def test_a_write_that_is_repeated_writes_what_holds_now() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=0, bisect=True)
    play.receive(page([1, 2]))
    play = Play(batch_size=2, maximum_retry_attempts=1)
    play.receive(page([1, 2]))
    remember = next(command for command in play.end(RAISED) if isinstance(command, f.Remember))
    text = remember.texts[1]
    play.feed(f.RememberFailed(remember.call, "disk full"))
    play.engine._memory.forget(1)
    [again] = play.wait()
    assert again == f.Remember(remember.call, {1: "", 2: text})


def test_pieces_of_an_earlier_life_go_on_where_they_were() -> None:
    texts = {1: state("p", 2), 2: state("p", 2), 3: state("q", 1, next_s=WALL_S + 5.0, backoff_s=5.0), 4: "unreadable"}
    play = Play(remembered=texts, batch_size=5, maximum_retry_attempts=2)
    assert play.wait_until(1.0) == [f.Remember(1, {4: ""})]
    assert invoked(play.receive(page([1, 2, 3, 4]))) == [[1, 2], [4]]
    batch = play.running["p"]
    assert (batch.attempts, batch.durable) == (2, True)
    play.end(RAISED)
    assert play.only(f.Keep).failure.attempts == 3
    assert invoked(play.wait_until(4.99)) == []
    assert invoked(play.wait_until(5.0)) == [[3]]


def test_tries_of_another_replica_count() -> None:
    play = Play(batch_size=5, maximum_retry_attempts=2)
    texts = {1: state("p", 2), 2: "unreadable", 3: state("q", 1, next_s=WALL_S + 5.0, backoff_s=5.0), 9: state("r")}
    assert invoked(play.receive(page([1, 2, 3, 4]), recalled=texts)) == [[1], [2, 4]]
    assert play.running["p"].attempts == 2
    play.end(RAISED)
    assert play.only(f.Keep).failure.attempts == 3
    assert invoked(play.wait_until(4.99)) == []
    assert invoked(play.wait_until(5.0)) == [[3]]
    assert [batch.id for batch in play.running.values()][-1] == "q"


def test_what_another_replica_has_tried_since_replaces_what_was_known() -> None:
    play = Play(remembered={1: state("p", 1), 2: state("q", 2)}, batch_size=1, maximum_retry_attempts=5)
    later = state("p", 4, next_s=WALL_S + 3.0, backoff_s=3.0, noted_s=WALL_S - 60.0)  # by a clock that is behind
    play.receive(page([1, 2]), recalled={1: later})
    assert [(batch.id, batch.attempts) for batch in play.running.values()] == [("q", 2)]
    play.wait_until(3.0)
    assert play.running["p"].attempts == 4


def test_what_is_being_written_is_newer_than_what_comes_from_the_store() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=3, polling=ONE)
    play.receive(page([1]), 0.5)
    [remember] = [command for command in play.end(RAISED) if isinstance(command, f.Remember)]
    old, new = state("old", 3), remember.texts[1]
    play.engine._memory.recall({1: old})
    assert play.engine._memory.get(1) == decode(new)
    play.feed(f.Remembered(remember.call))
    play.engine._memory.recall({1: old})
    assert play.engine._memory.get(1) == decode(old)


def test_what_is_finished_is_not_recalled_before_that_is_written() -> None:
    play = Play(remembered={1: state("p", 1)}, batch_size=1, maximum_retry_attempts=3)
    play.receive(page([1]))
    play.end()
    play.feed(f.Deleted(1, {}))
    play.engine._memory.recall({1: state("p", 1)})
    assert play.engine._memory.get(1) is None
    [forgotten] = play.wait_until(2.0)
    assert forgotten == f.Remember(1, {1: ""})
    play.engine._memory.recall({1: state("p", 1)})
    assert play.engine._memory.get(1) is None


def test_a_message_in_hand_is_not_recalled() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=3)
    play.receive(page([1]))
    play.receive(page([1], receive=2), recalled={1: state("p", 2)})
    assert [batch.attempts for batch in play.running.values()] == [0]
    assert play.engine._memory.get(1) is None


def test_a_piece_that_comes_in_two_receives_has_two_request_ids() -> None:
    play = Play(remembered={1: state("p"), 2: state("p")}, maximum_retry_attempts=2)
    play.receive(page([1]))
    play.receive(page([2]))
    assert len(play.running) == 2
    assert [batch.attempts for batch in play.running.values()] == [1, 1]


def test_behind_a_new_message_of_its_group_what_failed_before_is_new_too() -> None:
    play = Play(remembered={1: state("p"), 3: state("q")}, batch_size=5, maximum_retry_attempts=2, polling=FIFO)
    assert invoked(play.receive(page([1, 2, 3], keys=[b"a", b"a", b"a"]))) == [[1]]
    play.end()
    assert invoked(play.feed(f.Deleted(1, {}))) == [[2, 3]]


def test_a_new_message_without_a_key_hides_nothing() -> None:
    play = Play(remembered={2: state("p")}, maximum_retry_attempts=2)
    assert invoked(play.receive(page([1, 2], keys=[None, None]))) == [[2], [1]]


def test_what_is_behind_a_message_that_came_too_early_goes_back_with_it() -> None:
    texts = {1: state("p", next_s=WALL_S + 500.0, backoff_s=500.0), 2: state("q")}
    play = Play(remembered=texts, maximum_retry_attempts=2, polling=FIFO)
    commands = play.receive(page([1, 2, 3], keys=[b"a", b"a", b"a"]))
    assert commands == [f.Extend(1, {1: (1, 1)}, 500)]
    assert len(play.engine._hand) == 0


def test_a_clock_that_is_set_back_delays_a_try_but_once() -> None:
    play = Play(remembered={1: state("p", next_s=WALL_S + 7200.0, backoff_s=100.0)}, maximum_retry_attempts=2)
    assert play.receive(page([1])) == [f.Extend(1, {1: (1, 1)}, 100)]
    play.wait_until(60.0)
    assert play.receive(page([1], receive=2)) == [f.Extend(2, {1: (1, 2)}, 40)]
    play.wait_until(100.0)
    assert invoked(play.receive(page([1], receive=3))) == [[1]]


def test_what_no_queue_keeps_any_more_is_forgotten() -> None:
    texts = {1: state(noted_s=WALL_S - RETENTION_S - 1), 2: state(noted_s=WALL_S - RETENTION_S + 7200)}
    play = Play(remembered=texts, maximum_retry_attempts=2)
    play.receive(page([]))
    assert play.wait_until(1.5) == [f.Remember(1, {1: ""})]
    play.wait_until(3000.0)
    play.receive(page([]))
    assert play.wait_until(3002.0) == []
    play.wait_until(7300.0)
    play.receive(page([]))
    assert play.wait_until(7302.0) == [f.Remember(2, {2: ""})]


# --- deletions that fail


def test_what_was_not_deleted_is_deleted_later_and_holds_its_group() -> None:
    play = Play(polling=FIFO)
    play.receive(page([1, 2, 3], keys=[b"b", b"b", b"b"]))
    play.end()
    assert play.feed(f.Deleted(1, {2: "InternalError"})) == []
    assert notes(play)[-1] == "message.not_deleted"
    [delete] = play.wait_until(1.0)
    assert delete == f.Delete(2, {2: (2, 1)})
    assert invoked(play.feed(f.Deleted(2, {}))) == [[3]]


def test_a_queue_that_does_not_answer_deletes_is_told() -> None:
    play = Play()
    play.receive(page([1]))
    play.end()
    play.feed(f.DeleteFailed(1, "away"))
    assert play.engine.why_stuck() == ("SourceUnavailable", "away")
    [delete] = play.wait_until(1.0)
    assert isinstance(delete, f.Delete)
    play.feed(f.Deleted(delete.call, {}))
    assert play.engine.why_stuck() is None


def test_what_is_never_deleted_is_given_up_and_what_waits_behind_it_goes_back() -> None:
    play = Play(polling=FIFO)
    play.receive(page([1], keys=[b"a"]))
    play.receive(page([2], keys=[b"a"]), lease_s=120.0)
    play.end()
    while play.engine._deletes.left:
        for delete in [command for command in play.asked if isinstance(command, f.Delete)]:
            play.feed(f.Deleted(delete.call, {1: "no"}))
        if play.engine._deletes.left:
            play.wait()
        assert play.now_s < 200.0
    assert play.running == {}
    assert len(play.engine._hand) == 0
    assert invoked(play.receive(page([1, 2], keys=[b"a", b"a"], receive=2))) == [[1, 2]]


# --- turns


def test_a_group_runs_one_batch_after_the_other_and_others_go_beside_it() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=4, fifo=True))
    assert invoked(play.receive(page([1, 2, 3], keys=[b"a", b"a", b"b"]))) == [[1], [3]]
    assert deleted(play.end()) == [1]
    assert invoked(play.feed(f.Deleted(1, {}))) == [[2]]


def test_what_is_behind_a_failed_batch_goes_back_with_it() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=4, fifo=True))
    play.receive(page([1, 2, 3], keys=[b"a", b"a", b"b"]))
    play.end(RAISED)
    play.end()
    assert play.running == {}
    assert sorted(position for position, _ in play.engine._hand) == [3]


# --- stopping


def test_a_drain_gives_back_what_has_not_begun_and_waits_for_the_rest() -> None:
    play = Play(batch_size=2, window_s=5.0)
    play.receive(page([1, 2]))
    play.receive(page([3]))
    running = next(iter(play.running))
    assert play.feed(f.DrainRequested(10.0)) == [f.Cancel(running, waiting_only=True), f.Extend(1, {3: (3, 1)}, 0)]
    assert not play.polls
    play.feed(f.Extended(1, {}))
    [status] = play.engine.status(play.instant)
    assert (status.phase, status.in_flight) == ("closing", 2)
    assert play.end() == [f.Delete(1, {1: (1, 1), 2: (2, 1)})]
    assert play.feed(f.Deleted(1, {})) == [f.Finished()]
    assert play.wait_until(100.0) == []


def test_a_drain_leaves_what_waits_for_a_later_try_to_its_lease() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=2)
    play.receive(page([1]))
    play.end(RAISED)
    assert play.feed(f.DrainRequested(10.0)) == []
    assert play.feed(f.Remembered(1)) == [f.Finished()]


def test_what_was_ended_before_it_began_runs_again_or_goes_back() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]))
    assert invoked(play.end(Cancelled())) == [[1]]
    play.feed(f.DrainRequested(10.0))
    assert play.end(Cancelled()) == [f.Extend(1, {1: (1, 1)}, 0)]
    assert play.feed(f.Extended(1, {})) == [f.Finished()]


def test_what_does_not_end_in_time_is_killed_and_keeps_its_lease() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]))
    running = next(iter(play.running))
    play.feed(f.DrainRequested(10.0))
    assert play.wait_until(10.0) == [f.Cancel(running)]
    assert play.end(Cancelled()) == [f.Finished()]
    assert play.wait_until(10.0 + FORCE_S) == []


def test_a_drain_that_is_asked_for_again_ends_sooner() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]))
    running = next(iter(play.running))
    play.feed(f.DrainRequested(900.0))
    assert play.feed(f.DrainRequested(10.0)) == []
    assert play.wait_until(10.0) == [f.Cancel(running)]


def test_a_drain_ends_even_when_nobody_answers() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]))
    play.end()
    play.feed(f.DrainRequested(10.0))
    assert play.wait_until(9.0 + FORCE_S) == []
    assert play.wait_until(10.0 + FORCE_S) == [f.Finished()]
    assert (notes(play)[-1], play.notes[-1].fields["messages"]) == ("queue.abandoned", 1)


def test_nothing_given_back_is_extended_again() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=2, fifo=True, heartbeat=True))
    play.receive(page([1, 2], keys=[b"a", b"a"]))
    play.feed(f.DrainRequested(25.0))
    assert play.only(f.Extend) == f.Extend(1, {2: (2, 1)}, 0)
    play.feed(f.Extended(1, {}))
    assert play.wait_until(10.1) == [f.Extend(2, {1: (1, 1)}, 30)]


# --- telling


def test_a_queue_tells_how_it_is() -> None:
    play = Play(batch_size=1)
    play.receive(page([1], sent_s=WALL_S - 7))
    chunk = page([2])
    chunk.times_ms = [UNKNOWN_TIME_MS]
    play.receive(chunk)
    [status] = play.engine.status(play.instant)
    assert (status.shard, status.phase, status.checkpoint) == ("queue", "open", -1)
    assert (status.in_flight, status.attempts, status.refusals) == (2, 0, 0)
    assert (status.next_try_s, status.last_error) == (None, None)
    assert status.oldest_ms == int((WALL_S - 7) * 1000)
    play.end()
    play.end()
    [status] = play.engine.status(play.instant)
    assert status.oldest_ms is None


def test_a_batch_that_is_tried_again_is_what_a_queue_is_stuck_at() -> None:
    play = Play(batch_size=1, maximum_retry_attempts=3)
    play.receive(page([1]))
    play.end(RAISED)
    [status] = play.engine.status(play.instant)
    assert (status.attempts, status.last_error, status.next_try_s) == (1, "boom", WALL_S + 1.0)


# --- bounds


def test_no_more_is_asked_for_than_memory_takes() -> None:
    play = Play(batch_size=1, memory_bytes=200, polling=Polling(function_concurrency=5))
    while play.polls:
        play.receive(page([len(play.engine._hand)]))
    assert len(play.engine._hand) == 2
    play.end()
    play.feed(f.Deleted(1, {}))
    assert play.polls


def test_receives_that_fail_together_are_one_failure() -> None:
    play = Play(batch_size=10, polling=Polling(function_concurrency=5))
    polls = list(play.polls)
    assert len(polls) > 2
    for poll in polls:
        del play.polls[poll]
        play.feed(f.ReceiveFailed(poll, "away"))
    assert {note.fields["retry_in_s"] for note in play.notes if note.event == "source.failed"} == {
        play.notes[-1].fields["retry_in_s"]
    }
    assert invoked(play.wait_until(1.0)) == []
    assert len(play.polls) == len(polls)


def test_failures_are_told_until_what_failed_would_have_come_again() -> None:
    play = Play(batch_size=1, polling=ONE)
    play.receive(page([1]))
    play.end(RAISED)
    play.now_s = 25.0
    play.receive(page([]))
    [status] = play.engine.status(play.instant)
    assert status.attempts == 1
    play.now_s = 50.0
    play.receive(page([]))
    [status] = play.engine.status(play.instant)
    assert status.attempts == 0


def test_a_replay_that_runs_is_not_begun_again_and_none_begins_while_draining() -> None:
    play = Play()
    assert invoked(play.feed(f.ReplayRequested("f1", page([1, 2])))) == [[1, 2]]
    assert play.feed(f.ReplayRequested("f1", page([1, 2]))) == []
    assert play.end() == [f.Replayed("f1", ())]
    play.feed(f.DrainRequested(10.0))
    assert play.feed(f.ReplayRequested("f2", page([3]))) == [f.ReplayRefused("f2", "the mapping is stopping")]
