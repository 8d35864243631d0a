"""A folder for each worker in which it may write, as /tmp is on AWS: its TMPDIR, which `tempfile` uses.

It lies in the state directory, where only the daemon's user gets in, and goes with its worker. Its name says which
daemon has made it, so that a daemon removes what those have left that were killed, and nothing that is used. The names
are short, because the paths of sockets must be.

Nobody bounds what is written there; on AWS it is 512 MB to 10,240 MB.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from handlers.predecessors import identity, is_alive

_FOLDER: Final = "scratch"


def home(state: Path) -> Path:
    """Say where in a state directory the folders of workers are."""
    return state / _FOLDER


def make(home: Path) -> Path:
    """Make the folder of a new worker in the folder of all. Raises OSError."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = identity(os.getpid()).replace(" ", "-")
    return Path(tempfile.mkdtemp(prefix=f"{owner}-", dir=home)).absolute()


def remove(folder: Path) -> None:
    """Remove it with all that is in it; what cannot be removed stays. May take a while."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # the handler has left folders that not even it may write to
        for parent, folders, _ in os.walk(folder):
            for name in folders:
                path = Path(parent, name)
                if not path.is_symlink():
                    with contextlib.suppress(OSError):
                        path.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(home: Path) -> None:
    """Remove the folders of daemons that are gone. May take a while."""
    with contextlib.suppress(OSError):
        for folder in home.iterdir():
            owner = folder.name.split("-")[:2]
            if owner[0].isdecimal() and not is_alive(owner):
                remove(folder)
