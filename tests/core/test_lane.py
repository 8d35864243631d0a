"""What follows a try of a batch, and which batch of a lane runs next."""

from __future__ import annotations

from collections import deque
from math import ceil, log2
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.lane import Lane, Planner, backoff_s
from router.core.model import Backoff, FunctionError, Part, Reason, WindowCall, WindowStart
from router.core.verdict import STOPPED, SUCCEEDED, FailedWhole, NotAccepted, PartlyFailed
from router.core.window import BatchWindow
from tests.core.columns import BOOM, at, batch_of, chunk_of, mapping_of

FAILED = FailedWhole(BOOM, "Unhandled")


def planner_of(**settings) -> Planner:
    return Planner(mapping_of(**settings), Random(1))


def positions(batches) -> list[list[int]]:
    return [batch.positions() for batch in batches]


def test_request_ids_are_random_uuids_of_version_4():
    planner = planner_of()
    ids = {planner.new_id() for _ in range(100)}
    assert len(ids) == 100
    for request_id in ids:
        parts = request_id.split("-")
        assert [len(part) for part in parts] == [8, 4, 4, 4, 12]
        assert parts[2][0] == "4"
        assert parts[3][0] in "89ab"


def test_a_success_leaves_nothing():
    plan = planner_of().settle(batch_of([1, 2]), SUCCEEDED, at(0))
    assert (plan.again, plan.discard, plan.durable) == ((), None, False)


def test_what_was_stopped_runs_again_as_it_was():
    batch = batch_of([1])
    plan = planner_of().settle(batch, STOPPED, at(5))
    assert plan.again == (batch,)
    assert (batch.attempts, batch.not_before_s, batch.tries) == (0, 0.0, [])


def test_a_refusal_spends_no_attempt_splits_nothing_and_waits_longer_each_time():
    planner, batch = planner_of(bisect=True, maximum_retry_attempts=0), batch_of([1, 2])
    waits = []
    for _ in range(3):
        plan = planner.settle(batch, NotAccepted(BOOM), at(10))
        assert (plan.again, plan.durable) == ((batch,), False)
        waits.append(batch.not_before_s - 10)
    assert waits == pytest.approx([0.2, 0.4, 0.8])
    assert (batch.attempts, batch.refusals, len(batch.tries)) == (0, 3, 3)


def test_a_failure_keeps_the_batch_its_id_and_waits():
    planner, batch = planner_of(maximum_retry_attempts=2), batch_of([1, 2])
    for attempt, wait_s in ((1, 0.2), (2, 0.4)):
        plan = planner.settle(batch, FAILED, at(10))
        assert (plan.again, plan.discard, plan.durable) == ((batch,), None, True)
        assert (batch.id, batch.attempts, batch.durable) == ("id", attempt, True)
        assert batch.not_before_s == pytest.approx(10 + wait_s)
    plan = planner.settle(batch, FAILED, at(10))
    assert plan.again == ()
    assert plan.discard
    assert (plan.discard.reason, plan.discard.batch, batch.attempts) == (Reason.RETRIES, batch, 3)


def test_without_a_limit_it_is_never_given_up_and_remembers_a_bounded_number_of_tries():
    planner, batch = planner_of(), batch_of([1])
    for attempt in range(100):
        plan = planner.settle(batch, FailedWhole(FunctionError("E", str(attempt)), "Unhandled"), at(attempt))
        assert plan.again == (batch,)
    assert (batch.attempts, len(batch.tries)) == (100, 20)
    assert (batch.tries[0].error.message, batch.tries[-1].error.message) == ("0", "99")
    assert batch.backoff_s == 60.0


@pytest.mark.parametrize(("count", "halves"), [(2, [1, 1]), (3, [1, 2]), (7, [3, 4])])
def test_bisect_halves_without_wait_or_attempt(count, halves):
    batch = batch_of(range(count))
    plan = planner_of(bisect=True, maximum_retry_attempts=0).settle(batch, FAILED, at(10))
    assert [piece.count for piece in plan.again] == halves
    assert [p for half in positions(plan.again) for p in half] == list(range(count))
    for piece in plan.again:
        assert piece.id != batch.id
        assert (piece.attempts, piece.not_before_s, piece.durable, piece.contiguous) == (0, 0.0, True, True)
        assert [made.request_id for made in piece.tries] == [batch.id]
    assert plan.durable


def test_one_record_is_not_halved():
    plan = planner_of(bisect=True, maximum_retry_attempts=0).settle(batch_of([4]), FAILED, at(0))
    assert plan.discard


