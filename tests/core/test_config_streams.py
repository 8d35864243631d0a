"""Streams of shards, Kinesis and DynamoDB: what the file says of them, and what it may not."""

import pytest

from config.settings import MappingSettings
from connectors.settings import DynamoDbSettings, KafkaDestination, KinesisSettings, Security
from router.core.model import STREAM_RULES, EventSourceMapping, Pace, at_time
from tests.core.configured import configuration, mistakes
from tests.core.test_config_aws import START

M = "event_source_mappings.m"
STREAM = "arn:aws:kinesis:eu-west-1:111111111111:stream/clicks"
CONSUMER = f"{STREAM}/consumer/reader:1700000000"
TABLE = "arn:aws:dynamodb:eu-west-1:111111111111:table/orders/stream/2024-05-01T00:00:00.000"


def streamed(source, function="{handler: app.handle, code: .}"):
    """A configuration whose next line is the seventh, of the mapping where it is indented by four."""
    return f"""\
functions:
  f: {function}
event_source_mappings:
  m:
    function: f
    source: {{{source}}}
"""


KINESIS = streamed("kinesis: {stream: clicks}")
FAN_OUT = streamed(f"kinesis: {{stream: '{CONSUMER}'}}")
DYNAMODB = streamed("dynamodb: {table: orders}")


def only(settings):
    (mapping,) = settings.mappings
    return mapping


# --- what arrives


def test_defaults_of_kinesis(tmp_path):
    assert only(configuration(tmp_path, KINESIS)) == MappingSettings(
        mapping=EventSourceMapping(
            "m", "f", STREAM_RULES, batch_size=100, drain_s=8.0, pace=Pace(1.0, 0.2, 2_000_000), buffer_count=10_000
        ),
        enabled=True,
        source=KinesisSettings("m", "clicks", endpoint_url=None, region=None, deaggregate=False),
        filters=(),
        destination=None,
    )


def test_defaults_of_dynamodb(tmp_path):
    assert only(configuration(tmp_path, DYNAMODB)) == MappingSettings(
        mapping=EventSourceMapping("m", "f", STREAM_RULES, batch_size=100, drain_s=8.0, pace=Pace(0.25, 0.25)),
        enabled=True,
        source=DynamoDbSettings("m", "orders", endpoint_url=None, region=None),
        filters=(),
        destination=None,
    )


def test_every_key_of_kinesis_arrives(tmp_path):
    source = "kinesis: {stream: clicks, endpoint_url: 'http://h:1', region: r, deaggregate: true, poll_interval: 5s}"
    text = f"""{streamed(source)}\
    starting_position: AT_TIMESTAMP
    starting_position_timestamp: 1600000000.25
    batch_size: 10000
    maximum_batching_window_in_seconds: 300
    parallelization_factor: 100
    maximum_retry_attempts: 2
    maximum_record_age_in_seconds: 604800
    bisect_batch_on_function_error: true
    function_response_types: [ReportBatchItemFailures]
    commit_interval: 5s
    filter_criteria: {{filters: [{{pattern: {{data: {{kind: [click]}}}}}}]}}
"""
    settings = only(configuration(tmp_path, text))
    assert settings.mapping == EventSourceMapping(
        "m",
        "f",
        STREAM_RULES,
        batch_size=10000,
        window_s=300.0,
        parallelization_factor=100,
        maximum_retry_attempts=2,
        maximum_record_age_s=604800.0,
        bisect=True,
        report_item_failures=True,
        drain_s=8.0,
        commit_interval_s=5.0,
        pace=Pace(5.0, 0.2, 2_000_000),
        buffer_count=2_000_000,
        starting_position="AT_TIMESTAMP",
        starting_time_ms=1_600_000_000_250,
    )
    assert settings.source == KinesisSettings("m", "clicks", "http://h:1", "r", deaggregate=True)


