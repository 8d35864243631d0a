"""Puts the rooms together: settings become what runs.

Client libraries are imported where a mapping needs them: a daemon without AWS mappings never loads AWS libraries.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Final, cast
from urllib.parse import urlsplit

from config.settings import AnyFunction, ApiSettings, Configuration, FunctionSettings, MappingSettings
from connectors import DESTINATIONS, EVENT_TARGETS, KAFKA_PLACES, LOG_STREAMS, OBJECTS, PAGES, SOURCES, TARGETS, load
from connectors.settings import (
    AwsSettings,
    DestinationSettings,
    DynamoDbSettings,
    KafkaSettings,
    KinesisSettings,
    LambdaFunction,
    S3Destination,
    S3Settings,
    SqsDestination,
    SqsSettings,
    TargetSettings,
    UrlFunction,
    queue_name,
)
from handlers.aws_environment import aws_variables, usual_region
from handlers.function import LATEST, FunctionSpec
from handlers.limits import find_cgroup_home
from handlers.logs import LogSink, RotatingFile, log_file
from handlers.nursery import Note
from handlers.output import Heard
from handlers.pool import Pool
from handlers.predecessors import WorkerLock
from handlers.remote import Remote
from handlers.shipping import Listener, Shipper
from router.api.access import AccessKey, Credentials
from router.api.names import Here
from router.asynchronous.function_target import FunctionTarget
from router.asynchronous.targets import function_here
from router.catalogue.catalogue import Catalogue
from router.core.filter import DYNAMODB, KAFKA, KINESIS, S3, SQS, DataFormat, compile_filters
from router.core.model import EventSourceMapping
from router.core.retention import Retention
from router.errors import DestinationUnavailable, NotFound
from router.event_ports import Accepts, EventTarget
from router.failures.failures import Failures
from router.failures.outbox_lease import LeasedOutbox
from router.failures.record import DEFAULT_REGION, function_arn
from router.fleet.fleet import Fleet
from router.fleet.owners import FleetOwners
from router.fleet.together import Together
from router.life import MappingLife, MappingParts, Plug
from router.ports import (
    Codec,
    Destination,
    Invoker,
    LogStreams,
    ObjectSource,
    PageSource,
    Places,
    QueueSource,
    ShardSource,
    Source,
    Store,
    Target,
)
from router.queue_side import plug_queue
from router.runner import ReplayListener
from router.shard_places import ShardPlaces
from router.shard_side import plug_shards
from router.stream_names import StreamName
from router.stream_side import plug_stream
from router.supervisor import Unit
from router.telemetry import Log, Metrics

#: Between the parts of any ARN.
_ARN_COLONS: Final = 5
#: Workers of a function that sets no reserved_concurrency, at most.
DEFAULT_CONCURRENCY = 2 * (os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all mappings of a daemon have in common."""

    store: Store
    replays: ReplayListener
    metrics: Metrics
    log: Log
    #: The replicas that share the store; None = nobody else has it.
    fleet: Fleet | None = None
    owners: FleetOwners | None = None
    #: The same, as commands see them.
    together: Together | None = None


def make_unit(settings: MappingSettings, configuration: Configuration, invoker: Invoker, shared: Shared) -> Unit:
    """Make what runs a mapping by a configuration; nothing is connected to before it runs."""
    mapping = _for_function(settings.mapping, configuration)
    source_name, plug, data_format = _kind(settings, shared.fleet)
    destination = make_destination(settings.destination, configuration) if settings.destination else None
    metrics = shared.metrics.of(mapping.name)
    log = shared.log.at(settings.log_level)
    failures = Failures(
        mapping.name,
        store=shared.store,
        destination=destination,
        retention=make_retention(configuration),
        batch_info=_source(settings).codec.batch_info,
        hold=lambda reason: life.hold(reason),  # noqa: PLW0108 - the life is made below
        metrics=metrics,
        log=log.bind(mapping=mapping.name),
        wall=time.time,
        rng=SystemRandom(),
        lease=LeasedOutbox(shared.fleet.tenure(mapping.name), shared.owners)
        if shared.fleet and shared.owners
        else None,
    )
    places = make_places(settings)

    def leaves() -> bool:
        return life.leaves_place

    parts = MappingParts(
        mapping,
        settings.enabled,
        source_name=source_name,
        make_source=partial(_source, settings, leaves),
        plug=plug,
        invoker=invoker,
        passes=compile_filters(settings.filters, data_format).matches if settings.filters else None,
        keep=failures.keep,
        deliveries=failures if destination else None,
        renamed_from=settings.renamed_from,
        make_places=places,
        is_made=settings.is_made,
    )
    life = MappingLife(
        parts,
        store=shared.store,
        replays=shared.replays,
        metrics=metrics,
        log=log,
        wall=time.time,
        rng=SystemRandom(),
    )
    life.others = shared.together
    close = destination.close if destination else _nothing
    return Unit(life, failures.run, close, failures.retain, after=settings.renamed_from, sent=failures.sent)


def make_retention(configuration: Configuration) -> Retention:
    """Make the limits of every mapping's failures."""
    limits = configuration.failures
    return Retention(limits.keep_for_s, limits.keep_bytes, drop_oldest=limits.drop_oldest)


async def _nothing() -> None:
    """Close what has nothing to close."""


def _kind(settings: MappingSettings, fleet: Fleet | None) -> tuple[str, Plug, DataFormat]:
    """Give what a source is called, what runs it, and how filters see its records."""
    match settings.source:
        case KafkaSettings(topic=topic):
            return f"kafka:{topic}", plug_stream, KAFKA
        case KinesisSettings(name=name):
            return f"kinesis:{name}", partial(plug_shards, fleet=fleet), KINESIS
        case DynamoDbSettings(name=name):
            return f"dynamodb:{name}", partial(plug_shards, fleet=fleet), DYNAMODB
        case SqsSettings(queue=queue):
            return f"sqs:{queue_name(queue)}", plug_queue, SQS
        case S3Settings(bucket=bucket):
            return f"s3:{bucket}", plug_queue, S3


def _source(settings: MappingSettings, leaves: Callable[[], bool] = lambda: False) -> Source:
    make = load(SOURCES[type(settings.source)])
    if isinstance(settings.source, KafkaSettings):
        make = partial(make, needs_keys=settings.mapping.parallelization_factor > 1, leaves=leaves)
    source: Source = make(settings.source)
    return source


def make_places(settings: MappingSettings) -> Callable[[Store], Places] | None:
    """Give what makes the places of a mapping over a store; None = it reads a queue."""
    if isinstance(settings.source, KafkaSettings):
        return partial(_kafka_places, settings.source)
    if isinstance(settings.source, KinesisSettings | DynamoDbSettings):
        return partial(_shard_places, settings)
    return None


def _kafka_places(settings: KafkaSettings, _: Store) -> Places:
    places: Places = load(KAFKA_PLACES)(settings)
    return places


def _shard_places(settings: MappingSettings, store: Store) -> Places:
    source = settings.source
    if isinstance(source, KinesisSettings) and source.is_consumer:
        # A consumer has one subscription to a shard, and that is the mapping's: here the stream is polled.
        stream = source.stream.partition("/consumer/")[0]
        settings = replace(settings, source=replace(source, stream=stream, deaggregate=True))
    return ShardPlaces(cast("ShardSource", _source(settings)), settings.mapping, store)


def codec_of(configuration: Configuration, mapping: str) -> Codec | None:
    """Give what reads and makes the events of a mapping; None = there is no such mapping."""
    found = [each for each in configuration.mappings if each.mapping.name == mapping]
    return _source(found[0]).codec if found else None


def open_queue(configuration: Configuration, mapping: str, queue: str) -> QueueSource:
    """Make a source over another queue, such as a dead-letter queue, that reads it as a mapping reads its own.

    Raises:
        NotFound: there is no such mapping, or it reads no queue.
    """
    found = [each.source for each in configuration.mappings if each.mapping.name == mapping]
    match found:
        case [SqsSettings() as settings]:
            source: QueueSource = load(SOURCES[SqsSettings])(replace(settings, queue=queue))
        case [S3Settings(sqs=sqs) as settings]:
            source = load(SOURCES[S3Settings])(replace(settings, sqs=replace(sqs, queue=queue)))
        case [_]:
            raise NotFound(f"mapping {mapping} reads no queue: the messages of {queue} are no records of its source")
        case _:
            raise NotFound(f"there is no mapping {mapping!r} in {configuration.path}")
    return source


