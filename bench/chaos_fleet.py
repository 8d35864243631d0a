"""Three replicas of one file, and a guest: processes that may be killed, frozen and started again.

All of them run the same file; what differs is in the environment: the replica's name, and its own ways to Redis and to
AWS. Their logs, standard error as it is, stay beside the ledger.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp

from bench import chaos_function
from bench.chaos_ports import quiet_port
from bench.chaos_sources import REGION, Source

COMMAND: Final = Path(sys.executable).with_name("headrace")
FLEET: Final = "chaos"
#: Of the small file system in place of a replica's local folder.
DISK_MB: Final = 4
#: Longest time until a replica has ended after SIGTERM, or can be used after its start.
_PATIENCE_S: Final = 60.0
_WORKERS: Final = 3


def write_file(folder: Path, sources: Sequence[Source], lease_s: float) -> Path:
    """Write the file of the fleet, and its function; gives the file."""
    code = folder / "functions" / "ledger"
    code.mkdir(parents=True)
    shutil.copy(chaos_function.__file__, code / "app.py")
    document = {
        "state": "${env:HEADRACE_CHAOS_REDIS}",
        "fleet": FLEET,
        "lease": f"{lease_s:g}s",
        "local": "./local",
        "aws": {"endpoint_url": "${env:HEADRACE_CHAOS_AWS}", "region": REGION},
        "functions": {
            "ledger": {
                "handler": "app.handle",
                "code": "./functions/ledger",
                "environment": {"LEDGER": str(folder / "ledger.txt"), "REPLICA": "${env:HEADRACE_REPLICA}"},
                "reserved_concurrency": _WORKERS,
                "logs": "off",
            }
        },
        "event_source_mappings": {source.name: {"function": "ledger", **source.mapping} for source in sources},
    }
    file = folder / "headrace.yaml"
    file.write_text(json.dumps(document, indent=1))
    return file


@dataclass(slots=True)
class Replica:
    """One replica: at most one process at a time."""

    name: str
    file: Path
    #: Addresses of its own ways.
    redis_url: str
    endpoint_url: str
    #: Ends that nobody had asked for, and what did not end.
    oddities: list[str] = field(default_factory=list)
    #: Exit statuses after SIGTERM.
    drains: list[int] = field(default_factory=list)
    port: int = field(default_factory=quiet_port)
    _process: Process | None = None
    _watching: asyncio.Task[None] | None = None
    _is_to_end: bool = False

    @property
    def local(self) -> Path:
        return self.file.parent / "local" / self.name

    @property
    def log(self) -> Path:
        return self.file.parent / "logs" / f"{self.name}.log"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HEADRACE_REPLICA": self.name,
            "HEADRACE_CHAOS_REDIS": self.redis_url,
            "HEADRACE_CHAOS_AWS": self.endpoint_url,
        }

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start a process; does not wait for anything."""
        assert not self.is_up
        self.log.parent.mkdir(exist_ok=True)
        self._is_to_end = False
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(COMMAND, "run", self.file, "--listen", f"127.0.0.1:{self.port}"),
                cwd=self.file.parent,
                env=self.environment,
                stderr=log,
            )
        self._watching = asyncio.create_task(self._watch(self._process))

    async def _watch(self, process: Process) -> None:
        """Start it again when it ends by itself, which it should not."""
        status = await process.wait()
        if not self._is_to_end:
            tail = self.log.read_text(errors="replace").splitlines()[-1:]
            self.oddities.append(f"replica {self.name} ended by itself with status {status}: {tail}")
            await asyncio.sleep(0.5)
            await self.start()

    async def ready(self) -> None:
        """Wait until all of its mappings have their source."""
        url = f"http://127.0.0.1:{self.port}/health/ready"
        async with asyncio.timeout(_PATIENCE_S), aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientConnectionError):
                    async with http.get(url) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)

    async def kill(self) -> None:
        """Kill it with -9, and wait until it is gone."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> None:
        """Ask it to drain, and wait for its end."""
        process = self._process
        assert process is not None
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._end(signal.SIGTERM)
        except TimeoutError:
            self.oddities.append(f"replica {self.name} did not end in {time.monotonic() - began_s:.0f} s after SIGTERM")
            await self._end(signal.SIGKILL)
        assert process.returncode is not None
        self.drains.append(process.returncode)

    async def _end(self, number: int) -> None:
        assert self._process is not None
        assert self._watching is not None
        self._is_to_end = True
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        await asyncio.shield(self._watching)

    def freeze(self) -> None:
        """Stop the daemon where it stands; its workers go on."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def workers(self) -> Sequence[int]:
        """Give the processes that run the function."""
        if not self.is_up:
            return ()
        assert self._process is not None
        pid = self._process.pid
        with suppress(FileNotFoundError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [int(child) for child in children if b"bootstrap.py" in _command_line(child)]
        return ()

    def given_up(self) -> Iterator[tuple[str, datetime]]:
        """Give the failures that it says to have stored, and when it said so."""
        for line in self.log.read_text(errors="replace").splitlines() if self.log.exists() else ():
            if '"batch.discarded"' in line:
                with suppress(ValueError):  # cut off by a kill
                    said = json.loads(line)
                    yield said["failure"], datetime.fromisoformat(said["timestamp"])

    # --- its disk

    def mount(self) -> bool:
        """Put a small file system in place of the local folder; False where that is not allowed."""
        self.local.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", self.local]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.local], capture_output=True, check=False)

    def fill_disk(self) -> None:
        with (self.local / "fill").open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(64 * 1024)):
                pass

    def free_disk(self) -> None:
        (self.local / "fill").unlink(missing_ok=True)


def pick(workers: Sequence[int], chance: float) -> int:
    """Choose one of some."""
    return workers[int(chance * len(workers))]


def _command_line(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""