def test_what_must_split_splits_without_the_setting():
    plan = planner_of().settle(batch_of([1, 2]), FailedWhole(BOOM, None, must_split=True), at(0))
    assert positions(plan.again) == [[1], [2]]


def test_a_final_reason_gives_up_at_once():
    plan = planner_of().settle(batch_of([1]), FailedWhole(BOOM, None, responded=False, final=Reason.SIZE), at(0))
    assert plan.discard
    assert (plan.discard.reason, plan.discard.responded) == (Reason.SIZE, False)


def test_what_was_reported_runs_again_at_once_with_a_fresh_budget():
    batch = batch_of([1, 2, 3, 4])
    batch.attempts = 2
    suffix = planner_of().settle(batch, PartlyFailed(range(2, 4)), at(10)).again[0]
    listed = planner_of().settle(batch, PartlyFailed([0, 3]), at(10)).again[0]
    assert positions([suffix, listed]) == [[3, 4], [1, 4]]
    assert (suffix.attempts, suffix.not_before_s, suffix.durable) == (0, 0.0, True)
    assert (suffix.contiguous, listed.contiguous) == (True, False)
    assert batch.id not in (suffix.id, listed.id)


@pytest.mark.parametrize(
    ("ages_s", "expired", "rest"),
    [
        ([60, 59], [1], [2]),
        ([59.9, 61], None, None),
        ([70, 65], [1, 2], []),
    ],
)
def test_records_that_are_too_old_are_cut_from_the_head(ages_s, expired, rest):
    now = at(500)
    batch = batch_of([1, 2], times_ms=[round((now.wall_s - age_s) * 1000) for age_s in ages_s])
    batch.attempts = 3
    plan = planner_of(maximum_record_age_s=60).expire(batch, now)
    if expired is None:
        assert plan is None
        return
    assert plan
    assert plan.discard
    head = plan.discard.batch
    assert (head.positions(), head.id, head.attempts) == (expired, "id", 3)
    assert (plan.discard.reason, plan.discard.responded, plan.discard.error) == (Reason.AGE, False, None)
    assert [p for piece in plan.again for p in piece.positions()] == rest
    assert all(piece.attempts == 0 and piece.id != "id" for piece in plan.again)


def test_an_expired_batch_tells_its_last_error():
    batch = batch_of([1], times_ms=[0])
    planner = planner_of(maximum_record_age_s=60)
    planner.settle(batch, FAILED, at(0))
    plan = planner.expire(batch, at(100))
    assert plan
    assert plan.discard
    assert plan.discard.error == BOOM


def test_replays_and_mappings_without_a_limit_do_not_expire():
    old = batch_of([1], times_ms=[0])
    assert planner_of().expire(old, at(1e6)) is None
    old.replays = "failure"
    assert planner_of(maximum_record_age_s=60).expire(old, at(1e6)) is None


@pytest.mark.parametrize(
    ("attempts", "refusals", "now_s", "expired"),
    [(0, 0, 1e6, False), (1, 0, 69.9, False), (1, 0, 70.0, True), (0, 1, 70.0, True)],
)
def test_a_final_call_is_tried_once_and_then_as_old_as_the_end_of_its_window(attempts, refusals, now_s, expired):
    batch = batch_of([])
    batch.window = WindowCall(1000, 1010, final=True)
    batch.attempts, batch.refusals = attempts, refusals
    plan = planner_of(maximum_record_age_s=60).expire(batch, at(now_s))
    assert (plan is not None) is expired
    if plan:
        assert plan.discard
        assert (plan.discard.batch, plan.discard.reason, plan.again) == (batch, Reason.AGE, [])


def test_a_final_call_is_retried_and_given_up_as_a_batch_is():
    batch, planner = batch_of([]), planner_of(maximum_retry_attempts=1, bisect=True)
    batch.window = WindowCall(0, 10, final=True)
    plan = planner.settle(batch, FAILED, at(0))
    assert (plan.again, plan.left, plan.durable, batch.not_before_s) == ((batch,), 0, True, 0.2)
    plan = planner.settle(batch, FAILED, at(1))
    assert plan.discard
    assert (plan.discard.reason, plan.discard.batch) == (Reason.RETRIES, batch)


