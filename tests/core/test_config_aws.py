"""AWS's spellings and forms: what a CloudFormation template or the API has in a mapping, pasted."""

import re

import pytest

from config.schema import EventSource, Function
from config.spelling import pascal, snake
from connectors.settings import (
    KafkaDestination,
    KafkaSettings,
    S3Destination,
    SnsDestination,
    SqsDestination,
    SqsSettings,
)
from router.core.model import KAFKA_RULES, QUEUE_RULES, EventSourceMapping, Polling
from tests.core.configured import RIGHT, configuration, mistakes

M = "event_source_mappings.m"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:orders"
ARNS = "allowed ARN of a Kinesis stream or consumer, of a DynamoDB stream, or of an SQS queue"
REFERENCE = "allowed ARN of an SQS queue, SNS topic or S3 bucket, or kafka://TOPIC"
#: The sixth line is the next one, of the mapping where it is indented by four.
START = """\
functions:
  f: {handler: app.handle, code: .}
event_source_mappings:
  m:
    FunctionName: f
"""
SQS = f"{START}    EventSourceArn: {QUEUE}\n"
KAFKA = f"""{START}\
    SelfManagedEventSource: {{Endpoints: {{KAFKA_BOOTSTRAP_SERVERS: ["127.0.0.1:9092"]}}}}
    Topics: [orders]
"""


def only(settings):
    (mapping,) = settings.mappings
    return mapping


def test_properties_of_a_queue_mapping(tmp_path):
    text = f"""{SQS}\
    BatchSize: 100
    MaximumBatchingWindowInSeconds: 5
    ScalingConfig: {{MaximumConcurrency: 20}}
    Enabled: false
    FunctionResponseTypes: [ReportBatchItemFailures]
    FilterCriteria:
      Filters:
        - Pattern: '{{"body": {{"kind": ["order"]}}}}'
    Tags: [{{Key: team, Value: shop}}]
    KmsKeyArn: arn:aws:kms:eu-west-1:123456789012:key/1
    MetricsConfig: {{Metrics: [EventCount]}}
"""
    configured = configuration(tmp_path, text)
    settings = only(configured)
    assert settings.mapping == EventSourceMapping(
        "m",
        "f",
        QUEUE_RULES,
        batch_size=100,
        window_s=5.0,
        report_item_failures=True,
        drain_s=8.0,
        polling=Polling(maximum_concurrency=20, function_concurrency=0),
    )
    assert settings.source == SqsSettings("m", QUEUE, None, "eu-west-1", windowed=True)
    assert (settings.enabled, settings.filters) == (False, ('{"body": {"kind": ["order"]}}',))
    assert configured.notices == (
        f"{M}.Tags: has no effect: nothing here is found by tags",
        f"{M}.KmsKeyArn: has no effect: filters are in this file as they are",
        f"{M}.MetricsConfig: has no effect: all metrics are always served, see listen",
    )


def test_properties_of_a_kafka_mapping(tmp_path):
    text = f"""{KAFKA}\
    SelfManagedKafkaEventSourceConfig: {{ConsumerGroupId: group}}
    SourceAccessConfigurations: [{{Type: VPC_SUBNET, URI: "subnet:subnet-1"}}]
    StartingPosition: AT_TIMESTAMP
    StartingPositionTimestamp: 1600000000
    BatchSize: 7
    MaximumBatchingWindowInSeconds: 3
    ParallelizationFactor: 2
    MaximumRetryAttempts: 5
    MaximumRecordAgeInSeconds: 60
    BisectBatchOnFunctionError: true
    DestinationConfig: {{OnFailure: {{Destination: kafka://failed}}}}
    LoggingConfig: {{SystemLogLevel: DEBUG}}
"""
    configured = configuration(tmp_path, text)
    settings = only(configured)
    assert settings.mapping == EventSourceMapping(
        "m",
        "f",
        KAFKA_RULES,
        batch_size=7,
        window_s=3.0,
        parallelization_factor=2,
        maximum_retry_attempts=5,
        maximum_record_age_s=60.0,
        bisect=True,
        drain_s=8.0,
    )
    source = settings.source
    assert isinstance(source, KafkaSettings)
    assert (source.bootstrap_servers, source.topic, source.consumer_group) == (("127.0.0.1:9092",), "orders", "group")
    assert (source.starting_position, source.starting_timestamp_s) == ("AT_TIMESTAMP", 1600000000.0)
    assert settings.destination == KafkaDestination("failed", source.bootstrap_servers, source.security)
    assert settings.log_level == "debug"
    assert configured.notices == (
        f"{M}.SourceAccessConfigurations[0].Type: VPC_SUBNET has no effect: the network is this machine's",
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("TRACE", "debug"),
        ("DEBUG", "debug"),
        ("INFO", "info"),
        ("WARN", "warning"),
        ("ERROR", "error"),
        ("FATAL", "error"),
    ],
)
def test_the_level_of_a_function_in_words_of_aws(tmp_path, theirs, ours):
    text = RIGHT.replace("code: .", f"code: ., LoggingConfig: {{ApplicationLogLevel: {theirs}, SystemLogLevel: WARN}}")
    configured = configuration(tmp_path, text)
    assert configured.functions["f"].log_level == ours
    assert [notice.partition(": log_level")[0] for notice in configured.notices] == [
        "functions.f.LoggingConfig.SystemLogLevel: has no effect"
    ]


