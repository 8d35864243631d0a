"""How text that functions print becomes events of a log stream, and which of them one call may hold. Pure.

One line is one event, with its line end, as AWS Lambda writes what is printed in text form. A line that is too long is
cut into several. Limits: Amazon CloudWatch Logs API reference, PutLogEvents; the larger event of 1 MB, which newer
descriptions have, is not everywhere.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from router.ports import LogLine

BATCH_BYTES: Final = 1024 * 1024
BATCH_LINES: Final = 10_000
#: What each event counts beside its UTF-8 text.
OVERHEAD_BYTES: Final = 26
LINE_BYTES: Final = 256 * 1024 - OVERHEAD_BYTES
#: The oldest and the newest event of one call are at most so far apart.
SPAN_MS: Final = 24 * 60 * 60 * 1000

#: Wall time in milliseconds, and what was printed then; not empty.
Printed = tuple[int, str]


def take_batch(waiting: deque[Printed]) -> list[LogLine]:
    """Take off as much as one call may hold, in the order of time; at least one line where there is any."""
    lines: list[LogLine] = []
    left_bytes = BATCH_BYTES
    first_ms = last_ms = waiting[0][0] if waiting else 0
    while waiting:
        at_ms, text = waiting[0]
        first_ms, last_ms = min(first_ms, at_ms), max(last_ms, at_ms)
        if last_ms - first_ms > SPAN_MS:
            break
        taken, end, left_bytes = _cut(text, left_bytes, BATCH_LINES - len(lines))
        lines += [LogLine(at_ms, line) for line in taken]
        if end < len(text):
            waiting[0] = at_ms, text[end:]
            break
        waiting.popleft()
    return sorted(lines, key=_time)


def _time(line: LogLine) -> int:
    return line.at_ms


def _cut(text: str, left_bytes: int, most: int) -> tuple[list[str], int, int]:
    """Give the first lines that fit, where they end, and what room is left."""
    lines: list[str] = []
    at = 0
    while at < len(text) and len(lines) < most:
        end = text.find("\n", at) + 1 or len(text)
        line = _fitting(text[at : min(end, at + LINE_BYTES)])
        size = utf8_bytes(line) + OVERHEAD_BYTES
        if size > left_bytes:
            break
        lines.append(line)
        left_bytes -= size
        at += len(line)
    return lines, at, left_bytes


def _fitting(line: str) -> str:
    """Give what of a line one event may hold."""
    if utf8_bytes(line) <= LINE_BYTES:
        return line
    return line.encode(errors="replace")[:LINE_BYTES].decode(errors="ignore")


def utf8_bytes(text: str) -> int:
    """Give the size of a text as it is sent."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
