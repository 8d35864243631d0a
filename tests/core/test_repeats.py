"""What is in flight, and what the function would see again if the daemon were killed now."""

from router.core import facts as f
from router.core.describe import Repeat
from tests.core.columns import RAISED, at, chunk_of
from tests.core.queue_play import Play as QueuePlay
from tests.core.queue_play import page
from tests.core.test_streams import Play


def positions(play):
    return [batch.positions() for batch in play.engine.in_flight()]


def opened(**settings):
    """A stream whose progress is committed up to position 9."""
    play = Play(**settings)
    play.open("s", checkpoint=9)
    return play


def test_nothing_is_in_flight_and_nothing_comes_again_at_the_start():
    play = opened()
    assert (positions(play), play.engine.repeats(), play.engine.waiting()) == ([], [], {})


def test_what_is_taken_behind_the_committed_position_comes_again_until_it_is_committed():
    play = opened()
    play.read(chunk_of([10, 11, 12, 13, 14], before=9))
    assert positions(play) == [[10, 11]]
    assert play.engine.repeats() == [Repeat("s", 10, 11)]
    play.end()
    assert positions(play) == [[12, 13]]
    assert play.engine.repeats() == [Repeat("s", 10, 13)]
    play.wait()
    play.feed(f.Committed())
    # 10 and 11 are committed: of what is behind them only what runs comes again.
    assert play.engine.repeats() == [Repeat("s", 12, 13, 2)]


def test_a_batch_that_is_tried_again_comes_again_with_its_attempts():
    play = opened(maximum_retry_attempts=5)
    play.read(chunk_of([10, 11], before=9))
    play.end(RAISED)
    play.feed(f.Committed())
    assert (positions(play), play.engine.repeats()) == ([], [])
    play.wait()
    [batch] = play.engine.in_flight()
    assert (batch.positions(), batch.attempts) == ([10, 11], 1)
    assert play.engine.repeats() == [Repeat("s", 10, 11, 2)]


def test_a_shard_that_is_left_without_its_commit_says_from_where_it_comes_again():
    play = opened()
    play.read(chunk_of([10, 11], before=9))
    play.end()
    play.feed(f.DrainRequested(1.0))
    # The commit is never answered: at the deadline, and some time later, the engine gives up.
    commands = [each for now_s in (1.0, 10.0) for each in play.engine.feed(f.Due(), at(now_s))]
    assert f.Note("shard.abandoned", "s", {"position": 11, "committed": 9}) in commands


def test_messages_come_again_until_they_are_deleted():
    play = QueuePlay()
    assert (positions(play), play.engine.repeats(), play.engine.waiting()) == ([], [], {})
    play.receive(page([1, 2, 3, 4]))
    assert positions(play) == [[1, 2], [3, 4]]
    assert play.engine.repeats() == [Repeat("queue", 1, 2, 2), Repeat("queue", 3, 4, 2)]
    play.end()
    assert positions(play) == [[3, 4]]
    assert play.engine.repeats() == [Repeat("queue", 3, 4, 2), Repeat("queue", records=2)]
    play.feed(f.Deleted(1, {}))
    assert play.engine.repeats() == [Repeat("queue", 3, 4, 2)]
