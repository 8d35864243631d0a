"""Event source mappings that are made with AWS's own client, and sources of every kind for them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import aioboto3

from tests.live.daemon import PATIENCE_S, Daemon, produce, whole_lines
from tests.live.queue_rig import REGION, Queues
from tests.live.stream_rig import Streams

#: Notes each event; what says so fails.
NOTING = """
import base64, json, os, pathlib, time

NOTES = pathlib.Path(os.environ["NOTES"])
POISON, SLOW = ((word, base64.b64encode(word.encode()).decode()) for word in ("poison", "slow"))

def handle(event, context):
    text = json.dumps(event)
    with NOTES.open("a") as notes:
        notes.write(text + "\\n")
    if any(word in text for word in POISON):
        raise ValueError("poison")
    if any(word in text for word in SLOW):
        time.sleep(3)
"""


@dataclass
class Site:
    """A daemon with one noting function, and a client of its API."""

    daemon: Daemon
    client: Any

    def notes(self, function: str = "orders") -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.daemon.folder / f"{function}.notes")]

    def seen(self, text: str, function: str = "orders") -> int:
        """Count the events in which a text stands."""
        return sum(text in shown(each) for each in self.notes(function))

    async def until_seen(self, text: str, function: str = "orders") -> None:
        await self.daemon.until(lambda: self.seen(text, function), f"{function} has seen {text}")

    async def make(self, **members: Any) -> str:
        made = await self.client.create_event_source_mapping(**{"FunctionName": "orders", **members})
        return str(made["UUID"])

    async def state(self, uuid: str) -> str:
        try:
            found = await self.client.get_event_source_mapping(UUID=uuid)
        except self.client.exceptions.ResourceNotFoundException:
            return "gone"
        return str(found["State"])

    async def until_state(self, uuid: str, state: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await self.state(uuid) != state:  # noqa: ASYNC110 - the daemon has no event for it
                await asyncio.sleep(0.05)


def shown(event: dict[str, Any]) -> str:
    """Write an event with the data of its records as it was sent."""
    return json.dumps(event) + "".join(map(_data, _records(event)))


def _records(event: dict[str, Any]) -> list[dict[str, Any]]:
    records = event.get("Records") or event.get("records", {})
    return [each for some in records.values() for each in some] if isinstance(records, dict) else records


def _data(record: dict[str, Any]) -> str:
    text = record.get("kinesis", {}).get("data") or record.get("value") or ""
    return b64decode(text).decode() if text else ""


@asynccontextmanager
async def site(folder: Path, aws_endpoint: str, functions: tuple[str, ...] = ("orders",)) -> AsyncIterator[Site]:
    """Start a daemon with functions in its file, and no mapping."""
    async with Daemon(folder) as daemon:
        for name in functions:
            notes = {"NOTES": str(folder / f"{name}.notes")}
            daemon.function(name, NOTING, environment=notes, timeout=5)
        daemon.document["aws"] = {"endpoint_url": aws_endpoint, "region": REGION}
        async with client(daemon) as calls:
            yield Site(daemon, calls)


@asynccontextmanager
async def client(daemon: Daemon) -> AsyncIterator[Any]:
    url = f"http://127.0.0.1:{daemon.port}"
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    async with aioboto3.Session().client("lambda", endpoint_url=url, region_name=REGION, **keys) as made:
        yield made


# --- sources


class Fed(Protocol):
    """A source of some kind."""

    @property
    def members(self) -> dict[str, Any]: ...

    async def send(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Fed:
    members: dict[str, Any]
    put: Callable[[str], Any]

    async def send(self, text: str) -> None:
        await self.put(text)


async def queue(queues: Queues, *, fifo: bool = False) -> Fed:
    # What a stand-in gives to a reader that has gone comes again so soon.
    made = await queues.make(fifo=fifo, VisibilityTimeout="6")

    async def send(text: str) -> None:
        await made.send(text, group="g" if fifo else None)

    return _Fed({"EventSourceArn": await made.arn()}, send)


async def stream(streams: Streams, position: str = "TRIM_HORIZON") -> Fed:
    made = await streams.make()

    async def send(text: str) -> None:
        await made.put(("k", text))

    return _Fed({"EventSourceArn": await made.arn(), "StartingPosition": position}, send)


async def table(streams: Streams, position: str = "TRIM_HORIZON") -> Fed:
    made = await streams.table()
    found = await streams.dynamodb.describe_table(TableName=made.name)

    async def send(text: str) -> None:
        await made.put({"id": {"S": text}})

    return _Fed({"EventSourceArn": found["Table"]["LatestStreamArn"], "StartingPosition": position}, send)


def kafka(bootstrap: str, topic: str, position: str = "TRIM_HORIZON") -> Fed:
    async def send(text: str) -> None:
        await produce(bootstrap, topic, [("k", text.encode())])

    return _Fed(
        {
            "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": bootstrap.split(",")}},
            "Topics": [topic],
            "StartingPosition": position,
            # As on AWS where nobody logs in.
            "SourceAccessConfigurations": [{"Type": "VPC_SUBNET", "URI": "subnet:subnet-1"}],
        },
        send,
    )
