"""In which order messages run."""

from __future__ import annotations

from router.core.model import Polling
from tests.core.queue_play import Play, invoked, page


def test_what_gathers_in_a_window_is_cut_in_the_order_of_ranks() -> None:
    play = Play(batch_size=4, window_s=60.0, polling=Polling(function_concurrency=1))
    play.receive(page([1, 2, 3], keys=[b"a", b"b", b"a"], ranks=[30, 10, 20]))
    play.receive(page([4], keys=[b"a"], ranks=[10]))
    assert invoked(play.asked) == [[4, 2, 3, 1]]
