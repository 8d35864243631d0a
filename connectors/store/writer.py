"""The one thread that writes: whatever waits when it is free becomes one transaction (group commit).

With synchronous=FULL a commit costs one wait for the disk, however much is in it. On a connection that waits for less,
a job may still ask for that: all of its transaction, and what was written before, survives a loss of power then. A job
that fails takes nobody with it: the transaction is rolled back and each of its jobs is tried again alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from connectors.store.errors import store_errors
from router.errors import StoreUnavailable

T = TypeVar("T")

#: Jobs in one transaction at most, so that the first of them does not wait for ever.
GROUP_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    #: Does it need to be by itself, outside of a transaction?
    is_alone: bool
    #: Is it to survive a loss of power, even where others are not?
    is_synced: bool


class Writer:
    """Runs jobs on a connection that nothing else uses."""

    def __init__(self, database: sqlite3.Connection, path: Path, *, power_safe: bool = True) -> None:
        """Begin; `power_safe` says whether the connection waits for the disk at every commit."""
        self._database = database
        self._path = path
        self._power_safe = power_safe
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="headrace-store", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[sqlite3.Connection], T], *, alone: bool = False, synced: bool = False) -> T:
        """Run `work` in a transaction; returns once that is durable. It may run twice, the first time for nothing.

        With `alone` it runs once, outside of a transaction. With `synced` it survives a loss of power in any case.

        Raises:
            StoreUnavailable: nothing was written.
        """
        if self._closed:
            raise StoreUnavailable(f"state in {self._path}: it is closed")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future(), alone, synced)
        self._jobs.put(job)
        result: T = await job.answer
        return result

    def close(self) -> None:
        """Finish what waits, then close the connection. Blocks; may come twice."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        ends = False
        while not ends:
            jobs = [self._jobs.get()]
            while not self._jobs.empty() and len(jobs) < GROUP_LIMIT:
                jobs.append(self._jobs.get())
            ends = None in jobs
            for _, group in groupby((job for job in jobs if job is not None), key=lambda job: job.is_alone):
                self._settle_group(list(group))
        self._database.close()

    def _settle_group(self, jobs: list[_Job]) -> None:
        if jobs[0].is_alone:
            for job in jobs:
                self._settle([job])
        else:
            self._settle(jobs)

    def _settle(self, jobs: list[_Job]) -> None:
        try:
            results = self._commit(jobs)
        except Exception as error:  # noqa: BLE001  # whatever it is, it goes to the one who asked
            if len(jobs) == 1:
                _answer(jobs[0], asyncio.Future.set_exception, error)
            else:
                for job in jobs:
                    self._settle([job])
            return
        for job, result in zip(jobs, results, strict=True):
            _answer(job, asyncio.Future.set_result, result)

    def _commit(self, jobs: list[_Job]) -> list[Any]:
        with store_errors(self._path):
            if jobs[0].is_alone:
                return [job.work(self._database) for job in jobs]
            if not self._power_safe:
                is_synced = any(job.is_synced for job in jobs)
                self._database.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                results = [job.work(self._database) for job in jobs]
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # some errors have ended it already
                    self._database.execute("ROLLBACK")
                raise
            return results


def _answer(job: _Job, how: Callable[[asyncio.Future[Any], Any], None], what: object) -> None:
    def settle() -> None:
        if not job.answer.done():  # nobody waits any more when it was cancelled
            how(job.answer, what)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more either
        job.loop.call_soon_threadsafe(settle)
