import pytest

from config.settings import MappingSettings
from connectors.settings import FileDestination, KafkaDestination, S3Settings, Security, SqsSettings
from router.core.model import QUEUE_RULES, EventSourceMapping, Polling
from tests.core.configured import configuration, mistakes

M = "event_source_mappings.m"
ARN = "arn:aws:sqs:eu-west-1:111111111111:orders"


def queued(source, function="{handler: app.handle, code: .}"):
    """A configuration whose next line is the seventh, of the mapping where it is indented by four."""
    return f"""\
functions:
  f: {function}
event_source_mappings:
  m:
    function: f
    source: {{{source}}}
"""


SQS = queued("sqs: {queue: orders}")
FIFO = queued("sqs: {queue: orders.fifo}")
S3 = queued("s3: {bucket: uploads, queue: upload-events}")


def only(settings):
    (mapping,) = settings.mappings
    return mapping


def test_defaults_of_a_queue(tmp_path):
    assert only(configuration(tmp_path, SQS)) == MappingSettings(
        mapping=EventSourceMapping(
            "m", "f", QUEUE_RULES, batch_size=10, drain_s=8.0, polling=Polling(function_concurrency=0)
        ),
        enabled=True,
        source=SqsSettings("m", "orders", endpoint_url=None, region=None, windowed=False),
        filters=(),
        destination=None,
    )


def test_defaults_of_notifications(tmp_path):
    settings = only(configuration(tmp_path, S3))
    assert settings.mapping.batch_size == 1
    assert settings.mapping.rules is QUEUE_RULES
    assert settings.source == S3Settings(
        SqsSettings("m", "upload-events", endpoint_url=None, region=None, windowed=False),
        bucket="uploads",
        events=("s3:ObjectCreated:*",),
        prefix="",
        suffix="",
        by_sequencer=False,
    )


def test_every_key_of_a_queue_arrives(tmp_path):
    source = (
        "sqs: {queue: orders.fifo, endpoint_url: 'http://h:1', region: eu-west-1, visibility_heartbeat: true, "
        "hold_message_group: true, retry_throttled: covers_timeout}"
    )
    function = "{handler: a.b, code: ., timeout: 20, reserved_concurrency: 4, concurrency_per_worker: 8}"
    text = f"""{queued(source, function)}\
    batch_size: 7
    scaling_config: {{maximum_concurrency: 16}}
    maximum_retry_attempts: 2
    function_response_types: [ReportBatchItemFailures]
"""
    settings = only(configuration(tmp_path, text))
    assert settings.mapping.polling == Polling(16, 32, fifo=True, heartbeat=True, hold_group=True, needed_lease_s=20.0)
    assert (settings.mapping.batch_size, settings.mapping.maximum_retry_attempts) == (7, 2)
    assert settings.source == SqsSettings("m", "orders.fifo", "http://h:1", "eu-west-1", windowed=False)


def test_every_key_of_notifications_arrives(tmp_path):
    source = (
        "s3: {bucket: uploads, queue: q, events: ['s3:ObjectCreated:Put', 's3:ObjectRemoved:*'], "
        "filter: {prefix: in/, suffix: .csv}, order: sequencer, endpoint_url: 'http://h', region: r, "
        "visibility_heartbeat: true, retry_throttled: covers_timeout}"
    )
    text = f"{queued(source)}    batch_size: 100\n    maximum_batching_window_in_seconds: 5\n"
    settings = only(configuration(tmp_path, text))
    assert settings.mapping.polling == Polling(function_concurrency=0, heartbeat=True, needed_lease_s=3.0)
    assert settings.source == S3Settings(
        SqsSettings("m", "q", "http://h", "r", windowed=True),
        "uploads",
        ("s3:ObjectCreated:Put", "s3:ObjectRemoved:*"),
        "in/",
        ".csv",
        by_sequencer=True,
    )


