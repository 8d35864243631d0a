"""The small print of queues: what is not in hand, texts that are no states, replays and status at the edges."""

from __future__ import annotations

import pytest

from router.core import facts as f
from router.core.hand import Hand
from router.core.message_state import decode
from router.core.model import Polling
from tests.core.columns import RAISED
from tests.core.queue_play import Play, invoked, page


def test_what_is_not_in_hand_is_let_go_without_a_word() -> None:
    hand = Hand()
    hand.take(page([1, 2]), 30.0)
    hand.let_go([2, 3])
    assert [position for position, _ in hand] == [1]
    assert hand.bytes == 100


@pytest.mark.parametrize("text", ["", "{", "[]", '["piece"]', '{"piece": 1}', '["piece", 1, "soon", 0, 0]', "null"])
def test_a_text_that_is_no_state_is_none(text: str) -> None:
    assert decode(text) is None


def test_a_replay_that_fails_while_the_daemon_stops_is_refused_and_not_tried_again() -> None:
    play = Play(maximum_retry_attempts=3)
    play.feed(f.ReplayRequested("failure", page([1])))
    assert invoked(play.asked) == [[1]]
    play.feed(f.DrainRequested(30.0))
    ended = play.end(RAISED)
    assert ended == [f.ReplayRefused("failure", "the mapping is stopping"), f.Finished()]


def test_a_batch_that_only_waits_for_its_turn_is_not_stuck() -> None:
    play = Play(polling=Polling(function_concurrency=1, fifo=True))
    play.feed(f.ReplayRequested("first", page([1], keys=[b"a"])))
    play.feed(f.ReplayRequested("second", page([2], keys=[b"a"])))
    [status] = play.engine.status(play.instant)
    assert (status.in_flight, status.attempts, status.refusals, status.next_try_s) == (1, 0, 0, None)


def test_what_waits_behind_a_failed_message_goes_back_with_it_and_other_groups_go_on() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=1, fifo=True))
    play.receive(page([1, 2, 3], keys=[b"a", b"a", b"b"]))
    assert invoked(play.end(RAISED)) == [[3]]
