"""What status says of asynchronous events: how many wait for a function or a target, and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from router.core.async_engine import LineFacts
from router.core.async_rules import Standing
from router.core.asynchronous import Line
from router.daemon import EventsInfo, FunctionInfo, TargetInfo
from router.event_ports import Waiting

#: Says what the last refusal of a line was; None = the last try was none.
Trouble = Callable[[Line], str | None]


def with_events(
    functions: Sequence[FunctionInfo],
    waiting: Mapping[Line, Waiting],
    lines: Mapping[Line, LineFacts],
    trouble: Trouble,
    standing: Callable[[str], Standing],
    now_s: float,
) -> Sequence[FunctionInfo]:
    """Add to functions what waits for them; those that have no workers, or are there no more, are told of too.

    Args:
        functions: those with workers.
        waiting: what is in the inbox.
        lines: what of it is under way.
        trouble: as above.
        standing: says how a function takes events now.
        now_s: wall time, seconds.
    """
    waits = {}
    for (kind, name), rows in waiting.items():
        if kind == "run":
            why = _why((kind, name), rows, lines, trouble, standing(name), now_s)
            waits[name] = EventsInfo(rows.rows, max(0.0, now_s - rows.due_s), why)
    known = {each.name for each in functions}
    absent = [FunctionInfo(name, "", 0, 0, 0) for name in sorted(waits.keys() - known)]
    return [replace(each, events=waits.get(each.name)) for each in (*functions, *absent)]


def targets(waiting: Mapping[Line, Waiting], trouble: Trouble, now_s: float) -> Sequence[TargetInfo]:
    """Say which targets are still to be told, and why they have not been."""
    return [
        TargetInfo(name, rows.rows, max(0.0, now_s - rows.due_s), trouble((kind, name)))
        for (kind, name), rows in sorted(waiting.items())
        if kind == "tell"
    ]


def _why(
    line: Line,
    rows: Waiting,
    lines: Mapping[Line, LineFacts],
    trouble: Trouble,
    standing: Standing,
    now_s: float,
) -> str:
    if standing.version is None:
        return (
            "there is no such function" if standing.is_known else "it is not known yet whether there is such a function"
        )
    said = trouble(line)
    if said is not None:
        return f"it does not take them: {said}"
    if rows.due_s > now_s:
        return f"they have failed, and are tried again; the next in {rows.due_s - now_s:.0f} s"
    busy = lines[line].busy if line in lines else 0
    return f"{busy} are with the function, the others wait for room"
