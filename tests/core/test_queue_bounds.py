"""What a queue may cost, whatever happens: connections, calls, memory."""

from __future__ import annotations

from collections import deque
from random import Random

from router.core import facts as f
from router.core.leases import AT_ONCE
from router.core.memory import MOST as MOST_REMEMBERED
from router.core.message_state import MessageState, encode
from router.core.model import Cancelled, Polling
from router.core.polls import MOST, RECEIVE_LIMIT, Polls
from tests.core.columns import RAISED
from tests.core.queue_play import WALL_S, Play, deleted, invoked, page


def extends(commands: list[f.Command]) -> list[f.Extend]:
    return [command for command in commands if isinstance(command, f.Extend)]


def extended(play: Play, asked: list[f.Extend]) -> list[int]:
    """Answer all calls that extend, and those that follow; give the messages in the order they were asked for."""
    positions: list[int] = []
    while asked:
        call = asked.pop(0)
        positions += call.messages
        asked += extends(play.feed(f.Extended(call.call, {})))
        assert len(asked) <= AT_ONCE
    return positions


def gather(*, messages: int, heartbeat: bool = False) -> Play:
    """Make an engine that has received so many messages, and waits for more."""
    polling = Polling(function_concurrency=1, heartbeat=heartbeat)
    play = Play(polling=polling, batch_size=10_000, window_s=300.0)
    for first in range(0, messages, 10):
        play.receive(page(range(first, first + 10)))
    return play


def test_a_drain_gives_back_in_a_few_calls_at_once() -> None:
    play = gather(messages=500)
    play.feed(f.DrainRequested(30.0))
    asked = extends(play.asked)
    assert {each.lease_s for each in asked} == {0}
    assert len(asked) == AT_ONCE
    assert f.Finished() not in play.asked
    assert extended(play, asked) == list(range(500))
    assert f.Finished() in play.asked


def test_a_heartbeat_extends_in_a_few_calls_at_once_and_nothing_twice() -> None:
    play = gather(messages=500, heartbeat=True)
    first = extends(play.wait_until(10.0))
    assert len(first) == AT_ONCE
    # They are slow: the next beat comes before they have ended.
    assert extends(play.wait_until(20.0)) == []
    assert extended(play, first) == list(range(500))
    assert extended(play, extends(play.wait_until(30.0))) == list(range(500))


def test_a_heartbeat_has_two_chances() -> None:
    play = gather(messages=10, heartbeat=True)
    play.now_s = 4.0
    play.receive(page([10]))
    assert extended(play, extends(play.wait_until(10.0))) == list(range(11))
    (first, second) = extends(play.wait_until(20.0))
    play.feed(f.Extended(first.call, {}))
    play.feed(f.ExtendFailed(second.call, "away"))
    assert extended(play, extends(play.wait_until(30.0))) == list(range(11))


def test_a_lease_that_got_shorter_is_extended_sooner_and_once() -> None:
    play = gather(messages=0, heartbeat=True)
    play.receive(page([1]), lease_s=300.0)
    play.now_s = 1.0
    play.receive(page([2]), lease_s=30.0)
    beats: list[float] = []
    while play.now_s < 250.0:
        asked = extends(play.wait())
        if extended(play, asked):
            beats.append(play.now_s)
    assert beats == [11.0 + 10.0 * number for number in range(len(beats))]


def test_receives_at_once_are_bounded() -> None:
    polls = Polls(Polling(), Random(1))
    under_way = deque(polls.wanted(10_000, RECEIVE_LIMIT, 0.0, patient=False))
    for _ in range(10 * MOST):
        polls.received(under_way.popleft().poll, RECEIVE_LIMIT, 0.0)
        under_way += polls.wanted(10_000, RECEIVE_LIMIT, 0.0, patient=False)
    assert len(under_way) == MOST


def test_a_queue_that_shows_what_we_have_again_and_again_is_asked_less_often() -> None:
    play = Play(polling=Polling(function_concurrency=2), batch_size=10)
    play.receive(page([1]), lease_s=0.0)
    assert invoked(play.asked) == [[1]]
    receives = 1
    while play.now_s < 10.0:
        if play.polls:
            receives += 1
            play.receive(page([1], receive=receives), lease_s=0.0)
        else:
            play.wait()
    assert receives < 50
    play.receive(page([2]), lease_s=0.0)
    assert invoked(play.asked) == [[2]]
    play.end()
    play.feed(f.Deleted(1, {}))
    assert play.polls


def test_what_is_remembered_is_bounded() -> None:
    text = encode(MessageState("piece", 1, WALL_S, 1.0, WALL_S))
    play = Play(bisect=True, remembered=dict.fromkeys(range(MOST_REMEMBERED), text))
    play.receive(page([0]))
    play.end(RAISED)
    (write,) = [command for command in play.asked if isinstance(command, f.Remember)]
    # It was known, and is the newest now.
    assert list(write.texts) == [0]
    play.receive(page([-1]))
    play.end(RAISED)
    (write,) = [command for command in play.asked if isinstance(command, f.Remember)]
    assert {position: bool(text) for position, text in write.texts.items()} == {-1: True, 1: False}


def test_a_batch_that_waits_for_a_worker_goes_back_when_its_lease_ends() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]), lease_s=10.0)
    play.now_s = 4.0
    play.receive(page([2]), lease_s=10.0)
    first, second = play.running
    assert play.wait_until(9.9) == []
    # That has begun, so it goes on; it is looked at again with the next.
    assert play.wait_until(10.0) == [f.Cancel(first, waiting_only=True)]
    asked = play.wait_until(14.0)
    assert f.Cancel(second, waiting_only=True) in asked
    assert invoked(play.end(Cancelled(), which=1)) == []
    assert deleted(play.end()) == [1]
    play.receive(page([2], receive=2))
    assert invoked(play.asked) == [[2]]


def test_a_lease_that_was_renewed_does_not_end() -> None:
    play = Play(batch_size=1)
    play.receive(page([1]), lease_s=10.0)
    play.now_s = 9.0
    play.receive(page([1], receive=2), lease_s=10.0)
    assert play.wait_until(18.9) == []
    assert play.wait_until(19.0) == [f.Cancel(next(iter(play.running)), waiting_only=True)]


def test_leases_that_end_in_any_order_are_looked_at_once_each() -> None:
    play = Play(batch_size=1, polling=Polling(function_concurrency=9))
    for position, lease_s in enumerate((50.0, 40.0, 30.0, 20.0, 60.0)):
        play.receive(page([position]), lease_s)
    cancels: list[tuple[float, int]] = []
    while play.now_s < 200.0 and any(mono_s > play.now_s for mono_s in play.wakes):
        asked = [command for command in play.wait() if isinstance(command, f.Cancel)]
        cancels += [(play.now_s, len(asked))] if asked else []
    assert cancels == [(20.0, 1), (30.0, 2), (40.0, 3), (50.0, 4), (60.0, 5)]


def test_replays_wait_for_a_worker_as_long_as_it_takes() -> None:
    play = Play(batch_size=1)
    play.feed(f.ReplayRequested("failure", page([7])))
    play.receive(page([1]), lease_s=10.0)
    _, live = play.running
    assert play.wait_until(1000.0) == [f.Cancel(live, waiting_only=True)]
