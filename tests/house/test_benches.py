"""The programs of bench/ say how they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["api_load", "queue_wire"])
def test_those_that_others_start_tell_it_too(name: str) -> None:
    command = [sys.executable, "-m", f"bench.{name}", "--help"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (ran.returncode, ran.stdout.startswith(f"usage: {name}.py [-h] "), ran.stderr) == (0, True, "")
