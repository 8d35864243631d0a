"""`headrace checkpoints`: keeps where mappings are in their streams as a file."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli import here
from router.commands.arguments import add_command
from router.errors import ConfigError, NotFound, NotRunning

if TYPE_CHECKING:
    from router.checkpoint_file import Saved
    from router.ports import Places, Store


def add_checkpoints(commands: Any) -> None:
    """Add the commands of the group."""
    exporting = add_command(commands, "export", export_checkpoints, "write where mappings are, as a readable file")
    exporting.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="a file that does not exist yet; else print"
    )
    importing = add_command(commands, "import", import_checkpoints, "let mappings go on where a file says")
    importing.add_argument("saved", type=Path, metavar="FILE", help="what `checkpoints export` wrote")
    importing.add_argument("--yes", action="store_true", help="do not ask")
    for one in (exporting, importing):
        one.add_argument("--mapping", metavar="NAME", help="this mapping only")


def export_checkpoints(given: argparse.Namespace) -> int:
    import msgspec

    from router.checkpoint_file import Saved
    from router.commands import control_client
    from router.commands import seek as seek_commands

    try:
        found = msgspec.convert(control_client.export(here.kept(given).daemon(), given.mapping), list[Saved])
    except NotRunning:
        found = _export_here(given)
    if not found:
        raise NotFound("no mapping reads a stream: queues have no checkpoints")
    return seek_commands.export(found, given.output, time.time(), as_json=given.json)


def _export_here(given: argparse.Namespace) -> list[Saved]:
    from router.assembly import make_places
    from router.seeking import save

    streams = [each.mapping.name for each in here.configuration(given).mappings if make_places(each)]
    makers = {name: _places(given, name) for name in ([given.mapping] if given.mapping else streams)}

    async def work(store: Store) -> list[Saved]:
        return [await save(store, name, make) for name, make in makers.items()]

    return here.write(here.kept(given), work) if makers else []


def import_checkpoints(given: argparse.Namespace) -> int:
    from router.checkpoint_file import chosen, from_text
    from router.commands import seek as seek_commands

    here.need_yes(given, "importing changes where mappings go on")
    try:
        content = given.saved.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {given.saved}: {error.strerror}") from error
    found = chosen(str(given.saved), from_text(str(given.saved), content), given.mapping)
    return seek_commands.move(
        [partial(_import, given, saved) for saved in found], here.asker(given), as_json=given.json
    )


def _import(given: argparse.Namespace, saved: Saved, *, apply: bool) -> dict[str, Any]:
    from contextlib import nullcontext
    from dataclasses import asdict

    from router.commands import control_client
    from router.seeking import Mover

    kept = here.kept(given)
    try:
        return control_client.restore(kept.daemon(), saved.mapping, asdict(saved), apply=apply)
    except NotRunning:
        # One that is there and does not answer holds the lock of the store.
        make = _places(given, saved.mapping)
        still = nullcontext if apply else None
        here.carry(kept.require_no_replica())
        done = here.write(kept, lambda store: Mover(store, saved.mapping, make).restore(saved, still))
        return {**done, "state": "stopped"}


def _places(given: argparse.Namespace, name: str) -> Callable[[Store], Places]:
    """Give what makes the places of a mapping that no daemon runs. Raises NotFound."""
    from router.assembly import make_places
    from router.seeking import no_places
    from router.steering import unknown

    settings = {each.mapping.name: each for each in here.configuration(given).mappings}
    if name not in settings:
        raise unknown(name, list(settings))
    make = make_places(settings[name])
    if make is None:
        raise no_places(name)
    return make
