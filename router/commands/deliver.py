"""`headrace failures deliver`: what is said of failures that are sent to their destinations now."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from router.commands.failures import print_json
from router.ports import FailureEntry

OUTCOMES: Final = ("delivered", "not_delivered", "refused")


def choose(entries: Iterable[FailureEntry], ids: Sequence[str]) -> Sequence[FailureEntry]:
    """Give what is to be sent: what waits for its destination, and what was named whether it waits or not."""
    return [entry for entry in entries if ids or entry.awaits_delivery]


def deliver(failure_ids: Sequence[str], run: Callable[[], Iterable[dict[str, Any]]], *, as_json: bool) -> int:
    """Send failures with whatever `run` starts; 1 when one was not delivered.

    Raises:
        NotRunning: the daemon is not there, or ended.
    """
    counts: Counter[str] = Counter()
    try:
        for end in run() if failure_ids else ():
            counts[end["outcome"]] += 1
            if as_json:
                print_json(end)
            else:
                print(_line(end), flush=True)
    except KeyboardInterrupt:
        print("headrace: the daemon goes on with it; `headrace status` shows what waits", file=sys.stderr)
        raise
    finally:
        _sum_up(counts, as_json=as_json)
    return int(counts["delivered"] < len(failure_ids))


def _line(end: Mapping[str, Any]) -> str:
    line = f"{end['id']}  {end['outcome']}"
    if end["form"] == "claim check":
        line += " as a claim check: it is too large for its destination"
    if end["reason"]:
        line += f": {end['reason']}"
    if end["next_try"]:
        line += f"; next try {end['next_try']}"
    return line


def _sum_up(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": {outcome: counts[outcome] for outcome in OUTCOMES}})
    else:
        print(", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in OUTCOMES))
