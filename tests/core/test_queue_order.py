"""In which order messages run."""

from __future__ import annotations

from router.core.message_state import MessageState, encode
from router.core.model import Polling
from tests.core.queue_play import WALL_S, Play, invoked, page


def test_what_gathers_in_a_window_is_cut_in_the_order_of_ranks() -> None:
    play = Play(batch_size=4, window_s=60.0, polling=Polling(function_concurrency=1))
    play.receive(page([1, 2, 3], keys=[b"a", b"b", b"a"], ranks=[30, 10, 20]))
    play.receive(page([4], keys=[b"a"], ranks=[10]))
    assert invoked(play.asked) == [[4, 2, 3, 1]]


def test_a_piece_from_before_batches_were_made_smaller_is_cut() -> None:
    text = encode(MessageState("piece", 1, WALL_S, 1.0, WALL_S))
    play = Play(
        batch_size=2,
        maximum_retry_attempts=3,
        polling=Polling(function_concurrency=9, fifo=True),
        remembered=dict.fromkeys((1, 2, 3), text),
    )
    play.receive(page([1, 2, 3], keys=[b"a", b"a", b"b"]))
    assert invoked(play.asked) == [[1, 2], [3]]
    assert {batch.attempts for batch in play.running.values()} == {1}
