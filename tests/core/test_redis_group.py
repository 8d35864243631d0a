"""Calls that share round trips: each hears what became of its own, whatever that is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from connectors.redis.group import Group
from connectors.redis.link import Call, RedisLink, Script
from router.errors import StoreUnavailable

CALL = Call(Script("return 1"), ["key"])
PATIENCE_S = 20.0


class Link:
    """Answers when it is told to, and then with what it is told to."""

    def __init__(self, *rounds: Any) -> None:
        self.goes_on = asyncio.Event()
        self._rounds = list(rounds)
        self.sizes: list[int] = []

    def check_usable(self) -> None:
        """It is."""

    async def run(self, *_: object) -> Any:
        await self.goes_on.wait()
        return b"first"

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        self.sizes.append(len(calls))
        answer = self._rounds.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast("list[Any]", answer)


async def asked(link: Link, count: int) -> tuple[Group, list[asyncio.Task[Any]]]:
    """Ask for so much at once, of which all but the first share the next round trip."""
    group = Group(cast("RedisLink", link))
    tasks = [asyncio.create_task(group.run(CALL)) for _ in range(count)]
    await asyncio.sleep(0)
    link.goes_on.set()
    return group, tasks


async def test_each_hears_its_own_answer() -> None:
    link = Link([b"second", StoreUnavailable("it refused"), b"fourth"])
    group, tasks = await asked(link, 4)
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await group.close()
    assert [each if isinstance(each, bytes) else str(each) for each in found] == [
        b"first", b"second", "it refused", b"fourth",
    ]  # fmt: skip
    assert link.sizes == [3]


@pytest.mark.parametrize("error", [StoreUnavailable("cut off"), RuntimeError("a bug")])
async def test_an_error_of_a_round_trip_goes_to_all_that_were_in_it_and_the_next_one_works(error: Exception) -> None:
    link = Link(error)
    group, tasks = await asked(link, 3)
    async with asyncio.timeout(PATIENCE_S):
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert found[0] == b"first"
        assert [(type(each), str(each)) for each in found[1:]] == [(type(error), str(error))] * 2
        assert await group.run(CALL) == b"first"
        await group.close()
