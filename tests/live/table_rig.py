"""Tables of DynamoDB Local, and a daemon whose function notes what it is given."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.aws import service_client
from tests.live.daemon import Daemon, whole_lines

REGION = "us-east-1"
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}

#: Notes each record of each batch; what says so fails, unless the file `mended` is there.
NOTING = """
import json, os, pathlib, time

HERE = pathlib.Path(os.environ["NOTES"])

def handle(event, context):
    for record in event["Records"]:
        image = record["dynamodb"].get("NewImage", {})
        if "poison" in image and not (HERE / "mended").exists():
            raise ValueError("cannot read " + image["pk"]["S"])
        time.sleep(float(image.get("sleep", {}).get("N", 0)))
    with (HERE / "batches").open("a") as notes:
        notes.write(json.dumps({"request": context.aws_request_id, **event}) + "\\n")
"""


@dataclass
class Tables:
    """Makes tables under names of their own, and removes them."""

    endpoint_url: str
    #: A client of DynamoDB.
    client: Any
    _made: set[str] = field(default_factory=set)

    async def make(self, name: str = "", stream: Mapping[str, Any] | None = STREAM) -> str:
        """Make a table with a partition key and a sort key."""
        name = name or f"headrace-test-{uuid.uuid4().hex[:12]}"
        await self.client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
            **({"StreamSpecification": stream} if stream else {}),
        )
        self._made.add(name)
        return name

    async def put(self, table: str, pk: str, sk: int = 0, **attributes: Any) -> None:
        """Write an item; `attributes` are DynamoDB's typed JSON."""
        item = {"pk": {"S": pk}, "sk": {"N": str(sk)}, **attributes}
        await self.client.put_item(TableName=table, Item=item)

    async def remove(self, table: str, pk: str, sk: int = 0) -> None:
        await self.client.delete_item(TableName=table, Key={"pk": {"S": pk}, "sk": {"N": str(sk)}})

    async def enable(self, table: str, view_type: str) -> None:
        specification = {"StreamEnabled": True, "StreamViewType": view_type}
        await self.client.update_table(TableName=table, StreamSpecification=specification)

    async def disable(self, table: str) -> None:
        await self.client.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})

    async def delete(self, table: str) -> None:
        await self.client.delete_table(TableName=table)
        self._made.discard(table)

    async def close(self) -> None:
        for table in self._made:
            await self.client.delete_table(TableName=table)


@asynccontextmanager
async def open_tables(endpoint_url: str) -> AsyncIterator[Tables]:
    async with service_client("dynamodb", endpoint_url, REGION) as client:
        tables = Tables(endpoint_url, client)
        try:
            yield tables
        finally:
            await tables.close()


class TableDaemon(Daemon):
    """A daemon with one mapping, `changes`, over a table."""

    def __init__(self, folder: Path, tables: Tables, table: str, **mapping: Any) -> None:
        super().__init__(folder)
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.document["aws"] = {"endpoint_url": tables.endpoint_url, "region": REGION}
        self.function("changes", NOTING, environment={"NOTES": str(self.notes)}, timeout=30)
        self.document["event_source_mappings"]["changes"] = {
            "function": "changes",
            "source": {"dynamodb": {"table": table}},
            "starting_position": "TRIM_HORIZON",
            **mapping,
        }

    def batches(self) -> list[dict[str, Any]]:
        """Give the events that succeeded, in the order in which they did."""
        return [json.loads(line) for line in whole_lines(self.notes / "batches")]

    def records(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches():
            yield from batch["Records"]

    def items(self) -> list[tuple[str, int]]:
        """Give the keys of all records, in the order in which they succeeded."""
        keys = (record["dynamodb"]["Keys"] for record in self.records())
        return [(key["pk"]["S"], int(key["sk"]["N"])) for key in keys]

    async def until_items(self, count: int) -> list[tuple[str, int]]:
        """Wait until so many different items were given to the function."""
        await self.until(lambda: len(set(self.items())) >= count, f"{count} items, found {len(set(self.items()))}")
        return self.items()
