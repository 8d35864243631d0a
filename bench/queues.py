"""The bench's queue and those who read it, watched from outside: the queue's own counts, and /proc for CPU."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from bench import procs
from bench.daemon import NOOP, Headrace

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 60
_LOOK_S = 0.1
#: Messages that the queue may have handed out to receives which a drain ended before they were answered.
DRAINED = 10 * 64
#: Any signature will do.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(slots=True)
class Endpoint(AbstractAsyncContextManager["Endpoint"]):
    """One `bench.sqs_endpoint`, with a supply that does not end unless its options say otherwise."""

    #: Its options.
    options: Sequence[str] = ()
    #: Of the queue.
    name: str = "bench"
    url: str = field(init=False)
    _process: asyncio.subprocess.Process = field(init=False)
    _http: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.sqs_endpoint", "--name", self.name, "--messages", str(10**12)),
            *self.options,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout
        self.url = json.loads(await self._process.stdout.readline())["url"]
        self._http = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._http.close()
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()

    @property
    def queue_url(self) -> str:
        return f"{self.url}/000000000000/{self.name}"

    async def report(self) -> dict[str, Any]:
        """Give its counts, its own CPU and the time."""
        async with self._http.get(f"{self.url}/report") as answer:
            return dict(await answer.json(content_type=None))

    async def deleted(self, count: int) -> None:
        """Wait until so many messages were deleted."""
        async with asyncio.timeout(_PATIENCE_S):
            found = await self.report()
            while found["deleted"] < count:
                await asyncio.sleep(_LOOK_S)
                found = await self.report()


@dataclass(slots=True)
class Peer(AbstractAsyncContextManager["Peer"]):
    """Another program that reads the queue, in its own process."""

    command: Sequence[str | Path]
    cwd: Path = _ROOT
    _process: asyncio.subprocess.Process = field(init=False)

    async def __aenter__(self) -> Self:
        environment = {**os.environ, **CREDENTIALS}
        self._process = await asyncio.create_subprocess_exec(*self.command, cwd=self.cwd, env=environment)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._process.returncode is None, f"{self.command[0]} ended by itself"
        self._process.kill()
        await self._process.wait()

    def pids(self) -> list[int]:
        return [self._process.pid]


def sqs(queue: str, **more: Any) -> dict[str, Any]:
    """Give a mapping that reads a queue."""
    return {"source": {"sqs": {"queue": queue}}, **more}


def headrace(
    endpoint: Endpoint, mappings: Mapping[str, Mapping[str, Any]], code: str = NOOP, **function: Any
) -> Headrace:
    """Give a daemon that reads the bench's queue."""
    aws = {"aws": {"endpoint_url": endpoint.url, "region": "us-east-1"}}
    return Headrace(mappings, code, function, CREDENTIALS, aws)


@dataclass(frozen=True, slots=True)
class Run:
    """One contender reading the queue for some seconds."""

    messages: int
    seconds: float
    #: Of the process that reads, and of worker processes.
    cpu_s: float
    workers_cpu_s: float
    #: Receives and deletes that were asked for.
    receives: int
    deletes: int
    #: Messages that were received a second time.
    again: int
    peak_rss_mb: float
    #: Share of one core that the queue took, and of all cores that everything took.
    endpoint_busy: float
    machine_busy: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """All CPU per message."""
        return (self.cpu_s + self.workers_cpu_s) / self.messages * 1e6


async def observe(endpoint: Endpoint, pids: Callable[[], Sequence[int]], seconds: float) -> Run:
    """Look now and after some seconds; the first process is the one that reads, all others are workers."""
    first, before = await endpoint.report(), {pid: procs.usage(pid) for pid in pids()}
    began = procs.clock()
    await asyncio.sleep(seconds)
    last, after = await endpoint.report(), {pid: procs.usage(pid) for pid in pids()}
    assert before.keys() <= after.keys(), "no worker went meanwhile"
    reader, *workers = (use.cpu_s - (before[pid].cpu_s if pid in before else 0.0) for pid, use in after.items())
    span_s = last["at_s"] - first["at_s"]
    return Run(
        last["deleted"] - first["deleted"],
        span_s,
        reader,
        sum(workers),
        last["receives"] - first["receives"],
        last["deletes"] - first["deletes"],
        last["again"] - first["again"],
        next(iter(after.values())).peak_rss_mb,
        (last["cpu_s"] - first["cpu_s"]) / span_s,
        procs.busy_share(began, procs.clock()),
    )
