"""What the demo plays on: a real Kafka, topics and a folder of its own, and the real command."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from router.errors import RouterError

ROOT: Final = Path(__file__).resolve().parent.parent
SERVICES: Final = ROOT / "tests" / "services" / "services"
HANDLER: Final = ROOT / "handlers" / "examples" / "demo_orders.py"

PARTITIONS: Final = 4
Client = TypeVar("Client", AIOKafkaProducer, AIOKafkaConsumer)

#: Longest waits: for one answer of Kafka, for the daemon to be up, to drain.
KAFKA_S: Final = 20.0
STOP_S: Final = 20.0

FILE: Final = """\
state: ./.headrace
listen: 127.0.0.1:0

functions:
  orders:
    handler: demo_orders.handler
    code: ./functions
    environment: {{OUTPUT: {output}}}

event_source_mappings:
  orders:
    function: orders
    source:
      kafka: {{bootstrap_servers: ["{kafka}"], topic: {topic}, consumer_group: {topic}}}
    starting_position: TRIM_HORIZON
    batch_size: 100
    maximum_retry_attempts: 1
    bisect_batch_on_function_error: true
    destination_config: {{on_failure: {{kafka: {{topic: {dead_letters}}}}}}}
"""


class DemoFailed(RouterError):
    """Something that the demo shows did not happen."""


# --- Kafka


@asynccontextmanager
async def kafka_server(say: Callable[[str], None], *, keep: bool) -> AsyncIterator[str]:
    """Give `host:port` of a Kafka: the one that is named, or one that is started here.

    Raises:
        DemoFailed: there is none.
    """
    named = os.environ.get("HEADRACE_DEMO_KAFKA")
    if named:
        yield named
        return
    if not SERVICES.exists():
        raise DemoFailed(
            "the demo needs a Kafka: set HEADRACE_DEMO_KAFKA=host:port, or run it in a checkout of headrace"
        )
    ran_before = await _services("status", lambda _: None) == 0
    try:
        if await _services("start", say):
            raise DemoFailed("Kafka did not start (see above); or set HEADRACE_DEMO_KAFKA=host:port of one that runs")
        lines: list[str] = []
        await _services("env", lines.append)
        exports = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        yield exports["HEADRACE_TEST_KAFKA"]
    finally:
        if keep:
            say(f"Kafka stays up; to stop it: {SERVICES} stop kafka")
        elif not ran_before:
            await _services("stop", say)


async def _services(action: str, say: Callable[[str], None]) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, SERVICES, action, "kafka", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None, "asked for above"
    try:
        async for line in process.stdout:
            say(line.decode(errors="replace").rstrip())
        return await process.wait()
    finally:
        if process.returncode is None:  # interrupted
            process.terminate()
            await process.wait()


class Topics:
    """The topic of the orders and the one of the dead letters."""

    def __init__(self, kafka: str) -> None:
        self.kafka = kafka
        self.orders = f"headrace-demo-{uuid.uuid4().hex[:8]}"
        self.dead_letters = f"{self.orders}-dead-letters"

    @classmethod
    @asynccontextmanager
    async def made(cls, kafka: str, *, keep: bool) -> AsyncIterator[Topics]:
        """Create both; delete them in the end.

        Raises:
            DemoFailed: Kafka does not answer or refuses.
        """
        topics = cls(kafka)
        try:
            async with asyncio.timeout(KAFKA_S):
                await topics._create()
        except (KafkaError, OSError) as error:
            raise DemoFailed(f"Kafka at {kafka} cannot be used: {type(error).__name__}: {error}") from error
        try:
            yield topics
        finally:
            if not keep:
                with suppress(KafkaError, OSError):
                    async with asyncio.timeout(KAFKA_S), topics._admin() as admin:
                        await admin.delete_topics([topics.orders, topics.dead_letters])

    async def _create(self) -> None:
        async with self._admin() as admin:
            wanted = [NewTopic(self.orders, PARTITIONS, 1), NewTopic(self.dead_letters, 1, 1)]
            await admin.create_topics(wanted)
            while not await self._are_led(admin):  # noqa: ASYNC110 - Kafka does not tell when leaders are elected
                await asyncio.sleep(0.1)

    async def _are_led(self, admin: AIOKafkaAdminClient) -> bool:
        described = await admin.describe_topics([self.orders, self.dead_letters])
        partitions = [partition for topic in described for partition in topic["partitions"]]
        return len(partitions) == PARTITIONS + 1 and all(partition["leader"] >= 0 for partition in partitions)

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        try:
            await admin.start()
            yield admin
        finally:
            await admin.close()

    async def send(self, orders: Iterable[dict[str, Any]]) -> None:
        """Produce orders under their customers' keys; returns when Kafka has them."""
        async with _started(AIOKafkaProducer(bootstrap_servers=self.kafka)) as producer:
            sent = [
                await producer.send(self.orders, json.dumps(order).encode(), order["customer"].encode())
                for order in orders
            ]
            await asyncio.gather(*sent)

    async def dead_letter(self) -> dict[str, Any]:
        """Read the first failure record back. Raises DemoFailed."""
        partition = TopicPartition(self.dead_letters, 0)
        reader = AIOKafkaConsumer(bootstrap_servers=self.kafka, auto_offset_reset="earliest")
        async with _started(reader) as consumer:
            consumer.assign([partition])
            try:
                async with asyncio.timeout(KAFKA_S):
                    message = await consumer.getone()
            except TimeoutError:
                raise DemoFailed(f"nothing arrived in the dead-letter topic within {KAFKA_S:.0f} s") from None
        record: dict[str, Any] = json.loads(message.value)
        return record


