"""Values that are fine alone and wrong together.

Each rule looks at sound keys only, so that one mistake is not told twice. Messages name keys and mappings, never the
values of keys: those may be secrets.
"""

from __future__ import annotations

from itertools import combinations

from config.blocks import Block
from config.mistakes import Report
from config.schema import (
    ENVIRONMENT_BYTES,
    KAFKA_TIMEOUT_S,
    EventSource,
    Function,
    Kafka,
    Root,
    Security,
    ToKafka,
)


def find(root: Root, report: Report) -> None:
    """Report all contradictions of a document."""
    if root.sound("functions"):
        for function in root.functions.values():
            _environment(function, report)
    if root.sound("event_source_mappings"):
        for name, mapping in root.event_source_mappings.items():
            _function(name, mapping, root, report)
            _position(mapping, report)
            _backoff(mapping, report)
            _source(mapping, report)
            _destination(mapping, report)
        _readers(root.event_source_mappings, report)


def _environment(function: Function, report: Report) -> None:
    if not function.sound("environment"):
        return
    size = sum(
        len(f"{name}{value.reveal()}".encode(errors="surrogateescape")) for name, value in function.environment.items()
    )
    if size > ENVIRONMENT_BYTES:
        report.add(
            function.at("environment"), f"found {size} bytes of names and values, allowed at most {ENVIRONMENT_BYTES}"
        )


def _function(name: str, mapping: EventSource, root: Root, report: Report) -> None:
    if not mapping.sound("function") or not root.sound("functions"):
        return
    written = root.entries["functions"].node.value
    assert isinstance(written, dict)
    function = root.functions.get(mapping.function)
    if mapping.function not in written:
        shown = mapping.entries["function"].node.shown()
        report.add(mapping.at("function"), f"found {shown}, allowed a function of this file: {', '.join(written)}")
    elif function is not None and function.sound("timeout") and function.timeout > KAFKA_TIMEOUT_S:
        report.add(
            function.at("timeout"),
            f"found {function.timeout:g}s, allowed at most {KAFKA_TIMEOUT_S:g}s, as mapping {name} reads Kafka",
        )


def _position(mapping: EventSource, report: Report) -> None:
    if not mapping.sound("starting_position", "starting_position_timestamp"):
        return
    given = mapping.starting_position_timestamp is not None
    if mapping.starting_position == "AT_TIMESTAMP" and not given:
        report.add(
            mapping.at("starting_position_timestamp"), "found nothing, needed with starting_position AT_TIMESTAMP"
        )
    elif given and mapping.starting_position != "AT_TIMESTAMP":
        report.add(mapping.at("starting_position_timestamp"), "allowed with starting_position AT_TIMESTAMP only")


def _backoff(mapping: EventSource, report: Report) -> None:
    backoff = mapping.retry_backoff
    if mapping.sound("retry_backoff") and backoff.sound("base", "cap") and backoff.cap < backoff.base:
        report.add(backoff.at("cap"), f"found {backoff.cap:g}s, allowed at least base, {backoff.base:g}s")


def _source(mapping: EventSource, report: Report) -> None:
    if not mapping.sound("source"):
        return
    source = mapping.source
    if not source.entries:
        report.add(source.place, "found nothing, allowed kafka")
    if source.kafka is not None and source.kafka.sound("security"):
        _security(source.kafka.security, report)


def _security(security: Security, report: Report) -> None:
    if not security.sound("protocol"):
        return
    sasl, tls = security.protocol.startswith("SASL_"), security.protocol.endswith("SSL")
    for name in ("mechanism", "username", "password"):
        if sasl:
            _need(security, name, f"protocol {security.protocol}", report)
        elif security.gives(name):
            report.add(
                security.at(name), f"found with protocol {security.protocol}, allowed with SASL_PLAINTEXT or SASL_SSL"
            )
    for name in ("ca", "certificate", "key", "key_password"):
        if security.gives(name) and not tls:
            report.add(security.at(name), f"found with protocol {security.protocol}, allowed with SSL or SASL_SSL")
    for name, other in (("certificate", "key"), ("key", "certificate"), ("key_password", "key")):
        if security.gives(name):
            _need(security, other, name, report)


def _need(block: Block, name: str, reason: str, report: Report) -> None:
    if not block.gives(name):
        report.add(block.at(name), f"found nothing, needed with {reason}")


def _destination(mapping: EventSource, report: Report) -> None:
    on_failure = mapping.destination_config.on_failure if mapping.sound("destination_config") else None
    if on_failure is None:
        return
    if not on_failure.entries:
        report.add(on_failure.place, "found nothing, allowed sqs, kafka or file")
    if len(on_failure.entries) > 1:
        report.add(on_failure.place, f"found {' and '.join(sorted(on_failure.entries))}, allowed one of them")
    queue = on_failure.sqs
    if queue is not None and queue.sound("queue") and queue.queue.endswith(".fifo"):
        report.add(queue.at("queue"), "found a FIFO queue, allowed a standard queue, as on AWS")
    if on_failure.kafka is not None:
        _topic(on_failure.kafka, mapping.source.kafka if mapping.sound("source") else None, report)


def _topic(topic: ToKafka, source: Kafka | None, report: Report) -> None:
    if topic.security is not None:
        _security(topic.security, report)
        _need(topic, "bootstrap_servers", "security", report)
    names = ("topic", "bootstrap_servers")
    if source is None or not source.sound(*names) or not topic.sound(*names) or topic.topic != source.topic:
        return
    if set(topic.bootstrap_servers or source.bootstrap_servers) & set(source.bootstrap_servers):
        report.add(topic.at("topic"), "found the topic that the mapping reads, allowed another one")


def _readers(mappings: dict[str, EventSource], report: Report) -> None:
    """Refuse two mappings that would take records from each other, and mix up their offsets."""
    readers = [
        (name, mapping.source.kafka, mapping.source.kafka.consumer_group or name)
        for name, mapping in mappings.items()
        if mapping.sound("enabled", "source") and mapping.enabled and mapping.source.kafka is not None
        if mapping.source.kafka.sound("bootstrap_servers", "topic", "consumer_group")
    ]
    for (name, kafka, group), (_, other, other_group) in combinations(readers, 2):
        if (kafka.topic, group) == (other.topic, other_group) and set(kafka.bootstrap_servers) & set(
            other.bootstrap_servers
        ):
            report.add(
                other.at("consumer_group"), f"same topic and consumer group as mapping {name}, allowed another group"
            )
