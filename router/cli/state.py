"""`headrace state`: the store as a whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.arguments import add_command
from router.cli import here
from router.cli.failures import ids, selected, show_list

if TYPE_CHECKING:
    from connectors.store.sqlite import SqliteStore
    from router.ports import Selection


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
    from router import state_commands

    directory, target = here.state_dir(given), given.target
    return state_commands.backup(target, lambda tell: back_up(directory, target, tell), as_json=given.json)


def upgrade(given: argparse.Namespace) -> int:
    from connectors.store import reader, schema, sqlite
    from router import state_commands

    directory = here.state_dir(given)
    return state_commands.upgrade(
        reader.version(directory), schema.VERSION, lambda: sqlite.upgrade(directory), as_json=given.json
    )


def compact(given: argparse.Namespace) -> int:
    from connectors.store import compaction, reader
    from router import control_client, state_commands

    directory = here.state_dir(given)
    reader.version(directory)  # is there anything?
    return state_commands.compact(
        directory / reader.FILE_NAME,
        lambda: control_client.compact(directory),
        lambda: compaction.rewrite(directory),
        as_json=given.json,
    )


def erase(given: argparse.Namespace) -> int:
    from router import state_commands
    from router.selecting import Options

    options = Options(key=given.key, mapping=given.mapping)
    if given.dry_run:
        show_list(given, options, (), None)
        return 0
    here.need_yes(given, "erasing deletes records")
    directory = here.state_dir(given)
    wanted, count = selected(directory, options, ())
    erasing = _erase_there if here.is_served(directory) else _erase_here
    return state_commands.erase(
        given.key, count, directory, lambda: erasing(given, directory, wanted), here.asker(given), as_json=given.json
    )


def _erase_there(_: argparse.Namespace, directory: Path, wanted: Selection) -> Iterator[dict[str, Any]]:
    from router import control_client

    assert wanted.key is not None
    for page in ids(directory, wanted):
        yield control_client.erase(directory, wanted.key, page)
    control_client.scrub(directory)


def _erase_here(given: argparse.Namespace, directory: Path, wanted: Selection) -> Iterator[dict[str, Any]]:
    from dataclasses import asdict

    from connectors.store.compaction import rewrite
    from connectors.store.sqlite import SqliteStore
    from router.assembly import codec_of
    from router.erasure import Erased, erase
    from router.stored import each_done

    configuration = here.configuration(given)
    key = wanted.key
    assert key is not None

    async def work(store: SqliteStore, page: Sequence[str]) -> Erased:
        return await erase(store, partial(codec_of, configuration), key, page)

    for _, erased in each_done(partial(SqliteStore.open, directory), wanted, work):
        yield asdict(erased)
    rewrite(directory)