@asynccontextmanager
async def _started(client: Client) -> AsyncIterator[Client]:
    """Run a client; unlike its own context, this also ends one that is interrupted while it starts."""
    try:
        await client.start()
        yield client
    finally:
        await client.stop()


# --- the folder and the service


class Project:
    """A folder with a configuration and a handler, as a user has it."""

    def __init__(self, folder: Path, topics: Topics) -> None:
        self.folder = folder
        self.file = folder / "headrace.yaml"
        self.handler = folder / "functions" / HANDLER.name
        self.output = folder / "processed.txt"
        self.log = folder / "headrace.log"
        self.handler.parent.mkdir()
        shutil.copyfile(HANDLER, self.handler)
        self.file.write_text(
            FILE.format(
                kafka=topics.kafka,
                topic=topics.orders,
                dead_letters=topics.dead_letters,
                output=json.dumps(str(self.output)),
            )
        )

    @classmethod
    @asynccontextmanager
    async def made(cls, topics: Topics, *, keep: bool) -> AsyncIterator[Project]:
        """Make it in a temporary folder, and remove that in the end."""
        folder = Path(tempfile.mkdtemp(prefix="headrace-demo-"))
        try:
            yield cls(folder, topics)
        finally:
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)

    def processed(self) -> list[int]:
        """Give the orders that the handler wrote down, as often as it did."""
        if not self.output.exists():
            return []
        return [int(line.split()[0]) for line in self.output.read_text().splitlines()]

    def events(self) -> list[dict[str, Any]]:
        """Give what the daemon has logged."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def fix(self, bug: str, repair: str) -> None:
        """Change one line of the handler."""
        self.handler.write_text(self.handler.read_text().replace(bug, repair))


class Service:
    """The real `headrace run`, in a process of its own."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._project.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command("run", str(self._project.file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which then stops this in order.
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Raises DemoFailed with the end of its log when it has ended."""
        if self._process is None or self._process.returncode is not None:
            tail = self._project.log.read_text().splitlines()[-5:]
            raise DemoFailed("the service ended; the end of its log:\n" + "\n".join(tail))

    async def stop(self) -> int | None:
        """Ask it to drain, and give its exit status; None when it did not run. May come twice."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()


def command(*arguments: str) -> Sequence[str]:
    """Give the command line of a `headrace` command of this installation."""
    return (str(Path(sysconfig.get_path("scripts")) / "headrace"), *arguments)


async def run_command(*arguments: str) -> tuple[int, str]:
    """Run a `headrace` command; gives its exit status and what it printed. Its errors are shown."""
    process = await asyncio.create_subprocess_exec(*command(*arguments), stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode is not None, "it has ended"
    return process.returncode, output.decode()
