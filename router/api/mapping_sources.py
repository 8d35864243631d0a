"""The source of a mapping before there is one: is it there, and may we read it? Refusals in AWS's words.

Source of the texts: recordings of AWS, and for a queue that may not be read AWS's own message as users report it. Kafka
is not asked: a mapping may be made before its topic is, or its brokers run.
"""

from __future__ import annotations

from typing import Final

from router.api.errors import ApiError, invalid, unavailable
from router.api.mapping_kinds import QUEUES, Kind
from router.errors import SourceUnavailable
from router.event_ports import FoundSource, NoSource, Sources

_ACTIONS: Final = {
    Kind.KINESIS: "GetRecords, GetShardIterator, DescribeStream, ListShards, and ListStreams",
    Kind.DYNAMODB: "GetRecords, GetShardIterator, DescribeStream, and ListStreams",
}


async def find(sources: Sources, kind: Kind, arn: str) -> FoundSource:
    """Look a queue or stream up.

    Raises:
        ApiError: it is not there, we may not read it, or its service cannot be asked.
    """
    try:
        found = await sources.find(arn)
    except SourceUnavailable as error:
        raise unavailable(f"The event source could not be looked at, and nothing was changed: {error}") from error
    match found:
        case NoSource.ABSENT:
            raise _absent(kind, arn)
        case NoSource.DENIED:
            raise _denied(kind, arn)
    return found


def _absent(kind: Kind, arn: str) -> ApiError:
    if kind in QUEUES:
        return invalid(
            "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error "
            "Message: The specified queue does not exist."
        )
    return invalid(f"Stream not found: {arn}")


def _denied(kind: Kind, arn: str) -> ApiError:
    if kind in QUEUES:
        return invalid("The function execution role does not have permissions to call ReceiveMessage on SQS")
    return invalid(
        f"Cannot access stream {arn}. Please ensure the role can perform the {_ACTIONS[kind]} Actions on your stream "
        "in IAM."
    )


def no_cluster(arn: str) -> ApiError:
    """Refuse an MSK cluster whose servers nobody has said."""
    return invalid(
        f"Cannot access cluster {arn}. Please ensure the role can perform the DescribeClusterV2 (recommended) or "
        "DescribeCluster and GetBootstrapBrokers actions on your cluster in IAM."
    )