def test_every_key_of_dynamodb_arrives(tmp_path):
    text = f"""{streamed("dynamodb: {table: orders, endpoint_url: 'http://h:1', region: r, poll_interval: 100ms}")}\
    starting_position: LATEST
    tumbling_window_in_seconds: 900
    parallelization_factor: 1
    filter_criteria: {{filters: []}}
"""
    settings = only(configuration(tmp_path, text))
    assert settings.mapping == EventSourceMapping(
        "m",
        "f",
        STREAM_RULES,
        drain_s=8.0,
        pace=Pace(0.1, 0.1),
        starting_position="LATEST",
        tumbling_window_s=900,
    )
    assert settings.source == DynamoDbSettings("m", "orders", "http://h:1", "r")


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [(KINESIS, 1_600_000_000_999), (DYNAMODB, 1_600_000_000_000)],
)
def test_a_time_to_start_at_is_cut_to_what_records_have(tmp_path, text, time_ms):
    """A record of a table that came after the time may be stamped with its second, and is not to be lost."""
    at = "    starting_position: AT_TIMESTAMP\n    starting_position_timestamp: 2020-09-13T12:26:40.999Z\n"
    mapping = only(configuration(tmp_path, text + at)).mapping
    assert mapping.starting_time_ms == time_ms
    assert at_time(time_ms) < -1


def test_a_consumer_is_not_polled(tmp_path):
    settings = only(configuration(tmp_path, FAN_OUT))
    assert settings.mapping.pace == Pace(0.0, 0.0)
    assert settings.source == KinesisSettings("m", CONSUMER, None, "eu-west-1")
    assert (settings.source.is_consumer, settings.source.name) == (True, "clicks")


@pytest.mark.parametrize("interval", ["1m", "10s"])
def test_a_shard_that_has_something_is_not_read_more_slowly(tmp_path, interval):
    text = streamed(f"dynamodb: {{table: orders, poll_interval: {interval}}}")
    assert only(configuration(tmp_path, text)).mapping.pace.busy_s == 0.25


@pytest.mark.parametrize(
    ("source", "name", "region"),
    [
        ("kinesis: {stream: clicks.v2}", "clicks.v2", "us-east-2"),
        (f"kinesis: {{stream: '{STREAM}'}}", "clicks", "eu-west-1"),
        (f"kinesis: {{stream: '{CONSUMER}'}}", "clicks", "eu-west-1"),
        (f"kinesis: {{region: other, stream: '{STREAM}'}}", "clicks", "other"),
        ("dynamodb: {table: orders}", "orders", "us-east-2"),
        (f"dynamodb: {{table: '{TABLE}'}}", "orders", "eu-west-1"),
        (f"dynamodb: {{region: other, table: '{TABLE}'}}", "orders", "other"),
        (f"dynamodb: {{table: '{TABLE.replace('eu-west-1', 'ddblocal')}'}}", "orders", "ddblocal"),
    ],
)
def test_the_region_of_a_stream(tmp_path, source, name, region):
    text = streamed(source) + "aws: {endpoint_url: 'http://h', region: us-east-2}\n"
    settings = only(configuration(tmp_path, text)).source
    assert (settings.name, settings.region, settings.endpoint_url) == (name, region, "http://h")


def test_a_function_that_only_reads_such_streams_may_run_longer(tmp_path):
    text = streamed("kinesis: {stream: clicks}", "{handler: a.b, code: ., timeout: 15m}")
    assert only(configuration(tmp_path, text)).mapping.drain_s == 905.0


def test_a_large_batch_needs_no_window(tmp_path):
    """AWS has no such rule for streams either."""
    assert only(configuration(tmp_path, f"{KINESIS}    batch_size: 101\n")).mapping.window_s == 0.0


def test_kafka_keeps_where_it_starts_with_its_source(tmp_path):
    text = streamed("kafka: {bootstrap_servers: 'h:1', topic: t}") + "    starting_position: LATEST\n"
    settings = only(configuration(tmp_path, text))
    assert (settings.source.starting_position, settings.mapping.starting_position) == ("LATEST", "TRIM_HORIZON")


@pytest.mark.parametrize("text", [KINESIS, DYNAMODB])
def test_a_topic_of_a_cluster_as_destination_of_a_stream(tmp_path, text):
    text += "    destination_config: {on_failure: {kafka: {topic: dead, bootstrap_servers: 'h:1'}}}\n"
    assert only(configuration(tmp_path, text)).destination == KafkaDestination("dead", ("h:1",), Security())


# --- AWS's forms