def test_pieces_are_of_the_window_of_their_batch():
    batch = batch_of([1, 2])
    batch.window = WindowCall(0, 10, b'{"n":1}')
    plan = planner_of(bisect=True).settle(batch, FAILED, at(0))
    assert [piece.window for piece in plan.again] == [batch.window] * 2


def test_backoff_doubles_up_to_its_cap_and_varies_by_its_jitter():
    plain = Backoff(0.2, 60.0, jitter=0.0)
    assert [backoff_s(plain, retry, Random(1)) for retry in (0, 1, 2, 8, 9, 5000)] == [0.2, 0.4, 0.8, 51.2, 60, 60]
    waits = [backoff_s(Backoff(1.0, 60.0, jitter=0.2), 0, Random(seed)) for seed in range(200)]
    assert 0.8 <= min(waits) < 0.85
    assert 1.15 < max(waits) <= 1.2


@given(count=st.integers(1, 200), data=st.data())
def test_bisect_isolates_the_bad_records_within_its_bound(count, data):
    bad = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=8))
    planner = planner_of(bisect=True, maximum_retry_attempts=2)
    queue = deque([batch_of(range(count))])
    until_alone, alone, discarded, finished = 0, {}, [], []
    while queue:
        batch = queue.popleft()
        members = batch.positions()
        if batch.count == 1 and members[0] in bad:
            alone[members[0]] = alone.get(members[0], 0) + 1
        until_alone += len(alone) < len(bad) or alone[max(bad)] == 1
        failed = bool(bad.intersection(members))
        plan = planner.settle(batch, FAILED if failed else SUCCEEDED, at(0))
        finished += [] if failed else members
        discarded += plan.discard.batch.positions() if plan.discard else []
        queue.extendleft(reversed(plan.again))
    retries_of_others = 2 * (len(bad) - 1)
    assert until_alone - retries_of_others <= 1 + 2 * len(bad) * ceil(log2(count))
    assert set(alone.values()) == {3}
    assert discarded == sorted(bad)
    assert sorted(finished + discarded) == list(range(count))


# --- the lane


def lane_of(waiting: int = 0) -> Lane:
    lane = Lane("s", 0, BatchWindow(2, 1000, 5.0, WindowStart.FIRST_RECORD))
    if waiting:
        lane.window.add(Part(chunk_of(range(10, 10 + waiting), before=7), range(waiting)), 100.0)
    return lane


def test_a_lane_without_work_has_nothing_to_start():
    lane = lane_of()
    assert lane.take(0.0) is None
    assert (lane.due_at(), lane.unfinished(), lane.busy) == (None, None, False)


def test_a_lane_is_due_when_its_window_is():
    assert lane_of(1).due_at() == 105.0


def test_pieces_run_before_anything_newer():
    lane = lane_of(2)
    waiting, later = batch_of([1]), batch_of([2])
    waiting.not_before_s = 200.0
    lane.pieces.extend([waiting, later])
    assert lane.take(199.0) is None
    assert lane.due_at() == 200.0
    assert lane.take(200.0) is waiting
    assert lane.unfinished() == (1, 0)


def test_a_final_call_is_nothing_unfinished():
    lane = lane_of(2)
    lane.pieces.append(batch_of([]))
    assert lane.unfinished() == (10, 7)
    lane.pieces.append(batch_of([3, 4]))
    assert lane.unfinished() == (3, 2)


def test_unfinished_is_what_waits_first():
    assert lane_of(1).unfinished() == (10, 7)


def test_live_and_replayed_batches_take_turns():
    lane = lane_of()
    for position in (1, 2):
        replay = batch_of([position])
        replay.replays = "failure"
        lane.replays.append(replay)
    order = []
    for position in (11, 12, 13):
        if not lane.pieces:
            lane.pieces.append(batch_of([position]))
        batch = lane.take(100.0)
        assert batch
        order.append(batch.positions())
        lane.replace(batch, ())
    batch = lane.take(100.0)
    assert batch
    assert [*order, batch.positions()] == [[1], [11], [2], [13]]


def test_a_waiting_replay_wakes_the_lane():
    lane = lane_of(1)
    replay = batch_of([3])
    replay.not_before_s = 101.0
    lane.replays.append(replay)
    assert lane.due_at() == 101.0


def test_pieces_take_the_place_of_their_batch():
    lane = lane_of()
    whole, behind = batch_of([1, 2]), batch_of([3])
    lane.pieces.extend([whole, behind])
    halves = [batch_of([1]), batch_of([2])]
    lane.replace(whole, halves)
    assert list(lane.pieces) == [*halves, behind]
