"""`headrace failures`: what is selected, asked, done and said. The store and the daemon are handed in."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from router.commands.tables import replay_progress, show_failure, show_failures, show_messages
from router.failures.shown import to_json, to_json_whole
from router.ports import FailureEntry

#: Asks the person at the terminal; gives yes where there is none.
Ask = Callable[[str], bool]
OUTCOMES: Final = ("replayed", "failed_again", "refused")
#: Messages of a dead-letter queue that a dry run shows.
SHOWN: Final = 10


#: Lines of a list unless asked otherwise: what a person can look through.
LISTED: Final = 100


def show_list(entries: Iterable[FailureEntry], count: int, limit: int | None, *, as_json: bool) -> None:
    """Print failures, oldest first, of `count` that were selected: JSON as they come, a table of the first ones."""
    if as_json:
        print_array(to_json(entry) for entry in entries)
        return
    shown = [to_json(entry) for entry in islice(entries, LISTED if limit is None else limit)]
    show_failures(shown)
    if len(shown) < count:
        print(
            f"{len(shown)} of {count} failures, oldest first; --limit N shows more, --json all, "
            f"--since {shown[-1]['failed_at']} those from the last one on",
            file=sys.stderr,
        )


def show_one(entry: FailureEntry, event: bytes | None, *, as_json: bool) -> None:
    """Print a failure whole."""
    whole = to_json_whole(entry, event)
    if as_json:
        print_json(whole)
    else:
        show_failure(whole, None if event is None else json.dumps(whole["event"], indent=2))


def replay(count: int, run: Callable[[], Iterable[dict[str, Any]]], ask: Ask, *, as_json: bool) -> int:
    """Replay so many failures with whatever `run` starts; 1 when one did not succeed.

    Raises:
        NotRunning: the daemon is not there, or ended.
    """
    if count and not ask(f"Replay {describe(count)} through their mappings? Their original order is past."):
        return 1
    counts: Counter[str] = Counter()
    try:
        for end in shown(run() if count else (), count, as_json=as_json):
            counts[end["outcome"]] += 1
    except KeyboardInterrupt:
        print("headrace: the daemon goes on with it; its log tells how each ends", file=sys.stderr)
        raise
    finally:
        _sum_up(counts, as_json=as_json)
    return int(counts["replayed"] < counts.total())


def show_queue(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what waits in a dead-letter queue."""
    if as_json:
        print_json(found)
        return
    print(f"{found['queue']}: {_about(found)} waiting")
    if found["messages"]:
        show_messages(found["messages"])


def replay_queue(
    found: Mapping[str, Any], mapping: str, run: Callable[[], Iterable[dict[str, Any]]], ask: Ask, *, as_json: bool
) -> int:
    """Replay a dead-letter queue with what `run` starts; 1 when a message was left in it.

    Raises:
        NotRunning: the daemon is not there, or ended.
        NotFound, SourceUnavailable: it did not begin, or stopped early.
    """
    queue = found["queue"]
    if not ask(f"Replay {queue} ({_about(found)}) through mapping {mapping}? The original order is past."):
        return 1
    counts: Counter[str] = Counter()
    try:
        for end in shown(run(), found["waiting"], as_json=as_json):
            counts[end["outcome"]] += 1
    except KeyboardInterrupt:
        print("headrace: the daemon goes on with it; its log tells how each ends", file=sys.stderr)
        raise
    finally:
        _sum_up(counts, as_json=as_json)
        left = counts.total() - counts["replayed"]
        if left and not as_json:
            print(f"what was not replayed is still in {queue}")
    return int(left > 0)


def _about(found: Mapping[str, Any]) -> str:
    waiting = found["waiting"]
    if waiting is None:
        return "an unknown number of messages"
    return f"about {waiting} {'message' if waiting == 1 else 'messages'}"


def shown(ends: Iterable[dict[str, Any]], total: int | None, *, as_json: bool) -> Iterable[dict[str, Any]]:
    """Show each end as it comes, of about so many (None = not known), and give it on."""
    if as_json:
        for end in ends:
            new = end["new_failures"]
            print_json({**end, "new_failure": new[0] if new else None})
            yield end
    else:
        with replay_progress(total) as show:
            for end in ends:
                show(end)
                yield end


def _sum_up(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        print_json({"summary": {outcome: counts[outcome] for outcome in OUTCOMES}})
    else:
        print(", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in OUTCOMES))


def drop(count: int, run: Callable[[], Iterable[tuple[str, bool]]], ask: Ask, *, as_json: bool) -> int:
    """Drop so many failures with what `run` starts: it gives each, and whether it was; 1 when one stays."""
    if count and not ask(f"Drop {describe(count)} for good? Their records are deleted."):
        return 1
    refused: list[str] = []
    dropped = _noted(run() if count else (), refused)
    if as_json:
        print('{"dropped":', end="")
        print_array(dropped, end="")
        print(f',"refused":{json.dumps(refused, separators=(",", ":"))}}}', flush=True)
    else:
        number = sum(1 for _ in dropped)
        print(f"{number} dropped" + (f", {len(refused)} are being replayed and stay" if refused else ""))
    return int(bool(refused))


def _noted(each_dropped: Iterable[tuple[str, bool]], refused: list[str]) -> Iterator[str]:
    """Give the ids of what was dropped, and note the others."""
    for failure_id, is_dropped in each_dropped:
        if is_dropped:
            yield failure_id
        else:
            refused.append(failure_id)


def describe(count: int) -> str:
    """Say in words how much was selected."""
    return f"{count} failed {'batch' if count == 1 else 'batches'}"


def print_array(items: Iterable[Any], end: str = "\n") -> None:
    """Print a JSON array as its items come, without having them all at once."""
    comma = ""
    print("[", end="")
    for item in items:
        print(comma, json.dumps(item, separators=(",", ":")), sep="", end="")
        comma = ","
    print("]", end=end, flush=True)


def print_json(document: Any) -> None:
    """Print a document on one line, at once; in ASCII, whatever the locale."""
    print(json.dumps(document, separators=(",", ":")), flush=True)
