"""The node packages that peers need: installed under bench/out, where node is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bench.figures import OUT

_HERE = Path(__file__).parent


def home() -> Path | None:
    """Give the folder that holds the packages and our scripts; None without node and npm."""
    if not (shutil.which("node") and shutil.which("npm")):
        return None
    folder = OUT / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (_HERE / "package.json").read_text()
    done = folder / "installed"
    if not done.exists() or done.read_text() != wanted:
        print("installing peers into bench/out/npm ...", file=sys.stderr, flush=True)
        (folder / "package.json").write_text(wanted)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True)
        done.write_text(wanted)
    # node looks for packages beside the script
    for script in _HERE.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder
