"""The command `headrace`: reads its arguments, puts the rooms together, and turns errors into one line and a status.

Each command loads what it needs when it runs: `headrace --version` stays quick, and the daemon carries nothing that
only people at a terminal need. That is also why the arguments are read with argparse: typer keeps 20 MB in a process.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from router.cli import here
from router.cli.checkpoints import add_checkpoints
from router.cli.failures import add_failures
from router.cli.mappings import add_mapping
from router.cli.service import add_service
from router.cli.state import add_state
from router.commands.arguments import Parser, add_common, add_group
from router.errors import ConfigError, NotRunning, RouterError

#: Exit statuses (0 = done, 1 = it failed).
USAGE: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130

ROOMS: Final = ("config", "connectors", "handlers", "router")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        require_own_rooms()
        given = make_parser().parse_args(arguments)
        status: int = given.do(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough. What is left in the buffer must not fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RouterError, BaseExceptionGroup) as error:
        return _explain(error)
    return status


def _explain(error: BaseException) -> int:
    """Tell an operator's error in one line each; what is a bug is raised again."""
    if isinstance(error, BaseExceptionGroup):
        expected, bugs = error.split(RouterError)
        if bugs or expected is None:
            raise error
        return max(_explain(each) for each in expected.exceptions)
    print(f"headrace: {error}", file=sys.stderr)
    statuses = {ConfigError: USAGE, NotRunning: NOT_RUNNING}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 1)


def require_own_rooms() -> None:
    """Refuse to run with somebody else's `config` or `handlers` in place of ours. Raises ConfigError."""
    home = Path(__file__).resolve().parents[2]
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            found = origin or (spec and spec.submodule_search_locations) or "nothing"
            raise ConfigError(
                f"the package {room!r} of headrace is hidden by {found}; "
                "take that off PYTHONPATH, or install headrace in an environment of its own"
            )


# --- the arguments


def make_parser() -> argparse.ArgumentParser:
    """Give the parser of all commands; each sets `do` to the function that carries it out."""
    parser = Parser(prog="headrace", description="Carry streams to AWS-Lambda-style handlers, and keep what fails.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    add_common(parser)
    parser.set_defaults(do=lambda given: show_version() if given.version else show_help(parser))
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    add_service(commands)
    add_mapping(add_group(commands, "mapping", "steer one mapping, and decide what becomes of its state"))
    add_checkpoints(add_group(commands, "checkpoints", "keep where mappings are in their streams as a file"))
    add_failures(add_group(commands, "failures", "look at failed batches, replay, deliver or drop them"))
    add_state(add_group(commands, "state", "the state directory"))
    return parser


def show_version() -> int:
    print(f"headrace {here.installed_version()}")
    return 0


def show_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return USAGE
