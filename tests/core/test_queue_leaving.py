"""What goes back to the queue, and how."""

from __future__ import annotations

from router.core import facts as f
from router.core.model import FunctionError, Instant, Refused
from tests.core.columns import RAISED
from tests.core.queue_play import WALL_S, Play, page

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
