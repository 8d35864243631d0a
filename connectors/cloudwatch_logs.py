"""CloudWatch Logs as the place of what functions print: one call writes some lines of one stream.

A stream is made when it is found to be missing, and its group when that is; whoever may not make groups makes them
before. Source: Amazon CloudWatch Logs API reference, PutLogEvents, CreateLogStream, CreateLogGroup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.aws_json import Refused
from connectors.aws_service import AwsService
from router.errors import DestinationUnavailable, SourceUnavailable
from router.ports import LogLine

#: Code of an error -> there is no such group or stream, or somebody has made it just now.
_MISSING: Final = "ResourceNotFoundException"
_MADE: Final = "ResourceAlreadyExistsException"
#: Whoever may write need not be allowed to look.
_DENIED: Final = ("AccessDenied", "AccessDeniedException")


class _Rejected(msgspec.Struct, rename="camel"):
    """Which of the lines were not taken, for their times."""

    too_new_log_event_start_index: int | None = None
    too_old_log_event_end_index: int | None = None
    expired_log_event_end_index: int | None = None


class _Answer(msgspec.Struct, rename="camel"):
    rejected_log_events_info: _Rejected | None = None


_decode_answer: Final = msgspec.json.Decoder(_Answer).decode


class CloudWatchLogs:
    """LogStreams (router.ports) at CloudWatch Logs, or what stands in for it."""

    def __init__(self, what: str, endpoint_url: str | None, region: str | None) -> None:
        """Prepare without I/O; `what` is for errors: "CloudWatch Logs of function orders"."""
        self._service = AwsService(
            "logs",
            signs_as="logs",
            target="Logs_20140328",
            version="1.1",
            what=what,
            endpoint_url=endpoint_url,
            region=region,
        )

    async def put(self, group: str, stream: str, lines: Sequence[LogLine]) -> int:
        try:
            try:
                return await self._put(group, stream, lines)
            except Refused as error:
                if error.code != _MISSING:
                    raise
            await self._make_stream(group, stream)
            return await self._put(group, stream, lines)
        except SourceUnavailable as error:
            raise DestinationUnavailable(str(error)) from error

    async def check(self, group: str) -> str:
        request = {"logGroupName": group, "limit": 1}
        try:
            await self._service.call("DescribeLogStreams", request, _read_nothing)
        except Refused as error:
            if error.code == _MISSING:
                return f"log group {group}: it is made with the first line"
            if error.code in _DENIED:
                return f"log group {group}: not known, DescribeLogStreams is not allowed"
            raise DestinationUnavailable(str(error)) from error
        except SourceUnavailable as error:
            raise DestinationUnavailable(str(error)) from error
        return f"log group {group}: reached"

    async def close(self) -> None:
        await self._service.close()

    async def _put(self, group: str, stream: str, lines: Sequence[LogLine]) -> int:
        events = [{"timestamp": line.at_ms, "message": line.text} for line in lines]
        request = {"logGroupName": group, "logStreamName": stream, "logEvents": events}
        answer = await self._service.call("PutLogEvents", request, _decode_answer)
        return _count(answer.rejected_log_events_info, len(lines))

    async def _make_stream(self, group: str, stream: str) -> None:
        names = {"logGroupName": group, "logStreamName": stream}
        try:
            await self._make("CreateLogStream", names)
        except Refused as error:
            if error.code != _MISSING:
                raise
            await self._make("CreateLogGroup", {"logGroupName": group})
            await self._make("CreateLogStream", names)

    async def _make(self, operation: str, request: dict[str, str]) -> None:
        try:
            await self._service.call(operation, request, _read_nothing)
        except Refused as error:
            if error.code != _MADE:
                raise


def _read_nothing(body: bytes) -> None:
    """Read an answer that says nothing, and may be empty."""


def _count(rejected: _Rejected | None, lines: int) -> int:
    """Count the lines that were not taken: those before one index, and those from another on."""
    if rejected is None:
        return 0
    old = max(rejected.too_old_log_event_end_index or 0, rejected.expired_log_event_end_index or 0)
    new = lines if rejected.too_new_log_event_start_index is None else rejected.too_new_log_event_start_index
    return min(lines, max(1, old + lines - new))