@pytest.mark.parametrize(
    ("queue", "region"),
    [
        ("orders", "us-east-2"),
        (ARN, "eu-west-1"),
        ("https://sqs.eu-north-1.amazonaws.com/111111111111/orders", "eu-north-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/111111111111/orders", "cn-north-1"),
        ("https://eu-west-3.queue.amazonaws.com/111111111111/orders", "eu-west-3"),
        ("http://localhost:4566/000000000000/orders", "us-east-2"),
    ],
)
def test_the_region_of_a_queue(tmp_path, queue, region):
    text = queued(f"sqs: {{queue: '{queue}'}}") + "aws: {endpoint_url: 'http://h', region: us-east-2}\n"
    assert only(configuration(tmp_path, text)).source == SqsSettings("m", queue, "http://h", region, windowed=False)
    given = text.replace("{queue:", "{region: other, queue:")
    assert only(configuration(tmp_path, given)).source.region == "other"


def test_a_function_that_only_reads_queues_may_run_longer(tmp_path):
    text = queued("sqs: {queue: orders}", "{handler: a.b, code: ., timeout: 15m}")
    assert only(configuration(tmp_path, text)).mapping.drain_s == 905.0


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        (SQS, "batch_size: 11",
         "batch_size: found 11, allowed at most 10 while maximum_batching_window_in_seconds is 0, as on AWS"),
        (S3, "batch_size: 11",
         "batch_size: found 11, allowed at most 10 while maximum_batching_window_in_seconds is 0, as on AWS"),
        (FIFO, "batch_size: 11", "batch_size: found 11, allowed at most 10 with a FIFO queue, as on AWS"),
        (FIFO, "maximum_batching_window_in_seconds: 0.5",
         "maximum_batching_window_in_seconds: found 0.5, allowed 0 with a FIFO queue, as on AWS"),
        (SQS, "scaling_config: {maximum_concurrency: 1}",
         "scaling_config.maximum_concurrency: found 1, allowed 2 to 1000"),
        (SQS, "scaling_config: {maximum_concurrency: 1001}",
         "scaling_config.maximum_concurrency: found 1001, allowed 2 to 1000"),
        (SQS, "parallelization_factor: 2",
         ("parallelization_factor: found with source sqs, allowed with kafka, kinesis and dynamodb only: batches of "
         "a queue run side by side by themselves, in order for each message group of a FIFO queue; "
         "scaling_config.maximum_concurrency bounds them")),
        (S3, "parallelization_factor: 1",
         ("parallelization_factor: found with source s3, allowed with kafka, kinesis and dynamodb only: batches of "
         "a queue run side by side by themselves, in order for each message group of a FIFO queue; "
         "scaling_config.maximum_concurrency bounds them")),
        (SQS, "starting_position: LATEST",
         ("starting_position: found with source sqs, allowed with kafka, kinesis and dynamodb only: "
         "a queue has no positions: every message in it is due")),
        (S3, "starting_position_timestamp: 5",
         ("starting_position_timestamp: found with source s3, allowed with kafka, kinesis and dynamodb only: "
         "a queue has no positions: every message in it is due")),
        (SQS, "commit_interval: 5s",
         ("commit_interval: found with source sqs, allowed with kafka, kinesis and dynamodb only: "
         "what is finished is deleted from the queue at once")),
        (SQS, "destination_config: {on_failure: {kafka: {topic: dead}}}",
         "destination_config.on_failure.kafka.bootstrap_servers: found nothing, needed with source sqs"),
        (SQS, "destination_config: {on_failure: {sqs: {queue: orders}}}",
         "destination_config.on_failure.sqs.queue: found the queue that the mapping reads, allowed another one"),
        (SQS, f"destination_config: {{on_failure: {{sqs: {{queue: '{ARN}'}}}}}}",
         "destination_config.on_failure.sqs.queue: found the queue that the mapping reads, allowed another one"),
        (SQS, "destination_config: {on_failure: {sqs: {queue: dead.fifo}}}",
         "destination_config.on_failure.sqs.queue: found a FIFO queue, allowed a standard queue, as on AWS"),
        (S3, "destination_config: {on_failure: {s3: {bucket: uploads, prefix: failed/}}}",
         ("destination_config.on_failure.s3.bucket: found the bucket that the mapping reads, allowed another one, "
          "or a source.s3.filter without failed/aws/lambda/")),
    ],
)  # fmt: skip
def test_a_wrong_key_of_a_mapping(tmp_path, text, line, expected):
    assert mistakes(tmp_path, f"{text}    {line}\n") == [f"headrace.yaml:7: {M}.{expected}"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("sqs: {}", "sqs.queue: found nothing, allowed name, URL or ARN of a queue"),
        ("sqs: {queue: 'a b'}", 'sqs.queue: found "a b", allowed name, URL or ARN of a queue'),
        ("sqs: {queue: 'http://u:p@h/1/q'}",
         "sqs.queue: found a URL with credentials (not shown), allowed name, URL or ARN of a queue"),
        ("sqs: {queue: q, bucket: b}",
         ("sqs.bucket: unknown key, allowed queue, endpoint_url, region, visibility_heartbeat, retry_throttled, "
         "hold_message_group")),
        ("sqs: {queue: q, retry_throttled: never}",
         'sqs.retry_throttled: found "never", allowed within_visibility or covers_timeout'),
        ("sqs: {queue: q, hold_message_group: true}",
         "sqs.hold_message_group: found with a standard queue, allowed with FIFO queues only"),
        ("s3: {bucket: uploads}", "s3.queue: found nothing, allowed name, URL or ARN of a queue"),
        ("s3: {queue: q}",
         "s3.bucket: found nothing, allowed a bucket name of 3 to 63 small letters, digits, . and -"),
        ("s3: {queue: q.fifo, bucket: uploads}",
         "s3.queue: found a FIFO queue, allowed a standard queue: S3 notifies no other"),
        ("s3: {queue: q, bucket: uploads, events: []}",
         "s3.events: found a list of 0, allowed a list of 1 to 30: an event type of S3 such as s3:ObjectCreated:*"),
        ("s3: {queue: q, bucket: uploads, events: ['ObjectCreate:*']}",
         ('s3.events[0]: found "ObjectCreate:*", allowed an event type of S3 such as s3:ObjectCreated:*; '
         "did you mean s3:ObjectCreated:*?")),
        ("s3: {queue: q, bucket: uploads, events: [3]}",
         "s3.events[0]: found 3, allowed an event type of S3 such as s3:ObjectCreated:*"),
        ("s3: {queue: q, bucket: uploads, filter: {prefix: ''}}",
         's3.filter.prefix: found "", allowed 1 to 1024 characters'),
        ("s3: {queue: q, bucket: uploads, order: arrival}", 's3.order: found "arrival", allowed none or sequencer'),
        ("s3: {queue: q, bucket: uploads, hold_message_group: true}",
         ("s3.hold_message_group: unknown key, allowed queue, endpoint_url, region, visibility_heartbeat, "
         "retry_throttled, bucket, events, filter, order")),
    ],
)  # fmt: skip
def test_a_wrong_key_of_the_source(tmp_path, source, expected):
    assert mistakes(tmp_path, queued(source)) == [f"headrace.yaml:6: {M}.source.{expected}"]


