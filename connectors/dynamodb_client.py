"""The calls that the stream of a table needs.

Two services answer them, DynamoDB and DynamoDB Streams, each at a host of its own at AWS; stand-ins serve both at one
endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from connectors.aws_json import Refused
from connectors.aws_service import AwsService
from connectors.dynamodb_codec import StreamRecord
from router.errors import SourceUnavailable

#: Most shards, and streams, of one page of a listing (DynamoDB Streams API reference).
_PAGE: Final = 100
#: Pages of one listing; a stream has far fewer, so that more are an endpoint's mistake.
_PAGES_LIMIT: Final = 1000


class Refusals:
    """Codes of errors that have a meaning of their own here."""

    NOT_FOUND: Final = "ResourceNotFoundException"
    EXPIRED: Final = "ExpiredIteratorException"
    TRIMMED: Final = "TrimmedDataAccessException"
    INVALID: Final = "ValidationException"


class Table(msgspec.Struct, gc=False, rename="pascal"):
    """What DescribeTable says that is of use here."""

    table_arn: str
    #: Of the stream that was enabled last; it may be disabled by now. None = there never was one.
    latest_stream_arn: str | None = None


class Range(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """Sequence numbers of a shard."""

    starting_sequence_number: str | None = None
    #: None = the shard is open.
    ending_sequence_number: str | None = None


class Shard(msgspec.Struct, gc=False, rename="pascal"):
    """A shard as DescribeStream gives it."""

    shard_id: str
    sequence_number_range: Range = Range()
    #: It need not be described any more.
    parent_shard_id: str | None = None


class Stream(msgspec.Struct, gc=False, rename="pascal"):
    """A stream, or the part of it on one page."""

    stream_arn: str
    #: ENABLING, ENABLED, DISABLING or DISABLED.
    stream_status: str = "ENABLED"
    #: KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES.
    stream_view_type: str = ""
    table_name: str = ""
    shards: Sequence[Shard] = ()
    last_evaluated_shard_id: str | None = None


class Page(msgspec.Struct, gc=False, rename="pascal"):
    """What GetRecords gives."""

    records: list[StreamRecord]
    #: None = the shard's end was reached.
    next_shard_iterator: str | None = None


class _Listed(msgspec.Struct, gc=False, rename="pascal"):
    stream_arn: str
    stream_label: str


class _Streams(msgspec.Struct, gc=False, rename="pascal"):
    streams: list[_Listed]
    last_evaluated_stream_arn: str | None = None


class _DescribedTable(msgspec.Struct, gc=False, rename="pascal"):
    table: Table


class _DescribedStream(msgspec.Struct, gc=False, rename="pascal"):
    stream_description: Stream


class _Iterator(msgspec.Struct, gc=False, rename="pascal"):
    shard_iterator: str


_decode_table: Final = msgspec.json.Decoder(_DescribedTable).decode
_decode_stream: Final = msgspec.json.Decoder(_DescribedStream).decode
_decode_streams: Final = msgspec.json.Decoder(_Streams).decode
_decode_iterator: Final = msgspec.json.Decoder(_Iterator).decode
_decode_page: Final = msgspec.json.Decoder(Page).decode


class DynamoDbClient:
    """Calls both services. Every call but `close` may raise Refused, Throttled and SourceUnavailable."""

    def __init__(self, endpoint_url: str | None, region: str | None, what: str, *, call_s: float = 10.0) -> None:
        """Prepare without I/O; `what` names the table in errors, `call_s` is the longest time a call may take."""

        def service(name: str, target: str) -> AwsService:
            return AwsService(
                name,
                signs_as="dynamodb",
                target=f"{target}_20120810",
                version="1.0",
                what=what,
                endpoint_url=endpoint_url,
                region=region,
                call_s=call_s,
            )

        self._what = what
        self._tables = service("dynamodb", "DynamoDB")
        self._streams = service("dynamodbstreams", "DynamoDBStreams")

    @property
    def server_time_s(self) -> float | None:
        """The clock of the streams' service when it last answered, whole wall seconds; None = it did not say."""
        return self._streams.server_time_s

    async def table(self, name: str) -> Table:
        """Look at a table."""
        return (await self._tables.call("DescribeTable", {"TableName": name}, _decode_table)).table

    async def streams(self, table: str) -> Sequence[str]:
        """Give the ARNs of all streams that tables of this name have had and that are kept, the oldest first."""
        listed: dict[str, str] = {}
        request: dict[str, object] = {"TableName": table, "Limit": _PAGE}
        for _ in range(_PAGES_LIMIT):
            page = await self._streams.call("ListStreams", request, _decode_streams)
            listed |= {stream.stream_arn: stream.stream_label for stream in page.streams}
            if not page.last_evaluated_stream_arn:
                # A label is the time at which its stream was enabled, in ISO 8601.
                return sorted(listed, key=listed.__getitem__)
            request["ExclusiveStartStreamArn"] = page.last_evaluated_stream_arn
        raise self._endless("ListStreams")

    async def stream(self, arn: str) -> Stream:
        """Look at a stream, with all its shards; those that come and go meanwhile may be among them or not."""
        shards: dict[str, Shard] = {}
        request: dict[str, object] = {"StreamArn": arn, "Limit": _PAGE}
        for _ in range(_PAGES_LIMIT):
            page = (await self._streams.call("DescribeStream", request, _decode_stream)).stream_description
            shards |= {shard.shard_id: shard for shard in page.shards}
            if not page.last_evaluated_shard_id:
                page.shards = list(shards.values())
                return page
            request["ExclusiveStartShardId"] = page.last_evaluated_shard_id
        raise self._endless("DescribeStream")

    async def iterator(self, arn: str, shard: str, place: Mapping[str, str]) -> str:
        """Get an iterator; `place` is a ShardIteratorType and what belongs to it."""
        request = {"StreamArn": arn, "ShardId": shard, **place}
        return (await self._streams.call("GetShardIterator", request, _decode_iterator)).shard_iterator

    async def records(self, iterator: str, limit: int) -> Page:
        """Read 1 to 1,000 records, or none if none are there."""
        return await self._streams.call("GetRecords", {"ShardIterator": iterator, "Limit": limit}, _decode_page)

    async def close(self) -> None:
        """End all calls. May come twice."""
        await self._tables.close()
        await self._streams.close()

    def _endless(self, operation: str) -> SourceUnavailable:
        return SourceUnavailable(f"{self._what}: {operation}: its answers have no end; check endpoint_url")


def is_not_found(error: SourceUnavailable) -> bool:
    """Say whether what was asked for does not exist there."""
    return isinstance(error, Refused) and error.code == Refusals.NOT_FOUND