def stream_names(configuration: Configuration) -> dict[str, StreamName]:
    """Say what the mappings of streams read, by mapping."""
    names = {}
    for each in configuration.mappings:
        match each.source:
            case KafkaSettings(topic=topic, bootstrap_servers=servers):
                names[each.mapping.name] = StreamName("kafka", topic, servers)
            case KinesisSettings(stream=stream):
                names[each.mapping.name] = StreamName("kinesis", stream)
            case DynamoDbSettings(table=table):
                names[each.mapping.name] = StreamName("dynamodb", table)
    return names


def make_pages(configuration: Configuration, mapping: str) -> PageSource:
    """Make what reads the stream of a mapping by pages; nothing is connected to."""
    settings = next(each.source for each in configuration.mappings if each.mapping.name == mapping)
    pages: PageSource = load(PAGES[type(settings)])(settings)
    return pages


def make_record_queue(configuration: Configuration, queue: str, mapping: str | None) -> QueueSource:
    """Make a source over a queue of failure records, where the destination that sends there finds it."""
    fitting = [
        each
        for each in _destinations(configuration, mapping)
        if isinstance(each, SqsDestination) and queue_name(each.queue) == queue_name(queue)
    ]
    where = fitting[0] if fitting else configuration.aws
    settings = SqsSettings("", queue, where.endpoint_url, where.region, windowed=False)
    source: QueueSource = load(SOURCES[SqsSettings])(settings)
    return source


def make_record_objects(configuration: Configuration, place: str, mapping: str | None) -> ObjectSource:
    """Make what reads failure records at `s3://BUCKET/PREFIX`, where the destination that puts them there finds it."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    fitting = [
        each
        for each in _destinations(configuration, mapping)
        if isinstance(each, S3Destination) and each.bucket == bucket
    ]
    where = fitting[0] if fitting else configuration.aws
    objects: ObjectSource = load(OBJECTS)(bucket, prefix, endpoint_url=where.endpoint_url, region=where.region)
    return objects


def _destinations(configuration: Configuration, mapping: str | None) -> list[DestinationSettings]:
    """Give the destinations of the mappings, that of this one first."""
    mappings = sorted(configuration.mappings, key=lambda each: each.mapping.name != mapping)
    return [each.destination for each in mappings if each.destination]


def _for_function(mapping: EventSourceMapping, configuration: Configuration) -> EventSourceMapping:
    """Let a queue's batches be as many at once as its function can run."""
    function = configuration.functions.get(mapping.function)
    # None = an alias, of whose version it was made; or not there yet.
    most = run_at_once(function) if function else mapping.polling.function_concurrency or DEFAULT_CONCURRENCY
    return replace(mapping, polling=replace(mapping.polling, function_concurrency=most))


def run_at_once(function: AnyFunction) -> int:
    """Give how many invocations a function runs at once, at most."""
    if isinstance(function, FunctionSettings):
        return (function.reserved_concurrency or DEFAULT_CONCURRENCY) * function.concurrency_per_worker
    return function.concurrency


def make_destination(settings: DestinationSettings, configuration: Configuration) -> Destination:
    """Make what sends failure records to the place that a mapping names."""
    destination: Destination = load(DESTINATIONS[type(settings)])(settings, partial(_arn_of, configuration))
    return destination


def _arn_of(configuration: Configuration, name: str) -> str:
    """Give the ARN under which failure records name a function: its own where it has one."""
    function = configuration.functions.get(name)
    if isinstance(function, LambdaFunction):
        return function.invoked_arn
    return function_arn(name, home_region(configuration.aws), configuration.aws.account_id)


def make_invoker(
    configuration: Configuration,
    name: str,
    lock: WorkerLock | None = None,
    sink: LogSink | None = None,
    heard: Heard | None = None,
    note: Note | None = None,
) -> Pool | Remote:
    """Make what runs a function; nothing starts before it is invoked. `heard` has logs kept even where they are off."""
    settings = configuration.functions[name]
    if not isinstance(settings, FunctionSettings):
        target = make_target(replace(settings, logs=settings.logs or heard is not None))
        return Remote(target, concurrency=settings.concurrency, sink=sink)
    spec = make_spec(configuration, settings)
    if heard is not None:
        spec = replace(spec, logs=True)
    return Pool(
        spec,
        state=configuration.state_dir,
        scratch=None if lock else _scratch_of_commands(),
        lock=lock,
        sink=sink,
        cgroups=find_cgroup_home(),
        heard=heard,
        note=note,
    )