def test_a_source_is_one(tmp_path):
    text = queued("sqs: {queue: q}, kafka: {bootstrap_servers: 'h:1', topic: t}")
    assert mistakes(tmp_path, f"{text}    batch_size: 5\n") == [
        f"headrace.yaml:6: {M}.source: found kafka and sqs, allowed one of them"
    ]


def test_held_groups_need_reports(tmp_path):
    text = queued("sqs: {queue: q.fifo, hold_message_group: true}")
    assert mistakes(tmp_path, text) == [
        (
            f"headrace.yaml:4: {M}.function_response_types: "
            "found none, needed with hold_message_group: ReportBatchItemFailures"
        )
    ]


def test_a_large_batch_needs_a_window(tmp_path):
    text = f"{SQS}    batch_size: 10000\n    maximum_batching_window_in_seconds: 1\n"
    settings = only(configuration(tmp_path, text))
    assert (settings.mapping.batch_size, settings.mapping.window_s) == (10000, 1.0)
    assert settings.source.windowed


SECOND = """\
  n:
    function: g
    source: {sqs: {queue: orders}}
"""


def two(second, first=SQS):
    return first.replace("  f:", "  g: {handler: a.b, code: .}\n  f:") + second


@pytest.mark.parametrize(
    ("queue", "other", "same"),
    [
        ("orders", "orders", True),
        ("orders", ARN, True),
        (ARN, "https://sqs.eu-west-1.amazonaws.com/111111111111/orders", True),
        (ARN, ARN.replace("eu-west-1", "eu-west-2"), False),
        (ARN, "orders, region: eu-west-2", False),
        (ARN, ARN.replace("1:orders", "2:orders"), False),
        ("orders", "orders, endpoint_url: 'http://other'", False),
        ("orders", "orders.fifo", False),
    ],
)
def test_two_mappings_of_one_queue_and_function_are_refused(tmp_path, queue, other, same):
    first = queued(f"sqs: {{queue: '{queue}'}}")
    second = SECOND.replace("g", "f").replace("orders", other if "," in other else f"'{other}'")
    assert (
        mistakes(tmp_path, first + second)
        == [
            (
                "headrace.yaml:9: event_source_mappings.n.source.sqs.queue: "
                "same queue and function as mapping m, allowed another queue or function"
            )
        ]
        * same
    )
    assert mistakes(tmp_path, first + second + "    enabled: false\n") == []


