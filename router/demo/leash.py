"""The program between the demo and its service: `python -I leash.py COMMAND...`.

It runs the command until that ends, or until standard input does: if something was written there, the command is asked
to stop, as the demo does in the end; if not, the demo is gone, and the command is killed, as nobody waits for it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

#: Longest time that the command may take to stop.
STOP_S: Final = 20.0


def main() -> int:
    """Give the exit status of the command."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_stop_with_input, args=(process,), daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


def _stop_with_input(process: subprocess.Popen[bytes]) -> None:
    if sys.stdin.buffer.read():
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    process.kill()


if __name__ == "__main__":
    sys.exit(main())
