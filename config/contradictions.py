"""Values that are fine alone and wrong together.

Each rule looks at sound keys only, so that one mistake is not told twice. Messages name keys and mappings, never the
values of keys: those may be secrets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from config import api, sharing
from config.blocks import Block
from config.destinations import ToHttp, ToKafka, ToS3, ToSns, ToSqs
from config.locations import is_loopback
from config.mistakes import Report, listed
from config.names import DESTINATION_HEADERS, OWN_HEADERS, parse_function, parse_queue
from config.schema import ENVIRONMENT_BYTES, KAFKA_TIMEOUT_S, KINDS, RECEIVED_COUNT, EventSource, Function, Root
from config.sources import QUEUES, S3, SHARDED, Kafka, Kinesis, Security, Source, Sqs

#: How keys of failure records begin, behind the destination's prefix, and what they may end in.
OBJECT_KEYS: Final = "aws/lambda/"
OBJECT_KEY_END: Final = re.compile(r"[0-9a-f-]*")


def find(root: Root, report: Report) -> None:
    """Report all contradictions of a document."""
    if root.sound("api"):
        api.find(root.api, report)
        _listen(root, report)
    if root.sound("functions"):
        for name, function in root.functions.items():
            _kind(function, report)
            _events(name, function, report)
            _environment(function, report)
            _headers(function, OWN_HEADERS, report)
            _logs(function, report)
    if root.sound("event_source_mappings"):
        for name, mapping in root.event_source_mappings.items():
            _function(name, mapping, root, report)
            find_in(mapping, report)
        sharing.find(root.event_source_mappings, report)
        _renames(root.event_source_mappings, report)


def find_in(mapping: EventSource, report: Report) -> None:
    """Report the contradictions of one mapping in itself."""
    _position(mapping, report)
    _backoff(mapping, report)
    _source(mapping, report)
    _destination(mapping, report)


#: What to do about an address that others reach while nobody has a key.
NEEDS_KEYS: Final = (
    "found a host that is not loopback, where whoever reaches it could run code: allowed with api.keys; else a "
    "loopback host (127.0.0.1, [::1], localhost)"
)


def _listen(root: Root, report: Report) -> None:
    if root.sound("listen") and root.api.sound("keys") and not root.api.keys and not is_loopback(root.listen[0]):
        report.add(root.at("listen"), NEEDS_KEYS)


def _kind(function: Function, report: Report) -> None:
    """Demand exactly one of handler, arn and url, and refuse keys that are of another kind of function."""
    given = [name for name in KINDS if function.gives(name)]
    kind = function.kind
    if not given:
        report.add(
            function.at("handler"),
            "found nothing, allowed module.attribute; or arn or url, of a function that runs elsewhere",
        )
    elif kind is None:
        report.add(function.at(given[1]), f"found beside {function.called(given[0])}, allowed one of them")
    elif kind == "handler" and not function.gives("code"):
        report.add(function.at("code"), f"found nothing, allowed {function.declared()['code'].kind.allowed}")
    for name, key in function.declared().items():
        if kind and key.only and kind not in key.only.sources and function.gives(name):
            others = listed(key.only.sources)
            report.add(function.at(name), f"found with {kind}, allowed with {others} only: {key.only.instead}")


def _events(name: str, function: Function, report: Report) -> None:
    """Demand one destination each, and none that is the function itself: each event would make another, without end."""
    config = function.event_invoke_config if function.sound("event_invoke_config") else None
    places = config.destination_config if config and config.sound("destination_config") else None
    for key in ("on_success", "on_failure"):
        place = getattr(places, key) if places and places.sound(key) else None
        if place is None:
            continue
        one_of(place, report)
        if place.function and place.function.rpartition(":function:")[2].partition(":")[0] == name:
            report.add(place.at("function"), "found the function itself, allowed another one, as on AWS")


def _headers(block: Function | ToHttp, own: Collection[str], report: Report) -> None:
    """Refuse headers that are said of every request anyway, and the same one twice."""
    if not block.sound("headers"):
        return
    seen: set[str] = set()
    for name in block.headers:
        place = block.at("headers").key(name, block.entries["headers"].line)
        if name.lower() in own:
            report.add(place, "set for every request, allowed any other header")
        elif name.lower() in seen:
            report.add(place, "found a second time in other letters, allowed one of them")
        seen.add(name.lower())


def _logs(function: Function, report: Report) -> None:
    """Refuse to ship what a function prints that runs elsewhere: here only the end of it is told, when it has ended."""
    if function.kind in ("arn", "url") and function.sound("logs") and function.logs == "cloudwatch":
        instead = (
            "on AWS Lambda it is in CloudWatch Logs anyway" if function.kind == "arn" else "who runs it has its log"
        )
        report.add(function.at("logs"), f"found cloudwatch with {function.kind}, allowed on or off: {instead}")


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
    if function is None and parse_function(mapping.function):
        return  # which is meant was not clear, and was told
    if function is None and mapping.function not in written:
        shown = mapping.entries["function"].node.shown()
        there = ", ".join(written) or "it has none"
        report.add(mapping.at("function"), f"found {shown}, allowed a function of this file: {there}")
    elif function is not None and mapping.sound("source") and mapping.source.kind == "kafka":
        _timeout(name, function, report)


def _timeout(mapping: str, function: Function, report: Report) -> None:
    if function.sound("timeout") and function.timeout is not None and function.timeout > KAFKA_TIMEOUT_S:
        report.add(
            function.at("timeout"),
            f"found {function.timeout:g}s, allowed at most {KAFKA_TIMEOUT_S:g}s, as mapping {mapping} reads Kafka",
        )


def _position(mapping: EventSource, report: Report) -> None:
    if not mapping.sound("starting_position", "starting_position_timestamp", "source"):
        return
    if mapping.source.kind in QUEUES:  # where they do not belong at all
        return
    given = mapping.starting_position_timestamp is not None
    if mapping.starting_position == "AT_TIMESTAMP" and not given:
        report.add(
            mapping.at("starting_position_timestamp"),
            f"found nothing, needed with {mapping.called('starting_position')} AT_TIMESTAMP",
        )
    elif given and mapping.starting_position != "AT_TIMESTAMP":
        report.add(
            mapping.at("starting_position_timestamp"),
            f"allowed with {mapping.called('starting_position')} AT_TIMESTAMP only",
        )


def _backoff(mapping: EventSource, report: Report) -> None:
    backoff = mapping.retry_backoff
    if mapping.sound("retry_backoff") and backoff.sound("base", "cap") and backoff.cap < backoff.base:
        report.add(backoff.at("cap"), f"found {backoff.cap:g}s, allowed at least base, {backoff.base:g}s")


def _source(mapping: EventSource, report: Report) -> None:
    if not mapping.sound("source"):
        return
    source = mapping.source
    one_of(source, report)
    _belonging(mapping, report)
    _window(mapping, report)
    if source.kafka is not None and source.kafka.sound("security"):
        _security(source.kafka.security, report)
    if source.kinesis is not None and source.kinesis.sound("stream"):
        _consumer(source.kinesis, report)
    carrier = source.carrier
    if carrier is None or not carrier.sound("queue"):
        return
    if parse_queue(carrier.queue).is_fifo:
        _fifo(mapping, carrier, report)
    else:
        _standard(mapping, carrier, report)


def one_of(block: Block, report: Report) -> None:
    """Demand exactly one of the keys of a block."""
    *rest, last = block.declared()
    if block.bare:
        report.add(block.place, f"found nothing, allowed {', '.join(rest)} or {last}")
    if len(block.entries) > 1:
        given = " and ".join(sorted(map(block.called, block.entries)))
        report.add(block.place, f"found {given}, allowed one of them")


def _belonging(mapping: EventSource, report: Report) -> None:
    """Refuse keys that have no meaning with the mapping's source."""
    kind = mapping.source.kind
    for name, key in mapping.declared().items():
        if kind and key.only and kind not in key.only.sources and mapping.gives(name):
            sources = listed(key.only.sources)
            report.add(mapping.at(name), f"found with source {kind}, allowed with {sources} only: {key.only.instead}")