@pytest.mark.parametrize(("theirs", "ours"), [("Text", "text"), ("JSON", "json")])
def test_the_form_and_the_group_of_a_log_in_words_of_aws(tmp_path, theirs, ours):
    text = RIGHT.replace("code: .", f"code: ., LoggingConfig: {{LogFormat: {theirs}, LogGroup: /shop/orders}}")
    configured = configuration(tmp_path, text)
    function = configured.functions["f"]
    assert (function.log_format, function.log_group, function.log_level) == (ours, "/shop/orders", None)
    assert configured.notices == ()


def test_a_form_that_aws_does_not_have_is_refused_with_all_else_that_is_wrong(tmp_path):
    wrong = "LogFormat: json, LogGroup: 'a b', ApplicationLogLevel: all"
    found = mistakes(tmp_path, RIGHT.replace("code: .", f"code: ., LoggingConfig: {{{wrong}}}"))
    assert sorted(each.partition(": found")[0].rpartition(".")[2] for each in found) == [
        "ApplicationLogLevel",
        "LogFormat",
        "LogGroup",
    ]


def test_levels_that_aws_does_not_have_are_refused_and_a_level_is_given_once(tmp_path):
    place = "headrace.yaml:7: event_source_mappings.m.LoggingConfig.SystemLogLevel"
    assert mistakes(tmp_path, f"{RIGHT}    LoggingConfig: {{SystemLogLevel: debug}}\n") == [
        f'{place}: found "debug", allowed DEBUG, INFO or WARN'
    ]
    twice = f"{RIGHT}    log_level: info\n    LoggingConfig: {{SystemLogLevel: DEBUG}}\n"
    assert mistakes(tmp_path, twice) == [
        f"{place.replace(':7', ':8')}: found beside event_source_mappings.m.log_level in line 7, allowed one of them"
    ]


def test_both_spellings_say_the_same(tmp_path):
    lines = [
        "enabled: false",
        "starting_position: AT_TIMESTAMP",
        "starting_position_timestamp: 5",
        "batch_size: 3",
        "maximum_batching_window_in_seconds: 2",
        "parallelization_factor: 2",
        "maximum_retry_attempts: 1",
        "maximum_record_age_in_seconds: 100",
        "bisect_batch_on_function_error: true",
        "function_response_types: [ReportBatchItemFailures]",
        "filter_criteria: {filters: [{pattern: '{\"a\": [1]}'}]}",
        "destination_config: {on_failure: {file: {path: f}}}",
    ]
    ours = RIGHT + "".join(f"    {line}\n" for line in lines)
    elsewhere = ("tumbling_window_in_seconds", "scaling_config")  # not with Kafka
    declared = [name for name, key in EventSource.declared().items() if key.aws]
    assert [line.partition(":")[0] for line in lines] == [name for name in declared if name not in elsewhere]
    names = "|".join([*declared, "filters", "pattern", "on_failure"])
    theirs = re.sub(rf"\b({names}):", lambda match: f"{pascal(match[1])}:", ours)
    assert "OnFailure" in theirs
    assert configuration(tmp_path, theirs) == configuration(tmp_path, ours)


