"""The JSON Schema takes all that the file may hold, and refuses what a schema can."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from config.json_schema import json_schema
from router.cli import main
from tests.core.configured import RIGHT, mistakes, plain
from tests.core.test_config_aws import KAFKA, QUEUE, SQS, START
from tests.core.test_config_hostile import AWS, flow, values
from tests.core.test_config_queues import queued
from tests.core.test_config_streams import CONSUMER, DYNAMODB, FAN_OUT, KINESIS, STREAM, TABLE

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def refused(text):
    return not VALIDATOR.is_valid(plain(text))


def test_it_is_a_schema_and_is_printed(capsys):
    Draft202012Validator.check_schema(SCHEMA)
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def test_editors_are_told_what_a_key_means_takes_and_is_without_it():
    keys = SCHEMA["$defs"]["Function"]["properties"]
    assert keys["memory_size"] == {
        "type": "integer",
        "minimum": 128,
        "maximum": 10240,
        "description": "MB that a worker may use. Takes 128 to 10240.",
        "default": 128,
    }
    assert SCHEMA["$defs"]["Function"]["properties"]["MemorySize"] == {
        "$ref": "#/$defs/Function/properties/memory_size"
    }


def test_every_default_is_what_the_key_takes():
    checked = 0
    for block in SCHEMA["$defs"].values():
        for declared in block["properties"].values():
            if "default" in declared:
                Draft202012Validator({**declared, "$defs": SCHEMA["$defs"]}).validate(declared["default"])
                checked += 1
    assert checked > 30


def test_the_patterns_are_those_that_editors_know():
    """Inline flags, `\\Z` and named groups are of Python only."""
    patterns = re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps(SCHEMA))
    assert len(patterns) > 20
    assert [pattern for pattern in patterns if re.search(r"\(\?[a-zA-Z]|\\\\[AZ]", pattern)] == []


@pytest.mark.parametrize(
    "text",
    [
        RIGHT,
        SQS,
        KAFKA,
        f"{RIGHT}listen: ${{env:LISTEN}}\nlog_level: ${{file:level}}\ndrain_timeout: ${{env:TIME}}\n",
        RIGHT.replace("app.handle", "${env:HANDLER}"),
        f"{RIGHT}aws:\nfailures:\n",
        f"{SQS}    source: {{sqs: {{visibility_heartbeat: true}}}}\n",
        f"{SQS}    source:\n      sqs:\n",
        f"{KAFKA}    source: {{kafka: {{security: {{protocol: SSL}}}}}}\n",
        f"{KAFKA}    DestinationConfig: {{OnFailure: {{Destination: 'kafka://t', kafka: }}}}\n",
        SQS.replace(QUEUE, f"{QUEUE}.fifo"),
        f"{SQS}    Tags: {{a: b}}\n    KMSKeyArn: k\n    metrics_config: 5\n",
        f"{SQS}    MetricsConfig:\n    logging_config: {{system_log_level: WARN}}\n",
        queued("sqs: {queue: '${env:QUEUE}'}") + "    batch_size: 20\n    maximum_batching_window_in_seconds: 1\n",
        queued("s3: {bucket: uploads, queue: q, filter: }"),
        START.replace("FunctionName", "function") + "    source: {kafka: {bootstrap_servers: 'a:1, b:2', topic: t}}\n",
        KINESIS,
        DYNAMODB,
        FAN_OUT,
        f"{START}    EventSourceArn: {STREAM}\n    ParallelizationFactor: 100\n    batch_size: 20\n",
        f"{START}    EventSourceArn: {STREAM}.fifo\n    BatchSize: 20\n    MaximumBatchingWindowInSeconds: 1\n",
        f"{START}    EventSourceArn: {TABLE}\n    TumblingWindowInSeconds: 30\n    ParallelizationFactor: 1\n",
        f"{START}    EventSourceArn: {CONSUMER}\n    source: {{kinesis: {{deaggregate: true}}}}\n",
        f"{START}    EventSourceArn: ${{env:TABLE}}\n    source: {{dynamodb: {{poll_interval: 1s}}}}\n",
        f"{KINESIS}    tumbling_window_in_seconds: 0\n    parallelization_factor: 2\n",
        f"{KINESIS}    tumbling_window_in_seconds: 9\n    FilterCriteria: {{Filters: []}}\n",
    ],
)
def test_what_is_right_is_taken(tmp_path, text):
    (tmp_path / "level").write_text("debug")
    environment = {"LISTEN": "127.0.0.1:1", "TIME": "5s", "HANDLER": "a.b", "QUEUE": "q", "TABLE": TABLE}
    assert mistakes(tmp_path, text, **environment) == []
    VALIDATOR.validate(plain(text))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (RIGHT, "batch_size: 0"),
        (RIGHT, "batch_size: '5'"),
        (RIGHT, "batch_size: true"),
        (RIGHT, "batch_size:"),
        (RIGHT, "batchsize: 5"),
        (RIGHT, "Batchsize: 5"),
        (RIGHT, "BatchSize: 10001"),
        (RIGHT, "CommitInterval: 5s"),
        (RIGHT, "commit_interval: 5 s"),
        (RIGHT, "maximum_retry_attempts: -2"),
        (RIGHT, "enabled: yes"),
        (RIGHT, "starting_position: EARLIEST"),
        (RIGHT, "starting_position: AT_TIMESTAMP"),
        (RIGHT, "starting_position_timestamp: 5"),
        (RIGHT, "tumbling_window_in_seconds: 5"),
        (RIGHT, "ProvisionedPollerConfig: {}"),
        (RIGHT, "renamed_from: x y"),
        (RIGHT, "scaling_config: {maximum_concurrency: 5}"),
        (RIGHT, "ScalingConfig: {MaximumConcurrency: 5}"),
        (RIGHT, "function_response_types: [Report]"),
        (RIGHT, "filter_criteria: {filters: [{pattern: 3}]}"),
        (RIGHT, "filter_criteria: {filters: [{}]}"),
        (RIGHT, "destination_config: {on_failure: {}}"),
        (RIGHT, "destination_config: {on_failure: {sqs: {queue: q.fifo}}}"),
        (RIGHT, "destination_config: {on_failure: {sqs: {queue: q}, file: {path: f}}}"),
        (RIGHT, "destination_config: {on_failure: {sqs: {}}}"),
        (RIGHT, "destination_config: {on_failure: {sns: {topic: t.fifo}}}"),
        (RIGHT, "destination_config: {on_failure: {http: {url: 5}}}"),
        (RIGHT, "destination_config: {on_success: {}}"),
        (RIGHT, "FunctionName: f"),
        (RIGHT, "Topics: [orders]"),
        (RIGHT, f"EventSourceArn: {QUEUE}"),
        (RIGHT, "batch_size: 5\n    BatchSize: 5"),
        (SQS, "batch_size: 11"),
        (SQS, "ParallelizationFactor: 2"),
        (SQS, "starting_position: LATEST"),
        (SQS, "commit_interval: 5s"),
        (SQS, "event_source_arn: x"),
        (SQS, "Topics: [orders]"),
        (SQS, "source: {sqs: {queue: q}}"),
        (SQS, "source: {kafka: {client_id: q}}"),
        (SQS, "Queues: [q]"),
        (SQS.replace(QUEUE, f"{QUEUE}.fifo"), "BatchSize: 11"),
        (SQS.replace(QUEUE, f"{QUEUE}.fifo"), "MaximumBatchingWindowInSeconds: 1"),
        (KAFKA, "SourceAccessConfigurations: [{Type: BASIC_AUTH, URI: a}]"),
        (KAFKA, "SourceAccessConfigurations: [{Type: VPC_SUBNET}]"),
        (KAFKA, "SelfManagedKafkaEventSourceConfig: {ConsumptionMode: Queue}"),
        (KAFKA, "topics: [x]"),
        (KAFKA, "DestinationConfig: {OnFailure: {Destination: 'arn:aws:lambda:a:1:b'}}"),
        (START, "EventSourceArn: arn:aws:kinesis:eu-west-1:123456789012:stream"),
        (START, "EventSourceArn: arn:aws:dynamodb:eu-west-1:123456789012:table/orders"),
        (START, "Topics: [orders]"),
        (START, "source: {sqs: {}}"),
        (START, "source: {}"),
        (START, "source: {kafka: {topic: a}}"),
        (START, "source: {kinesis: {table: a}}"),
        (START, "source: {sqs: {queue: q, bucket: b}}"),
        (START, "source: {s3: {bucket: uploads, queue: q.fifo}}"),
        (START, "source: {s3: {bucket: uploads, queue: q, events: ['s3:ObjectCreate:*']}}"),
        (START, "source: {s3: {bucket: uploads}}"),
        (START, "enabled: true"),
        (KINESIS, "batch_size: 10001"),
        (KINESIS, "parallelization_factor: 101"),
        (KINESIS, "scaling_config: {}"),
        (KINESIS, "tumbling_window_in_seconds: 901"),
        (KINESIS, "tumbling_window_in_seconds: 5\n    ParallelizationFactor: 2"),
        (KINESIS, "TumblingWindowInSeconds: 5\n    filter_criteria: {Filters: [{pattern: {data: {a: [1]}}}]}"),
        (KINESIS, "starting_position: AT_TIMESTAMP"),
        (KINESIS, f"EventSourceArn: {STREAM}"),
        (KINESIS, f"EventSourceArn: {QUEUE}"),
        (DYNAMODB, f"EventSourceArn: {STREAM}"),
        (START, "source: {kinesis: {}}"),
        (START, "source: {kinesis: {stream: a/b}}"),
        (START, "source: {kinesis: {stream: a, poll_interval: 0.1}}"),
        (START, f"source: {{kinesis: {{stream: '{CONSUMER}', poll_interval: 1s}}}}"),
        (START, "source: {dynamodb: {table: ab}}"),
        (START, "source: {dynamodb: {table: abc}, kinesis: {stream: abc}}"),
        (f"{START}    EventSourceArn: {STREAM}\n", "Topics: [t]"),
        (f"{START}    EventSourceArn: {STREAM}\n", "ScalingConfig: {MaximumConcurrency: 2}"),
        (f"{START}    EventSourceArn: {STREAM}\n", "source: {dynamodb: {poll_interval: 1s}}"),
        (f"{START}    EventSourceArn: {TABLE}\n", "source: {dynamodb: {table: orders}}"),
        (START.replace("FunctionName: f", "enabled: true"), f"EventSourceArn: {QUEUE}"),
        (START.replace("FunctionName: f", "FunctionName: f:prod"), f"EventSourceArn: {QUEUE}"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_refused(tmp_path, text, line):
    text = f"{text}    {line}\n"
    assert mistakes(tmp_path, text)
    assert refused(text)


SASL = "protocol: SASL_SSL, mechanism: PLAIN, username: u, password: p"


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ("handler: app.handle", "handler: app"),
        ("handler: app.handle, ", ""),
        ("handler: app.handle", "handler: a.b, Handler: a.b"),
        ("handler: app.handle", "handler: a.b, timeout: 1 minute"),
        ("handler: app.handle", "handler: a.b, Timeout: 901"),
        ("handler: app.handle", "handler: a.b, logs: true"),
        ("handler: app.handle", "handler: a.b, url: x"),
        ("handler: app.handle", "handler: a.b, environment: {AWS_REGION: x}"),
        ("handler: app.handle", "handler: a.b, environment: {A: [x]}"),
        ("handler: app.handle", "handler: a.b, Environment: {A: x}"),
        ("handler: app.handle", "handler: a.b, concurrency_per_worker: 0"),
        ("handler: app.handle", "handler: a.b, snap_start: PublishedVersions"),
        ("handler: app.handle", "handler: a.b, SnapStart: {ApplyOn: true}"),
        ("code: .", "code: s3://b/k"),
        ("  m:\n", "  'a b':\n"),
        ("topic: orders", "topic: .."),
        ("topic: orders", "topic: orders, session_timeout: 5"),
        ("topic: orders", "topic: orders, security: {mechanism: PLAIN}"),
        ("topic: orders", "topic: orders, security: {protocol: SASL_SSL, mechanism: PLAIN, username: u}"),
        ("topic: orders", f"topic: orders, security: {{{SASL}, certificate: headrace.yaml}}"),
        ("topic: orders", "topic: orders, security: {protocol: PLAINTEXT, ca: headrace.yaml}"),
        ("functions:", "state: s3://bucket\nfunctions:"),
        ("functions:", "listen: 9301\nfunctions:"),
        ("functions:", "failures: {keep_bytes: 1 Giga}\nfunctions:"),
        ("functions:", "aws: {profile: me}\nfunctions:"),
        ("functions:", "aws: 5\nfunctions:"),
        ("functions:", "lease: 5s\nfunctions:"),
    ],
)
def test_what_is_wrong_elsewhere_is_refused(tmp_path, written, changed):
    text = RIGHT.replace(written, changed)
    assert mistakes(tmp_path, text)
    assert refused(text)


#: Each right with some source.
LINES = [
    "enabled: false",
    "batch_size: 10",
    "batch_size: 11",
    "BatchSize: 5",
    "maximum_batching_window_in_seconds: 0",
    "MaximumBatchingWindowInSeconds: 0.5",
    "ParallelizationFactor: 2",
    "starting_position: AT_TIMESTAMP",
    "StartingPosition: ${env:POSITION}",
    "StartingPositionTimestamp: 5",
    "scaling_config:",
    "ScalingConfig: {maximum_concurrency: 2}",
    "MaximumRetryAttempts: -1",
    "FunctionResponseTypes: []",
    "function_response_types: [ReportBatchItemFailures]",
    "filter_criteria:",
    "FilterCriteria: {Filters: []}",
    "destination_config:",
    "DestinationConfig: {OnFailure: {Destination: 'kafka://dead'}}",
    "DestinationConfig: {OnFailure: {Destination: 'arn:aws:sqs:a:1:dead', sqs: {endpoint_url: 'http://h'}}}",
    "destination_config: {on_failure: {kafka: {topic: dead, bootstrap_servers: 'h:1'}}}",
    "commit_interval: 500ms",
    "retry_backoff: {cap: 1h}",
    "tumbling_window_in_seconds: 9",
    "TumblingWindowInSeconds: 0",
    "EventSourceArn: ${env:ARN}",
    "EventSourceArn: arn:aws:kinesis:a:1:stream/s.fifo",
    "EventSourceArn: arn:aws:dynamodb:a:1:table/abc/stream/2024-05-01T00:00:00.000",
    "EventSourceArn: arn:aws:sqs:a:1:b",
    "event_source_arn: arn:aws:sqs:a:1:b.fifo",
    "Topics: [t]",
    "SelfManagedEventSource: {Endpoints: {KAFKA_BOOTSTRAP_SERVERS: 'h:1'}}",
    "self_managed_event_source: {endpoints: {KafkaBootstrapServers: ['h:1']}}",
    "SelfManagedKafkaEventSourceConfig:",
    "SelfManagedKafkaEventSourceConfig: {ConsumerGroupId: g}",
    "AmazonManagedKafkaEventSourceConfig: {consumer_group_id: g}",
    "SourceAccessConfigurations: []",
    "SourceAccessConfigurations: [{Type: VPC_SUBNET, uri: a}]",
    "Tags: [a]",
    "source: {}",
    "source: {sqs: {queue: q}}",
    "source: {sqs: {queue: q.fifo, hold_message_group: true}}",
    "source: {sqs: }",
    "source: {kinesis: {stream: s, poll_interval: 1s}}",
    "source: {kinesis: {deaggregate: true}}",
    "source: {dynamodb: {table: abc}}",
    "source: {dynamodb: }",
    "source: {s3: {bucket: uploads, queue: q}}",
    "source: {kafka: {client_id: c}}",
    "source: {kafka: {bootstrap_servers: 'h:1', topic: t}}",
    "source: {kafka: {bootstrap_servers: 'h:1', consumer_group: g}}",
]
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


#: The queue or streams that the environment may name.
ARNS = ("arn:aws:sqs:a:1:b", STREAM, CONSUMER, TABLE)


def is_refused_in_vain(folder, text, arn="1"):
    right = not mistakes(folder, text.encode(errors="surrogatepass"), A="1", POSITION="AT_TIMESTAMP", ARN=arn)
    return right and refused(text)


@quick
@given(
    st.sampled_from([START, SQS, KAFKA, KINESIS, FAN_OUT, DYNAMODB]),
    st.lists(st.sampled_from(LINES), max_size=6, unique=True),
    st.sampled_from(ARNS),
)
def test_no_keys_are_refused_that_are_right_together(tmp_path, text, lines, arn):
    assert not is_refused_in_vain(tmp_path, text + "".join(f"    {line}\n" for line in lines), arn)


@quick
@given(st.sampled_from([RIGHT, SQS, KAFKA, KINESIS]), st.dictionaries(st.sampled_from(sorted(AWS)), values, max_size=2))
def test_nothing_is_refused_that_is_right(tmp_path, text, keys):
    assert not is_refused_in_vain(
        tmp_path, text + "".join(f"    {name}: {flow(value)}\n" for name, value in keys.items())
    )
