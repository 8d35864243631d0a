"""An endpoint that speaks as Kinesis does, over a stream in memory; faults by script."""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import count
from typing import Any

from router.core.model import TRIM_HORIZON, at_time
from tests.fakes.event_stream import event, frame
from tests.fakes.http_server import Answer, HttpServer, Request, http_server, refuse, say
from tests.fakes.shard_stream import HASHES, Shard, ShardStream

ACCOUNT = "111122223333"
REGION = "eu-west-1"
#: Iterators expire after this time, and pages of shards hold so many.
ITERATOR_S = 300
#: How the answer of a subscription begins; it ends with its connection.
PUSHING = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + frame(event_type="initial-response", message_type="event")
SHARDS_A_PAGE = 3


@dataclass(frozen=True)
class Iterator:
    shard: str
    after: int
    made_s: float


class NotValid(Exception):
    """The service refuses what was asked."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class KinesisServer:
    """One account with one stream."""

    http: HttpServer
    stream: ShardStream = field(default_factory=ShardStream)
    name: str = "clicks"
    #: Answers that come before those of the service, by operation.
    faults: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))
    #: Records of a page at most, whatever is asked for, and empty pages that come before any that has records.
    page_records: int = 10_000
    empty_pages: int = 0
    status: str = "ACTIVE"
    iterators: dict[str, Iterator] = field(default_factory=dict)
    _tokens: count[int] = field(default_factory=count)

    consumer_status: str = "ACTIVE"

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{self.name}"

    @property
    def consumer_arn(self) -> str:
        return f"{self.arn}/consumer/app:1767225600"

    def fail(self, operation: str, answer: Answer, *, times: int = 1) -> None:
        self.faults[operation].extend([answer] * times)

    def asked(self, operation: str) -> list[Any]:
        """What an operation was asked, each time."""
        return [each.json for each in self.http.requests if each.headers["x-amz-target"].endswith(f".{operation}")]

    def answer(self, request: Request) -> Answer:
        operation = request.headers["x-amz-target"].removeprefix("Kinesis_20131202.")
        if self.faults[operation]:
            return self.faults[operation].popleft()
        try:
            said = getattr(self, f"_{operation}")(request.json)
        except NotValid as error:
            return refuse(400, error.code)
        return said if callable(said) else say(said, Date=formatdate(self.stream.now_s(), usegmt=True))

    # --- operations

    def _DescribeStreamSummary(self, asked: Any) -> Any:  # noqa: N802 - the service's own names
        self._find(asked)
        return {
            "StreamDescriptionSummary": {
                "StreamName": self.name,
                "StreamARN": self.arn,
                "StreamStatus": self.status,
                "StreamCreationTimestamp": 1.7e9 + int(self.stream.incarnation),
                "OpenShardCount": len(self.stream.open_shards),
            }
        }

    def _ListShards(self, asked: Any) -> Any:  # noqa: N802
        if "NextToken" not in asked:
            self._find(asked)
        first = int(asked.get("NextToken", "0"))
        listed = list(self.stream.shards.values())
        page = listed[first : first + SHARDS_A_PAGE]
        more = {"NextToken": str(first + SHARDS_A_PAGE)} if first + SHARDS_A_PAGE < len(listed) else {}
        return {"Shards": [self._described(each) for each in page], **more}

    def _GetShardIterator(self, asked: Any) -> Any:  # noqa: N802
        self._find(asked)
        shard = self._shard(asked["ShardId"])
        return {"ShardIterator": self._iterator(shard.name, self._after(shard, asked))}

    def _GetRecords(self, asked: Any) -> Any:  # noqa: N802
        iterator = self.iterators.get(asked["ShardIterator"])
        if iterator is None:
            raise NotValid("InvalidArgumentException")
        if self.stream.now_s() - iterator.made_s > ITERATOR_S:
            raise NotValid("ExpiredIteratorException")
        shard = self._shard(iterator.shard)
        first = shard.behind(iterator.after)
        if self.empty_pages and first < len(shard.records):
            self.empty_pages -= 1
            token = self._iterator(shard.name, iterator.after)
            return {"Records": [], "NextShardIterator": token, "MillisBehindLatest": 1000}
        rows = shard.records[first : first + min(asked["Limit"], self.page_records)]
        said: dict[str, Any] = {"Records": [record_of(each) for each in rows], "MillisBehindLatest": 0}
        after = rows[-1].position if rows else iterator.after
        if first + len(rows) < len(shard.records):
            said["MillisBehindLatest"] = 1 + shard.records[-1].time_ms - rows[-1].time_ms
        elif shard.closed:
            return said
        return {**said, "NextShardIterator": self._iterator(shard.name, after)}

    def _DescribeStreamConsumer(self, asked: Any) -> Any:  # noqa: N802
        if asked["ConsumerARN"] != self.consumer_arn:
            raise NotValid("ResourceNotFoundException")
        return {"ConsumerDescription": {"ConsumerARN": self.consumer_arn, "ConsumerStatus": self.consumer_status}}

    def _SubscribeToShard(self, asked: Any) -> Answer:  # noqa: N802
        if asked["ConsumerARN"] != self.consumer_arn:
            raise NotValid("ResourceNotFoundException")
        shard = self._shard(asked["ShardId"])
        place = asked["StartingPosition"]
        named = {"ShardIteratorType": place["Type"], "StartingSequenceNumber": place.get("SequenceNumber")}
        after = self._after(shard, {**place, **named})

        async def push(writer: asyncio.StreamWriter) -> bool:
            nonlocal after
            writer.write(PUSHING)
            while True:
                first = shard.behind(after)
                rows = shard.records[first : first + self.page_records]
                after = rows[-1].position if rows else after
                is_all = first + len(rows) == len(shard.records)
                children = [{"ShardId": "child"}] if shard.closed and is_all else None
                writer.write(pushed(*rows, behind_ms=0 if is_all else 1000, children=children))
                await writer.drain()
                if children:
                    return False
                if is_all:
                    await self.stream.change()

        return push

    # --- inside

    def _find(self, asked: Any) -> None:
        if asked.get("StreamARN", self.arn) != self.arn or asked.get("StreamName", self.name) != self.name:
            raise NotValid("ResourceNotFoundException")

    def _shard(self, name: str) -> Shard:
        if name not in self.stream.shards:
            raise NotValid("ResourceNotFoundException")
        return self.stream.shards[name]

    def _iterator(self, shard: str, after: int) -> str:
        token = f"iterator-{next(self._tokens)}"
        self.iterators[token] = Iterator(shard, after, self.stream.now_s())
        return token

    def _after(self, shard: Shard, asked: Any) -> int:
        kind = asked["ShardIteratorType"]
        if kind == "TRIM_HORIZON":
            return TRIM_HORIZON
        if kind == "AT_TIMESTAMP":
            return at_time(round(asked["Timestamp"] * 1000))
        position = int(asked["StartingSequenceNumber"])
        known = {shard.trimmed, *(record.position for record in shard.records)}
        if position not in known:
            raise NotValid("InvalidArgumentException")
        return position - 1 if kind == "AT_SEQUENCE_NUMBER" else position

    @staticmethod
    def _described(shard: Shard) -> Any:
        parents = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False))
        hashes = {"StartingHashKey": str(shard.low), "EndingHashKey": str(min(shard.high, HASHES) - 1)}
        numbers = {"StartingSequenceNumber": "1", **({"EndingSequenceNumber": "2"} if shard.closed else {})}
        return {"ShardId": shard.name, **parents, "HashKeyRange": hashes, "SequenceNumberRange": numbers}


def record_of(record: Any) -> dict[str, Any]:
    """Say a record as the service does."""
    return {
        "SequenceNumber": str(record.position),
        "ApproximateArrivalTimestamp": record.time_ms / 1000,
        "Data": base64.b64encode(record.value or b"").decode(),
        "PartitionKey": (record.key or b"none").decode(),
        "EncryptionType": "NONE",
    }


def pushed(*records: Any, behind_ms: int = 0, children: Any = None) -> bytes:
    """Write the frame of a SubscribeToShardEvent."""
    said = {
        "Records": [record_of(each) for each in records],
        "ContinuationSequenceNumber": None if children else "1",
        "MillisBehindLatest": behind_ms,
        "ChildShards": children,
    }
    return event("SubscribeToShardEvent", said)


@asynccontextmanager
async def kinesis_server(stream: ShardStream | None = None) -> AsyncIterator[KinesisServer]:
    async with http_server() as http:
        server = KinesisServer(http, stream or ShardStream())
        http.handle = server.answer
        yield server
