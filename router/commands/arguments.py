"""How the arguments of the command are read. No abbreviations; what is wrong is raised, not printed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from router.errors import ConfigError

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

#: Carries a command out; gives the exit status.
Do = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Raises ConfigError for wrong usage."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see `{self.prog} --help`)")


def add_selectors(one: argparse.ArgumentParser) -> None:
    """Let a command select failures."""
    one.add_argument("ids", nargs="*", metavar="ID", help="these failures")
    one.add_argument("--mapping", metavar="NAME", help="of this event source mapping")
    one.add_argument("--shard", help="of this shard: orders-0")
    one.add_argument("--key", help="with a record of this key")
    one.add_argument("--since", metavar="TIME", help="failed then or later: 2026-05-01T06:00:00Z, or 2h ago")
    one.add_argument("--until", metavar="TIME", help="failed before then")
    one.add_argument("--error", metavar="TEXT", help="with this in the type or message of the error")
    one.add_argument("--status", help="stored, delivered, replaying, replayed, failed_again, dropped, or all")


def add_group(commands: Any, name: str, text: str) -> Any:
    """Add a command that has commands of its own; gives what those are added to."""
    group = commands.add_parser(name, help=text, description=_sentence(text))
    add_common(group, argparse.SUPPRESS, argparse.SUPPRESS)
    return group.add_subparsers(metavar="COMMAND", title="commands", required=True)


def add_command(commands: Any, name: str, do: Do, text: str) -> argparse.ArgumentParser:
    """Add a command with the options that all have; its parser sets `do`."""
    one: argparse.ArgumentParser = commands.add_parser(name, help=text, description=_sentence(text))
    add_common(one, argparse.SUPPRESS, argparse.SUPPRESS)
    one.set_defaults(do=do)
    return one


def add_common(parser: argparse.ArgumentParser, config: object = None, json: object = False) -> None:  # noqa: FBT002
    """Add the options that stand before or behind a command; a later one counts, a missing one changes nothing."""
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=config,
        metavar="FILE",
        help="the configuration; else HEADRACE_CONFIG, else ./headrace.yaml",
    )
    parser.add_argument(
        "--replica",
        default=config,
        metavar="NAME",
        help="where replicas share their state: the one that is meant; else HEADRACE_REPLICA",
    )
    parser.add_argument("--json", action="store_true", default=json, help="print JSON")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def seconds(text: str) -> float:
    """Read a time span: seconds, or a number with ms, s, m or h."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a time such as 500ms, 30s, 5m or 2h")
    return float(found[1]) * _UNITS_S[found[2] or "s"]


def rate(text: str) -> float:
    """Read a number of batches a second."""
    try:
        per_second = float(text)
    except ValueError:
        per_second = 0.0
    if not 0.001 <= per_second <= 1e6:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a number from 0.001")
    return per_second


def natural(text: str) -> int:
    """Read a number of things, at least one."""
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number < 10**15:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a number from 1")
    return number
