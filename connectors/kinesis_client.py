"""The calls that a source of Kinesis records needs.

Source: Amazon Kinesis Data Streams API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from connectors.aws_json import Refused
from connectors.aws_service import AwsService
from connectors.kinesis_codec import ReceivedRecord
from router.core.model import ShardInfo
from router.errors import PositionLost, ShardGone, SourceUnavailable

#: What the service is called in signatures, in X-Amz-Target, and the version of its protocol.
SERVICE: Final = "kinesis"
TARGET: Final = "Kinesis_20131202"
VERSION: Final = "1.1"
#: Shards of one page of their list, and records of one page, at most (API reference: ListShards, GetRecords).
_SHARDS_LIMIT: Final = 10_000
RECORDS_LIMIT: Final = 10_000
#: Codes by which the service says that something does not exist, and that a sequence number is none of the shard's.
NOT_FOUND: Final = "ResourceNotFoundException"
INVALID: Final = "InvalidArgumentException"


class _Summary(msgspec.Struct, gc=False):
    StreamARN: str
    StreamStatus: str
    StreamCreationTimestamp: float


class _Described(msgspec.Struct, gc=False):
    StreamDescriptionSummary: _Summary


class _Consumer(msgspec.Struct, gc=False):
    ConsumerStatus: str


class _ConsumerDescribed(msgspec.Struct, gc=False):
    ConsumerDescription: _Consumer


class _Range(msgspec.Struct, gc=False):
    EndingSequenceNumber: str | None = None


class _Shard(msgspec.Struct, gc=False):
    ShardId: str
    SequenceNumberRange: _Range
    ParentShardId: str | None = None
    AdjacentParentShardId: str | None = None


class _Listed(msgspec.Struct, gc=False):
    Shards: list[_Shard]
    NextToken: str | None = None


class _Iterator(msgspec.Struct, gc=False):
    ShardIterator: str


class Page(msgspec.Struct, gc=False):
    """What GetRecords answers."""

    Records: list[ReceivedRecord]
    #: Absent at the end of a shard that is closed.
    NextShardIterator: str | None = None
    MillisBehindLatest: int | None = None


_decode_described: Final = msgspec.json.Decoder(_Described).decode
_decode_consumer: Final = msgspec.json.Decoder(_ConsumerDescribed).decode
_decode_listed: Final = msgspec.json.Decoder(_Listed).decode
_decode_iterator: Final = msgspec.json.Decoder(_Iterator).decode
_decode_page: Final = msgspec.json.Decoder(Page).decode


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream that was reached."""

    arn: str
    #: When it was made, wall time, seconds.
    created_s: float

    @property
    def region(self) -> str:
        """The one in its ARN."""
        return self.arn.split(":")[3]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the reading of a shard begins."""

    #: TRIM_HORIZON, AT_TIMESTAMP, AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER.
    kind: str
    sequence_number: int | None = None
    #: Wall time, seconds.
    time_s: float | None = None


class KinesisClient:
    """Calls one stream. Every call may raise SourceUnavailable, and Throttled."""

    def __init__(self, service: AwsService, what: str) -> None:
        """Prepare without I/O; `what` names the stream in errors."""
        self._service = service
        self._what = what

    async def find(self, stream: str) -> Stream:
        """Look a stream up by its name or ARN."""
        request = {"StreamARN" if stream.startswith("arn:") else "StreamName": stream}
        with self._finding_stream():
            found = await self._service.call("DescribeStreamSummary", request, _decode_described)
        summary = found.StreamDescriptionSummary
        if summary.StreamStatus in ("CREATING", "DELETING"):
            raise SourceUnavailable(f"{self._what}: it is {summary.StreamStatus.lower()}; wait until it is there")
        return Stream(summary.StreamARN, summary.StreamCreationTimestamp)

    async def find_consumer(self, arn: str) -> None:
        """Make sure that a registered consumer can read."""
        try:
            found = await self._service.call("DescribeStreamConsumer", {"ConsumerARN": arn}, _decode_consumer)
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            why = "the consumer is not registered; register it (RegisterStreamConsumer), or correct its ARN"
            raise SourceUnavailable(f"{self._what}: {why}") from error
        status = found.ConsumerDescription.ConsumerStatus
        if status != "ACTIVE":
            raise SourceUnavailable(f"{self._what}: the consumer is {status.lower()}; wait until it is active")

    async def shards(self, stream_arn: str) -> Sequence[ShardInfo]:
        """List all shards of a stream; one that changes between two pages is as in the later one."""
        found: dict[str, ShardInfo] = {}
        request: dict[str, object] = {"StreamARN": stream_arn}
        while request:
            asked = {**request, "MaxResults": _SHARDS_LIMIT}
            with self._finding_stream():
                listed = await self._service.call("ListShards", asked, _decode_listed)
            for each in listed.Shards:
                parents = tuple(name for name in (each.ParentShardId, each.AdjacentParentShardId) if name)
                closed = each.SequenceNumberRange.EndingSequenceNumber is not None
                found[each.ShardId] = ShardInfo(each.ShardId, parents, closed)
            # A token stands for the stream too.
            request = {"NextToken": listed.NextToken} if listed.NextToken else {}
        return list(found.values())

    async def iterator(self, stream_arn: str, shard: str, place: Place) -> str:
        """Get an iterator of a shard, good for 5 minutes.

        Raises:
            PositionLost: the sequence number is none of this shard's.
            ShardGone
        """
        request: dict[str, object] = {"StreamARN": stream_arn, "ShardId": shard, "ShardIteratorType": place.kind}
        if place.sequence_number is not None:
            request["StartingSequenceNumber"] = str(place.sequence_number)
        if place.time_s is not None:
            request["Timestamp"] = place.time_s
        try:
            made = await self._service.call("GetShardIterator", request, _decode_iterator)
        except Refused as error:
            if error.code == NOT_FOUND:
                raise await self.missing(stream_arn, shard, str(error)) from error
            if error.code == INVALID and place.sequence_number is not None:
                raise PositionLost(shard, str(error)) from error
            raise
        return made.ShardIterator

    async def records(self, stream_arn: str, iterator: str, limit: int) -> Page:
        """Get records from where an iterator stands.

        Raises:
            Refused: with the code ExpiredIteratorException, among others.
        """
        request = {"StreamARN": stream_arn, "ShardIterator": iterator, "Limit": min(limit, RECORDS_LIMIT)}
        return await self._service.call("GetRecords", request, _decode_page)

    async def missing(self, stream_arn: str, shard: str, refusal: str) -> ShardGone | PositionLost:
        """Find out what it is that the service did not find: the stream (raised), the shard, or a place in it."""
        if shard in {each.name for each in await self.shards(stream_arn)}:
            return PositionLost(shard, refusal)
        return ShardGone(shard, f"{self._what}: shard {shard} is not there any more")

    @contextmanager
    def _finding_stream(self) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            why = "the stream does not exist there; create it, or correct stream, region or account"
            raise SourceUnavailable(f"{self._what}: {why}") from error