def test_properties_of_a_kinesis_mapping(tmp_path):
    text = f"""{START}\
    EventSourceArn: {STREAM}
    StartingPosition: AT_TIMESTAMP
    StartingPositionTimestamp: 1600000000
    BatchSize: 500
    MaximumBatchingWindowInSeconds: 5
    ParallelizationFactor: 10
    MaximumRetryAttempts: 3
    MaximumRecordAgeInSeconds: 60
    BisectBatchOnFunctionError: true
    FunctionResponseTypes: [ReportBatchItemFailures]
    TumblingWindowInSeconds: 0
    FilterCriteria: {{Filters: [{{Pattern: '{{"data": {{"kind": ["click"]}}}}'}}]}}
    DestinationConfig: {{OnFailure: {{Destination: arn:aws:s3:::failed}}}}
"""
    settings = only(configuration(tmp_path, text))
    assert settings.mapping == EventSourceMapping(
        "m",
        "f",
        STREAM_RULES,
        batch_size=500,
        window_s=5.0,
        parallelization_factor=10,
        maximum_retry_attempts=3,
        maximum_record_age_s=60.0,
        bisect=True,
        report_item_failures=True,
        drain_s=8.0,
        pace=Pace(1.0, 0.2, 2_000_000),
        buffer_count=10_000,
        starting_position="AT_TIMESTAMP",
        starting_time_ms=1_600_000_000_000,
    )
    assert settings.source == KinesisSettings("m", STREAM, None, "eu-west-1")


@pytest.mark.parametrize(
    ("arn", "source"),
    [
        (STREAM, KinesisSettings("m", STREAM, None, "eu-west-1")),
        (CONSUMER, KinesisSettings("m", CONSUMER, None, "eu-west-1")),
        (TABLE, DynamoDbSettings("m", TABLE, None, "eu-west-1")),
    ],
)
def test_arns_of_streams(tmp_path, arn, source):
    text = f"{START}    EventSourceArn: {arn}\n    StartingPosition: TRIM_HORIZON\n    TumblingWindowInSeconds: 30\n"
    settings = only(configuration(tmp_path, text))
    assert settings.source == source
    assert settings.mapping.tumbling_window_s == 30


def test_what_a_form_says_and_what_the_source_says_come_together(tmp_path):
    text = f"{START}    EventSourceArn: {STREAM}\n    source: {{kinesis: {{poll_interval: 3s}}}}\n"
    settings = only(configuration(tmp_path, text))
    assert (settings.source.stream, settings.mapping.pace.idle_s) == (STREAM, 3.0)
    text = f"{START}    EventSourceArn: {TABLE}\n    source: {{kinesis: {{poll_interval: 3s}}}}\n"
    assert f"headrace.yaml:7: {M}.source.kinesis.stream: found nothing" in mistakes(tmp_path, text)[0]


