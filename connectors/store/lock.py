"""One daemon to a state directory: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from router.errors import StoreUnavailable


class DirectoryLock:
    """Holds `daemon.lock` of a state directory until `close` or the end of the process."""

    def __init__(self, directory: Path, instead: str = "a `state` of its own") -> None:
        """Take the lock.

        Args:
            directory: whose it is.
            instead: what a second daemon beside the one that has it is to be given.

        Raises:
            StoreUnavailable: another process has it.
            OSError
        """
        self._descriptor = os.open(directory / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreUnavailable(
                f"the state directory {directory} is in use by another headrace (process {holder}); "
                f"stop that one, or give this one {instead}"
            ) from error
        except OSError:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Let go. May come twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
