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
    from connectors.store.reader import SqliteReader
    from connectors.store.sqlite import SqliteStore

T = TypeVar("T")

DEFAULT_FILE: Final = "headrace.yaml"


def file(given: argparse.Namespace) -> Path:
    named: Path | None = getattr(given, "file", None) or given.config
    return named or Path(os.environ.get("HEADRACE_CONFIG") or DEFAULT_FILE)


def configuration(given: argparse.Namespace) -> Configuration:
    from config.load import load

    return load(file(given), os.environ, time.time())


def state_dir(given: argparse.Namespace) -> Path:
    from config.state import state_dir

    return state_dir(file(given), os.environ, time.time())


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


def is_served(directory: Path) -> bool:
    from router import control_client

    try:
        control_client.connect(directory, control_client.ANSWER_S).close()
    except NotRunning:
        return False
    return True


def read(directory: Path, question: Callable[[SqliteReader], Awaitable[T]]) -> T:
    """Ask the store, whether a daemon runs on it or not."""
    from connectors.store.reader import SqliteReader

    async def ask() -> T:
        store = await SqliteReader.open_read_only(directory)
        try:
            return await question(store)
        finally:
            await store.close()

    return carry(ask())


def write(directory: Path, change: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Change the store of a daemon that does not run; one that is there and does not answer holds the lock."""
    from connectors.store.sqlite import SqliteStore

    async def write() -> T:
        store = await SqliteStore.open(directory)
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
