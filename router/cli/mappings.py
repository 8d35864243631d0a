"""`headrace mapping`: steers one mapping, and decides what becomes of its state."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli import here
from router.commands.arguments import add_command, seconds
from router.errors import NotRunning

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from router.identity import Holding
    from router.ports import Store


def add_mapping(commands: Any) -> None:
    """Add the commands of the group."""
    pausing = add_command(commands, "pause", pause, "start nothing new in a mapping, until it is resumed")
    resuming = add_command(commands, "resume", resume, "let a paused mapping go on where it was")
    draining = add_command(commands, "drain", drain, "pause a mapping, and wait until nothing of it is in flight")
    draining.add_argument("--timeout", type=seconds, metavar="TIME", help="wait so long at most, such as 30s or 5m")
    seeking = add_command(commands, "seek", seek, "look what going on elsewhere in a stream means; --apply does it")
    seeking.add_argument(
        "--to",
        required=True,
        metavar="PLACE",
        help="TRIM_HORIZON, LATEST, a time (2026-05-01T06:00:00Z), how long ago (2h), or the record that comes next",
    )
    seeking.add_argument("--shard", metavar="SHARD", help="this shard only: orders-0; a position needs it")
    seeking.add_argument("--apply", action="store_true", help="do it, once it was shown")
    accepting = add_command(commands, "accept", accept, "let a mapping go on with another source under its name")
    forgetting = add_command(commands, "forget", forget, "delete state and failures of a mapping that is not run")
    for one in (pausing, resuming, draining, seeking, accepting, forgetting):
        one.add_argument("mapping", metavar="NAME", help="the mapping")
    for one in (seeking, forgetting):
        one.add_argument("--yes", action="store_true", help="do not ask")


def pause(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import steering as steering_commands
    from router.steering import pause as pause_stored

    done = _steer(given, control_client.pause, lambda store: pause_stored(store, given.mapping, time.time()))
    return steering_commands.show_paused(given.mapping, done, as_json=given.json)


def resume(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import steering as steering_commands
    from router.steering import resume as resume_stored

    done = _steer(given, control_client.resume, lambda store: resume_stored(store, given.mapping))
    return steering_commands.show_resumed(given.mapping, done, as_json=given.json)


def drain(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import steering as steering_commands

    done = control_client.drain(here.kept(given).daemon(), given.mapping, given.timeout)
    return steering_commands.show_drained(given.mapping, done, as_json=given.json)


def seek(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import seek as seek_commands
    from router.commands.selecting import wanted

    place = wanted(given.to, time.time())
    here.need_yes(given, "seeking skips records or repeats them", needed=given.apply)
    kept = here.kept(given)

    def carry_out(*, apply: bool) -> dict[str, Any]:
        return control_client.seek(kept.daemon(), given.mapping, place, given.shard, apply=apply)

    if not given.apply:
        return seek_commands.preview(carry_out(apply=False), as_json=given.json)
    return seek_commands.move([carry_out], here.asker(given), as_json=given.json)


def _steer(
    given: argparse.Namespace,
    ask: Callable[[Path, str], dict[str, Any]],
    write: Callable[[Store], Awaitable[object]],
) -> dict[str, Any] | None:
    """Have the daemon steer a mapping; None = there is none, and what it will find was written."""
    kept = here.kept(given)
    try:
        return ask(kept.daemon(), given.mapping)
    except NotRunning:
        from router.cli.kept import InRedis
        from router.steering import unknown

        names = [each.mapping.name for each in here.configuration(given).mappings]
        if given.mapping not in names:
            raise unknown(given.mapping, names) from None
        here.write(kept, write)
        if isinstance(kept, InRedis):
            here.carry(kept.tell())
            return {"mapping": given.mapping, "state": "told", "idle": False, "in_flight": [], "seen_again": []}
        return None


def accept(given: argparse.Namespace) -> int:
    from router import identity
    from router.commands import control_client
    from router.commands import mapping as mapping_commands

    kept = here.kept(given)
    try:
        held, running = control_client.accept(kept.daemon(), given.mapping), True
    except NotRunning:
        here.carry(kept.require_no_replica())
        held, running = _as_dict(here.write(kept, lambda store: identity.accept(store, given.mapping, {}))), False
    return mapping_commands.accepted(held, running=running, as_json=given.json)


def forget(given: argparse.Namespace) -> int:
    from router import identity
    from router.commands import control_client
    from router.commands import mapping as mapping_commands

    here.need_yes(given, "forgetting deletes state and failures")
    kept = here.kept(given)

    def carry_out(*, only_look: bool) -> dict[str, Any]:
        try:
            return control_client.forget(kept.daemon(), given.mapping, only_look=only_look)
        except NotRunning:
            here.carry(kept.require_no_replica())
            return _as_dict(
                here.write(kept, lambda store: identity.forget(store, given.mapping, {}, only_look=only_look))
            )

    held = carry_out(only_look=True)
    return mapping_commands.forget(held, lambda: carry_out(only_look=False), here.asker(given), as_json=given.json)


def _as_dict(held: Holding) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(held)
