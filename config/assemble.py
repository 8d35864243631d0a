"""From a document without mistakes to settings: units, defaults that depend on other keys, oddities of AWS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from config import destinations, schema, sources
from config.api import Api
from config.event_invoke import event_settings
from config.names import parse_function, parse_queue, parse_stream
from config.replicas import REPLICA, fleet_of
from config.settings import (
    AnyFunction,
    ApiKey,
    ApiSettings,
    Configuration,
    FleetSettings,
    FunctionSettings,
    MappingSettings,
    Retention,
)
from connectors.settings import (
    AwsSettings,
    DestinationSettings,
    DynamoDbSettings,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    KafkaSettings,
    KinesisSettings,
    LambdaFunction,
    S3Destination,
    S3Settings,
    Security,
    SnsDestination,
    SourceSettings,
    SqsDestination,
    SqsSettings,
    UrlFunction,
)
from router.core.model import (
    KAFKA_RULES,
    QUEUE_RULES,
    STREAM_RULES,
    Backoff,
    EventSourceMapping,
    Pace,
    Polling,
    SourceRules,
)

#: An invocation that is in flight when its partition is revoked may end by its own timeout, plus this.
_DRAIN_MARGIN_S: Final = 5.0


def assemble(root: schema.Root, path: Path, notices: tuple[str, ...], replica: Callable[[], str]) -> Configuration:
    """Make the settings of a document in which no mistake was found.

    Args:
        root: the document.
        path: where it is; absolute.
        notices: what is right in it and may surprise.
        replica: gives our name, where there are replicas.
    """
    host, port = root.listen
    aws = AwsSettings(root.aws.endpoint_url, root.aws.region, root.aws.account_id)
    functions = {name: _function(name, function, root.logs, aws) for name, function in root.functions.items()}
    fleet = fleet_of(root, aws, replica)
    state_dir = root.state if isinstance(root.state, Path) else root.local / replica()
    return Configuration(
        path=path,
        state_dir=path.parent / state_dir,
        listen_host=host,
        listen_port=port,
        aws=aws,
        functions=functions,
        mappings=tuple(
            assemble_mapping(name, mapping, functions[mapping.function], aws, fleet)
            for name, mapping in root.event_source_mappings.items()
        ),
        drain_timeout_s=root.drain_timeout,
        failures=Retention(root.failures.keep_for, root.failures.keep_bytes, root.failures.when_full == "drop_oldest"),
        power_safe=root.durability == "power_loss",
        log_level=root.log_level,
        logs=root.logs,
        notices=notices,
        fleet=fleet,
        event_invoke={
            name: event_settings(function.event_invoke_config, function.dead_letter_config)
            for name, function in root.functions.items()
            if function.event_invoke_config or function.dead_letter_config
        },
        api=_api(root.api),
    )


def _api(api: Api) -> ApiSettings:
    keys = [ApiKey(key.access_key_id, key.secret_access_key, key.service) for key in api.keys]
    return ApiSettings(api.strict, tuple(keys), api.metrics_token, api.msk_clusters)


def _function(name: str, function: schema.Function, default_logs: str, aws: AwsSettings) -> AnyFunction:
    logs = function.logs or default_logs
    if function.arn is not None:
        return _on_lambda(name, function, function.arn, logs, aws)
    if function.url is not None:
        return UrlFunction(
            name=name,
            url=function.url,
            headers=function.headers,
            ca=function.ca,
            timeout_s=function.timeout or schema.ELSEWHERE_TIMEOUT_S,
            concurrency=function.reserved_concurrency or schema.URL_CONCURRENCY,
            logs=logs != "off",
        )
    assert function.handler is not None
    assert function.code is not None
    return FunctionSettings(
        name=name,
        handler=function.handler,
        code=function.code,
        python=function.python,
        timeout_s=function.timeout or schema.TIMEOUT_S,
        memory_bytes=function.memory_size * 1024 * 1024,
        reserved_concurrency=function.reserved_concurrency,
        concurrency_per_worker=function.concurrency_per_worker,
        snap_start=function.snap_start,
        environment=function.environment,
        logs=logs != "off",
        log_level=function.log_level,
        ships_logs=logs == "cloudwatch",
        log_group=function.log_group,
        log_format=function.log_format,
    )


def _on_lambda(name: str, function: schema.Function, text: str, logs: str, aws: AwsSettings) -> LambdaFunction:
    arn = parse_function(text)
    assert arn is not None
    return LambdaFunction(
        name=name,
        arn=arn.arn,
        qualifier=arn.qualifier,
        endpoint_url=function.endpoint_url or aws.endpoint_url,
        region=function.region or arn.region,
        timeout_s=function.timeout or schema.ELSEWHERE_TIMEOUT_S,
        concurrency=function.reserved_concurrency or schema.ARN_CONCURRENCY,
        logs=logs != "off",
    )


def assemble_mapping(
    name: str, mapping: schema.EventSource, function: AnyFunction, aws: AwsSettings, fleet: FleetSettings | None
) -> MappingSettings:
    """Make the settings of one mapping in which no mistake was found."""
    behaviour = _behaviour(name, mapping, function)
    if mapping.source.kind in sources.SHARDED:
        behaviour = _by_shard(behaviour, mapping)
    source = _source(mapping, behaviour, aws, fleet)
    return MappingSettings(
        mapping=behaviour,
        enabled=mapping.enabled,
        source=source,
        filters=tuple(item.pattern for item in mapping.filter_criteria.filters),
        destination=_destination(mapping.destination_config.on_failure, source, aws),
        log_level=mapping.log_level,
        renamed_from=mapping.renamed_from,
    )


def _behaviour(name: str, mapping: schema.EventSource, function: AnyFunction) -> EventSourceMapping:
    age_s = mapping.maximum_record_age_in_seconds
    carrier = mapping.source.carrier
    return EventSourceMapping(
        name=name,
        function=mapping.function,
        rules=_rules(mapping.source),
        batch_size=mapping.limit,
        window_s=mapping.window_s,
        parallelization_factor=mapping.parallelization_factor,
        maximum_retry_attempts=_retries(mapping),
        maximum_record_age_s=None if age_s == -1 else float(age_s),
        bisect=mapping.bisect_batch_on_function_error,
        report_item_failures=bool(mapping.function_response_types),
        init_errors_count=mapping.init_errors_count,
        drain_s=function.timeout_s + _DRAIN_MARGIN_S,
        commit_interval_s=mapping.commit_interval,
        backoff=Backoff(base_s=mapping.retry_backoff.base, cap_s=mapping.retry_backoff.cap),
        polling=_polling(mapping, carrier, function) if carrier else Polling(),
    )


def _rules(source: sources.Source) -> SourceRules:
    if source.kafka is not None:
        return KAFKA_RULES
    return QUEUE_RULES if source.carrier else STREAM_RULES


def _by_shard(behaviour: EventSourceMapping, mapping: schema.EventSource) -> EventSourceMapping:
    """Add what only streams of shards have whose checkpoints we keep."""
    time_s, dynamodb = mapping.starting_position_timestamp, mapping.source.dynamodb
    if time_s is not None and dynamodb is not None:
        time_s = float(int(time_s))  # the times of its records are cut to seconds
    polls_kinesis = mapping.source.kinesis is not None and not mapping.source.kinesis.is_consumer
    most = max(sources.KINESIS_READ_COUNT, 2 * behaviour.batch_size * behaviour.parallelization_factor)
    return replace(
        behaviour,
        # Five reads a second give what a shard has only if each may be a large one.
        buffer_count=most if polls_kinesis else None,
        pace=_pace(mapping.source),
        starting_position=mapping.starting_position,
        starting_time_ms=None if time_s is None else int(time_s * 1000),
        tumbling_window_s=mapping.tumbling_window_in_seconds,
    )


def _pace(source: sources.Source) -> Pace:
    if source.dynamodb is not None:
        return Pace(source.dynamodb.poll_interval, min(source.dynamodb.poll_interval, sources.DYNAMODB_PACE_S))
    assert source.kinesis is not None
    if source.kinesis.is_consumer:
        return Pace()
    return Pace(source.kinesis.poll_interval, sources.KINESIS_PACE_S, sources.KINESIS_BYTES_PER_S)


def most_at_once(function: AnyFunction) -> int:
    """Give how many events a function can be given at once; 0 = it says nothing of that."""
    if isinstance(function, FunctionSettings):
        return (function.reserved_concurrency or 0) * function.concurrency_per_worker
    return function.concurrency


def _polling(mapping: schema.EventSource, carrier: sources.Sqs | sources.S3, function: AnyFunction) -> Polling:
    return Polling(
        maximum_concurrency=mapping.scaling_config.maximum_concurrency,
        function_concurrency=most_at_once(function),
        fifo=parse_queue(carrier.queue).is_fifo,
        heartbeat=carrier.visibility_heartbeat,
        hold_group=isinstance(carrier, sources.Sqs) and carrier.hold_message_group,
        needed_lease_s=function.timeout_s if carrier.retry_throttled == "covers_timeout" else 0.0,
    )


def _retries(mapping: schema.EventSource) -> int | None:
    if mapping.maximum_retry_attempts != -1:
        return mapping.maximum_retry_attempts
    if mapping.source.kafka is not None and mapping.destination_config.on_failure is not None:
        return schema.KAFKA_RETRIES_WITH_DESTINATION
    return None


def _source(
    mapping: schema.EventSource, behaviour: EventSourceMapping, aws: AwsSettings, fleet: FleetSettings | None
) -> SourceSettings:
    source = mapping.source
    if source.kafka is not None:
        return _kafka(source.kafka, mapping, behaviour, fleet)
    if source.s3 is not None:
        return _bucket(source.s3, behaviour, aws)
    if source.sqs is not None:
        return _polled(source.sqs, behaviour, aws)
    return _sharded(source, behaviour.name, aws)


def _sharded(source: sources.Source, mapping: str, aws: AwsSettings) -> KinesisSettings | DynamoDbSettings:
    if source.dynamodb is not None:
        table = source.dynamodb
        region = table.region or parse_stream(table.table).region or aws.region
        return DynamoDbSettings(mapping, table.table, table.endpoint_url or aws.endpoint_url, region)
    kinesis = source.kinesis
    assert kinesis is not None
    region = kinesis.region or parse_stream(kinesis.stream).region or aws.region
    endpoint_url = kinesis.endpoint_url or aws.endpoint_url
    return KinesisSettings(mapping, kinesis.stream, endpoint_url, region, kinesis.deaggregate)


def _kafka(
    kafka: sources.Kafka, mapping: schema.EventSource, behaviour: EventSourceMapping, fleet: FleetSettings | None
) -> KafkaSettings:
    instance = kafka.group_instance_id
    if instance and fleet:
        instance = instance.replace(REPLICA, fleet.replica)
    return KafkaSettings(
        mapping=behaviour.name,
        bootstrap_servers=kafka.bootstrap_servers,
        topic=kafka.topic,
        consumer_group=mapping.group(behaviour.name),
        starting_position=mapping.starting_position,
        starting_timestamp_s=mapping.starting_position_timestamp,
        drain_s=behaviour.drain_s,
        security=_security(kafka.security),
        isolation_level=kafka.isolation_level,
        client_id=kafka.client_id,
        group_instance_id=instance,
        session_timeout_s=kafka.session_timeout,
        event_source=kafka.event_source,
    )


def _security(security: sources.Security) -> Security:
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


def _polled(carrier: sources.Sqs | sources.S3, behaviour: EventSourceMapping, aws: AwsSettings) -> SqsSettings:
    return SqsSettings(
        mapping=behaviour.name,
        queue=carrier.queue,
        endpoint_url=carrier.endpoint_url or aws.endpoint_url,
        region=carrier.region or parse_queue(carrier.queue).region or aws.region,
        windowed=behaviour.window_s > 0,
    )


def _bucket(s3: sources.S3, behaviour: EventSourceMapping, aws: AwsSettings) -> S3Settings:
    return S3Settings(
        sqs=_polled(s3, behaviour, aws),
        bucket=s3.bucket,
        events=s3.events,
        prefix=s3.filter.prefix,
        suffix=s3.filter.suffix,
        by_sequencer=s3.order == "sequencer",
    )


def _destination(
    on_failure: destinations.OnFailure | None, source: SourceSettings, aws: AwsSettings
) -> DestinationSettings | None:
    if on_failure is None:
        return None
    if on_failure.kafka is not None:
        return _topic(on_failure.kafka, source)
    if on_failure.http is not None:
        http = on_failure.http
        return HttpDestination(http.url, http.secret, http.headers, http.ca, http.timeout)
    if on_failure.file is not None:
        return FileDestination(on_failure.file.path)
    return _at_aws(on_failure, aws)


def _at_aws(on_failure: destinations.OnFailure, aws: AwsSettings) -> DestinationSettings:
    if on_failure.sqs is not None:
        return _queue(on_failure.sqs, aws)
    if on_failure.sns is not None:
        return _sns_topic(on_failure.sns, aws)
    s3 = on_failure.s3
    assert s3 is not None
    return S3Destination(s3.bucket, s3.prefix, s3.endpoint_url or aws.endpoint_url, s3.region or aws.region)


def _queue(sqs: destinations.ToSqs, aws: AwsSettings) -> SqsDestination:
    region = sqs.region or parse_queue(sqs.queue).region or aws.region
    return SqsDestination(sqs.queue, sqs.endpoint_url or aws.endpoint_url, region)


def _sns_topic(sns: destinations.ToSns, aws: AwsSettings) -> SnsDestination:
    region = sns.region or (sns.topic.split(":")[3] if sns.topic.startswith("arn:") else aws.region)
    return SnsDestination(sns.topic, sns.endpoint_url or aws.endpoint_url, region)


def _topic(kafka: destinations.ToKafka, source: SourceSettings) -> KafkaDestination:
    if kafka.bootstrap_servers is None:
        assert isinstance(source, KafkaSettings)
        return KafkaDestination(kafka.topic, source.bootstrap_servers, source.security)
    security = _security(kafka.security) if kafka.security is not None else Security()
    return KafkaDestination(kafka.topic, kafka.bootstrap_servers, security)
