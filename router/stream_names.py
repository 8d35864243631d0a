"""Which stream a mapping reads, and whether a failure record is of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from router.failures.reading import FailureRecord, Kind


@dataclass(frozen=True, slots=True)
class StreamName:
    """A stream as the configuration names it."""

    kind: Kind
    #: Name or ARN of a stream or of a consumer of it; name of a table or ARN of one of its streams; a topic.
    name: str
    #: Kafka: the brokers of its cluster.
    servers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


def differs(record: FailureRecord, stream: StreamName) -> str | None:
    """Say in what a record's stream is another than this one; None = in nothing that is known."""
    if record.kind != stream.kind:
        return f"it is of {record.kind}:{record.stream}"
    if record.kind == "kafka":
        if record.stream != stream.name:
            return f"it is of topic {record.stream}"
        if record.servers and stream.servers and not set(record.servers) & set(stream.servers):
            return f"it is of topic {record.stream} at {', '.join(record.servers)}"
        return None
    theirs = _base(record.stream)
    same = theirs == _base(stream.name) if stream.name.startswith("arn:") else _resource(theirs) == stream.name
    return None if same else f"it is of {record.stream}"


def choose(record: FailureRecord, streams: Mapping[str, StreamName], wanted: str | None) -> str:
    """Choose the mapping that a record is of: the wanted one, or the only one that reads its stream.

    Raises:
        ValueError: there is none, or more than one; the message says what to do.
    """
    if wanted is not None:
        if other := differs(record, streams[wanted]):
            raise ValueError(f"{other}, and mapping {wanted} reads {streams[wanted]}")
        return wanted
    fitting = [name for name, stream in streams.items() if differs(record, stream) is None]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ValueError(f"mappings {', '.join(fitting)} read {record.stream}: say with --mapping which is meant")
    raise ValueError(f"no mapping reads {record.kind}:{record.stream}: configure one, or correct its source")


def _base(arn: str) -> str:
    """Give the stream's own ARN where it is that of a consumer (enhanced fan-out)."""
    return arn.partition("/consumer/")[0]


def _resource(arn: str) -> str:
    """Give the name of the stream or table in the ARN of a stream."""
    parts = arn.split("/")
    return parts[1] if len(parts) > 1 else ""
