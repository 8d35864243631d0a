"""What goes back to the queue, and how."""

from __future__ import annotations

from router.core import facts as f
from router.core.model import FunctionError, Instant, Polling, Refused
from tests.core.columns import RAISED
from tests.core.queue_play import WALL_S, Play, invoked, page

NO_WORKER = Refused(FunctionError("Headrace.NotStarted", "no worker"))


def test_what_was_refused_at_the_end_is_given_back() -> None:
    play = Play(batch_size=2)
    play.receive(page([1, 2]))
    play.feed(f.DrainRequested(30.0))
    asked = play.end(NO_WORKER)
    assert asked == [f.Extend(1, {1: (1, 1), 2: (2, 1)}, 0)]
    assert play.feed(f.Extended(1, {})) == [f.Finished()]


def test_a_failure_is_told_until_its_message_comes_no_more() -> None:
    play = Play(batch_size=1)

    def attempts() -> int:
        [status] = play.engine.status(Instant(play.now_s, WALL_S))
        return status.attempts

    play.receive(page([1]))
    play.now_s = 5.0
    play.end(RAISED)
    for now_s, told in ((21.0, 1), (34.9, 1), (35.0, 0)):
        assert attempts() == 1
        play.wait_until(now_s)
        play.receive(page([]))
        assert attempts() == told


def test_what_gathers_behind_a_failure_goes_back_and_other_groups_stay() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=1, fifo=True))
    play.receive(page([1, 2, 3, 4], keys=[b"a", b"a", b"b", b"a"]))
    assert invoked(play.asked) == [[1]]
    assert invoked(play.end(RAISED)) == [[3]]
    assert play.end() == [f.Delete(1, {3: (3, 1)})]
    # The queue shows them again, in their order.
    play.feed(f.Deleted(1, {}))
    play.receive(page([1, 2, 4], keys=[b"a"] * 3, receive=2))
    assert invoked(play.asked) == [[1]]
