"""What the commands share: the file and the state directory that are meant, the store in it, and who is asked."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from router.errors import ConfigError, NotRunning

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from config.settings import Configuration
    from router.cli.kept import Kept, Reader
    from router.ports import Store

T = TypeVar("T")

DEFAULT_FILE: Final = "headrace.yaml"


def file(given: argparse.Namespace) -> Path:
    named: Path | None = getattr(given, "file", None) or given.config
    return named or Path(os.environ.get("HEADRACE_CONFIG") or DEFAULT_FILE)


def configuration(given: argparse.Namespace) -> Configuration:
    from config.load import load

    return load(file(given), os.environ, time.time())


def kept(given: argparse.Namespace) -> Kept:
    """Find out where the state is that a command is about. Raises ConfigError."""
    from config.replicas import VARIABLE, replica_name
    from config.state import state_of
    from router.cli.kept import Embedded, InRedis

    found = state_of(file(given), os.environ, time.time())
    if isinstance(found, Path):
        if given.replica is not None:
            raise ConfigError("--replica names one of those that share state: redis://..., and the file has none")
        return Embedded(found)
    named = given.replica is not None or os.environ.get(VARIABLE)
    return InRedis(found, replica_name(given.replica, os.environ) if named else None)


def carry(work: Coroutine[Any, Any, T]) -> T:
    import asyncio
    import logging

    # What libraries log they also raise, and a command says things once.
    logging.getLogger().addHandler(logging.NullHandler())
    return asyncio.run(work)


def installed_version() -> str:
    from importlib.metadata import version

    return version("headrace")


def need_yes(given: argparse.Namespace, why: str, *, needed: bool = True) -> None:
    """Refuse what cannot be asked about and was not agreed to. Raises ConfigError."""
    if needed and not (given.yes or at_terminal()):
        raise ConfigError(f"{why}: without a terminal to ask at, --yes is needed")


def is_served(kept: Kept) -> bool:
    from router.commands import control_client

    try:
        control_client.connect(kept.daemon(), control_client.ANSWER_S).close()
    except NotRunning:
        return False
    return True


def read(kept: Kept, question: Callable[[Reader], Awaitable[T]]) -> T:
    """Ask the store, whether a daemon runs on it or not."""

    async def ask() -> T:
        store = await kept.open_reader()
        try:
            return await question(store)
        finally:
            await store.close()

    return carry(ask())


def write(kept: Kept, change: Callable[[Store], Awaitable[T]]) -> T:
    """Change the store where no daemon runs that answers."""

    async def write() -> T:
        store = await kept.open()
        try:
            return await change(store)
        finally:
            await store.close()

    return carry(write())


def at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def asker(given: argparse.Namespace) -> Callable[[str], bool]:
    return (lambda _: True) if given.yes or not at_terminal() else _ask


def _ask(question: str) -> bool:
    try:
        return input(f"{question} [y/N]: ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
