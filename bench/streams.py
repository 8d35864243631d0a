"""The bench's stream and those who read it, watched from outside: the stream's own counts, and /proc for CPU."""

from __future__ import annotations

import asyncio
import json
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
from bench.queues import CREDENTIALS

_ROOT = Path(__file__).parents[1]
_PATIENCE_S = 60
_LOOK_S = 0.1
STREAM = "bench"


@dataclass(slots=True)
class Endpoint(AbstractAsyncContextManager["Endpoint"]):
    """One `bench.kinesis_server`, with a supply that does not end unless its options say otherwise."""

    #: Its options.
    options: Sequence[str] = ()
    url: str = field(init=False)
    _process: asyncio.subprocess.Process = field(init=False)
    _http: aiohttp.ClientSession = field(init=False)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.kinesis_server", "--stream", STREAM, *self.options),
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

    async def report(self) -> dict[str, Any]:
        """Give its counts, its own CPU and the time."""
        async with self._http.get(f"{self.url}/report") as answer:
            return dict(await answer.json(content_type=None))

    async def reached(self, what: str, count: int) -> None:
        """Wait until one of its counts has come so far."""
        async with asyncio.timeout(_PATIENCE_S):
            found = await self.report()
            while found[what] < count:
                await asyncio.sleep(_LOOK_S)
                found = await self.report()


def kinesis(**more: Any) -> dict[str, Any]:
    """Give a mapping that reads the stream from its beginning."""
    return {"source": {"kinesis": {"stream": STREAM}}, "starting_position": "TRIM_HORIZON", **more}


def headrace(
    endpoint: Endpoint, mappings: Mapping[str, Mapping[str, Any]], code: str = NOOP, **function: Any
) -> Headrace:
    """Give a daemon that reads the bench's stream."""
    aws = {"aws": {"endpoint_url": endpoint.url, "region": "us-east-1"}}
    return Headrace(mappings, code, function, CREDENTIALS, aws)


@dataclass(frozen=True, slots=True)
class Run:
    """One contender reading the stream for some seconds."""

    polls: int
    records: int
    seconds: float
    #: Of the process that reads, and of worker processes.
    cpu_s: float
    workers_cpu_s: float
    rss_mb: float
    peak_rss_mb: float
    #: Share of one core that the stream took, and of all cores that everything took.
    endpoint_busy: float
    machine_busy: float

    @property
    def all_cpu_s(self) -> float:
        return self.cpu_s + self.workers_cpu_s

    @property
    def cpu_us(self) -> float:
        """All CPU per record."""
        return self.all_cpu_s / self.records * 1e6

    @property
    def poll_us(self) -> float:
        """All CPU per poll."""
        return self.all_cpu_s / self.polls * 1e6


async def observe(endpoint: Endpoint, pids: Callable[[], Sequence[int]], seconds: float) -> Run:
    """Look now and after some seconds; the first process is the one that reads, all others are workers."""
    first, before = await endpoint.report(), {pid: procs.usage(pid) for pid in pids()}
    began = procs.clock()
    await asyncio.sleep(seconds)
    last, after = await endpoint.report(), {pid: procs.usage(pid) for pid in pids()}
    assert before.keys() <= after.keys(), "no worker went meanwhile"
    reader, *workers = (use.cpu_s - (before[pid].cpu_s if pid in before else 0.0) for pid, use in after.items())
    span_s = last["at_s"] - first["at_s"]
    own = next(iter(after.values()))
    return Run(
        last["polls"] - first["polls"],
        last["records"] - first["records"],
        span_s,
        reader,
        sum(workers),
        own.rss_mb,
        own.peak_rss_mb,
        (last["cpu_s"] - first["cpu_s"]) / span_s,
        procs.busy_share(began, procs.clock()),
    )
