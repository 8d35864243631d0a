"""How the demo is told: live on a terminal, as lines elsewhere, as JSON lines to machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from router.commands.failures import print_json


class Narrator(Protocol):
    """Tells the story to whoever watches."""

    #: Is it told to machines?
    as_json: bool

    def tell(self, step: str, text: str, /, **facts: object) -> None:
        """Say what happened: a sentence for people, facts for machines."""
        ...

    def count(self, counts: Mapping[str, int], /) -> None:
        """Say how far it is: all that `narrator` was given totals of."""
        ...

    def give_way(self) -> None:
        """Let commands write where the bars are: there is nothing more to count."""
        ...


class Lines:
    """Plain lines."""

    as_json = False

    def __init__(self, totals: Mapping[str, int]) -> None:
        #: What is said of each count, at every quarter.
        self._steps = {name: max(1, total // 4) for name, total in totals.items() if name.endswith(" processed")}
        self._said: dict[str, int] = {}

    def tell(self, _: str, text: str, /, **__: object) -> None:
        print(text, flush=True)

    def count(self, counts: Mapping[str, int], /) -> None:
        for name, step in self._steps.items():
            if counts[name] - self._said.get(name, 0) >= step:
                self._said[name] = counts[name]
                print(f"  {counts[name]} {name}", flush=True)

    def give_way(self) -> None:
        """There are no bars."""


class JsonLines:
    """One JSON object a line."""

    as_json = True

    def tell(self, step: str, text: str, /, **facts: object) -> None:
        print_json({"step": step, "text": text.strip(), **facts})

    def count(self, _: Mapping[str, int], /) -> None:
        """Machines read what came out, not how it went."""

    def give_way(self) -> None:
        """There are no bars."""


class Live:
    """Bars below what is told."""

    as_json = False

    def __init__(self, progress: Progress, totals: Mapping[str, int]) -> None:
        self._progress = progress
        self._totals = totals
        self._bars: dict[str, TaskID] = {}

    def tell(self, _: str, text: str, /, **__: object) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def count(self, counts: Mapping[str, int], /) -> None:
        if not self._bars:
            self._progress.start()
            self._bars = {name: self._progress.add_task(name, total=total) for name, total in self._totals.items()}
        for name, bar in self._bars.items():
            self._progress.update(bar, completed=counts[name])

    def give_way(self) -> None:
        self._progress.stop()


@contextmanager
def narrator(totals: Mapping[str, int], *, as_json: bool) -> Iterator[Narrator]:
    """Give the narrator that suits who watches; `totals` are of what will be counted, by name."""
    if as_json:
        yield JsonLines()
    elif not sys.stdout.isatty():
        yield Lines(totals)
    else:
        columns = (TextColumn("{task.description:>17}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        told = Live(Progress(*columns, transient=True), totals)
        try:
            yield told
        finally:
            told.give_way()