def _window(mapping: EventSource, report: Report) -> None:
    """Refuse what AWS does not take with a tumbling window: what a window adds up are all records of a shard, in order.

    Source: AWS Lambda API reference, CreateEventSourceMapping.
    """
    sound = mapping.source.kind in SHARDED and mapping.sound("tumbling_window_in_seconds")
    if not sound or not mapping.tumbling_window_in_seconds:
        return
    window = mapping.called("tumbling_window_in_seconds")
    if mapping.sound("parallelization_factor") and mapping.parallelization_factor > 1:
        report.add(
            mapping.at("parallelization_factor"),
            f"found {mapping.parallelization_factor}, allowed 1 with {window}, as on AWS",
        )
    criteria = mapping.filter_criteria if mapping.sound("filter_criteria") else None
    if criteria and criteria.sound("filters") and criteria.filters:
        report.add(
            criteria.at("filters"), f"found a list of {len(criteria.filters)}, allowed none with {window}, as on AWS"
        )


def _consumer(kinesis: Kinesis, report: Report) -> None:
    if kinesis.is_consumer and kinesis.gives("poll_interval"):
        report.add(
            kinesis.at("poll_interval"),
            "found with a consumer, allowed with a stream only: a consumer is not polled, its records are pushed",
        )


def _standard(mapping: EventSource, carrier: Sqs | S3, report: Report) -> None:
    if isinstance(carrier, Sqs) and carrier.sound("hold_message_group") and carrier.hold_message_group:
        report.add(carrier.at("hold_message_group"), "found with a standard queue, allowed with FIFO queues only")
    names = ("batch_size", "maximum_batching_window_in_seconds")
    if mapping.source.kind and mapping.sound(*names) and mapping.limit > RECEIVED_COUNT and not mapping.window_s:
        report.add(
            mapping.at("batch_size"),
            f"found {mapping.limit}, allowed at most {RECEIVED_COUNT} while "
            f"{mapping.called('maximum_batching_window_in_seconds')} is 0, as on AWS",
        )


