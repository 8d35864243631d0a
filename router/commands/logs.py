"""`headrace logs`: what functions have printed. The log is handed in.

Everything goes to standard output as the function printed it; for machines each line is an object. What is kept of a
request came when it had ended, so that is the time of all its lines.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from router.errors import NotFound
from router.ports import LogEntry

#: How often a log that is followed is looked at; it is written about as often.
_LOOK_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines."""

    #: The last of those that there are; None = all.
    lines: int | None
    #: Of this request, by our id of it or, in what Lambda printed around it, by Lambda's own.
    request_id: str | None
    #: And all that are printed from now on.
    follow: bool


def show_logs(name: str, read: Callable[[], Iterable[LogEntry]], wanted: Wanted, *, as_json: bool) -> int:
    """Print the log of a function; `read` gives what is new in it each time.

    Raises:
        NotFound: there is no such request in it.
    """
    lines: Iterable[_Line] = _lines(read(), wanted.request_id)
    if wanted.lines is not None:
        lines = deque(lines, wanted.lines)
    count = _print(lines, as_json=as_json)
    while wanted.follow:
        time.sleep(_LOOK_S)
        _print(_lines(read(), wanted.request_id), as_json=as_json)
    if not count and wanted.request_id is not None:
        raise NotFound(
            f"the log of {name} has no request {wanted.request_id}: it has not ended yet, or is older than what is kept"
        )
    return 0


def tell_nothing(name: str) -> None:
    """Say that a function whose log would be kept has none."""
    print(f"headrace: function {name} has printed nothing yet", file=sys.stderr)


def tell_before(name: str, now: str) -> None:
    """Say that what there is in the log of a function is not all; `now` is what the file says of its log."""
    print(f"headrace: function {name} has {now} by now, so this is what it printed before", file=sys.stderr)


#: An entry, and one line of its message.
_Line = tuple[LogEntry, str]


def _lines(entries: Iterable[LogEntry], request_id: str | None) -> Iterator[_Line]:
    for entry in entries:
        if request_id in (None, entry.request_id) or f"RequestId: {request_id}" in entry.message:
            for line in entry.message.removesuffix("\n").split("\n"):
                yield entry, line


def _print(lines: Iterable[_Line], *, as_json: bool) -> int:
    """Print lines as they are, or one object each; give how many there were."""
    count = 0
    for entry, line in lines:
        count += 1
        if as_json:
            print(json.dumps({"timestamp": entry.timestamp, "request_id": entry.request_id, "message": line}))
        else:
            print(line)
    sys.stdout.flush()
    return count
