"""A job that replays stored failures, a page at a time: there may be a million of them.

A group of failures is claimed in one step, as large as there is room for, so that a job costs few waits for the disk.
Where a replay has waited in vain (for its mapping to run, for its shard to be assigned), the job does not wait again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

from router.ports import FailureEntry
from router.replay.end import Ends, ReplayEnd

#: Claims failures, and says of those that it could not why.
Claim = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
#: Runs a claimed failure to its end, which is written by then.
RunOne = Callable[[FailureEntry], Awaitable[ReplayEnd]]
#: Gives a claimed failure back, for this reason.
Refuse = Callable[[str, str], Awaitable[ReplayEnd]]


class FailureReplay:
    """One job over stored failures."""

    def __init__(
        self,
        claim: Claim,
        run_one: RunOne,
        refuse: Refuse,
        ends: Ends,
        *,
        interval_s: float,
        at_once: int,
        in_vain_s: float,
    ) -> None:
        """Make it.

        Args:
            claim: Makes failures ours, before any of them runs.
            run_one: Hands a failure to its mapping.
            refuse: Gives a failure back.
            ends: Is told each end, and not that nothing more comes.
            interval_s: Time between two starts, at least.
            at_once: Failures in hand, at most.
            in_vain_s: A replay that is refused after so long has waited for something that the next would wait for.
        """
        self._claim = claim
        self._run_one = run_one
        self._refuse = refuse
        self._ends = ends
        self._interval_s = interval_s
        self._at_once = at_once
        self._in_vain_s = in_vain_s
        self._in_hand = 0
        #: Set when a failure is over.
        self._change = asyncio.Event()
        #: Why replays of a mapping and shard are refused from now on.
        self._refusals: dict[tuple[str, str], str] = {}

    async def run(self, pages: AsyncIterator[Sequence[FailureEntry]]) -> None:
        """Replay what the pages give, in that order."""
        async with asyncio.TaskGroup() as tasks:
            async for page in pages:
                left = page
                while left:
                    room = await self._room()
                    group, left = left[:room], left[room:]
                    await self._begin(group, tasks)
                    await asyncio.sleep(self._interval_s)

    async def _room(self) -> int:
        """Wait until something may begin; gives how much."""
        while self._in_hand >= self._at_once:
            self._change.clear()
            await self._change.wait()
        return 1 if self._interval_s else self._at_once - self._in_hand

    async def _begin(self, group: Sequence[FailureEntry], tasks: asyncio.TaskGroup) -> None:
        why_not = await self._claim([entry.batch.id for entry in group])
        for entry in group:
            if reason := why_not.get(entry.batch.id):
                await self._ends.tell(ReplayEnd(entry.batch.id, "refused", reason=reason))
            else:
                self._in_hand += 1
                tasks.create_task(self._replay(entry))

    async def _replay(self, entry: FailureEntry) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        place = entry.batch.mapping, entry.batch.shard
        known = self._refusals.get(place)
        end = await (self._refuse(entry.batch.id, known) if known else self._run_one(entry))
        if end.outcome == "refused" and end.reason and loop.time() - began_s >= self._in_vain_s:
            self._refusals[place] = end.reason
        self._in_hand -= 1
        self._change.set()
        await self._ends.tell(end)
