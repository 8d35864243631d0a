"""The servers that the fleet reads from, and the fault proxy: those of tests/services, and what is done to them."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_SERVICES: Final = Path(__file__).parents[1] / "tests" / "services" / "services"


def start(names: Sequence[str]) -> Mapping[str, str]:
    """Start what does not run, and give the environment that says where all of them answer."""
    subprocess.run([sys.executable, _SERVICES, "start", *names], check=True, stdout=sys.stderr)
    shown = subprocess.run([sys.executable, _SERVICES, "env", *names], check=True, capture_output=True, text=True)
    exports = dict(shlex.split(line)[1].split("=", 1) for line in shown.stdout.splitlines())
    os.environ.update({name: value for name, value in exports.items() if name.startswith("AWS_")})
    return exports


class LocalStack:
    """The server in front of all that stands in for AWS. It keeps nothing over a restart, so it is only frozen."""

    def __init__(self) -> None:
        command = [sys.executable, _SERVICES, "status", "localstack"]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        found = re.search(r"pid (\d+)", shown.stdout)
        assert found, shown.stdout
        self._process = int(found[1])

    def freeze(self) -> None:
        os.kill(self._process, signal.SIGSTOP)

    def thaw(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGCONT)


async def broker(action: str, node: str) -> None:
    """Kill or start one broker of the cluster; a busy machine may need a second start."""
    command = (sys.executable, _SERVICES, action, f"kafka-cluster:{node}")
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        if await process.wait() == 0:
            return
    raise AssertionError(f"services {action} kafka-cluster:{node} failed three times")