# --- mistakes


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (KINESIS, "batch_size: 10001", "batch_size: found 10001, allowed 1 to 10000"),
        (KINESIS, "parallelization_factor: 0", "parallelization_factor: found 0, allowed 1 to 100"),
        (DYNAMODB, "parallelization_factor: 101", "parallelization_factor: found 101, allowed 1 to 100"),
        (KINESIS, "tumbling_window_in_seconds: 901", "tumbling_window_in_seconds: found 901, allowed 0 to 900"),
        (KINESIS, "tumbling_window_in_seconds: -1", "tumbling_window_in_seconds: found -1, allowed 0 to 900"),
        (KINESIS, "tumbling_window_in_seconds: 1.5",
         "tumbling_window_in_seconds: found 1.5, allowed a whole number, 0 to 900"),
        (DYNAMODB, "TumblingWindowInSeconds: 30s",
         'TumblingWindowInSeconds: found "30s", allowed a number, 0 to 900'),
        (KINESIS, "starting_position: OLDEST",
         'starting_position: found "OLDEST", allowed TRIM_HORIZON, LATEST or AT_TIMESTAMP'),
        (KINESIS, "starting_position_timestamp: 5",
         "starting_position_timestamp: allowed with starting_position AT_TIMESTAMP only"),
        (DYNAMODB, "starting_position_timestamp: 5",
         "starting_position_timestamp: allowed with starting_position AT_TIMESTAMP only"),
        (KINESIS, "maximum_record_age_in_seconds: 59",
         "maximum_record_age_in_seconds: found 59, allowed -1 or 60 to 604800"),
        (DYNAMODB, "maximum_record_age_in_seconds: 604801",
         "maximum_record_age_in_seconds: found 604801, allowed -1 or 60 to 604800"),
        (KINESIS, "maximum_batching_window_in_seconds: 301",
         "maximum_batching_window_in_seconds: found 301, allowed 0 to 300"),
        (KINESIS, "scaling_config: {maximum_concurrency: 5}",
         ("scaling_config: found with source kinesis, allowed with sqs and s3 only: parallelization_factor, "
          "for each partition or shard, and the function's reserved_concurrency bound it")),
        (DYNAMODB, "ScalingConfig: {}",
         ("ScalingConfig: found with source dynamodb, allowed with sqs and s3 only: parallelization_factor, "
          "for each partition or shard, and the function's reserved_concurrency bound it")),
        (KINESIS, "destination_config: {on_failure: {kafka: {topic: dead}}}",
         "destination_config.on_failure.kafka.bootstrap_servers: found nothing, needed with source kinesis"),
        (DYNAMODB, "destination_config: {on_failure: {kafka: {topic: dead}}}",
         "destination_config.on_failure.kafka.bootstrap_servers: found nothing, needed with source dynamodb"),
        (KINESIS, "DestinationConfig: {OnSuccess: {Destination: a}}",
         "DestinationConfig.OnSuccess: event source mappings have no such destination, on AWS neither"),
        (KINESIS, f"EventSourceArn: {STREAM}",
         f"EventSourceArn: found beside {M}.source.kinesis.stream in line 6, allowed one of them"),
        (KINESIS, f"EventSourceArn: {TABLE}", "source: found EventSourceArn and kinesis, allowed one of them"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_mapping(tmp_path, text, line, expected):
    where = {"source": 6}.get(expected.partition(":")[0], 7)
    assert mistakes(tmp_path, f"{text}    {line}\n") == [f"headrace.yaml:{where}: {M}.{expected}"]


NAMES = "allowed name or ARN of a stream, or ARN of a consumer of it"
TABLES = "allowed name of a table, or ARN of its stream"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("kinesis: {}", f"kinesis.stream: found nothing, {NAMES}"),
        ("kinesis: clicks", 'kinesis: found "clicks", allowed a block of keys'),
        ("kinesis: {stream: 5}", f"kinesis.stream: found 5, {NAMES}"),
        ("kinesis: {stream: 'a b'}", f'kinesis.stream: found "a b", {NAMES}'),
        ("kinesis: {stream: 'arn:aws:kinesis:eu-west-1:1:stream/'}",
         f'kinesis.stream: found "arn:aws:kinesis:eu-west-1:1:stream/", {NAMES}'),
        ("kinesis: {stream: 'arn:aws:kinesis:eu-west-1:1:stream/s/consumer/c'}",
         f'kinesis.stream: found "arn:aws:kinesis:eu-west-1:1:stream/s/consumer/c", {NAMES}'),
        (f"kinesis: {{stream: '{TABLE[:50]}'}}", f'kinesis.stream: found "{TABLE[:50]}", {NAMES}'),
        ("kinesis: {stream: clicks, table: t}",
         "kinesis.table: unknown key, allowed stream, endpoint_url, region, deaggregate, poll_interval"),
        ("kinesis: {stream: clicks, deaggregate: 'yes'}",
         'kinesis.deaggregate: found "yes", allowed true or false'),
        ("kinesis: {stream: clicks, poll_interval: 100ms}",
         'kinesis.poll_interval: found "100ms", allowed 200ms to 1m'),
        ("kinesis: {stream: clicks, poll_interval: 61}", "kinesis.poll_interval: found 61, allowed 200ms to 1m"),
        ("kinesis: {stream: clicks, poll_interval: '5'}",
         ('kinesis.poll_interval: found the text "5", '
          "allowed seconds as a number, or 500ms, 30s, 5m, 2h, 30d: 200ms to 1m")),
        (f"kinesis: {{stream: '{CONSUMER}', poll_interval: 1s}}",
         ("kinesis.poll_interval: found with a consumer, allowed with a stream only: "
          "a consumer is not polled, its records are pushed")),
        ("kinesis: {stream: clicks, endpoint_url: 'http://me:word@h'}",
         ("kinesis.endpoint_url: found a URL with credentials (not shown), "
          "allowed http(s)://host[:port] without credentials")),
        ("dynamodb: {}", f"dynamodb.table: found nothing, {TABLES}"),
        ("dynamodb: {table: ab}", f'dynamodb.table: found "ab", {TABLES}'),
        ("dynamodb: {table: 'arn:aws:dynamodb:eu-west-1:1:table/orders'}",
         f'dynamodb.table: found "arn:aws:dynamodb:eu-west-1:1:table/orders", {TABLES}'),
        ("dynamodb: {table: orders, stream: s}",
         "dynamodb.stream: unknown key, allowed table, endpoint_url, region, poll_interval"),
        ("dynamodb: {table: orders, poll_interval: 0}", "dynamodb.poll_interval: found 0, allowed 100ms to 1m"),
        ("dynamodb: {table: orders, poll_interval: .nan}",
         "dynamodb.poll_interval: found .nan, allowed 100ms to 1m"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_the_source(tmp_path, source, expected):
    assert mistakes(tmp_path, streamed(source)) == [f"headrace.yaml:6: {M}.source.{expected}"]


@pytest.mark.parametrize("text", [KINESIS, DYNAMODB])
@pytest.mark.parametrize("stamp", ["-1", "1700000001", "2023-11-14T22:13:21Z", "2023-11-14T22:13:19", ".inf"])
def test_no_time_to_start_at(tmp_path, text, stamp):
    lines = f"    starting_position: AT_TIMESTAMP\n    starting_position_timestamp: {stamp}\n"
    [line] = mistakes(tmp_path, text + lines)
    assert line.startswith(f"headrace.yaml:8: {M}.starting_position_timestamp: found ")
    assert line.endswith("allowed ISO 8601 with a zone (2024-05-01T00:00:00Z) or epoch seconds, not in the future")


def test_a_time_to_start_at_there_must_be(tmp_path):
    assert mistakes(tmp_path, f"{DYNAMODB}    starting_position: AT_TIMESTAMP\n") == [
        f"headrace.yaml:4: {M}.starting_position_timestamp: found nothing, needed with starting_position AT_TIMESTAMP"
    ]


@pytest.mark.parametrize("text", [KINESIS, FAN_OUT, DYNAMODB])
def test_a_tumbling_window_takes_all_records_of_a_shard_one_after_the_other(tmp_path, text):
    window = f"{text}    tumbling_window_in_seconds: 30\n"
    assert mistakes(tmp_path, f"{window}    parallelization_factor: 2\n") == [
        f"headrace.yaml:8: {M}.parallelization_factor: found 2, allowed 1 with tumbling_window_in_seconds, as on AWS"
    ]
    assert mistakes(tmp_path, f"{window}    filter_criteria: {{filters: [{{pattern: {{data: {{a: [1]}}}}}}]}}\n") == [
        (
            f"headrace.yaml:8: {M}.filter_criteria.filters: "
            "found a list of 1, allowed none with tumbling_window_in_seconds, as on AWS"
        )
    ]
    for right in (
        "parallelization_factor: 1",
        "filter_criteria: {filters: []}",
        "bisect_batch_on_function_error: true",
    ):
        assert mistakes(tmp_path, f"{window}    {right}\n") == []
    assert mistakes(tmp_path, f"{window.replace('30', '0')}    parallelization_factor: 2\n") == []


def test_a_tumbling_window_is_named_as_it_is_written(tmp_path):
    text = f"{START}    EventSourceArn: {STREAM}\n    TumblingWindowInSeconds: 30\n"
    assert mistakes(tmp_path, f"{text}    ParallelizationFactor: 2\n") == [
        f"headrace.yaml:8: {M}.ParallelizationFactor: found 2, allowed 1 with TumblingWindowInSeconds, as on AWS"
    ]
    pattern = '{Filters: [{Pattern: \'{"data": {"a": [1]}}\'}]}'
    assert mistakes(tmp_path, f"{text}    FilterCriteria: {pattern}\n") == [
        (
            f"headrace.yaml:8: {M}.FilterCriteria.Filters: "
            "found a list of 1, allowed none with TumblingWindowInSeconds, as on AWS"
        )
    ]


@pytest.mark.parametrize(
    ("source", "more"),
    [
        ("sqs: {queue: q}", ""),
        ("s3: {queue: q, bucket: uploads}", ""),
        ("kafka: {bootstrap_servers: 'h:1', topic: t}", "    parallelization_factor: 2\n"),
    ],
)
def test_no_other_source_has_windows(tmp_path, source, more):
    kind = source.partition(":")[0]
    assert mistakes(tmp_path, f"{streamed(source)}    tumbling_window_in_seconds: 30\n{more}") == [
        (
            f"headrace.yaml:7: {M}.tumbling_window_in_seconds: found with source {kind}, allowed with kinesis and "
            "dynamodb only: windows are of their shards, on AWS too"
        )
    ]


# --- several mappings


def two(first, second, function="f"):
    """Two mappings; the source of the second is in line 10."""
    text = streamed(first).replace("  f:", "  g: {handler: a.b, code: .}\n  f:")
    return f"{text}  n:\n    function: {function}\n    source: {{{second}}}\n"


TWICE = "same stream and function as mapping m, allowed another stream or function"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("kinesis: {stream: clicks}", "kinesis: {stream: clicks}", True),
        ("kinesis: {stream: clicks}", f"kinesis: {{stream: '{STREAM}'}}", True),
        ("kinesis: {stream: clicks}", "kinesis: {stream: views}", False),
        ("kinesis: {stream: clicks}", "kinesis: {stream: clicks, endpoint_url: 'http://h'}", False),
        (f"kinesis: {{stream: '{STREAM}'}}", f"kinesis: {{stream: '{STREAM.replace('-1', '-2')}'}}", False),
        (f"kinesis: {{stream: '{STREAM}'}}", "kinesis: {stream: clicks, region: eu-west-2}", False),
        (f"kinesis: {{stream: '{STREAM}'}}", f"kinesis: {{stream: '{CONSUMER}'}}", False),
        ("kinesis: {stream: orders}", "dynamodb: {table: orders}", False),
        ("dynamodb: {table: orders}", "dynamodb: {table: orders}", True),
        ("dynamodb: {table: orders}", f"dynamodb: {{table: '{TABLE}'}}", True),
        (f"dynamodb: {{table: '{TABLE}'}}", f"dynamodb: {{table: '{TABLE.replace('1:', '2:')}'}}", False),
    ],
)
def test_two_mappings_of_one_stream_and_function_are_refused(tmp_path, first, second, same):
    key = "table" if "table" in second else "stream"
    place = f"event_source_mappings.n.source.{second.partition(':')[0]}.{key}"
    assert mistakes(tmp_path, two(first, second)) == [f"headrace.yaml:10: {place}: {TWICE}"] * same
    assert mistakes(tmp_path, two(first, second) + "    enabled: false\n") == []
    others = configuration(tmp_path, two(first, second, "g"))
    assert (len(others.mappings), others.notices) == (2, ())


