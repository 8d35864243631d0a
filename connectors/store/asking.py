"""A connection that only reads, on a thread of its own: questions are answered one after the other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from connectors.store.errors import store_errors
from router.errors import StoreUnavailable

T = TypeVar("T")


class Asking:
    """Reads the database at a path."""

    def __init__(self, path: Path, database: sqlite3.Connection, thread: str) -> None:
        """Make it of a connection that nothing else uses; `thread` is what its thread is called."""
        self._path = path
        self._reading = database
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=thread)

    async def close(self) -> None:
        """Close the connection. May come twice."""
        await asyncio.to_thread(self._thread.shutdown)
        self._reading.close()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)
        except RuntimeError as error:
            raise StoreUnavailable(f"state in {self._path}: it is closed") from error

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with store_errors(self._path):
            return work(self._reading)
