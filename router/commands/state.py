"""`headrace state`: what is done with the embedded store, and said. The store is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from router.commands.failures import Ask, describe, print_json
from router.commands.tables import bytes_progress
from router.errors import NotRunning

#: Hears how many bytes of how many are done.
Tell = Callable[[int, int], None]

#: What of the state directory may hold records too, by how its name begins.
OTHER_FILES: Final = ("headrace.db.version-", "logs")
_ELSEWHERE: Final = "copies made by `headrace state backup`, the source, and what destinations and handlers were given"
_RESTORES: Final = "in the place of headrace.db of a state directory it is that state again"


def backup(target: Path, copy: Callable[[Tell], None], *, as_json: bool) -> int:
    """Have the store copied to `target`, showing how far it is. Raises StoreUnavailable."""
    with bytes_progress("copying") as tell:
        copy(tell)
    size_bytes = target.stat().st_size
    if as_json:
        print_json({"backup": str(target), "bytes": size_bytes})
    else:
        print(f"{target}: {size_bytes} bytes; {_RESTORES}")
    return 0


def upgrade(before: int, after: int, run: Callable[[], Path | None], *, as_json: bool) -> int:
    """Have the store brought from one version to another by `run`, which gives where the older one is kept, if any.

    Raises:
        StoreUnavailable: a daemon uses it, or it cannot be done; then the store is as it was.
    """
    aside = run() if before < after else None
    if as_json:
        print_json({"from": before, "to": after, "copy": None if aside is None else str(aside)})
    elif aside is None:
        print(f"the store is of version {after} already; there is nothing to do")
    else:
        print(f"the store was of version {before} and is now of {after}; as it was, it is in {aside}")
    return 0


def compact(path: Path, there: Callable[[], int], here: Callable[[], None], *, as_json: bool) -> int:
    """Have the store given its free room back: by the daemon (`there`, told what is left), else by writing it anew.

    Raises:
        StoreUnavailable: it cannot be done now; what was given back is.
    """
    before_bytes = _taken_bytes(path)
    with bytes_progress("giving back") as tell:
        try:
            left_bytes = all_bytes = there()
            while left_bytes:
                tell(all_bytes - left_bytes, all_bytes)
                left_bytes = there()
        except NotRunning:
            here()
    after_bytes = _taken_bytes(path)
    if as_json:
        print_json({"before_bytes": before_bytes, "after_bytes": after_bytes})
    else:
        print(f"{path}: {before_bytes} bytes before, {after_bytes} now")
    return 0


def _taken_bytes(path: Path) -> int:
    """Give what the store takes with its write-ahead log, which has what is not in the file yet."""
    taken_bytes = path.stat().st_size
    with suppress(FileNotFoundError):
        taken_bytes += path.with_name(f"{path.name}-wal").stat().st_size
    return taken_bytes


def erase(
    key: str,
    count: int,
    others: Sequence[str],
    run: Callable[[], Iterable[Mapping[str, Any]]],
    ask: Ask,
    *,
    as_json: bool,
) -> int:
    """Have the records of a key erased from so many failures by `run`, which says what came of each page of them.

    Gives 1 when a failure still holds the key.

    Raises:
        StoreUnavailable, NotRunning: what was erased until then is.
    """
    if count and not ask(f"Erase the records of key {key!r} from {describe(count)} for good?"):
        return 1
    failures = records = 0
    kept: list[Mapping[str, str]] = []
    for page in run():  # also when nothing is found: what was deleted before is then overwritten everywhere
        failures += page["failures"]
        records += page["records"]
        kept += page["kept"]
    if as_json:
        print_json({"failures": failures, "records": records, "kept": kept, "not_covered": list(others)})
    else:
        print(f"{records} records erased from {describe(failures)}")
        for each in kept:
            print(f"{each['id']} still holds it: {each['reason']}")
        print(f"not looked into: {', '.join([*others, _ELSEWHERE])}")
    return int(bool(kept))
