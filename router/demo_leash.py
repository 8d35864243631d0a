"""The program between the demo and what it runs: `python -I demo_leash.py COMMAND...`.

It runs the command until that ends, or until standard input does: then it asks the command to stop. So the service
ends with the demo however that ends, and never polls on for nobody.
"""

from __future__ import annotations

import subprocess
import sys
import threading
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
    sys.stdin.buffer.read()
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
