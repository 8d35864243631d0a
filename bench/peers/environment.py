"""The virtual environment that peers run in: never the project's own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from bench.figures import OUT

_REQUIREMENTS = Path(__file__).parents[1] / "requirements.txt"


def python() -> Path:
    """Give the interpreter of the peers' environment; make it when it is missing or its requirements changed."""
    home = OUT / "peers"
    wanted = f"{sys.version}\n{_REQUIREMENTS.read_text()}"
    done = home / "installed"
    interpreter = home / "bin" / "python"
    if not done.exists() or done.read_text() != wanted:
        print("installing peers into bench/out/peers ...", file=sys.stderr, flush=True)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-q", "-r", _REQUIREMENTS], check=True)
        done.write_text(wanted)
    return interpreter


def version_of(package: str) -> str:
    """Give the installed version of a peer."""
    ask = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python(), "-c", ask], check=True, capture_output=True, text=True).stdout.strip()