def test_the_spellings_are_those_of_the_service():
    """The AWS library's own description of the API has the names."""
    from botocore.session import get_session  # noqa: PLC0415 - a third of a second

    service = get_session().get_service_model("lambda")
    create = service.operation_model("CreateEventSourceMapping").input_shape.members
    ours = {spelling for name, key in EventSource.declared().items() for spelling in (pascal(name),) * bool(key.aws)}
    taken = ours | set(EventSource.FORMS) | set(EventSource.IDLE) | set(map(pascal, EventSource.REFUSED))
    assert set(create) - taken == {"DocumentDBEventSourceConfig"}
    assert snake("DocumentDBEventSourceConfig") in EventSource.REFUSED
    newer = {"LoggingConfig"}  # than the library
    assert (ours | set(EventSource.FORMS)) - set(create) - newer == set()
    scaling = create["ScalingConfig"].members
    assert set(scaling) == {"MaximumConcurrency"}
    function = service.operation_model("CreateFunction").input_shape.members
    assert {pascal(name) for name, key in Function.declared().items() if key.aws is True} - set(function) == set()


@pytest.mark.parametrize(
    "name",
    [
        "f",
        "f:$LATEST",
        "123456789012:function:f",
        "function:f",
        "arn:aws:lambda:eu-west-1:123456789012:function:f",
        "arn:aws-cn:lambda:cn-north-1:123456789012:function:f:$LATEST",
    ],
)
def test_names_of_functions(tmp_path, name):
    assert only(configuration(tmp_path, SQS.replace(": f\n", f": {name}\n"))).mapping.function == "f"


def test_the_forms_have_our_spelling_too(tmp_path):
    text = SQS.replace("FunctionName", "function_name").replace("EventSourceArn", "event_source_arn")
    assert configuration(tmp_path, text) == configuration(tmp_path, SQS)
    text = KAFKA.replace("SelfManagedEventSource", "self_managed_event_source").replace("Topics", "topics")
    text = text.replace("Endpoints", "endpoints").replace("KAFKA_BOOTSTRAP_SERVERS", "kafka_bootstrap_servers")
    assert configuration(tmp_path, text) == configuration(tmp_path, KAFKA)
    assert configuration(tmp_path, KAFKA.replace("KAFKA_BOOTSTRAP_SERVERS", "KafkaBootstrapServers")) == configuration(
        tmp_path, KAFKA
    )


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("arn:aws:sqs:eu-west-1:123456789012:dead",
         SqsDestination("arn:aws:sqs:eu-west-1:123456789012:dead", None, "eu-west-1")),
        ("arn:aws:sns:eu-west-1:123456789012:dead",
         SnsDestination("arn:aws:sns:eu-west-1:123456789012:dead", None, "eu-west-1")),
        ("arn:aws:s3:::dead", S3Destination("dead", "", None, None)),
        ("kafka://dead", "dead"),
    ],
)  # fmt: skip
def test_destinations(tmp_path, destination, expected):
    text = f"{KAFKA}    DestinationConfig: {{OnFailure: {{Destination: '{destination}'}}}}\n"
    found = only(configuration(tmp_path, text)).destination
    assert (found.topic if isinstance(found, KafkaDestination) else found) == expected


def test_what_a_form_says_and_what_the_source_says_come_together(tmp_path):
    text = f"{SQS}    source: {{sqs: {{endpoint_url: 'http://h', visibility_heartbeat: true}}}}\n"
    settings = only(configuration(tmp_path, text))
    assert settings.source == SqsSettings("m", QUEUE, "http://h", "eu-west-1", windowed=False)
    assert settings.mapping.polling.heartbeat
    text = f"{KAFKA}    source: {{kafka: {{security: {{protocol: SSL}}}}}}\n"
    assert only(configuration(tmp_path, text)).source.security.protocol == "SSL"
    assert only(configuration(tmp_path, f"{KAFKA}    source: {{kafka: }}\n")).source.topic == "orders"


