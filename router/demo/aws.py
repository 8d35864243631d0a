"""The AWS of the demo: an emulator in a process of its own, and the queues and bucket of the story."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from router.demo.stage import DemoFailed, inherited
from router.errors import ConfigError

PROGRAM: Final = Path(__file__).with_name("ministack_program.py")
REGION: Final = "us-east-1"
#: The emulator takes any.
KEYS: Final = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
#: Settings of the client library: their names in files and environment, and their defaults.
NO_PROFILES: Final = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

BUCKET: Final = "uploads"
UPLOAD_EVENTS: Final = "upload-events"
ORDERS: Final = "orders"
#: Where the queue itself moves what was received too often.
DEAD_LETTERS: Final = "orders-dlq"
#: Where failure records go.
FAILURES: Final = "orders-failures"

START_S: Final = 30.0
#: Longest wait for a failure record, and for any other answer.
RECEIVE_S: Final = 20
ANSWER_S: Final = 10
#: Entries of a batch, at most.
MOST_ENTRIES: Final = 10


def require_emulator() -> None:
    """Raises ConfigError with what to install."""
    if find_spec("ministack") and find_spec("hypercorn"):
        return
    extra = [each.partition(";")[0].strip() for each in requires("headrace") or () if 'extra == "demo"' in each]
    wanted = " ".join(f"'{each}'" for each in extra)
    raise ConfigError(
        f"the demo needs the packages of the extra `demo`: run `make demo` in a checkout, or {sys.executable} -m pip "
        f"install {wanted}; `headrace demo --kafka` needs a Kafka instead"
    )


class Aws:
    """Queues and a bucket at an endpoint."""

    def __init__(self, url: str, sqs: Any, s3: Any) -> None:
        self.url = url
        self.sqs = sqs
        self.s3 = s3

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Aws]:
        """Start it, empty; it ends with the context, or with this process.

        Raises:
            DemoFailed: it does not start, or does not answer.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", PROGRAM),
            # Nothing of what else its users set for the emulator.
            env=inherited("PATH", "LD_LIBRARY_PATH", "TMPDIR"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Ctrl-C is for the demo.
            start_new_session=True,
        )
        assert process.stdout is not None, "asked for above"
        try:
            url = await _first_line(process.stdout)
            async with _client("sqs", url) as sqs, _client("s3", url) as s3:
                yield cls(url, sqs, s3)
        except* (BotoCoreError, ClientError) as errors:
            raise DemoFailed(f"the emulator of AWS refused something, or ended: {errors.exceptions[0]}") from errors
        finally:
            with suppress(ProcessLookupError):  # it has ended
                process.kill()
            await process.wait()

    async def set_up(self) -> None:
        """Make what the story begins with: a bucket, a queue with a dead-letter queue, one for failure records."""
        await self.s3.create_bucket(Bucket=BUCKET)
        await self._create(FAILURES)
        dead_letters = await self._create(DEAD_LETTERS)
        answer = await self.sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["QueueArn"])
        redrive = {"deadLetterTargetArn": answer["Attributes"]["QueueArn"], "maxReceiveCount": 5}
        await self._create(ORDERS, RedrivePolicy=json.dumps(redrive), VisibilityTimeout="30")

    async def _create(self, queue: str, **attributes: str) -> str:
        return str((await self.sqs.create_queue(QueueName=queue, Attributes=attributes))["QueueUrl"])

    async def send(self, orders: Iterable[Mapping[str, Any]]) -> None:
        """Send orders, in batches."""
        bodies = [json.dumps(order) for order in orders]
        url = await self._url(ORDERS)
        for first in range(0, len(bodies), MOST_ENTRIES):
            batch = bodies[first : first + MOST_ENTRIES]
            entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(batch)]
            await self.sqs.send_message_batch(QueueUrl=url, Entries=entries)

    async def upload(self, key: str, content: str) -> None:
        await self.s3.put_object(Bucket=BUCKET, Key=key, Body=content.encode())

    async def failure_record(self) -> dict[str, Any]:
        """Read the failure record. Raises DemoFailed."""
        url = await self._url(FAILURES)
        answer = await self.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=RECEIVE_S)
        messages: Sequence[Mapping[str, Any]] = answer.get("Messages", ())
        if not messages:
            raise DemoFailed(f"nothing arrived in the queue {FAILURES} within {RECEIVE_S} s")
        record: dict[str, Any] = json.loads(messages[0]["Body"])
        return record

    async def messages(self, queue: str) -> int:
        """Count what is in a queue, in flight or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.sqs.get_queue_attributes(QueueUrl=await self._url(queue), AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    async def _url(self, queue: str) -> str:
        return str((await self.sqs.get_queue_url(QueueName=queue))["QueueUrl"])


async def _first_line(output: asyncio.StreamReader) -> str:
    try:
        async with asyncio.timeout(START_S):
            line = await output.readline()
    except TimeoutError:
        raise DemoFailed(f"the emulator of AWS did not start within {START_S:.0f} s") from None
    if not line:
        raise DemoFailed("the emulator of AWS did not start (see above)")
    return line.decode().strip()


def _client(service: str, url: str) -> Any:
    """Make a client that has everything from here, whatever profiles and proxies the user has."""
    create: Any = AioSession(NO_PROFILES).create_client
    return create(
        service,
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=AioConfig(proxies={}, read_timeout=RECEIVE_S + ANSWER_S, retries={"total_max_attempts": 1}),
    )


def environment(file: Path, url: str) -> dict[str, str]:
    """Give the demo's own environment with this AWS in place of the user's; `file` is written for that."""
    keys = "".join(f"{name.lower()} = {value}\n" for name, value in KEYS.items())
    file.write_text(f"[default]\nregion = {REGION}\nendpoint_url = {url}\n{keys}")
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    files = {"AWS_CONFIG_FILE": str(file), "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    return {**own, **files, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
