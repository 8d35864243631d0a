"""`headrace run` as its own process, watched from outside: /metrics for progress, /proc for CPU and memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from bench import procs

_ROOT = Path(__file__).parents[1]
_START_S = 60
_STOP_S = 60
#: As much of a daemon's log as goes into an error.
_LOG_CHARS = 2000
#: Between two looks, which cost the daemon about 1 ms each.
_LOOK_S = 0.25
_SAMPLE = re.compile(r"^headrace_(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)

NOOP = "def handler(event, context):\n    return None\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """Progress and use at one moment, since the start."""

    at_s: float
    #: Records handed to the function.
    invoked: int
    daemon_cpu_s: float
    workers_cpu_s: float


def kafka(servers: str, topic: str, group: str | None = None, **more: Any) -> dict[str, Any]:
    """Give a mapping that reads a topic from its start; without a group, as a new one."""
    group = group or f"headrace-bench-{uuid.uuid4().hex[:12]}"
    source = {"bootstrap_servers": servers.split(","), "topic": topic, "consumer_group": group}
    return {"source": {"kafka": source}, "starting_position": "TRIM_HORIZON", **more}


@dataclass(slots=True)
class Headrace:
    """One daemon with one function of one worker, and mappings to it."""

    #: By name; the function is put in.
    mappings: Mapping[str, Mapping[str, Any]]
    code: str = NOOP
    #: More parameters of the function.
    function: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    #: More top-level blocks of the file.
    more: Mapping[str, Any] = field(default_factory=dict)
    #: The command itself.
    command: Sequence[str | Path] = (Path(sys.executable).with_name("headrace"),)
    folder: Path = field(init=False)
    port: int = field(init=False)
    _process: subprocess.Popen[bytes] = field(init=False)
    _http: aiohttp.ClientSession = field(init=False)
    _url: str = field(init=False)
    _is_killed: bool = field(default=False, init=False)

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="headrace-bench-"))
        port = _free_port()
        self.port = port
        self._url = f"http://127.0.0.1:{port}"
        (self.folder / "code").mkdir()
        (self.folder / "code" / "bench_handler.py").write_text(self.code)
        (self.folder / "headrace.yaml").write_text(json.dumps(self._configuration(port), indent=1))
        self._process = self._start()
        self._http = aiohttp.ClientSession()
        try:
            await self._wait_until_ready()
        except BaseException:
            await self._http.close()
            self._process.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._http.close()
        if self._is_killed:
            shutil.rmtree(self.folder)
            return
        self._process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self._process.wait, _STOP_S)
        if error is None:
            assert status == 0, f"headrace ended with status {status}:\n{self._last_log()}"
            shutil.rmtree(self.folder)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()
        self._is_killed = True

    async def restart(self) -> None:
        """Stop it and start it again on what it has kept; returns once it is ready."""
        self._process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self._process.wait, _STOP_S)
        assert status == 0, f"headrace ended with status {status}:\n{self._last_log()}"
        self._process = self._start()
        await self._wait_until_ready()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._url

    @property
    def log(self) -> Path:
        """What the daemon writes to its standard error."""
        return self.folder / "daemon.log"

    def _last_log(self) -> str:
        return self.log.read_text()[-_LOG_CHARS:]

    @property
    def pid(self) -> int:
        return self._process.pid

    def _configuration(self, port: int) -> dict[str, Any]:
        """Give the file's content; YAML takes JSON as it is."""
        function = {"handler": "bench_handler.handler", "code": "./code", "timeout": 60, "reserved_concurrency": 1}
        return {
            "state": "./state",
            "listen": f"127.0.0.1:{port}",
            "functions": {"bench": {key: value for key, value in {**function, **self.function}.items() if value}},
            "event_source_mappings": {
                name: {"function": "bench", **mapping} for name, mapping in self.mappings.items()
            },
            **self.more,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [*self.command, "run", self.folder / "headrace.yaml"],
                cwd=_ROOT,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )

    async def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + _START_S
        while True:
            assert self._process.poll() is None, f"headrace ended at its start:\n{self._last_log()}"
            assert time.monotonic() < deadline_s, f"headrace is not ready after {_START_S} s:\n{self._last_log()}"
            try:
                async with self._http.get(f"{self._url}/health/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)

    async def metrics(self, mapping: str = "") -> dict[str, float]:
        """Give metrics by name without prefix: of one mapping, or added up."""
        async with self._http.get(f"{self._url}/metrics") as answer:
            text = await answer.text()
            assert answer.status == 200, f"/metrics gave {answer.status}: {text}\n{self._last_log()}"
            found: dict[str, float] = {}
            for name, labels, value in _SAMPLE.findall(text):
                if not mapping or f'mapping="{mapping}"' in labels:
                    found[name] = found.get(name, 0.0) + float(value)
            return found

    async def sample(self) -> Sample:
        """Look at the daemon now. The daemon pays about 1 ms for it."""
        found = await self.metrics()
        workers = sum(procs.usage(worker).cpu_s for worker in self.workers())
        return Sample(time.monotonic(), int(found["invoked_event_count_total"]), procs.usage(self.pid).cpu_s, workers)

    async def follow(self, records: int) -> list[Sample]:
        """Look until so many records were handed to the function; give all looks."""
        samples = [await self.sample()]
        while samples[-1].invoked < records:
            await asyncio.sleep(_LOOK_S)
            samples.append(await self.sample())
        return samples

    def workers(self) -> list[int]:
        return list(procs.children(self.pid))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
