"""Looking at the files that a configuration names. Nothing but their presence is looked at."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from config.mistakes import Unfit


def require_file(path: Path, what: str) -> None:
    """Accept a regular file that we may read; raise Unfit for anything else, as reading it could fail or never end."""
    if not S_ISREG(_mode(path, what)):
        raise Unfit(f"{what} is not a file")
    if not os.access(path, os.R_OK):
        raise Unfit(f"{what} cannot be read: Permission denied")


def require_code(path: Path, what: str) -> None:
    """Accept a folder or a .zip file; raise Unfit for anything else."""
    mode = _mode(path, what)
    if not S_ISDIR(mode) and not (S_ISREG(mode) and path.suffix == ".zip"):
        raise Unfit(f"{what} is neither a folder nor a .zip file")


def _mode(path: Path, what: str) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Unfit(f"{what} does not exist") from None
    except OSError as error:
        raise Unfit(f"{what} cannot be looked at: {error.strerror}") from None
