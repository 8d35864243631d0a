"""`headrace failures replay --from FAILURE-RECORDS`: what is asked, shown and said. The daemon is handed in."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from router.commands.failures import LISTED, OUTCOMES, Ask, print_json, shown
from router.commands.tables import show_prospects

#: Gives what the daemon tells, record by record.
Run = Callable[[], Iterable[dict[str, Any]]]

#: What is said to whoever interrupts: a file is read by the command, anything else by the daemon.
_GOES_ON: Final = "the daemon goes on with it; its log tells how each ends"
_ENDS: Final = "the daemon finishes what it has begun; replay the file again for the rest"


def look(run: Run, count: int | None, *, as_json: bool) -> int:
    """Print what replaying about so many would do, JSON a line or a table of the first; 1 when one would not run."""
    counts: Counter[str] = Counter()
    prospects = _counted(run(), counts)
    if as_json:
        for each in prospects:
            print_json(each)
        print_json({"summary": {name: counts[name] for name in ("records", "would_not_run", "settled", "gone")}})
    else:
        show_prospects(list(islice(prospects, LISTED)))
        hidden = sum(1 for _ in prospects)
        if hidden:
            print(f"{hidden} more; --json prints all", file=sys.stderr)
        print(
            f"{counts['records']} failure records, {counts['would_not_run']} would not run, "
            f"{counts['settled']} settled before, {counts['gone']} of their records are gone"
        )
    if count is not None and count > counts["records"]:
        print(f"about {count - counts['records']} more; of a queue the first ones are looked at", file=sys.stderr)
    return int(counts["would_not_run"] > 0)


def _counted(prospects: Iterable[dict[str, Any]], counts: Counter[str]) -> Iterator[dict[str, Any]]:
    for each in prospects:
        counts["records"] += 1
        counts["would_not_run"] += each["why_not"] is not None
        counts["settled"] += each["is_settled"]
        counts["gone"] += each["gone"]
        yield each


def replay(
    place: str, count: int | None, mapping: str | None, run: Run, ask: Ask, *, is_file: bool, as_json: bool
) -> int:
    """Replay about so many failure records with whatever `run` starts; 1 when one did not succeed.

    Raises:
        NotRunning: the daemon is not there, or ended.
        NotFound, SourceUnavailable: it did not begin, or stopped early.
    """
    number = "the failure records" if count is None else f"{count} failure {'record' if count == 1 else 'records'}"
    through = f"mapping {mapping}" if mapping else "the mappings of their streams"
    if not ask(f"Replay {number} of {place} through {through}? Their original order is past."):
        return 1
    counts: Counter[str] = Counter()
    try:
        for end in shown(run(), count, as_json=as_json):
            counts[end["outcome"]] += 1
            counts["gone"] += end["gone"]
    except KeyboardInterrupt:
        print(f"headrace: {_ENDS if is_file else _GOES_ON}", file=sys.stderr)
        raise
    finally:
        _sum_up(counts, as_json=as_json)
    return int(counts["failed_again"] + counts["refused"] > 0)


def _sum_up(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": {name: counts[name] for name in (*OUTCOMES, "settled", "later", "gone")}})
        return
    more = [f"{counts['settled']} settled before"] * bool(counts["settled"])
    more += [f"{counts['later']} made since it began"] * bool(counts["later"])
    more += [f"at least {counts['gone']} of their records are gone"] * bool(counts["gone"])
    print(", ".join([*(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in OUTCOMES), *more]))