@pytest.mark.parametrize("function", ["f", "g"])
def test_a_consumer_has_one_mapping(tmp_path, function):
    source = f"kinesis: {{stream: '{CONSUMER}'}}"
    assert mistakes(tmp_path, two(source, source, function)) == [
        (
            "headrace.yaml:10: event_source_mappings.n.source.kinesis.stream: same consumer as mapping m, allowed "
            "another one: a consumer has one subscription to a shard, which one mapping would take from the other"
        )
    ]
    other = source.replace("reader", "writer")
    assert mistakes(tmp_path, two(source, other, function)) == []


def test_a_duplicate_is_told_where_it_was_written(tmp_path):
    text = f"{START}    EventSourceArn: {STREAM}\n  n:\n    FunctionName: f\n    EventSourceArn: {STREAM}\n"
    assert mistakes(tmp_path, text) == [f"headrace.yaml:9: event_source_mappings.n.EventSourceArn: {TWICE}"]


# --- what may surprise


@pytest.mark.parametrize("text", [KINESIS, DYNAMODB])
def test_a_destination_that_is_never_told_is_a_notice(tmp_path, text):
    text = f"{text}    destination_config: {{on_failure: {{file: {{path: failed.jsonl}}}}}}\n"
    settings = configuration(tmp_path, text)
    assert only(settings).mapping.maximum_retry_attempts is None
    assert settings.notices == (
        (
            f"{M}.maximum_retry_attempts: -1 tries what fails again without end, as on AWS, and its shard waits behind "
            "it, so the destination is never told; give a number of retries, or maximum_record_age_in_seconds"
        ),
    )
    assert configuration(tmp_path, f"{text}    maximum_record_age_in_seconds: 60\n").notices == ()
    assert configuration(tmp_path, f"{text}    maximum_retry_attempts: 0\n").notices == ()
