"""Reading what a store holds, a page at a time: it may hold a million failures, and nobody needs them all at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Final, Protocol, TypeVar

from router.ports import FailureEntry, Selection, Tally

#: Failures read at once.
PAGE: Final = 200


#: Does something with the store until it works.
Insist = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
#: Gives selected failures, oldest first.
Read = Callable[[Selection], Awaitable[Sequence[FailureEntry]]]


class Open(Protocol):
    """A store that is read: part of the Store port."""

    async def failures(self, selection: Selection) -> Sequence[FailureEntry]: ...

    async def tallies(self) -> Sequence[Tally]: ...

    async def close(self) -> None: ...


T = TypeVar("T")
S = TypeVar("S", bound=Open)


async def pages(read: Read, selection: Selection) -> AsyncIterator[Sequence[FailureEntry]]:
    """Give the selected failures in pages, oldest first; what comes meanwhile may be among them or not."""
    left = inf if selection.limit is None else selection.limit
    while left:
        size = int(min(PAGE, left))
        page = await read(replace(selection, limit=size))
        if page:
            yield page
        left = left - size if len(page) == size else 0
        if left:
            last = page[-1].batch
            selection = replace(selection, after=(last.failed_at_s, last.id))


def each_page(
    opened: Callable[[], Coroutine[Any, Any, Open]], selection: Selection
) -> Iterator[Sequence[FailureEntry]]:
    """Give pages as `pages` does to those that are not asynchronous; the store is open as long as they are read."""
    with asyncio.Runner() as runner, _closing(runner, runner.run(opened())) as store:
        yield from _in_turn(runner, pages(store.failures, selection))


def each_done(
    opened: Callable[[], Coroutine[Any, Any, S]],
    selection: Selection,
    work: Callable[[S, Sequence[str]], Coroutine[Any, Any, T]],
) -> Iterator[tuple[Sequence[str], T]]:
    """Do something with the selected failures, page by page; give the ids of each page, and what came of it."""
    with asyncio.Runner() as runner, _closing(runner, runner.run(opened())) as store:
        for page in _in_turn(runner, pages(store.failures, selection)):
            ids = [entry.batch.id for entry in page]
            yield ids, runner.run(work(store, ids))


@contextlib.contextmanager
def _closing(runner: asyncio.Runner, store: S) -> Iterator[S]:
    try:
        yield store
    finally:
        runner.run(store.close())


def _in_turn(runner: asyncio.Runner, items: AsyncIterator[T]) -> Iterator[T]:
    async def next_one() -> T:
        return await anext(items)

    with contextlib.suppress(StopAsyncIteration):
        while True:
            yield runner.run(next_one())


async def look(store: Open) -> tuple[Sequence[Tally], Mapping[str, str]]:
    """Count what there is, and name the function of each mapping: that of its oldest failure."""
    tallies = await store.tallies()
    functions = {}
    for mapping in {each.mapping for each in tallies}:
        for entry in await store.failures(Selection(mapping=mapping, limit=1)):
            functions[mapping] = entry.batch.function
    return tallies, functions
