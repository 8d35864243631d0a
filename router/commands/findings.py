"""What `headrace check` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from router.commands.failures import print_json
from router.commands.tables import show_table

#: Keys of a mapping that say whose records it reads.
_WHOSE: Final = ("source", "source.topic", "source.consumer_group", "source.stream", "source.table", "source.queue")


class Finding(Protocol):
    """One thing that was reached, or not."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...


def checked(file: Path, notices: Sequence[str], findings: Sequence[Finding] | None, *, as_json: bool) -> int:
    """Say that a file is valid and what was reached (None = not asked for); 1 when something was not."""
    if as_json:
        found = [{"name": each.name, "ok": each.ok, "detail": each.detail} for each in findings or ()]
        print_json({"valid": True, "mistakes": [], "notices": list(notices), "checks": found})
    else:
        print(f"{file}: valid")
        for notice in notices:
            print(f"note: {notice}")
        if findings:
            rows = [("ok" if each.ok else "FAILED", each.name, each.detail) for each in findings]
            show_table(("RESULT", "WHAT", "FOUND"), rows)
    return int(not all(each.ok for each in findings or ()))


def invalid(mistakes: Sequence[str]) -> None:
    """Print the mistakes of a file as JSON."""
    print_json({"valid": False, "mistakes": list(mistakes), "notices": [], "checks": []})


def different(changes: Mapping[str, Any], *, as_json: bool) -> int:
    """Print what a reload would change."""
    if as_json:
        print_json(changes)
        return 0
    rows = [
        (each["action"], kind, each["name"], _why(each))
        for kind, group in (("mapping", "mappings"), ("function", "functions"))
        for each in changes[group]
        if each["action"] != "unchanged"
    ]
    rows += [("take on", "key", key, "") for key in changes["taken_on"]]
    rows += [("needs a restart", "key", key, "it stays as it is until then") for key in changes["need_restart"]]
    if rows:
        show_table(("ACTION", "WHAT", "NAME", "BECAUSE OF"), rows)
    unchanged = sum(each["action"] == "unchanged" for each in changes["mappings"])
    print(f"{unchanged} of {len(changes['mappings'])} mappings go on untouched")
    return 0


def _why(change: Mapping[str, Any]) -> str:
    if change["renamed_from"]:
        return f"takes over what is kept under {change['renamed_from']}"
    why = ", ".join(change["keys"])
    if change["action"] == "replace" and any(key in _WHOSE for key in change["keys"]):
        why += f"; its state is of another source, so it will wait for `headrace mapping accept {change['name']}`"
    return why
