"""`headrace status --watch`: how every mapping is, again and again, until Ctrl-C.

On a terminal it is one screen that is drawn anew, in whatever size the terminal has then; elsewhere one snapshot
follows the other. A daemon that is away is waited for.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.commands.failures import print_json
from router.commands.tables import COLOURS, duration, show_status
from router.errors import NotRunning

#: Gives the document of `status --json`. Raises NotRunning.
Ask = Callable[[], Mapping[str, Any]]

#: Lines of the screen beside those of mappings: title, columns, and how many mappings had no room.
_OTHER_LINES: Final = 3
#: Numbers of a line, by their place in it, most wanted first.
_NUMBERS: Final = ((1, "LAG"), (2, "LAG TIME"), (0, "PER SECOND"), (3, "IN FLIGHT"))
#: Columns of a terminal that leave room for names and states alone, and that one number more takes.
_NARROW: Final = 50
_NUMBER_WIDTH: Final = 12
_RESIZED: Final = (signal.SIGWINCH,)
#: What does not move stands first where not everything has room, worst first.
_URGENCY: Final = ("failed", "holding", "retrying", "starting", "paused", "draining", "running", "idle", "stopped")


def watch(ask: Ask, interval_s: float, *, shards: bool, as_json: bool) -> NoReturn:
    """Show the status until interrupted."""
    # A terminal must get its screen back also when this is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if as_json:
        _print_documents(ask, interval_s)
    elif sys.stdout.isatty():
        _draw(ask, interval_s, shards=shards)
    else:
        _print_snapshots(ask, interval_s)


def _print_documents(ask: Ask, interval_s: float) -> NoReturn:
    while True:
        document, away = _look(ask)
        found = {"state": "away", "error": away, "mappings": [], "functions": []} if document is None else document
        print_json({"at": _now(), **found})
        sys.stdout.flush()
        time.sleep(interval_s)


def _print_snapshots(ask: Ask, interval_s: float) -> NoReturn:
    while True:
        document, away = _look(ask)
        print(_now())
        if document is None:
            print(f"away: {away}")
        else:
            show_status(document)
        print(flush=True)
        time.sleep(interval_s)


def _look(ask: Ask) -> tuple[Mapping[str, Any] | None, str]:
    """Give the document; or None and why there is none."""
    try:
        return ask(), ""
    except NotRunning as error:
        return None, str(error)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# --- on a terminal


def _draw(ask: Ask, interval_s: float, *, shards: bool) -> NoReturn:
    # Waited for rather than handled: a handler may find the locks held that it would need.
    signal.pthread_sigmask(signal.SIG_BLOCK, _RESIZED)
    screen = Screen(interval_s, shards=shards)
    with Live(screen, console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            screen.see(*_look(ask))
            live.refresh()
            next_s = time.monotonic() + interval_s
            while (left_s := next_s - time.monotonic()) > 0:
                if signal.sigtimedwait(_RESIZED, left_s):
                    live.refresh()


class Screen:
    """What a terminal shows: as much of it as there is room for."""

    def __init__(self, interval_s: float, *, shards: bool) -> None:
        self._interval_s = interval_s
        self._shards = shards
        #: The last document that there was.
        self._document: Mapping[str, Any] = {"version": "", "state": "", "mappings": [], "functions": []}
        self._away = ""
        self._at = ""

    def see(self, document: Mapping[str, Any] | None, away: str) -> None:
        """Take a look in: a document, or why there is none."""
        self._away = away
        if document is not None:
            self._document = document
            self._at = _now()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._title()
        lines = list(_lines(self._document["mappings"], shards=self._shards))
        room = max(1, options.max_height - _OTHER_LINES - bool(self._away))
        if len(lines) > room:
            lines.sort(key=lambda line: line.urgency)
        yield _table(lines[:room], options.max_width, dim=bool(self._away))
        if len(lines) > room:
            yield Text(f"and {len(lines) - room} more", style="dim", no_wrap=True, overflow="ellipsis")

    def _title(self) -> Iterator[Text]:
        document = self._document
        title = Text(no_wrap=True, overflow="ellipsis")
        title.append("headrace ", "bold")
        title.append(f"{document['version']} ")
        title.append(f"{document['state']} ", COLOURS.get(document["state"], ""))
        busy = sum(each["busy"] for each in document["functions"])
        workers = sum(each["workers"] for each in document["functions"])
        title.append(f"  {len(document['mappings'])} mappings, {busy} of {workers} workers busy  ")
        if document.get("fleet"):
            states = Counter(each["state"] for each in document["fleet"]["replicas"])
            title.append(f"replicas: {', '.join(f'{count} {state}' for state, count in sorted(states.items()))}  ")
        title.append(f"{self._at}, every {self._interval_s:g} s", "dim")
        yield title
        if self._away:
            yield Text(f"away: {self._away}", style="red", no_wrap=True, overflow="ellipsis")


class _Line:
    """One mapping or shard on the screen."""

    def __init__(self, cells: Sequence[object], state: str, why: str) -> None:
        self.cells = ["-" if cell is None else str(cell) for cell in cells]
        self.state = state
        self.why = why
        self.urgency = _URGENCY.index(state) if state in _URGENCY else 0


def _lines(mappings: Sequence[Mapping[str, Any]], *, shards: bool) -> Iterator[_Line]:
    for each in mappings:
        reason = each["reason"]
        why = f"{reason['code']}: {reason['message']}" if reason else each["last_result"] or ""
        numbers = (each["records_per_second"], each["lag_records"], duration(each["lag_seconds"]), each["in_flight"])
        yield _Line((each["name"], each["state"], *numbers), each["state"], why)
        for shard in each["shards"] if shards else ():
            tried = (
                f"attempt {shard['attempts']} failed, next {shard['next_try'] or 'now'}" if shard["attempts"] else ""
            )
            numbers = (None, shard["lag_records"], duration(shard["lag_seconds"]), shard["in_flight"])
            position = "" if shard["position"] is None else f"at {shard['position']}"
            yield _Line((f"  {shard['shard']}", position, *numbers), each["state"], tried)


def _table(lines: Sequence[_Line], width: int, *, dim: bool) -> Table:
    """Lay lines out: where it is narrow, numbers go first, then why; names and states stay."""
    shown = _NUMBERS[: (width - _NARROW) // _NUMBER_WIDTH] if width > _NARROW else ()
    table = Table(box=None, header_style="bold", pad_edge=False, style="dim" if dim else "", expand=True)
    table.add_column("MAPPING", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("STATE", no_wrap=True, overflow="ellipsis", min_width=8)
    for _, column in shown:
        table.add_column(column, no_wrap=True, overflow="ellipsis", justify="right")
    if width > _NARROW:
        table.add_column("LAST RESULT, OR WHY IT IS STUCK", no_wrap=True, overflow="ellipsis", ratio=4)
    for line in lines:
        name, state, *rest = line.cells
        colour = COLOURS.get(line.state, "")
        cells = [Text(name), Text(state, style=COLOURS.get(state, "dim"))]
        cells += [Text(rest[number]) for number, _ in shown]
        why = Text(line.why.replace("\n", " "), style="" if line.state in ("running", "idle") else colour)
        table.add_row(*cells, *([why] if width > _NARROW else ()))
    return table