def _fifo(mapping: EventSource, carrier: Sqs | S3, report: Report) -> None:
    if isinstance(carrier, S3):
        report.add(carrier.at("queue"), "found a FIFO queue, allowed a standard queue: S3 notifies no other")
        return
    if mapping.sound("maximum_batching_window_in_seconds") and mapping.maximum_batching_window_in_seconds:
        report.add(
            mapping.at("maximum_batching_window_in_seconds"),
            f"found {mapping.maximum_batching_window_in_seconds:g}, allowed 0 with a FIFO queue, as on AWS",
        )
    if mapping.sound("batch_size") and (mapping.batch_size or 0) > RECEIVED_COUNT:
        report.add(
            mapping.at("batch_size"),
            f"found {mapping.batch_size}, allowed at most {RECEIVED_COUNT} with a FIFO queue, as on AWS",
        )
    holds = carrier.sound("hold_message_group") and carrier.hold_message_group
    if holds and mapping.sound("function_response_types") and not mapping.function_response_types:
        report.add(
            mapping.at("function_response_types"), "found none, needed with hold_message_group: ReportBatchItemFailures"
        )


def _security(security: Security, report: Report) -> None:
    if not security.sound("protocol"):
        return
    sasl, tls = security.protocol.startswith("SASL_"), security.protocol.endswith("SSL")
    for name in ("mechanism", "username", "password"):
        if sasl:
            need(security, name, f"protocol {security.protocol}", report)
        elif security.gives(name):
            report.add(
                security.at(name), f"found with protocol {security.protocol}, allowed with SASL_PLAINTEXT or SASL_SSL"
            )
    for name in ("ca", "certificate", "key", "key_password"):
        if security.gives(name) and not tls:
            report.add(security.at(name), f"found with protocol {security.protocol}, allowed with SSL or SASL_SSL")
    for name, other in (("certificate", "key"), ("key", "certificate"), ("key_password", "key")):
        if security.gives(name):
            need(security, other, name, report)


