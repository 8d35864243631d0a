"""Mappings that would take records from each other, or do the same twice.

AWS refuses two mappings of one queue and function, and lets those of one queue and several functions compete. So do
we, with a notice; but notifications of S3 that another mapping took would be lost to it, filtered out by their bucket
or their key, so there a queue has one mapping. Two readers of a topic have two groups.

Any number of functions may read a stream, each from checkpoints of its own; one function twice is refused, as on AWS.
A consumer of a stream has one subscription to a shard, so it has one mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from config.destinations import ToSqs
from config.mistakes import Place, Report
from config.names import CONSUMER, Resource, parse_queue, parse_stream
from config.schema import EventSource
from config.sources import S3, Carrier, Kafka


def find(mappings: Mapping[str, EventSource], report: Report) -> None:
    """Report the mappings of a document that take records from each other, as far as they are enabled."""
    readers = {
        name: mapping for name, mapping in mappings.items() if mapping.sound("enabled", "source") and mapping.enabled
    }
    _topics(readers, report)
    _streams(readers, report)
    for name, mapping, other in _on_one_queue(readers):
        carrier = other.source.carrier
        assert carrier is not None
        if isinstance(carrier, S3) or mapping.source.s3 is not None:
            report.add(
                carrier.at("queue"),
                f"same queue as mapping {name}, allowed another one: "
                "a queue of S3 notifications has one mapping, which would else lose those that the other takes",
            )
        elif mapping.sound("function") and other.sound("function") and mapping.function == other.function:
            report.add(
                carrier.at("queue"), f"same queue and function as mapping {name}, allowed another queue or function"
            )


def notice(mappings: Mapping[str, EventSource], report: Report) -> None:
    """Note the mappings that share a queue and may."""
    readers = {name: mapping for name, mapping in mappings.items() if mapping.enabled}
    for name, _, other in _on_one_queue(readers):
        assert other.source.carrier is not None
        report.note(
            other.source.carrier.at("queue"),
            f"same queue as mapping {name}: each message goes to one of the two, and what its filters drop is deleted",
        )


def same_queue(one: Carrier | ToSqs, other: Carrier | ToSqs) -> bool:
    """Say whether two blocks may name the same queue, as far as they tell."""
    names = ("queue", "endpoint_url", "region")
    return (
        one.sound(*names)
        and other.sound(*names)
        and one.endpoint_url == other.endpoint_url
        and _queue(one).may_be(_queue(other))
    )


def _queue(block: Carrier | ToSqs) -> Resource:
    queue = parse_queue(block.queue)
    return queue._replace(region=block.region or queue.region)


def _on_one_queue(mappings: Mapping[str, EventSource]) -> Iterator[tuple[str, EventSource, EventSource]]:
    """Pair up the readers of one queue: only those of queues of one name are compared, for there may be thousands."""
    named: dict[str, list[tuple[str, EventSource, Carrier]]] = {}
    for name, mapping in mappings.items():
        if (carrier := mapping.source.carrier) and carrier.sound("queue"):
            named.setdefault(parse_queue(carrier.queue).name, []).append((name, mapping, carrier))
    for readers in named.values():
        for (name, mapping, one), (_, other, another) in combinations(readers, 2):
            if same_queue(one, another):
                yield name, mapping, other


def _topics(mappings: Mapping[str, EventSource], report: Report) -> None:
    groups: dict[tuple[str, str], list[tuple[str, Kafka]]] = {}
    for name, mapping in mappings.items():
        kafka = mapping.source.kafka
        if kafka is not None and kafka.sound("bootstrap_servers", "topic", "consumer_group"):
            groups.setdefault((kafka.topic, mapping.group(name)), []).append((name, kafka))
    for readers in groups.values():
        for (name, kafka), (_, other) in combinations(readers, 2):
            if set(kafka.bootstrap_servers) & set(other.bootstrap_servers):
                report.add(
                    other.at("consumer_group"),
                    f"same topic and consumer group as mapping {name}, allowed another group",
                )


class _Stream(NamedTuple):
    """What a mapping reads of Kinesis or DynamoDB, as far as the file tells."""

    mapping: str
    #: None = it is unfit.
    function: str | None
    place: Place
    kind: str
    stream: Resource
    endpoint_url: str | None
    #: Name and time of its registration; empty = none.
    consumer: str

    def may_be(self, other: _Stream) -> bool:
        """Say whether both may read the same; a stream and its consumers are not, on AWS neither."""
        return (self.endpoint_url, self.consumer) == (other.endpoint_url, other.consumer) and self.stream.may_be(
            other.stream
        )


def _streams(mappings: Mapping[str, EventSource], report: Report) -> None:
    named: dict[tuple[str, str], list[_Stream]] = {}
    for name, mapping in mappings.items():
        if found := _stream(name, mapping):
            named.setdefault((found.kind, found.stream.name), []).append(found)
    for readers in named.values():
        for one, other in combinations(readers, 2):
            if not one.may_be(other):
                continue
            if one.consumer:
                report.add(
                    other.place,
                    f"same consumer as mapping {one.mapping}, allowed another one: "
                    "a consumer has one subscription to a shard, which one mapping would take from the other",
                )
            elif one.function is not None and one.function == other.function:
                report.add(
                    other.place,
                    f"same stream and function as mapping {one.mapping}, allowed another stream or function",
                )


def _stream(name: str, mapping: EventSource) -> _Stream | None:
    function = mapping.function if mapping.sound("function") else None
    for kind, block, key in (
        ("kinesis", mapping.source.kinesis, "stream"),
        ("dynamodb", mapping.source.dynamodb, "table"),
    ):
        if block is not None and block.sound(key, "endpoint_url", "region"):
            text = str(getattr(block, key))
            stream = parse_stream(text)
            stream = stream._replace(region=block.region or stream.region)
            return _Stream(name, function, block.at(key), kind, stream, block.endpoint_url, text.partition(CONSUMER)[2])
    return None
