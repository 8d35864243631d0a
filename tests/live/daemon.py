"""`headrace run` as its own process in a folder of its own, for tests that use it as an operator does.

    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", "def handle(event, context): ...")
        daemon.mapping("orders", {"bootstrap_servers": [...], "topic": "orders"}, batch_size=10)
        await daemon.start()
        await daemon.line("batch.discarded", mapping="orders")
        assert await daemon.terminate() == 0

Everything that waits is bounded and fails with the end of the daemon's log.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import textwrap
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

COMMAND = Path(sys.executable).with_name("headrace")
PATIENCE_S = 40.0
_LINE_BYTES = 2**24

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Daemon:
    """One state directory and the daemons that run on it, one after the other."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.port = _free_port()
        #: The content of headrace.yaml; YAML takes JSON as it is.
        self.document: dict[str, Any] = {
            "state": "./state",
            "listen": f"127.0.0.1:{self.port}",
            "functions": {},
            "event_source_mappings": {},
        }
        #: The file as somebody wrote it, in place of the document.
        self.text: str | None = None
        #: What the daemons have logged, one dict a line; a line that is no JSON is {"text": ...}.
        self.lines: list[Line] = []
        #: What the daemon is started through: a command that executes the one behind it.
        self.through: Sequence[str | Path] = ()
        #: Options of `headrace run`.
        self.options: Sequence[str] = ()
        self._environment = {**os.environ, **(environment or {})}
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    # --- what it runs

    def function(self, name: str, source: str, **parameters: Any) -> Path:
        """Write a function whose module is `app` and whose handler is `handle`; gives its file."""
        code = self.folder / "functions" / name
        code.mkdir(parents=True, exist_ok=True)
        file = code / "app.py"
        file.write_text(textwrap.dedent(source))
        self.document["functions"][name] = {"handler": "app.handle", "code": str(code), **parameters}
        return file

    def mapping(self, name: str, kafka: Mapping[str, Any], *, function: str | None = None, **parameters: Any) -> None:
        """Add a mapping over a Kafka topic, read from its beginning; its group has the name of the topic."""
        self.document["event_source_mappings"][name] = {
            "function": function or name,
            "source": {"kafka": {"consumer_group": kafka["topic"], "session_timeout": "6s", **kafka}},
            "starting_position": "TRIM_HORIZON",
            **parameters,
        }

    @property
    def file(self) -> Path:
        return self.folder / "headrace.yaml"

    def write(self) -> None:
        """Write the file, for commands before there is a daemon."""
        self.file.write_text(json.dumps(self.document, indent=1) if self.text is None else self.text)

    # --- its life

    async def start(self, *, ready: bool = True, stderr: int = PIPE) -> None:
        """Write the file and start a daemon; with `ready`, wait until every mapping has its source or says why not.

        With a descriptor as `stderr` its log goes there, and is not read here.
        """
        self.write()
        command = [*self.through, COMMAND, "run", *self.options, self.file]
        self._process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=self._environment, stderr=stderr, limit=_LINE_BYTES
        )
        self._reading = asyncio.create_task(self._read(self._process))
        if ready:
            await self.ready()

    async def _read(self, process: Process) -> None:
        async for raw in process.stderr or _nothing():
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"text": raw.decode(errors="replace").rstrip()}
            async with self._news:
                self.lines.append(line)
                self._news.notify_all()
        await process.wait()
        async with self._news:
            self._news.notify_all()

    @property
    def process(self) -> Process:
        assert self._process is not None, "it was never started"
        return self._process

    async def ready(self, mapping: str | None = None) -> Any:
        """Wait until /health/ready says 200; gives its body."""
        url = f"http://127.0.0.1:{self.port}/health/ready"
        parameters = {"mapping": mapping} if mapping else {}
        async with self._bounded("it is ready"), aiohttp.ClientSession() as http:
            while True:
                assert self.process.returncode is None, self._tail("the daemon ended")
                with suppress(aiohttp.ClientConnectionError):
                    async with http.get(url, params=parameters) as answer:
                        if answer.status == 200:
                            return await answer.json()
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """Kill it as a crash would, and wait until it is gone."""
        self.process.kill()
        await self.exit()

    async def terminate(self) -> int:
        """Ask it to drain; gives its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await self.exit()

    async def exit(self) -> int:
        """Wait for its end; gives its exit status."""
        async with self._bounded("it ends"):
            status = await self.process.wait()
            assert self._reading is not None
            await self._reading
        return status

    def workers(self) -> Sequence[int]:
        """Give the process ids of its workers."""
        assert self.process.returncode is None, self._tail("the daemon ended")
        pid = self.process.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in children if not _is_leash(child)]

    # --- what it says

    async def line(self, event: str, *, after: int = 0, **fields: Any) -> Line:
        """Wait for a log line (from line number `after` on) with these fields."""
        wanted = {"event": event, **fields}

        def found() -> Line | None:
            return next((line for line in self.lines[after:] if wanted.items() <= line.items()), None)

        async with self._bounded(f"it logs {wanted}"), self._news:
            while (line := found()) is None:
                assert self._reading is not None, "it was never started"
                # It may have ended before all that it said was read.
                assert not self._reading.done(), self._tail(f"the daemon ended without {wanted}")
                await self._news.wait()
            return line

    def events(self, event: str, **fields: Any) -> list[Line]:
        """Give the lines with these fields that are there now."""
        wanted = {"event": event, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    async def command(self, *arguments: str) -> Finished:
        """Run another `headrace` command on the same file."""
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *arguments,
            cwd=self.folder,
            env={**self._environment, "HEADRACE_CONFIG": str(self.file)},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        async with self._bounded(f"`headrace {' '.join(arguments)}` ends"):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    async def run(self, *command: str | Path, within_s: float) -> tuple[int, str, str]:
        """Run another program in the folder, with our commands on its PATH; gives its status, and what it wrote."""
        path = f"{COMMAND.parent}:{self._environment['PATH']}"
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env={**self._environment, "PATH": path, "HEADRACE_CONFIG": str(self.file)},
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def status(self, mapping: str) -> Mapping[str, Any]:
        """Give what `status --json` says of a mapping."""
        done = await self.command("status", "--json")
        assert done.status == 0, done.err
        return next(each for each in done.json()["mappings"] if each["name"] == mapping)

    async def until_status(
        self, mapping: str, fact: Callable[[Mapping[str, Any]], object], what: str
    ) -> Mapping[str, Any]:
        """Wait until `status --json` says a fact of a mapping; gives all that it says of it then."""
        async with self._bounded(what):
            while not fact(found := await self.status(mapping)):
                pass  # every turn runs a command
        return found

    async def until_reason(self, mapping: str, code: str) -> Mapping[str, Any]:
        """Wait until `status --json` gives this reason of a mapping; while a try runs it gives none."""
        return await self.until_status(
            mapping, lambda found: (found["reason"] or {}).get("code") == code, f"{code} is the reason of {mapping}"
        )

    async def failures(self, *options: str) -> list[dict[str, Any]]:
        """Give what `failures list --json` prints, settled ones too."""
        done = await self.command("failures", "list", "--json", "--status", "all", *options)
        assert done.status == 0, done.err
        return list(done.json())

    async def until_failures(self, fact: Callable[[list[dict[str, Any]]], object], what: str) -> list[dict[str, Any]]:
        """Wait until a fact holds of what `failures` gives; gives it."""
        async with self._bounded(what):
            while not fact(found := await self.failures()):
                pass  # every turn runs a command
        return found

    async def until(self, fact: Callable[[], object], what: str) -> None:
        """Wait for a fact that nobody announces."""
        async with self._bounded(what):
            while not fact():  # noqa: ASYNC110 - other processes have no event for it
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def _bounded(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError as error:
            raise AssertionError(self._tail(f"not in {PATIENCE_S:.0f} s: {what}")) from error

    def _tail(self, what: str) -> str:
        return "\n".join([f"{what}; the end of its log:", *(json.dumps(line) for line in self.lines[-25:])])


def _is_leash(pid: int) -> bool:
    """Is it the process that ends the workers when the daemon cannot?"""
    try:
        return b"leash.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def whole_lines(file: Path) -> list[str]:
    """Give the lines of a file that is still written, without one whose end is not there yet; none without a file."""
    text = file.read_text() if file.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


# --- the topic's side


def plain(bootstrap: str, topic: str) -> dict[str, Any]:
    """Give the source block of a topic on the plain listener."""
    return {"bootstrap_servers": bootstrap.split(","), "topic": topic}


async def produce(
    bootstrap: str, topic: str, records: Sequence[tuple[str | None, object]], *, partition: int | None = None
) -> None:
    """Write records (key, value); a value that is neither bytes nor None is written as JSON."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=2**23) as producer:
        for key, value in records:
            raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
            await producer.send(topic, raw, key=None if key is None else key.encode(), partition=partition)


@asynccontextmanager
async def cluster(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def committed(bootstrap: str, topic: str, group: str | None = None) -> dict[int, tuple[int, str]]:
    """Give a group's next offsets and retry states by partition; without a group, that of the topic's name."""
    async with cluster(bootstrap) as admin:
        offsets = await admin.list_consumer_group_offsets(group or topic)
    return {each.partition: (at.offset, at.metadata) for each, at in offsets.items() if each.topic == topic}


async def await_committed(bootstrap: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Wait until the group has committed these next offsets, and owes nothing behind them."""
    wanted = {partition: (offset, "") for partition, offset in offsets.items()}
    found: dict[int, tuple[int, str]] = {}
    try:
        async with asyncio.timeout(PATIENCE_S), cluster(bootstrap) as admin:
            partitions = [TopicPartition(topic, partition) for partition in offsets]
            while wanted.items() - found.items():
                at = await admin.list_consumer_group_offsets(topic, partitions=partitions)
                found = {each.partition: (at[each].offset, at[each].metadata) for each in at}
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"not committed in {PATIENCE_S:.0f} s: {wanted}, but {found}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
