"""`headrace state`: the store as a whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli import here
from router.cli.failures import ids, selected, show_list
from router.cli.kept import Embedded
from router.commands.arguments import add_command
from router.errors import ConfigError

if TYPE_CHECKING:
    from router.cli.kept import Kept
    from router.ports import Selection, Store


def add_state(commands: Any) -> None:
    """Add the commands of the group."""
    one = add_command(commands, "backup", backup, "copy the store into one file, also while the service runs")
    one.add_argument("target", type=Path, metavar="TARGET", help="a file that does not exist yet")
    add_command(commands, "compact", compact, "give the room of deleted failures back to the file system")
    one = add_command(commands, "erase", erase, "erase all records of one key from stored failures")
    one.add_argument("--key", required=True, metavar="KEY", help="the record key, message group or object key")
    one.add_argument("--mapping", metavar="NAME", help="of this mapping only")
    one.add_argument("--dry-run", action="store_true", help="only list the failures that hold it")
    one.add_argument("--yes", action="store_true", help="do not ask")
    add_command(commands, "upgrade", upgrade, "bring a store of an older version forward, as the service does at start")


def backup(given: argparse.Namespace) -> int:
    from connectors.store.reader import back_up
    from router.commands import state as state_commands

    kept, target = here.kept(given), given.target
    if not isinstance(kept, Embedded):
        raise ConfigError(
            f"{kept.where}: Redis makes its own copies. Take them there: BGSAVE and its dump file, or the append-only "
            "files; where mappings are in their streams is also written by `headrace checkpoints export`"
        )
    directory = kept.directory
    return state_commands.backup(target, lambda tell: back_up(directory, target, tell), as_json=given.json)


def upgrade(given: argparse.Namespace) -> int:
    from connectors.store import reader, schema, sqlite
    from router.commands import state as state_commands

    kept = here.kept(given)
    if not isinstance(kept, Embedded):
        raise ConfigError(f"{kept.where}: there is nothing to upgrade; a service of a newer version brings it forward")
    directory = kept.directory
    return state_commands.upgrade(
        reader.version(directory), schema.VERSION, lambda: sqlite.upgrade(directory), as_json=given.json
    )


def compact(given: argparse.Namespace) -> int:
    from connectors.store import compaction, reader
    from router.commands import control_client
    from router.commands import state as state_commands

    kept = here.kept(given)
    if not isinstance(kept, Embedded):
        raise ConfigError(
            f"{kept.where}: there is nothing to compact. Redis uses the memory of what was deleted again by itself, "
            "and `MEMORY PURGE` gives it back; payloads that no failure names any more are deleted by the service"
        )
    directory = kept.directory
    reader.version(directory)  # is there anything?
    return state_commands.compact(
        directory / reader.FILE_NAME,
        lambda: control_client.compact(directory),
        lambda: compaction.rewrite(directory),
        as_json=given.json,
    )


def erase(given: argparse.Namespace) -> int:
    from router.commands import state as state_commands
    from router.commands.selecting import Options

    options = Options(key=given.key, mapping=given.mapping)
    if given.dry_run:
        show_list(given, options, (), None)
        return 0
    here.need_yes(given, "erasing deletes records")
    kept = here.kept(given)
    wanted, count = selected(kept, options, ())
    erasing = _erase_there if here.is_served(kept) else _erase_here
    return state_commands.erase(
        given.key, count, kept.others(), lambda: erasing(given, kept, wanted), here.asker(given), as_json=given.json
    )


def _erase_there(_: argparse.Namespace, kept: Kept, wanted: Selection) -> Iterator[dict[str, Any]]:
    from router.commands import control_client

    assert wanted.key is not None
    for page in ids(kept, wanted):
        yield control_client.erase(kept.daemon(), wanted.key, page)
    control_client.scrub(kept.daemon())


def _erase_here(given: argparse.Namespace, kept: Kept, wanted: Selection) -> Iterator[dict[str, Any]]:
    from dataclasses import asdict

    from router.assembly import codec_of
    from router.failures.erasure import Erased, erase
    from router.stored import each_done

    configuration = here.configuration(given)
    key = wanted.key
    assert key is not None

    async def work(store: Store, page: Sequence[str]) -> Erased:
        return await erase(store, partial(codec_of, configuration), key, page)

    for _, erased in each_done(kept.open, wanted, work):
        yield asdict(erased)
    kept.overwrite()