def test_a_block_that_is_shared_is_not_changed_by_a_form(tmp_path):
    text = f"""{SQS}\
    source: &queue {{sqs: {{visibility_heartbeat: true}}}}
  n:
    function: f
    source: *queue
"""
    assert mistakes(tmp_path, text) == [
        "headrace.yaml:7: event_source_mappings.n.source.sqs.queue: found nothing, allowed name, URL or ARN of a queue"
    ]


def test_properties_of_a_function(tmp_path):
    ours = "handler: a.b, timeout: 20, memory_size: 256, reserved_concurrency: 3, environment: {A: '1', B: x}"
    theirs = (
        "Handler: a.b, Timeout: 20, MemorySize: 256, ReservedConcurrentExecutions: 3, "
        "Environment: {Variables: {A: '1', B: x}}"
    )
    texts = [RIGHT.replace("handler: app.handle", keys) for keys in (ours, theirs)]
    assert configuration(tmp_path, texts[0]) == configuration(tmp_path, texts[1])
    assert configuration(tmp_path, RIGHT.replace("code", "Environment: {}, code")) == configuration(tmp_path, RIGHT)


@pytest.mark.parametrize(("applied", "ours"), [("PublishedVersions", True), ("None", False)])
def test_snap_start_applies_to_the_one_version_there_is(tmp_path, applied, ours):
    text = RIGHT.replace("code", f"SnapStart: {{ApplyOn: {applied}}}, code")
    assert configuration(tmp_path, text).functions["f"].snap_start is ours


