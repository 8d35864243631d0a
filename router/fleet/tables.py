"""What people read of a fleet, in `headrace status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

#: Prints columns and rows.
Show = Callable[[Sequence[str], Sequence[Sequence[object]]], None]


def show_replicas(fleet: Mapping[str, Any], show: Show) -> None:
    """Print the replicas, and in what they differ."""
    print()
    columns = ("REPLICA", "STATE", "VERSION", "SINCE", "SHARDS", "LOAD", "LAST HEARD", "HOST")
    show(columns, [_replica_row(each) for each in fleet["replicas"]])
    if fleet.get("error"):
        print(f"The fleet cannot be looked at now: {fleet['error']}")
    for text in fleet.get("store", ()):
        print(f"Of the shared state: {text}")
    for each in fleet["differences"]:
        values = ", ".join(f"{replica} {value}" for replica, value in each["replicas"].items())
        print(f"Replicas differ in {each['what']}: {values}")


def _replica_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    heard = each["last_heard_seconds"]
    return (
        each["name"],
        each["state"],
        each["version"],
        each["since"],
        each["shards"],
        each["load"],
        None if heard is None else f"{heard} s ago",
        each["host"],
    )


def with_owners(
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    mappings: Sequence[Mapping[str, Any]],
    fleet: Mapping[str, Any],
) -> tuple[Sequence[str], list[tuple[object, ...]]]:
    """Say beside each shard which replica has it, and since when, as far as that is leased."""
    since = {(each["mapping"], each["shard"]): each["since"] for each in fleet["leases"]}
    shown = [(mapping["name"], shard) for mapping in mappings for shard in mapping["shards"]]
    found: list[tuple[object, ...]] = [
        (*row[:2], shard["replica"], _short(since.get((name, shard["shard"]))), *row[2:])
        for row, (name, shard) in zip(rows, shown, strict=True)
    ]
    # What those have who do not say how it is.
    known = {(name, shard["shard"]) for name, shard in shown}
    found += [
        (each["shard"], each["mapping"], each["owner"], _short(each["since"]), *[None] * (len(columns) - 2))
        for each in fleet["leases"]
        if not each["reason"] and not each["shard"].startswith("@") and (each["mapping"], each["shard"]) not in known
    ]
    return (*columns[:2], "REPLICA", "SINCE", *columns[2:]), found


def idle(fleet: Mapping[str, Any]) -> list[tuple[object, ...]]:
    """Give rows of what nobody works on, and why."""
    return [
        (
            each["shard"],
            each["mapping"],
            each["owner"],
            _short(each["since"]),
            f"{each['reason']['code']}: {each['reason']['message']}",
        )
        for each in fleet["leases"]
        if each["reason"] and not each["shard"].startswith("@")
    ]


def show_leases(fleet: Mapping[str, Any], show: Show) -> None:
    """Print who owns what, where nobody was asked how it is."""
    rows = [
        (each["shard"], each["mapping"], each["owner"], _short(each["since"]))
        for each in fleet["leases"]
        if not each["shard"].startswith("@")
    ]
    if rows:
        print()
        show(("SHARD", "MAPPING", "OWNER", "SINCE"), rows)


def _short(moment: str | None) -> str | None:
    """Write a time of today without its date."""
    if moment is None:
        return None
    found = datetime.fromisoformat(moment)
    is_today = found.date() == datetime.now(found.tzinfo).date()
    return f"{found:%H:%M:%S}" if is_today else f"{found:%Y-%m-%d %H:%M}"
