"""`headrace mapping pause|resume|drain`: what is said of a mapping that is steered."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from router.commands.failures import print_json
from router.commands.tables import positions, show_table


def show_paused(name: str, done: Mapping[str, Any] | None, *, as_json: bool) -> int:
    """Say that a mapping is paused, and what is still in flight; None = no daemon runs."""
    if as_json:
        print_json(_document(name, "paused") if done is None else done)
    elif done is None:
        print(f"{name} is paused: no daemon runs, and one that starts will leave it so")
    elif done["state"] == "told":
        print(f"{name} is paused; no replica was asked on this machine, and all that run have been told")
    elif not done["in_flight"]:
        print(f"{name} is paused; nothing is in flight")
    else:
        print(f"{name} is paused; this is still in flight, and `headrace mapping drain {name}` waits for it:")
        _show_in_flight(done["in_flight"])
    if not as_json:
        _show_silent(done)
    return 0


def show_resumed(name: str, done: Mapping[str, Any] | None, *, as_json: bool) -> int:
    """Say that a mapping goes on; None = no daemon runs."""
    if as_json:
        print_json(_document(name, "stopped") if done is None else done)
    elif done is None:
        print(f"{name} is not paused any more; no daemon runs")
    elif done["state"] == "told":
        print(f"{name} is not paused any more; no replica was asked on this machine, and all that run have been told")
    else:
        print(f"{name} goes on")
    return 0


def show_drained(name: str, done: Mapping[str, Any], *, as_json: bool) -> int:
    """Say whether a mapping is idle with all its progress written; 1 = it is not."""
    is_clean = done["idle"] and not done["seen_again"]
    if as_json:
        print_json(done)
    elif is_clean:
        print(f"{name} is paused and idle: nothing is in flight, and all progress is written")
    else:
        _show_rest(done)
    if not is_clean:
        why = "it could not write all its progress" if done["idle"] else "it is not idle yet, and goes on to end"
        print(f"headrace: {name} is paused, but {why}", file=sys.stderr)
    return int(not is_clean)


def _document(name: str, state: str) -> dict[str, Any]:
    """Say the same of a mapping that no daemon runs."""
    return {"mapping": name, "state": state, "idle": True, "in_flight": [], "seen_again": []}


def _show_silent(done: Mapping[str, Any] | None) -> None:
    for replica in (done or {}).get("silent", ()):
        print(f"replica {replica} does not answer: what is in flight there is not known")


def _show_rest(done: Mapping[str, Any]) -> None:
    _show_silent(done)
    if done["in_flight"]:
        print("In flight:")
        _show_in_flight(done["in_flight"])
    if done["seen_again"]:
        print("Seen again, if the daemon were killed now:")
        rows = [(*_again(each), *_where(each)) for each in done["seen_again"]]
        show_table(("SHARD", "POSITIONS", "RECORDS", *_column(done["seen_again"])), rows)


def _show_in_flight(batches: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            each["shard"],
            positions(each),
            each["records"],
            f"{each['seconds']} s",
            each["attempts"],
            each["request_id"],
            *_where(each),
        )
        for each in batches
    ]
    show_table(("SHARD", "POSITIONS", "RECORDS", "FOR", "FAILED BEFORE", "REQUEST", *_column(batches)), rows)


def _where(each: Mapping[str, Any]) -> tuple[str, ...]:
    return (each["replica"],) if "replica" in each else ()


def _column(each: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return ("REPLICA",) if any("replica" in one for one in each) else ()


def _again(each: Mapping[str, Any]) -> tuple[object, ...]:
    if each["last_position"] is None and each["first_position"] is not None:
        return each["shard"], f"from {each['first_position']} on", each["records"]
    return each["shard"], positions(each), each["records"]