def _scratch_of_commands() -> Path | None:
    """Say where a command that runs a function once lets it write: not in the state, which may not even be there.

    None = in the state all the same: nothing else can be written.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        return None


def make_sink(
    configuration: Configuration, settings: AnyFunction, hear: Callable[[str], Listener]
) -> tuple[LogSink, Callable[[], Awaitable[None]]]:
    """Make what takes the log of a function, and what closes that; nothing is connected to before it is written to.

    `hear` gives who hears of how it is shipped, by the function's name.
    """
    name = settings.name.partition(":")[0]
    if isinstance(settings, FunctionSettings) and settings.ships_logs:
        shipper = Shipper(settings.group, make_log_streams(configuration, name), hear(name), time.time)
        return shipper, shipper.close
    file = RotatingFile(log_file(configuration.state_dir, name))

    async def close() -> None:
        file.close()

    return file, close


def make_log_streams(configuration: Configuration, function: str) -> LogStreams:
    """Make what takes the log of a function elsewhere; nothing is connected to."""
    aws = configuration.aws
    streams: LogStreams = load(LOG_STREAMS)(f"CloudWatch Logs of function {function}", aws.endpoint_url, aws.region)
    return streams


def make_target(settings: TargetSettings) -> Target:
    """Make what calls a function that runs elsewhere."""
    target: Target = load(TARGETS[type(settings)])(settings)
    return target


def make_event_target(arn: str, aws: AwsSettings, here: Here, catalogue: Catalogue, accepts: Accepts) -> EventTarget:
    """Make what sends to a target of asynchronous events.

    Args:
        arn: its ARN.
        aws: how AWS is reached.
        here: what the ARNs of our functions are made of.
        catalogue: has our functions.
        accepts: takes their events in.

    Raises:
        DestinationUnavailable: it is none that may be told.
    """
    function = function_here(arn, here)
    if function:
        return FunctionTarget(arn, *function, catalogue, accepts)
    service = arn.split(":")[2] if arn.count(":") >= _ARN_COLONS else ""
    if service not in EVENT_TARGETS:
        raise DestinationUnavailable(f"{arn}: it is no queue, topic, function, event bus or bucket; correct its ARN")
    target: EventTarget = load(EVENT_TARGETS[service])(arn, aws)
    return target


def make_spec(configuration: Configuration, settings: FunctionSettings) -> FunctionSpec:
    """Say how the workers of a function are started: `orders`, or `orders:3` for a published version."""
    name, _, version = settings.name.partition(":")
    return FunctionSpec(
        name,
        settings.handler,
        settings.code,
        python=settings.python,
        timeout_s=settings.timeout_s,
        memory_bytes=settings.memory_bytes,
        concurrency=settings.reserved_concurrency or DEFAULT_CONCURRENCY,
        concurrency_per_worker=settings.concurrency_per_worker,
        environment={variable: secret.reveal() for variable, secret in settings.environment.items()},
        aws=aws_variables(os.environ, settings.environment, configuration.aws.endpoint_url),
        region=home_region(configuration.aws),
        logs=settings.logs,
        log_level=settings.log_level,
        snap_start=settings.snap_start,
        log_group=settings.log_group,
        json_logs=settings.log_format == "json",
        version=version or LATEST,
        account_id=configuration.aws.account_id,
        runtime=settings.runtime,
    )


def make_credentials(api: ApiSettings) -> Credentials:
    """Say what callers of the API show."""
    keys = {key.access_key_id: AccessKey(key.secret_access_key.reveal(), key.service) for key in api.keys}
    return Credentials(keys, api.metrics_token.reveal() if api.metrics_token else None)


def home_region(aws: AwsSettings) -> str:
    """Give the region that functions are in: that which the AWS libraries use, where they have one."""
    return aws.region or usual_region(os.environ) or DEFAULT_REGION


def describe_function(settings: AnyFunction) -> str:
    """Say what a function is: its handler, its ARN, or where it is, without what may be a key."""
    match settings:
        case LambdaFunction():
            return settings.invoked_arn
        case UrlFunction(url=url):
            parts = urlsplit(url.reveal())
            return f"{parts.scheme}://{parts.netloc}"
        case _:
            return settings.handler
