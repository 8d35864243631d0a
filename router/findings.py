"""What `headrace check` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from router.failure_commands import print_json
from router.tables import show_table


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
        if findings is not None:
            rows = [("ok" if each.ok else "FAILED", each.name, each.detail) for each in findings]
            show_table(("RESULT", "WHAT", "FOUND"), rows)
    return int(not all(each.ok for each in findings or ()))


def invalid(mistakes: Sequence[str]) -> None:
    """Print the mistakes of a file as JSON."""
    print_json({"valid": False, "mistakes": list(mistakes), "notices": [], "checks": []})