SECRET = "names a secret that AWS keeps; write source.kafka.security with"


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (SQS, "BatchSize: 0", "BatchSize: found 0, allowed 1 to 10000"),
        (SQS, "BatchSize: 20",
         "BatchSize: found 20, allowed at most 10 while MaximumBatchingWindowInSeconds is 0, as on AWS"),
        (SQS, "Batchsize: 5", "Batchsize: unknown key, did you mean batch_size?"),
        (SQS, "CommitInterval: 5", "CommitInterval: unknown key, did you mean commit_interval?"),
        (SQS, "function: f", f"FunctionName: found beside {M}.function in line 7, allowed one of them"),
        (SQS, "function_name: f", f"function_name: found beside {M}.FunctionName in line 5, allowed one of them"),
        (SQS, "Queues: [q]", "Queues: not supported, only kafka, kinesis, dynamodb, sqs and s3 sources are"),
        (SQS, "DocumentDBEventSourceConfig: {}",
         "DocumentDBEventSourceConfig: not supported, only kafka, kinesis, dynamodb, sqs and s3 sources are"),
        (SQS, "ProvisionedPollerConfig: {MinimumPollers: 2}",
         ("ProvisionedPollerConfig: there are no pollers to provide: they come and go with what there is to read; "
         "scaling_config.maximum_concurrency bounds the invocations of a queue")),
        (SQS, "ScalingConfig: {MaximumConcurrency: 1}",
         "ScalingConfig.MaximumConcurrency: found 1, allowed 2 to 1000"),
        (SQS, "ParallelizationFactor: 2",
         ("ParallelizationFactor: found with source sqs, allowed with kafka, kinesis and dynamodb only: batches of "
         "a queue run side by side by themselves, in order for each message group of a FIFO queue; "
         "scaling_config.maximum_concurrency bounds them")),
        (SQS, "FilterCriteria: {Filters: [{Pattern: '{}'}]}",
         ("FilterCriteria.Filters[0].Pattern: "
         "not a filter pattern: the pattern: needs an object that is not empty")),
        (SQS, "FilterCriteria: {Filters: [{}]}",
         "FilterCriteria.Filters[0].Pattern: found nothing, allowed a pattern, as a block or JSON text"),
        (SQS, "FunctionResponseTypes: [Report]",
         'FunctionResponseTypes[0]: found "Report", allowed ReportBatchItemFailures'),
        (SQS, "StartingPosition: LATEST",
         ("StartingPosition: found with source sqs, allowed with kafka, kinesis and dynamodb only: "
         "a queue has no positions: every message in it is due")),
        (SQS, "DestinationConfig: {OnFailure: {Destination: arn:aws:sns:eu-west-1:123456789012:t.fifo}}",
         "DestinationConfig.OnFailure.Destination: found a FIFO topic, allowed a standard topic, as on AWS"),
        (SQS, "DestinationConfig: {OnFailure: {Destination: 'arn:aws:s3:::Bucket'}}",
         ('DestinationConfig.OnFailure.Destination: found "arn:aws:s3:::Bucket", '
          "allowed a bucket name of 3 to 63 small letters, digits, . and -")),
        (SQS, f"DestinationConfig: {{OnFailure: {{Destination: '{QUEUE}.fifo'}}}}",
         "DestinationConfig.OnFailure.Destination: found a FIFO queue, allowed a standard queue, as on AWS"),
        (SQS, f"DestinationConfig: {{OnFailure: {{Destination: '{QUEUE}'}}}}",
         "DestinationConfig.OnFailure.Destination: found the queue that the mapping reads, allowed another one"),
        (SQS, "DestinationConfig: {OnFailure: {Destination: dead}}",
         f'DestinationConfig.OnFailure.Destination: found "dead", {REFERENCE}'),
        (SQS, "DestinationConfig: {OnFailure: {Destination: [dead]}}",
         f"DestinationConfig.OnFailure.Destination: found a list, {REFERENCE}"),
        (KAFKA, "DestinationConfig: {OnFailure: {Destination: 'kafka://dead', sqs: {queue: q}}}",
         "DestinationConfig.OnFailure: found Destination and sqs, allowed one of them"),
        (SQS, "DestinationConfig: {OnFailure: {Destination: 'kafka://dead'}}",
         "DestinationConfig.OnFailure.kafka.bootstrap_servers: found nothing, needed with source sqs"),
        (SQS, "DestinationConfig: {OnSuccess: {}}",
         "DestinationConfig.OnSuccess: event source mappings have no such destination, on AWS neither"),
        (SQS, "StartingPositionTimestamp: 5",
         ("StartingPositionTimestamp: found with source sqs, allowed with kafka, kinesis and dynamodb only: "
         "a queue has no positions: every message in it is due")),
        (START, "EventSourceArn: arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
         ('EventSourceArn: found "arn:aws:dynamodb:eu-west-1:123456789012:table/orders", allowed the ARN of the '
          "table's stream, its LatestStreamArn; or write the table's name as source.dynamodb.table")),
        (START, "EventSourceArn: arn:aws:kafka:eu-west-1:123456789012:cluster/c/1",
         ('EventSourceArn: found "arn:aws:kafka:eu-west-1:123456789012:cluster/c/1", '
         "write bootstrap_servers and topic of that cluster under source.kafka")),
        (START, "EventSourceArn: arn:aws:mq:eu-west-1:123456789012:broker:b:1",
         ('EventSourceArn: found "arn:aws:mq:eu-west-1:123456789012:broker:b:1", '
         "not supported, only kafka, kinesis, dynamodb, sqs and s3 sources are")),
        (START, "EventSourceArn: orders", f'EventSourceArn: found "orders", {ARNS}'),
        (START, "EventSourceArn: {'Fn::GetAtt': [Queue, Arn]}",
         f"EventSourceArn: found a block, {ARNS}"),
        (KAFKA, "ScalingConfig: {}",
         ("ScalingConfig: found with source kafka, allowed with sqs and s3 only: "
         "parallelization_factor, for each partition or shard, and the function's reserved_concurrency bound it")),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_mapping(tmp_path, text, line, expected):
    number = text.count("\n") + 1
    where = 5 if expected.startswith("FunctionName") else number
    assert mistakes(tmp_path, f"{text}    {line}\n") == [f"headrace.yaml:{where}: {M}.{expected}"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("StartingPosition: AT_TIMESTAMP",
         "4: StartingPositionTimestamp: found nothing, needed with StartingPosition AT_TIMESTAMP"),
        ("StartingPositionTimestamp: 5",
         "8: StartingPositionTimestamp: allowed with StartingPosition AT_TIMESTAMP only"),
        ("topics: [x]", f"8: topics[0]: found beside {M}.Topics[0] in line 7, allowed one of them"),
        ("source: {kafka: {topic: x}}",
         f"7: Topics[0]: found beside {M}.source.kafka.topic in line 8, allowed one of them"),
        ("source: 5", "8: source: found 5, allowed a block of keys"),
        ("source: {kafka: [x]}", "8: source.kafka: found a list, allowed a block of keys"),
        (f"EventSourceArn: {QUEUE}",
         "4: source: found EventSourceArn and KAFKA_BOOTSTRAP_SERVERS, allowed one of them"),
        ("SelfManagedKafkaEventSourceConfig: {ConsumerGroupId: 'a b'}",
         ('8: SelfManagedKafkaEventSourceConfig.ConsumerGroupId: found "a b", '
         "allowed 1 to 200 letters, digits and -/*:_+=.@")),
        ("SelfManagedKafkaEventSourceConfig: {ConsumptionMode: Queue}",
         "8: SelfManagedKafkaEventSourceConfig.ConsumptionMode: not supported yet"),
        ("AmazonManagedKafkaEventSourceConfig: {SchemaRegistryConfig: {}}",
         "8: AmazonManagedKafkaEventSourceConfig.SchemaRegistryConfig: not supported yet"),
        ("SourceAccessConfigurations: [{Type: BASIC_AUTH, URI: a}]",
         f"8: SourceAccessConfigurations[0].Type: BASIC_AUTH {SECRET} mechanism PLAIN, username and password"),
        ("SourceAccessConfigurations: [{Type: CLIENT_CERTIFICATE_TLS_AUTH, URI: a}]",
         f"8: SourceAccessConfigurations[0].Type: CLIENT_CERTIFICATE_TLS_AUTH {SECRET} certificate and key"),
        ("SourceAccessConfigurations: [{Type: VPC_SUBNET}]",
         "8: SourceAccessConfigurations[0].URI: found nothing, allowed text"),
        ("SourceAccessConfigurations: [{URI: a}]",
         ("8: SourceAccessConfigurations[0].Type: found nothing, allowed VPC_SUBNET, VPC_SECURITY_GROUP, BASIC_AUTH, "
         "SASL_SCRAM_256_AUTH, SASL_SCRAM_512_AUTH, CLIENT_CERTIFICATE_TLS_AUTH or SERVER_ROOT_CA_CERTIFICATE")),
        ("SourceAccessConfigurations: 5",
         "8: SourceAccessConfigurations: found 5, allowed a list of 0 to 23: a block of keys"),
        ("DestinationConfig: {OnFailure: {Destination: 'kafka://orders'}}",
         "8: DestinationConfig.OnFailure.Destination: found the topic that the mapping reads, allowed another one"),
        ("DestinationConfig: {OnFailure: {Destination: 'kafka://a b'}}",
         ('8: DestinationConfig.OnFailure.Destination: found "kafka://a b", '
         "allowed a topic name of 1 to 249 letters, digits, ., - and _")),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_kafka_mapping(tmp_path, line, expected):
    number, _, rest = expected.partition(": ")
    assert mistakes(tmp_path, f"{KAFKA}    {line}\n") == [f"headrace.yaml:{number}: {M}.{rest}"]


@pytest.mark.parametrize(
    ("written", "changed", "expected"),
    [
        ("Topics: [orders]", "Topics: [a, b]",
         "7: Topics: found a list of 2, allowed a list of one: a topic name of 1 to 249 letters, digits, ., - and _"),
        ("Topics: [orders]", "Topics: orders",
         '7: Topics: found "orders", allowed a list of one: a topic name of 1 to 249 letters, digits, ., - and _'),
        ("Topics: [orders]", "Topics: [a/b]",
         '7: Topics[0]: found "a/b", allowed a topic name of 1 to 249 letters, digits, ., - and _'),
        ("Topics: [orders]", "Enabled: true",
         "4: Topics: found nothing, allowed a topic name of 1 to 249 letters, digits, ., - and _"),
        ('["127.0.0.1:9092"]', "[broker]",
         '6: SelfManagedEventSource.Endpoints.KAFKA_BOOTSTRAP_SERVERS[0]: found "broker", allowed host:port'),
        ('{KAFKA_BOOTSTRAP_SERVERS: ["127.0.0.1:9092"]}', "{}",
         ("6: SelfManagedEventSource.Endpoints.KAFKA_BOOTSTRAP_SERVERS: "
         "found nothing, allowed a list of 1 to 10: host:port; or a text with commas")),
        ('{Endpoints: {KAFKA_BOOTSTRAP_SERVERS: ["127.0.0.1:9092"]}}', "{}",
         "6: SelfManagedEventSource.Endpoints: found nothing, allowed a block of keys"),
        ("FunctionName: f", "FunctionName: g", '5: FunctionName: found "g", allowed a function of this file: f'),
        ("FunctionName: f", "FunctionName: f:prod",
         ('5: FunctionName: found "f:prod", allowed a function without version or alias: '
         "a function of this file has one code")),
        ("FunctionName: f", "FunctionName: arn:aws:lambda:us-east-1:123456789012:function:f:3",
         ('5: FunctionName: found "arn:aws:lambda:us-east-1:123456789012:function:f:3", '
         "allowed a function without version or alias: a function of this file has one code")),
        ("FunctionName: f", "FunctionName: 'f g'",
         '5: FunctionName: found "f g", allowed the name or ARN of a function in this file'),
        ("FunctionName: f", "Enabled: true",
         "4: FunctionName: found nothing, allowed the name of a function in this file"),
        ("handler: app.handle", "Handler: app", '2: functions.f.Handler: found "app", allowed module.attribute'),
        ("handler: app.handle", "handler: a.b, Handler: a.b",
         "2: functions.f.Handler: found beside functions.f.handler in line 2, allowed one of them"),
        ("handler: app.handle", "handler: a.b, Environment: {Variables: {AWS_REGION: x}}",
         "2: functions.f.Environment.Variables.AWS_REGION: set by the runtime, allowed any other variable"),
        ("handler: app.handle", "handler: a.b, environment: {}, Environment: {Variables: {}}",
         "2: functions.f.Environment.Variables: found beside functions.f.environment in line 2, allowed one of them"),
        ("handler: app.handle", "handler: a.b, Environment: {A: b}",
         "2: functions.f.Environment.A: unknown key, allowed variables"),
        ("handler: app.handle", "handler: a.b, SnapStart: {ApplyOn: Always}",
         '2: functions.f.SnapStart.ApplyOn: found "Always", allowed PublishedVersions or None'),
        ("handler: app.handle", "handler: a.b, SnapStart: {}",
         "2: functions.f.SnapStart.ApplyOn: found nothing, allowed PublishedVersions or None"),
        ("handler: app.handle", "handler: a.b, snap_start: true, SnapStart: {ApplyOn: PublishedVersions}",
         "2: functions.f.SnapStart.ApplyOn: found beside functions.f.snap_start in line 2, allowed one of them"),
        ("handler: app.handle", "handler: a.b, Timeout: 841",
         "2: functions.f.Timeout: found 841s, allowed at most 840s, as mapping m reads Kafka"),
    ],
)  # fmt: skip
def test_a_wrong_form(tmp_path, written, changed, expected):
    number, _, rest = expected.partition(": ")
    path = rest if rest.startswith("functions") else f"{M}.{rest}"
    assert written in KAFKA
    assert mistakes(tmp_path, KAFKA.replace(written, changed)) == [f"headrace.yaml:{number}: {path}"]


def test_a_form_may_hold_a_secret_that_is_not_shown(tmp_path):
    text = SQS.replace(QUEUE, "'${env:QUEUE}'")
    assert only(configuration(tmp_path, text, QUEUE=QUEUE)).source.queue == QUEUE
    assert mistakes(tmp_path, text, QUEUE="hunter2") == [
        f'headrace.yaml:6: {M}.EventSourceArn: found "${{env:QUEUE}}" (value not shown), {ARNS}'
    ]


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("maximum_batching_window_in_seconds", "MaximumBatchingWindowInSeconds"),
        ("kms_key_arn", "KmsKeyArn"),
        ("kms_key_arn", "KMSKeyArn"),
        ("kafka_bootstrap_servers", "KafkaBootstrapServers"),
        ("kafka_bootstrap_servers", "KAFKA_BOOTSTRAP_SERVERS"),
        ("document_db_event_source_config", "DocumentDBEventSourceConfig"),
        ("uri", "URI"),
    ],
)
def test_the_rule_of_spelling(name, spelling):
    assert snake(spelling) == name
    assert snake(pascal(name)) == name