def _renames(mappings: Mapping[str, EventSource], report: Report) -> None:
    """Refuse former names that somebody still has, or that two lay claim to: state has one owner."""
    heirs: dict[str, str] = {}
    for name, mapping in mappings.items():
        former = mapping.renamed_from if mapping.sound("renamed_from") else None
        if former is None:
            continue
        if former in mappings:
            whose = "the mapping's own name" if former == name else "the name of a mapping of this file"
            report.add(mapping.at("renamed_from"), f"found {whose}, allowed a name that no mapping has any more")
        elif former in heirs:
            report.add(
                mapping.at("renamed_from"), f"found the former name of mapping {heirs[former]} too, allowed another one"
            )
        heirs.setdefault(former, name)


def need(block: Block, name: str, reason: str, report: Report) -> None:
    if not block.gives(name):
        report.add(block.at(name), f"found nothing, needed with {reason}")


def _destination(mapping: EventSource, report: Report) -> None:
    on_failure = mapping.destination_config.on_failure if mapping.sound("destination_config") else None
    if on_failure is None:
        return
    one_of(on_failure, report)
    source = mapping.source if mapping.sound("source") else None
    if on_failure.sqs is not None:
        _queue(on_failure.sqs, source, report)
    if on_failure.sns is not None:
        _sns_topic(on_failure.sns, report)
    if on_failure.http is not None:
        _headers(on_failure.http, DESTINATION_HEADERS, report)
    if on_failure.s3 is not None and source and source.s3:
        _another_bucket(on_failure.s3, source.s3, report)
    if on_failure.kafka is not None:
        _topic(on_failure.kafka, source, report)


def _queue(queue: ToSqs, source: Source | None, report: Report) -> None:
    if not queue.sound("queue"):
        return
    if parse_queue(queue.queue).is_fifo:
        report.add(queue.at("queue"), "found a FIFO queue, allowed a standard queue, as on AWS")
    elif source and source.carrier and sharing.same_queue(queue, source.carrier):
        report.add(queue.at("queue"), "found the queue that the mapping reads, allowed another one")


def _sns_topic(topic: ToSns, report: Report) -> None:
    if topic.sound("topic") and topic.topic.endswith(".fifo"):
        report.add(topic.at("topic"), "found a FIFO topic, allowed a standard topic, as on AWS")


def _another_bucket(bucket: ToS3, source: S3, report: Report) -> None:
    """Refuse records that would come back as notifications, fail, and be put there again."""
    names = ("bucket", "endpoint_url")
    if not (
        source.sound(*names, "filter") and bucket.sound(*names, "prefix") and source.filter.sound("prefix", "suffix")
    ):
        return
    same = (bucket.bucket, bucket.endpoint_url) == (source.bucket, source.endpoint_url)
    wanted, key = source.filter.prefix, f"{bucket.prefix}{OBJECT_KEYS}"
    read = wanted.startswith(key) or key.startswith(wanted)
    if same and read and OBJECT_KEY_END.fullmatch(source.filter.suffix):
        report.add(
            bucket.at("bucket"),
            f"found the bucket that the mapping reads, allowed another one, or a source.s3.filter without {key}",
        )


def _topic(topic: ToKafka, source: Source | None, report: Report) -> None:
    if topic.security is not None:
        _security(topic.security, report)
        need(topic, "bootstrap_servers", "security", report)
    elif source and source.kind not in (None, "kafka"):
        need(topic, "bootstrap_servers", f"source {source.kind}", report)
    if source and source.kafka:
        _another_topic(topic, source.kafka, report)


def _another_topic(topic: ToKafka, source: Kafka, report: Report) -> None:
    names = ("topic", "bootstrap_servers")
    if not source.sound(*names) or not topic.sound(*names) or topic.topic != source.topic:
        return
    if set(topic.bootstrap_servers or source.bootstrap_servers) & set(source.bootstrap_servers):
        report.add(topic.at("topic"), "found the topic that the mapping reads, allowed another one")
