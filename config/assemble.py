"""From a document without mistakes to settings: units, defaults that depend on other keys, oddities of AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from config import schema
from config.settings import Configuration, FunctionSettings, MappingSettings, Retention
from connectors.settings import (
    AwsSettings,
    DestinationSettings,
    FileDestination,
    KafkaDestination,
    KafkaSettings,
    Security,
    SqsDestination,
)
from router.core.model import KAFKA_RULES, Backoff, EventSourceMapping

#: Retries where none are asked for and there is a destination (AWS Lambda developer guide, Kafka).
_RETRIES_WITH_DESTINATION: Final = 10
#: An invocation that is in flight when its partition is revoked may end by its own timeout, plus this.
_DRAIN_MARGIN_S: Final = 5.0


def assemble(root: schema.Root, path: Path) -> Configuration:
    """Make the settings of a document in which no mistake was found; `path` is absolute."""
    host, port = root.listen
    aws = AwsSettings(root.aws.endpoint_url, root.aws.region)
    functions = {name: _function(name, function) for name, function in root.functions.items()}
    return Configuration(
        path=path,
        state_dir=path.parent / root.state,
        listen_host=host,
        listen_port=port,
        aws=aws,
        functions=functions,
        mappings=tuple(
            _mapping(name, mapping, functions[mapping.function], aws)
            for name, mapping in root.event_source_mappings.items()
        ),
        drain_timeout_s=root.drain_timeout,
        failures=Retention(root.failures.keep_for, root.failures.keep_bytes, root.failures.when_full == "drop_oldest"),
        log_level=root.log_level,
        notices=tuple(map(_notice, filter(_is_limited_silently, root.event_source_mappings.values()))),
    )


def _function(name: str, function: schema.Function) -> FunctionSettings:
    return FunctionSettings(
        name=name,
        handler=function.handler,
        code=function.code,
        python=function.python,
        timeout_s=function.timeout,
        memory_bytes=function.memory_size * 1024 * 1024,
        reserved_concurrency=function.reserved_concurrency,
        environment=function.environment,
        logs=function.logs == "on",
    )


def _mapping(name: str, mapping: schema.EventSource, function: FunctionSettings, aws: AwsSettings) -> MappingSettings:
    behaviour = _behaviour(name, mapping, function)
    source = _kafka(mapping, behaviour)
    return MappingSettings(
        mapping=behaviour,
        enabled=mapping.enabled,
        source=source,
        filters=tuple(item.pattern for item in mapping.filter_criteria.filters),
        destination=_destination(mapping.destination_config.on_failure, source, aws),
    )


def _behaviour(name: str, mapping: schema.EventSource, function: FunctionSettings) -> EventSourceMapping:
    age_s = mapping.maximum_record_age_in_seconds
    return EventSourceMapping(
        name=name,
        function=mapping.function,
        rules=KAFKA_RULES,
        batch_size=mapping.batch_size,
        window_s=float(mapping.maximum_batching_window_in_seconds),
        parallelization_factor=mapping.parallelization_factor,
        maximum_retry_attempts=_retries(mapping),
        maximum_record_age_s=None if age_s == -1 else float(age_s),
        bisect=mapping.bisect_batch_on_function_error,
        report_item_failures=bool(mapping.function_response_types),
        init_errors_count=mapping.init_errors_count,
        drain_s=function.timeout_s + _DRAIN_MARGIN_S,
        commit_interval_s=mapping.commit_interval,
        backoff=Backoff(base_s=mapping.retry_backoff.base, cap_s=mapping.retry_backoff.cap),
    )


def _is_limited_silently(mapping: schema.EventSource) -> bool:
    return mapping.maximum_retry_attempts == -1 and mapping.destination_config.on_failure is not None


def _notice(mapping: schema.EventSource) -> str:
    return (
        f"{mapping.at('maximum_retry_attempts').path}: -1 with a destination means {_RETRIES_WITH_DESTINATION} "
        "retries, as on AWS; give a number to choose another limit"
    )


def _retries(mapping: schema.EventSource) -> int | None:
    if _is_limited_silently(mapping):
        return _RETRIES_WITH_DESTINATION
    return None if mapping.maximum_retry_attempts == -1 else mapping.maximum_retry_attempts


def _kafka(mapping: schema.EventSource, behaviour: EventSourceMapping) -> KafkaSettings:
    kafka = mapping.source.kafka
    assert kafka is not None
    return KafkaSettings(
        mapping=behaviour.name,
        bootstrap_servers=kafka.bootstrap_servers,
        topic=kafka.topic,
        consumer_group=kafka.consumer_group or behaviour.name,
        starting_position=mapping.starting_position,
        starting_timestamp_s=mapping.starting_position_timestamp,
        drain_s=behaviour.drain_s,
        security=_security(kafka.security),
        isolation_level=kafka.isolation_level,
        client_id=kafka.client_id,
        group_instance_id=kafka.group_instance_id,
        session_timeout_s=kafka.session_timeout,
        event_source=kafka.event_source,
    )


def _security(security: schema.Security) -> Security:
    return Security(
        protocol=security.protocol,
        mechanism=security.mechanism,
        username=security.username,
        password=security.password,
        ca=security.ca,
        certificate=security.certificate,
        key=security.key,
        key_password=security.key_password,
    )


def _destination(
    on_failure: schema.OnFailure | None, source: KafkaSettings, aws: AwsSettings
) -> DestinationSettings | None:
    if on_failure is None:
        return None
    if on_failure.sqs is not None:
        return _queue(on_failure.sqs, aws)
    if on_failure.kafka is not None:
        return _topic(on_failure.kafka, source)
    assert on_failure.file is not None
    return FileDestination(on_failure.file.path)


def _queue(sqs: schema.ToSqs, aws: AwsSettings) -> SqsDestination:
    own_region = sqs.queue.split(":")[3] if sqs.queue.startswith("arn:") else None
    return SqsDestination(sqs.queue, sqs.endpoint_url or aws.endpoint_url, sqs.region or own_region or aws.region)


def _topic(kafka: schema.ToKafka, source: KafkaSettings) -> KafkaDestination:
    if kafka.bootstrap_servers is None:
        return KafkaDestination(kafka.topic, source.bootstrap_servers, source.security)
    security = _security(kafka.security) if kafka.security is not None else Security()
    return KafkaDestination(kafka.topic, kafka.bootstrap_servers, security)
