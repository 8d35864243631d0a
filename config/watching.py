"""Which files a configuration was made of, and whether they are still what they were."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

#: What changes when a file is written or replaced, also behind a symbolic link; None = it is not there.
Stamp: TypeAlias = tuple[int, int, int, int, int] | None
#: Every file that was looked for, with its stamp just before.
Seen: TypeAlias = dict[Path, Stamp]


def stamp(path: Path) -> Stamp:
    """Look at a file through the links that lead to it."""
    try:
        found = os.stat(path)  # noqa: PTH116 - once a second, for every file
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def look(seen: Mapping[Path, Stamp]) -> Seen:
    """Look at the same files again."""
    return {path: stamp(path) for path in seen}
