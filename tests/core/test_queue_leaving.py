"""What goes back to the queue, and how."""

from __future__ import annotations

from router.core import facts as f
from router.core.model import FunctionError, Refused
from tests.core.queue_play import Play, page

NO_WORKER = Refused(FunctionError("Headrace.NotStarted", "no worker"))


def test_what_was_refused_at_the_end_is_given_back() -> None:
    play = Play(batch_size=2)
    play.receive(page([1, 2]))
    play.feed(f.DrainRequested(30.0))
    asked = play.end(NO_WORKER)
    assert asked == [f.Extend(1, {1: (1, 1), 2: (2, 1)}, 0)]
    assert play.feed(f.Extended(1, {})) == [f.Finished()]
