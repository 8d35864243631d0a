"""Shipping logs elsewhere: in order, line by line, bounded, and nobody waits for it. In virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from handlers.shipping import CLOSE_S, NO_ROOM, NO_TIME, REFUSED_TIMES, RETRY_CAP_S, WAITING_BYTES, Shipper
from router.errors import DestinationUnavailable
from router.ports import LogLine
from tests.sim.virtual_time import VirtualTimeLoop, run

GROUP = "/aws/lambda/orders"


class Service:
    """A log service whose behaviour is in our hands."""

    def __init__(self) -> None:
        self.streams: dict[str, list[str]] = {}
        self.lines: list[LogLine] = []
        self.calls: list[float] = []
        self.error: str | None = None
        self.rejects = 0
        self.answer_s = 0.01
        self.is_closed = False
        self._running: set[str] = set()

    async def put(self, group: str, stream: str, lines: Sequence[LogLine]) -> int:
        assert group == GROUP
        assert lines
        assert stream not in self._running, "one call for a stream at a time, or lines would change places"
        self.calls.append(asyncio.get_running_loop().time())
        self._running.add(stream)
        try:
            await asyncio.sleep(self.answer_s)
        finally:
            self._running.discard(stream)
        if self.error:
            raise DestinationUnavailable(self.error)
        self.streams.setdefault(stream, []).extend(line.text for line in lines)
        self.lines += lines
        return self.rejects

    async def check(self, group: str) -> str:
        return f"{group}: reached"

    async def close(self) -> None:
        self.is_closed = True


class Listener:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.lost_bytes: dict[str, int] = {}

    def refused(self, error: str) -> None:
        self.told.append(f"refused: {error}")

    def accepted(self) -> None:
        self.told.append("accepted")

    def lost(self, count_bytes: int, reason: str) -> None:
        self.lost_bytes[reason] = self.lost_bytes.get(reason, 0) + count_bytes


class Scene:
    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        self.now_s = loop.time
        self.service, self.listener = Service(), Listener()
        self.shipper = Shipper(GROUP, self.service, self.listener, loop.wall)

    async def until(self, fact: Callable[[], object]) -> None:
        while not fact():  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)


def play(story: Callable[[Scene], Coroutine[Any, Any, None]]) -> Scene:
    async def tell() -> Scene:
        scene = Scene()
        await story(scene)
        await scene.shipper.close()
        return scene

    return run(tell())


def test_lines_are_there_within_two_seconds_each_in_its_stream_and_in_order() -> None:
    async def story(scene: Scene) -> None:
        for number in range(100):
            scene.shipper.write("id", f"line {number}\n", f"stream-{number % 3}")
        begun_s = scene.now_s()
        await scene.until(lambda: len(scene.service.lines) == 100)
        assert scene.now_s() - begun_s < 2

    scene = play(story)
    for rest in range(3):
        assert scene.service.streams[f"stream-{rest}"] == [f"line {number}\n" for number in range(rest, 100, 3)]
    assert len(scene.service.calls) == 3, "what comes together is shipped together"
    assert scene.listener.told == []
    assert scene.listener.lost_bytes == {}


def test_each_line_has_the_time_at_which_it_was_printed() -> None:
    async def story(scene: Scene) -> None:
        scene.shipper.write("id", "first\n", "s")
        await asyncio.sleep(60)
        scene.shipper.write("id", "second\n", "s")

    first, second = play(story).service.lines
    assert second.at_ms - first.at_ms == 60_000


def test_what_is_refused_is_tried_again_with_growing_pauses_and_comes_once_and_in_order() -> None:
    async def story(scene: Scene) -> None:
        scene.service.error = "CloudWatch Logs: it cannot be reached"
        scene.shipper.write("id", "first\n", "s")
        await asyncio.sleep(600)
        scene.shipper.write("id", "second\n", "s")
        scene.service.error = None
        await scene.until(lambda: len(scene.service.lines) == 2)

    scene = play(story)
    assert scene.service.streams == {"s": ["first\n", "second\n"]}
    assert scene.listener.told == ["refused: CloudWatch Logs: it cannot be reached", "accepted"], "said once"
    pauses = [after - before for before, after in zip(scene.service.calls, scene.service.calls[1:], strict=False)]
    assert 20 < len(pauses) < 40
    assert max(pauses) < RETRY_CAP_S * 1.2 + 1
    assert scene.listener.lost_bytes == {}


def test_a_service_that_is_away_is_not_asked_more_often_the_more_is_printed() -> None:
    async def story(scene: Scene) -> None:
        scene.service.error = "away"
        for _ in range(600):
            scene.shipper.write("id", "x" * 2047 + "\n", "s")
            await asyncio.sleep(1.0)
        assert len(scene.service.calls) < 40
        scene.service.error = None
        await scene.until(lambda: len(scene.service.lines) == 600)

    play(story)


def test_what_finds_no_room_is_counted_and_said_where_it_is_missing() -> None:
    line = "x" * 1023 + "\n"

    async def story(scene: Scene) -> None:
        scene.service.error = "away"
        for _ in range(WAITING_BYTES // 1024):
            scene.shipper.write("id", line, "s")
        scene.shipper.write("id", "does not fit\n", "s")
        scene.shipper.write("id", "nor this\n", "s")
        await asyncio.sleep(60)
        scene.service.error = None
        await scene.until(lambda: len(scene.service.lines) > WAITING_BYTES // 1024)
        scene.shipper.write("id", "afterwards\n", "s")

    scene = play(story)
    assert scene.listener.lost_bytes == {NO_ROOM: 22}
    assert scene.service.streams["s"][-3:] == [line, f"[22 bytes of log were lost: {NO_ROOM}]\n", "afterwards\n"]


def test_the_end_of_a_function_ships_what_waits_within_a_bound() -> None:
    async def story(scene: Scene) -> None:
        for number in range(5):
            scene.shipper.write("id", "x" * 700_000 + "\n", f"stream-{number}")

    scene = play(story)
    assert len(scene.service.streams) == 5
    assert scene.service.is_closed
    assert scene.listener.lost_bytes == {}


@pytest.mark.parametrize("hangs", [False, True])
def test_what_is_not_accepted_until_the_end_is_given_up_and_told(hangs: bool) -> None:  # noqa: FBT001
    async def story(scene: Scene) -> None:
        scene.service.error, scene.service.answer_s = "away", 1000.0 if hangs else 0.01
        scene.shipper.write("id", "lost\n", "s")
        begun_s = scene.now_s()
        await scene.shipper.close()
        assert scene.now_s() - begun_s <= CLOSE_S
        scene.shipper.write("id", "late\n", "s")

    scene = play(story)
    assert scene.service.is_closed
    assert scene.listener.lost_bytes == {NO_TIME: 5, NO_ROOM: 5}


def test_lines_whose_times_are_refused_are_not_tried_again() -> None:
    async def story(scene: Scene) -> None:
        scene.service.rejects = 1
        scene.shipper.write("id", "one\ntwo\n", "s")
        await asyncio.sleep(60)

    scene = play(story)
    assert len(scene.service.calls) == 1
    assert scene.listener.lost_bytes == {REFUSED_TIMES: 4}


def test_a_stream_that_is_refused_does_not_hold_up_the_others() -> None:
    async def story(scene: Scene) -> None:
        put = scene.service.put

        async def refuse_one(group: str, stream: str, lines: Sequence[LogLine]) -> int:
            if stream == "bad":
                raise DestinationUnavailable("no")
            return await put(group, stream, lines)

        scene.service.put = refuse_one  # type: ignore[method-assign]
        scene.shipper.write("id", "refused\n", "bad")
        for number in range(20):
            begun_s = scene.now_s()
            scene.shipper.write("id", f"{number}\n", "good")
            await scene.until(lambda count=number + 1: len(scene.service.lines) == count)
            assert scene.now_s() - begun_s < 2

    scene = play(story)
    assert scene.listener.told == ["refused: no"]


def test_half_a_character_is_shipped_as_what_it_is_not() -> None:
    async def story(scene: Scene) -> None:
        scene.shipper.write("id", "a\ud800b\n", "s")

    assert play(story).service.streams == {"s": ["a?b\n"]}
