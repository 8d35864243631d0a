"""How the demo is told: live on a terminal, as lines elsewhere, as JSON lines to machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from router.failure_commands import print_json


class Narrator(Protocol):
    """Tells the story to whoever watches."""

    def tell(self, step: str, text: str, /, **facts: object) -> None:
        """Say what happened: a sentence for people, facts for machines."""
        ...

    def count(self, sent: int, processed: int, /) -> None:
        """Say how many orders were sent and processed so far."""
        ...


class Lines:
    """Plain lines."""

    def __init__(self) -> None:
        self._processed = 0

    def tell(self, _: str, text: str, /, **__: object) -> None:
        print(text, flush=True)

    def count(self, _: int, processed: int, /) -> None:
        if processed - self._processed >= 500:
            self._processed = processed
            print(f"  {processed} orders processed", flush=True)


class JsonLines:
    """One JSON object a line."""

    def tell(self, step: str, text: str, /, **facts: object) -> None:
        print_json({"step": step, "text": text.strip(), **facts})

    def count(self, _: int, __: int, /) -> None:
        """Machines read what came out, not how it went."""


class Live:
    """Two bars below what is told."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._bars: tuple[TaskID, TaskID] | None = None

    def tell(self, _: str, text: str, /, **__: object) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def count(self, sent: int, processed: int, /) -> None:
        if self._bars is None:
            self._bars = (
                self._progress.add_task("orders sent", total=self._total),
                self._progress.add_task("orders processed", total=self._total),
            )
        for bar, count in zip(self._bars, (sent, processed), strict=True):
            self._progress.update(bar, completed=count)


@contextmanager
def narrator(total: int, *, as_json: bool) -> Iterator[Narrator]:
    """Give the narrator that suits who watches; `total` orders will be sent."""
    if as_json:
        yield JsonLines()
    elif not sys.stdout.isatty():
        yield Lines()
    else:
        columns = (TextColumn("{task.description:>16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, transient=True) as progress:
            yield Live(progress, total)
