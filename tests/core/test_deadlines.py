"""Time limits that share a timer, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from connectors.deadlines import Deadlines

#: Longest that anything may take that should come at once.
PATIENCE_S = 20.0
#: Loops count time in steps of a millisecond.
STEP_S = 0.002


async def wait(deadlines: Deadlines, limit_s: float) -> None:
    with deadlines.within(limit_s):
        await asyncio.get_running_loop().create_future()


async def each_limit_ends_at_its_time_whatever_others_there_are() -> None:
    deadlines, ended = Deadlines(), list[float]()
    longest = asyncio.create_task(wait(deadlines, 2 * PATIENCE_S))
    await asyncio.sleep(0)

    async def one(limit_s: float) -> None:
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await wait(deadlines, limit_s)
        ended.append(limit_s)
        assert asyncio.get_running_loop().time() - began_s >= limit_s - STEP_S

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(one(limit_s) for limit_s in (0.15, 0.05, 0.1, 0.0)))
    # Those that are due when their timer goes off, however late that is, end in any order.
    assert sorted(ended) == [0.0, 0.05, 0.1, 0.15]
    assert not longest.done()
    longest.cancel()
    await asyncio.wait({longest})


async def what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(0.01):
        pass
    # Its timer goes off in here, and finds only what has more time.
    began_s = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await wait(deadlines, 0.1)
    assert asyncio.get_running_loop().time() - began_s >= 0.1 - STEP_S


async def a_cancellation_stays_one() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(wait(deadlines, PATIENCE_S))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def a_cancellation_at_the_same_moment_stays_one() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(wait(deadlines, 0.0))
    await asyncio.sleep(0)
    # Behind the timer in the loop's next round, and before the task learns of it.
    asyncio.get_running_loop().call_later(0.0, task.cancel)
    await asyncio.wait({task})
    assert task.cancelled()


async def a_task_lives_on_when_its_limit_has_ended() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await wait(deadlines, 0.01)
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.sleep(0)


async def errors_of_the_body_come_through() -> None:
    with pytest.raises(KeyError), Deadlines().within(PATIENCE_S):
        raise KeyError


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "scenario",
    [
        each_limit_ends_at_its_time_whatever_others_there_are,
        what_ends_in_time_is_left_alone,
        a_cancellation_stays_one,
        a_cancellation_at_the_same_moment_stays_one,
        a_task_lives_on_when_its_limit_has_ended,
        errors_of_the_body_come_through,
    ],
)
def test_a_limit(
    scenario: Callable[[], Coroutine[Any, Any, None]], loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
