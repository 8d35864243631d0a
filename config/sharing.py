"""Mappings that would take records from each other: two readers of one topic and group, or of one queue.

AWS refuses two mappings of one queue and function, and lets those of one queue and several functions compete. So do
we, with a notice; but notifications of S3 that another mapping took would be lost to it, filtered out by their bucket
or their key, so there a queue has one mapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from config.destinations import ToSqs
from config.mistakes import Report
from config.names import Queue, parse_queue
from config.schema import EventSource
from config.sources import S3, Carrier, Kafka


def find(mappings: Mapping[str, EventSource], report: Report) -> None:
    """Report the mappings of a document that take records from each other, as far as they are enabled."""
    readers = {
        name: mapping for name, mapping in mappings.items() if mapping.sound("enabled", "source") and mapping.enabled
    }
    _topics(readers, report)
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


def _queue(block: Carrier | ToSqs) -> Queue:
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
