"""`headrace mapping seek` and `headrace checkpoints`: what is shown, asked and said. What does it is handed in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from router.checkpoint_file import Saved, to_document
from router.commands.failures import print_json
from router.commands.tables import show_table
from router.errors import ConfigError
from router.failures.record import iso_ms


class CarryOut(Protocol):
    """Moves a mapping, or says what that would do."""

    def __call__(self, *, apply: bool) -> dict[str, Any]: ...


def preview(found: Mapping[str, Any], *, as_json: bool) -> int:
    """Say what seeking would do."""
    if as_json:
        print_json(found)
    else:
        _show(found)
        print("Nothing has changed; --apply does it.")
    return 0


def move(carry_out: Sequence[CarryOut], ask: Callable[[str], bool], *, as_json: bool) -> int:
    """Show what moving mappings would do, and do it once it is agreed."""
    previews = [each(apply=False) for each in carry_out]
    if not as_json:
        for found in previews:
            _show(found)
    names = ", ".join(found["mapping"] for found in previews)
    if not ask(f"Move {names}? What is in flight ends first."):
        return 1
    for each in carry_out:
        done = each(apply=True)
        if as_json:
            print_json(done)
        else:
            print(f"{done['mapping']} was moved: {_sum(done)}. It is {done['state']}.")
    return 0


def export(found: Sequence[Saved], target: Path | None, wall_s: float, *, as_json: bool) -> int:
    """Write where mappings are into a file that is not there yet, or print it.

    Raises:
        ConfigError: the file is there, or cannot be written.
    """
    text = json.dumps(to_document(found, iso_ms(wall_s)), indent=2) + "\n"
    if target is None:
        sys.stdout.write(text)
        return 0
    try:
        with target.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{target} is there already: name a file that is not") from None
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from error
    shards = {each.mapping: len(each.shards) for each in found}
    if as_json:
        print_json({"file": str(target), "shards": shards})
    else:
        print(f"{target}: {', '.join(f'{name} ({count} shards)' for name, count in shards.items())}")
    return 0


def _show(found: Mapping[str, Any]) -> None:
    print(f"{found['mapping']} on {found['stream']}: {_sum(found)}")
    columns = ("SHARD", "FROM", "TO", "WAY", "RECORDS", "TIME", "DUPLICATES", "RETRIES")
    show_table(columns, [_row(each) for each in found["shards"]])
    for shard in found.get("unknown_shards", ()):
        print(f"{shard} is in the file and not in the stream any more: it is left out")


def _row(shard: Mapping[str, Any]) -> tuple[object, ...]:
    at_least = "" if shard["is_exact"] else "at least "
    return (
        shard["shard"],
        shard["from"],
        shard["to"],
        shard["direction"],
        f"{at_least}{shard['records']}",
        None if shard["seconds"] is None else f"{shard['seconds']:.1f} s",
        f"{at_least}{shard['duplicates']}" if shard["duplicates"] else 0,
        "void" if shard["retries_void"] else None,
    )


def _sum(found: Mapping[str, Any]) -> str:
    at_least = "" if found["is_exact"] else "at least "
    skipped, again = found["skipped"], found["seen_again"]
    parts = [f"{at_least}{skipped} records skipped"] * bool(skipped) + [f"{at_least}{again} records seen again"] * bool(
        again
    )
    return ", ".join(parts) or "no record is skipped or seen again"