def test_two_functions_of_one_queue_are_a_notice(tmp_path):
    assert configuration(tmp_path, two(SECOND)).notices == (
        (
            "event_source_mappings.n.source.sqs.queue: same queue as mapping m: "
            "each message goes to one of the two, and what its filters drop is deleted"
        ),
    )
    assert configuration(tmp_path, two(SECOND + "    enabled: false\n")).notices == ()


@pytest.mark.parametrize("source", ["s3: {bucket: uploads, queue: orders}", "sqs: {queue: orders}"])
def test_a_queue_of_notifications_has_one_mapping(tmp_path, source):
    second = SECOND.replace("sqs: {queue: orders}", "s3: {bucket: others, queue: orders}")
    assert mistakes(tmp_path, two(second, queued(source))) == [
        (
            "headrace.yaml:10: event_source_mappings.n.source.s3.queue: same queue as mapping m, allowed another one: "
            "a queue of S3 notifications has one mapping, which would else lose those that the other takes"
        )
    ]


def test_a_destination_that_is_never_told_is_a_notice(tmp_path):
    text = f"{SQS}    destination_config: {{on_failure: {{file: {{path: failed.jsonl}}}}}}\n"
    settings = configuration(tmp_path, text)
    assert only(settings).mapping.maximum_retry_attempts is None
    assert only(settings).destination == FileDestination(tmp_path / "failed.jsonl")
    assert settings.notices == (
        (
            f"{M}.maximum_retry_attempts: -1 leaves what fails to the queue and its redrive policy, as on AWS, so the "
            "destination is told only of messages that cannot be given to the function at all; "
            "give a number of retries to tell it of what fails"
        ),
    )
    assert configuration(tmp_path, f"{text}    maximum_record_age_in_seconds: 60\n").notices == ()
    assert configuration(tmp_path, f"{text}    maximum_retry_attempts: 0\n").notices == ()


def test_a_topic_of_a_cluster_as_destination_of_a_queue(tmp_path):
    text = f"{SQS}    destination_config: {{on_failure: {{kafka: {{topic: dead, bootstrap_servers: 'h:1'}}}}}}\n"
    assert only(configuration(tmp_path, text)).destination == KafkaDestination("dead", ("h:1",), Security())


@pytest.mark.parametrize("only", ["prefix: in/", "suffix: .csv"])
def test_the_bucket_that_is_read_may_take_failures_where_its_filter_leaves_them_out(tmp_path, only):
    source = queued(f"s3: {{bucket: uploads, queue: upload-events, filter: {{{only}}}}}")
    text = f"{source}    destination_config: {{on_failure: {{s3: {{bucket: uploads}}}}}}\n"
    assert mistakes(tmp_path, text) == []
