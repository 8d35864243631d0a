"""`headrace mapping`: what is decided about one mapping, and said. What carries it out is handed in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.commands.failures import print_json

#: What is kept under a name, as machines read it: `identity.Holding`.
Held = dict[str, Any]


def accepted(held: Held, *, running: bool, as_json: bool) -> int:
    """Say that a mapping may go on with another source."""
    if as_json:
        print_json({"mapping": held["mapping"], "accepted": True, "was": held["source"], "running": running})
    else:
        when = "it goes on with the source that the file names" if running else "its next start begins with its source"
        if held["source"] is None:
            print(f"{held['mapping']}: what was kept of it is gone, and it begins anew where nothing else is known")
        else:
            print(f"{held['mapping']}: had read {held['source']}; {when}")
        if held["failures"]:
            print(f"{_failures(held)} of before stay, and would be replayed through the new source")
    return 0


def forget(held: Held, delete: Callable[[], Held], ask: Callable[[str], bool], *, as_json: bool) -> int:
    """Have what is kept of a mapping deleted, once it is agreed."""
    if not ask(f"Delete {_described(held)} of mapping {held['mapping']} for good?"):
        return 1
    deleted = delete()
    if as_json:
        print_json({"mapping": deleted.pop("mapping"), "deleted": deleted})
    else:
        print(f"{deleted['mapping']}: deleted {_described(deleted)}")
        if (deleted["source"] or "").startswith("kafka:"):
            print(f"It read {deleted['source']}: the offsets of that group are with the brokers, and stay there.")
    return 0


def _described(held: Held) -> str:
    waiting = f", {held['undelivered']} of them not delivered yet" if held["undelivered"] else ""
    states = f"{held['states']} state" if held["states"] == 1 else f"{held['states']} states"
    return f"{states} and {_failures(held)}{waiting}"


def _failures(held: Held) -> str:
    return "1 failure" if held["failures"] == 1 else f"{held['failures']} failures"
