"""DynamoDB and its streams on the wire, in memory: shards that roll, streams that come and go, faults by script.

`FakeDynamoDb` is the service; `serving` puts it behind a port. It outlives whoever reads it.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from typing import Any

from tests.fakes.http_server import Answer, HttpServer, Request, http_server, say

ACCOUNT = "arn:aws:dynamodb:eu-west-1:111122223333"
#: First sequence number.
FIRST = 400000000000000000000001


@dataclass
class FakeShard:
    name: str
    parent: str | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False
    #: Sequence number of the last record that was deleted.
    trimmed: int = -1

    def behind(self, position: int) -> int:
        """Index of the first record behind a sequence number."""
        return sum(position_of(record) <= position for record in self.records)

    def described(self) -> dict[str, Any]:
        numbers = {"StartingSequenceNumber": f"{FIRST}"}
        if self.closed:
            numbers["EndingSequenceNumber"] = f"{position_of(self.records[-1]) if self.records else FIRST}"
        parent = {"ParentShardId": self.parent} if self.parent else {}
        return {"ShardId": self.name, "SequenceNumberRange": numbers, **parent}


@dataclass
class FakeStream:
    arn: str
    label: str
    view_type: str
    status: str = "ENABLED"
    shards: dict[str, FakeShard] = field(default_factory=dict)


def position_of(record: Mapping[str, Any]) -> int:
    return int(record["dynamodb"]["SequenceNumber"])


class Refusal(Exception):
    """The service answers with an error."""


@dataclass
class FakeDynamoDb:
    """The service side. Everything on it takes effect at once."""

    now_s: Callable[[], float] = time.time
    #: Shards and streams of one page.
    page_size: int = 100
    #: Table -> its stream that was enabled last.
    tables: dict[str, FakeStream | None] = field(default_factory=dict)
    streams: dict[str, FakeStream] = field(default_factory=dict)
    #: Answers by operation, each used once, before anything else.
    faults: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    #: Answers by operation, used again and again.
    always: dict[str, Answer] = field(default_factory=dict)
    #: What happens after the next pages of shards were listed.
    between_pages: deque[Callable[[], object]] = field(default_factory=deque)
    _generation: int = 0
    _numbers: count[int] = field(default_factory=lambda: count(FIRST))
    _labels: count[int] = field(default_factory=count)

    # --- what happens to tables

    def create_table(self, name: str) -> None:
        self.tables[name] = None

    def enable(self, table: str, view_type: str = "NEW_AND_OLD_IMAGES", *, shards: int = 1) -> FakeStream:
        at = datetime.fromtimestamp(self.now_s(), UTC).isoformat(timespec="seconds")[:19]
        label = f"{at}.{next(self._labels):03d}"
        arn = f"{ACCOUNT}:table/{table}/stream/{label}"
        stream = self.tables[table] = self.streams[arn] = FakeStream(arn, label, view_type)
        for _ in range(shards):
            self.add_shard(stream)
        return stream

    def disable(self, table: str) -> None:
        """End its stream; what is in it stays."""
        stream = self.tables[table]
        assert stream
        stream.status = "DISABLED"
        for shard in stream.shards.values():
            shard.closed = True

    def delete_table(self, name: str) -> None:
        self.disable(name)
        del self.tables[name]

    def forget(self, stream: FakeStream) -> None:
        """Delete a stream with all that is in it."""
        del self.streams[stream.arn]

    # --- what happens to shards

    def add_shard(self, stream: FakeStream, parent: str | None = None) -> FakeShard:
        name = f"shardId-{int(self.now_s() * 1000):020d}-{uuid.uuid4().hex[:8]}"
        shard = stream.shards[name] = FakeShard(name, parent)
        return shard

    def roll(self, shard: str, children: int = 1) -> list[str]:
        """Close a shard; what is written goes on in its children."""
        stream = self._stream_of(shard)
        stream.shards[shard].closed = True
        return [self.add_shard(stream, shard).name for _ in range(children)]

    def append(self, shard: str, keys: Mapping[str, Any], name: str = "INSERT", **more: Any) -> int:
        """Write a record; `more` are members of the record, `dynamodb` among them. Returns its position."""
        stream = self._stream_of(shard)
        position = next(self._numbers)
        change = {
            "ApproximateCreationDateTime": int(self.now_s()),
            "Keys": keys,
            **more.pop("dynamodb", {}),
            "SequenceNumber": f"{position}",
            "SizeBytes": 59,
            "StreamViewType": stream.view_type,
        }
        record = {
            "awsRegion": "eu-west-1",
            "dynamodb": change,
            "eventID": uuid.uuid4().hex,
            "eventName": name,
            "eventSource": "aws:dynamodb",
            "eventVersion": "1.1",
            **more,
        }
        stream.shards[shard].records.append(record)
        return position

    def trim(self, shard: str, before: int) -> None:
        one = self._stream_of(shard).shards[shard]
        gone = one.behind(before - 1)
        if gone:
            one.trimmed = position_of(one.records[gone - 1])
            del one.records[:gone]

    def expire_iterators(self) -> None:
        self._generation += 1

    def _stream_of(self, shard: str) -> FakeStream:
        return next(stream for stream in self.streams.values() if shard in stream.shards)

    # --- the wire

    def respond(self, request: Request) -> Answer:
        operation = request.operation
        if self.faults[operation]:
            return self.faults[operation].popleft()
        if operation in self.always:
            return self.always[operation]
        answers = {
            "DescribeTable": self._describe_table,
            "ListStreams": self._list_streams,
            "DescribeStream": self._describe_stream,
            "GetShardIterator": self._get_shard_iterator,
            "GetRecords": self._get_records,
        }
        date = formatdate(self.now_s(), usegmt=True)
        try:
            answer = json.dumps(answers[operation](request.json), separators=(",", ":"))
            return say(answer.encode(), Date=date)
        except Refusal as refusal:
            return say({"__type": f"com.amazonaws.dynamodb.v20120810#{refusal}", "message": "no"}, 400, Date=date)

    def _describe_table(self, asked: Mapping[str, Any]) -> object:
        name = asked["TableName"]
        if name not in self.tables:
            raise Refusal("ResourceNotFoundException")
        stream = self.tables[name]
        latest = {"LatestStreamArn": stream.arn, "LatestStreamLabel": stream.label} if stream else {}
        return {"Table": {"TableName": name, "TableArn": f"{ACCOUNT}:table/{name}", **latest}}

    def _list_streams(self, asked: Mapping[str, Any]) -> object:
        # The newest first: the service promises no order.
        arns = [arn for arn in reversed(self.streams) if f"/{asked['TableName']}/" in arn]
        page, last = self._cut(arns, asked.get("ExclusiveStartStreamArn"))
        streams = [{"StreamArn": arn, "StreamLabel": self.streams[arn].label} for arn in page]
        return {"Streams": streams, **({"LastEvaluatedStreamArn": last} if last else {})}

    def _describe_stream(self, asked: Mapping[str, Any]) -> object:
        stream = self.streams.get(asked["StreamArn"])
        if stream is None:
            raise Refusal("ResourceNotFoundException")
        page, last = self._cut(list(stream.shards), asked.get("ExclusiveStartShardId"))
        answer = {
            "StreamDescription": {
                "StreamArn": stream.arn,
                "StreamStatus": stream.status,
                "StreamViewType": stream.view_type,
                "Shards": [stream.shards[name].described() for name in page],
                **({"LastEvaluatedShardId": last} if last else {}),
            }
        }
        if self.between_pages:
            self.between_pages.popleft()()
        return answer

    def _cut(self, names: list[str], after: str | None) -> tuple[list[str], str | None]:
        start = names.index(after) + 1 if after else 0
        page = names[start : start + self.page_size]
        return page, page[-1] if start + self.page_size < len(names) else None

    def _get_shard_iterator(self, asked: Mapping[str, Any]) -> object:
        shard = self._shard(asked["StreamArn"], asked["ShardId"])
        number = int(asked.get("SequenceNumber", -1))
        match asked["ShardIteratorType"]:
            case "AFTER_SEQUENCE_NUMBER" if number < shard.trimmed:
                raise Refusal("TrimmedDataAccessException")
            case "AT_SEQUENCE_NUMBER" if number <= shard.trimmed:
                raise Refusal("TrimmedDataAccessException")
            case "AT_SEQUENCE_NUMBER":
                number -= 1
        return {"ShardIterator": self._iterator(asked["StreamArn"], shard.name, number)}

    def _get_records(self, asked: Mapping[str, Any]) -> object:
        try:
            arn, name, position, generation = json.loads(base64.b64decode(asked["ShardIterator"]))
        except ValueError as error:
            raise Refusal("ValidationException") from error
        if generation != self._generation:
            raise Refusal("ExpiredIteratorException")
        shard = self._shard(arn, name)
        if -1 < position < shard.trimmed:
            raise Refusal("TrimmedDataAccessException")
        start = shard.behind(position)
        records = shard.records[start : start + asked["Limit"]]
        if shard.closed and start + len(records) == len(shard.records):
            return {"Records": records}
        last = position_of(records[-1]) if records else position
        return {"Records": records, "NextShardIterator": self._iterator(arn, name, last)}

    def _shard(self, arn: str, name: str) -> FakeShard:
        if arn not in self.streams or name not in self.streams[arn].shards:
            raise Refusal("ResourceNotFoundException")
        return self.streams[arn].shards[name]

    def _iterator(self, arn: str, shard: str, position: int) -> str:
        return base64.b64encode(json.dumps([arn, shard, position, self._generation]).encode()).decode()


@asynccontextmanager
async def serving(service: FakeDynamoDb) -> AsyncIterator[HttpServer]:
    async with http_server() as server:
        server.handle = service.respond
        yield server
