from pathlib import Path

import pytest

from config.load import LIMIT_BYTES, load
from config.mistakes import InvalidConfiguration, Mistake
from router.errors import ConfigError
from tests.core.configured import NOW_S, RIGHT, mistakes, with_source, written

M = "event_source_mappings.m"
K = f"{M}.source.kafka"
S = f"{K}.security"
D = f"{M}.destination_config.on_failure"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:priced"
NO_URL = "found another text (not shown), allowed http(s)://host[:port]/path without credentials"
SASL = "mechanism: PLAIN, username: u, password: p"


def test_the_right_one_is_right(tmp_path):
    assert mistakes(tmp_path, RIGHT) == []


NEEDS_KEYS = (
    "listen: found a host that is not loopback, where whoever reaches it could run code: allowed with api.keys; else a "
    "loopback host (127.0.0.1, [::1], localhost)"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("batch_size: 0", "batch_size: found 0, allowed 1 to 10000"),
        ("batch_size: 10001", "batch_size: found 10001, allowed 1 to 10000"),
        ("batch_size: true", "batch_size: found true, allowed a number, 1 to 10000"),
        ('batch_size: "5"', 'batch_size: found the text "5", allowed a number, 1 to 10000'),
        ("batch_size: 5.5", "batch_size: found 5.5, allowed a whole number, 1 to 10000"),
        ("batch_size: .nan", "batch_size: found .nan, allowed a whole number, 1 to 10000"),
        ("batch_size: [1]", "batch_size: found a list, allowed a number, 1 to 10000"),
        ("batch_size: {a: 1}", "batch_size: found a block, allowed a number, 1 to 10000"),
        ("batch_size:", "batch_size: found nothing, allowed a number, 1 to 10000"),
        ("batchsize: 5", "batchsize: unknown key, did you mean batch_size?"),
        (
            "TumblingWindowInSeconds: 5",
            (
                "TumblingWindowInSeconds: found with source kafka, allowed with kinesis and dynamodb only: "
                "windows are of their shards, on AWS too"
            ),
        ),
        (
            "scaling_config: {}",
            (
                "scaling_config: found with source kafka, allowed with sqs and s3 only: "
                "parallelization_factor, for each partition or shard, and the function's reserved_concurrency bound it"
            ),
        ),
        (
            "provisioned_poller_config: {}",
            (
                "provisioned_poller_config: there are no pollers to provide: they come and go with what there is to "
                "read; scaling_config.maximum_concurrency bounds the invocations of a queue"
            ),
        ),
        ("renamed_from: m", "renamed_from: found the mapping's own name, allowed a name that no mapping has any more"),
        (
            "renamed_from: a b",
            'renamed_from: found "a b", allowed the name that the mapping had: 1 to 64 letters, digits, - and _',
        ),
        ("maximum_batching_window_in_seconds: 301", "maximum_batching_window_in_seconds: found 301, allowed 0 to 300"),
        (
            "maximum_batching_window_in_seconds: 5s",
            'maximum_batching_window_in_seconds: found "5s", allowed a number, 0 to 300',
        ),
        ("parallelization_factor: 101", "parallelization_factor: found 101, allowed 1 to 100"),
        ("maximum_retry_attempts: -2", "maximum_retry_attempts: found -2, allowed -1 or 0 to 10000"),
        ("maximum_record_age_in_seconds: 59", "maximum_record_age_in_seconds: found 59, allowed -1 or 60 to 604800"),
        (
            "bisect_batch_on_function_error: yes",
            'bisect_batch_on_function_error: found "yes", allowed true or false',
        ),
        (
            "function_response_types: [ReportBatchItemFailure]",
            'function_response_types[0]: found "ReportBatchItemFailure", allowed ReportBatchItemFailures',
        ),
        (
            "starting_position: EARLIEST",
            'starting_position: found "EARLIEST", allowed TRIM_HORIZON, LATEST or AT_TIMESTAMP',
        ),
        (
            "starting_position_timestamp: 1600000000",
            "starting_position_timestamp: allowed with starting_position AT_TIMESTAMP only",
        ),
        ("commit_interval: 2m", 'commit_interval: found "2m", allowed 10ms to 1m'),
        ("retry_backoff: {base: 5s, cap: 2s}", "retry_backoff.cap: found 2s, allowed at least base, 5s"),
        (
            "filter_criteria: {filters: [{pattern: {value: 3}}]}",
            (
                "filter_criteria.filters[0].pattern: "
                "not a filter pattern: value: needs a list of alternatives or an object"
            ),
        ),
        (
            "filter_criteria: {filters: [{pattern: 3}]}",
            "filter_criteria.filters[0].pattern: found 3, allowed a pattern, as a block or JSON text",
        ),
        (
            "destination_config: {on_success: {}}",
            "destination_config.on_success: event source mappings have no such destination, on AWS neither",
        ),
        (
            "destination_config: {on_failure: {}}",
            "destination_config.on_failure: found nothing, allowed sqs, sns, s3, kafka, http or file",
        ),
        (
            "destination_config: {on_failure: {sns: {topic: t.fifo}}}",
            "destination_config.on_failure.sns.topic: found a FIFO topic, allowed a standard topic, as on AWS",
        ),
        (
            "destination_config: {on_failure: {sns: {topic: 'a b'}}}",
            'destination_config.on_failure.sns.topic: found "a b", allowed name or ARN of a topic',
        ),
        (
            "destination_config: {on_failure: {s3: {bucket: B}}}",
            (
                'destination_config.on_failure.s3.bucket: found "B", '
                "allowed a bucket name of 3 to 63 small letters, digits, . and -"
            ),
        ),
        (
            "destination_config: {on_failure: {http: {}}}",
            (
                "destination_config.on_failure.http.url: "
                "found nothing, allowed http(s)://host[:port]/path without credentials"
            ),
        ),
        (
            "destination_config: {on_failure: {http: {url: 'https://me:word@host/'}}}",
            (
                "destination_config.on_failure.http.url: found another text (not shown), "
                "allowed http(s)://host[:port]/path without credentials"
            ),
        ),
        (
            "destination_config: {on_failure: {http: {url: 'https://host/', headers: {Webhook-Id: a}}}}",
            "destination_config.on_failure.http.headers.Webhook-Id: set for every request, allowed any other header",
        ),
        (
            "destination_config: {on_failure: {http: {url: 'https://host/', secret: whsec_tooshort}}}",
            (
                "destination_config.on_failure.http.secret: found another text (not shown), allowed whsec_ and the "
                "Base64 of 24 bytes or more, or text of 24 bytes or more, best as ${env:NAME} or ${file:PATH}"
            ),
        ),
        (
            "destination_config: {on_failure: {sqs: {queue: q.fifo}}}",
            "destination_config.on_failure.sqs.queue: found a FIFO queue, allowed a standard queue, as on AWS",
        ),
        (
            "destination_config: {on_failure: {sqs: {queue: q}, file: {path: f}}}",
            "destination_config.on_failure: found file and sqs, allowed one of them",
        ),
        (
            "destination_config: {on_failure: {kafka: {topic: orders}}}",
            "destination_config.on_failure.kafka.topic: found the topic that the mapping reads, allowed another one",
        ),
        (
            'destination_config: {on_failure: {kafka: {topic: orders, bootstrap_servers: "b:1,127.0.0.1:9092"}}}',
            "destination_config.on_failure.kafka.topic: found the topic that the mapping reads, allowed another one",
        ),
        (
            "destination_config: {on_failure: {kafka: {topic: t, security: {protocol: SSL}}}}",
            "destination_config.on_failure.kafka.bootstrap_servers: found nothing, needed with security",
        ),
        (
            "batch_size: !!int 5",
            'batch_size: found the tag "tag:yaml.org,2002:int", allowed plain values: references are written out',
        ),
        (
            "EventSourceArn: !GetAtt Queue.Arn",
            'EventSourceArn: found the tag "!GetAtt", allowed plain values: references are written out',
        ),
        ("batch_size: *five", "batch_size: found an alias of nothing that is complete above it"),
        ("function: f", "function: found a second time, first in line 5"),
    ],
)
def test_a_wrong_key_of_a_mapping(tmp_path, line, expected):
    assert mistakes(tmp_path, f"{RIGHT}    {line}\n") == [f"headrace.yaml:7: {M}.{expected}"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("schema_registry_config: {}", f"{K}.schema_registry_config: not supported yet"),
        ("session_timeout: 5s", f'{K}.session_timeout: found "5s", allowed 6s to 30m'),
        ("session_timeout: '30'", (f'{K}.session_timeout: found the text "30", '
         "allowed seconds as a number, or 500ms, 30s, 5m, 2h, 30d: 6s to 30m")),
        ("isolation_level: x", f'{K}.isolation_level: found "x", allowed read_uncommitted or read_committed'),
        ("security: {mechanism: PLAIN}",
         f"{S}.mechanism: found with protocol PLAINTEXT, allowed with SASL_PLAINTEXT or SASL_SSL"),
        ("security: {protocol: SASL_PLAINTEXT, mechanism: PLAIN, username: u}",
         f"{S}.password: found nothing, needed with protocol SASL_PLAINTEXT"),
        ("security: {protocol: SASL_PLAINTEXT, mechanism: PLAIN, username: u, password: 271828}",
         (f"{S}.password: found a value that is no text (not shown), "
         "allowed text, best as ${env:NAME} or ${file:PATH}")),
        (f"security: {{protocol: SASL_PLAINTEXT, ca: headrace.yaml, {SASL}}}",
         f"{S}.ca: found with protocol SASL_PLAINTEXT, allowed with SSL or SASL_SSL"),
        ("security: {protocol: SSL, certificate: headrace.yaml}",
         f"{S}.key: found nothing, needed with certificate"),
        ("security: {protocol: SSL, ca: no.pem}", f'{S}.ca: "no.pem" does not exist'),
        ("security: {protocol: SSL, ca: .}", f'{S}.ca: "." is not a file'),
        ("security: {protocol: sasl_ssl}",
         f'{S}.protocol: found "sasl_ssl", allowed PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL'),
    ],
)  # fmt: skip
def test_a_wrong_key_of_the_source(tmp_path, keys, expected):
    assert mistakes(tmp_path, with_source(keys)) == [f"headrace.yaml:6: {expected}"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("{handler: app, code: .}", 'functions.f.handler: found "app", allowed module.attribute'),
        ("{handler: ../app.x, code: .}", 'functions.f.handler: found "../app.x", allowed module.attribute'),
        ("{handler: a.b}", "functions.f.code: found nothing, allowed path of a folder or .zip file"),
        ("{handler: a.b, code: gone}", 'functions.f.code: "gone" does not exist'),
        ("{handler: a.b, code: headrace.yaml}",
         'functions.f.code: "headrace.yaml" is neither a folder nor a .zip file'),
        ("{handler: a.b, code: s3://b/k}",
         'functions.f.code: found "s3://b/k", not supported yet, only path of a folder or .zip file'),
        ("{handler: a.b, code: ., timeout: 0}", "functions.f.timeout: found 0, allowed 1s to 15m"),
        ("{handler: a.b, code: ., timeout: 841}",
         "functions.f.timeout: found 841s, allowed at most 840s, as mapping m reads Kafka"),
        ("{handler: a.b, code: ., memory_size: 127}", "functions.f.memory_size: found 127, allowed 128 to 10240"),
        ("{handler: a.b, code: ., reserved_concurrency: 0}",
         "functions.f.reserved_concurrency: found 0, allowed 1 to 1000"),
        ("{handler: a.b, code: ., python: ./no/python}", 'functions.f.python: "./no/python" does not exist'),
        ("{handler: a.b, code: ., logs: true}", "functions.f.logs: found true, allowed on, off or cloudwatch"),
        ("{handler: a.b, code: ., snap_start: x}", 'functions.f.snap_start: found "x", allowed true or false'),
        ("{}", ("functions.f.handler: found nothing, allowed module.attribute; "
                "or arn or url, of a function that runs elsewhere")),
        ("{handler: a.b, code: ., url: 'http://h'}", "functions.f.url: found beside handler, allowed one of them"),
        (f"{{arn: '{ARN}', url: 'http://h'}}", "functions.f.url: found beside arn, allowed one of them"),
        ("{url: 5}", "functions.f.url: found 5, allowed http(s)://host[:port]/path without credentials"),
        *((f"{{url: '{url}'}}", f"functions.f.url: {NO_URL}")
          for url in ("x", "ftp://h/", "http://", "http://me:word@h/", "http://h:70000/", "http://h:0", "http://h/a b",
                      "http://h/#a")),
        ("{url: 'http://h', memory_size: 256}", ("functions.f.memory_size: found with url, allowed with handler only: "
         "it is of workers, and this function runs elsewhere")),
        (f"{{arn: '{ARN}', headers: {{A: b}}}}",
         "functions.f.headers: found with arn, allowed with url only: it is of HTTP requests"),
        ("{handler: a.b, code: ., region: eu-west-1}",
         "functions.f.region: found with handler, allowed with arn only: it is of AWS Lambda"),
        ("{url: 'http://h', headers: {Host: a}}",
         "functions.f.headers.Host: set for every request, allowed any other header"),
        ("{url: 'http://h', headers: {X-A: a, x-a: b}}",
         "functions.f.headers.x-a: found a second time in other letters, allowed one of them"),
        (r'{url: "http://h", headers: {X-A: "very\nsecret"}}',
         ("functions.f.headers.X-A: found a text with line breaks or control characters (not shown), "
          "allowed one line of text, best as ${env:NAME} or ${file:PATH}")),
        ("{url: 'http://h', headers: {'a b': c}}",
         'functions.f.headers."a b": found the name "a b", allowed the name of an HTTP header'),
        ("{url: 'https://h', ca: gone.pem}", 'functions.f.ca: "gone.pem" does not exist'),
        ("{arn: priced}", 'functions.f.arn: found "priced", allowed the ARN of a function, version or alias'),
        (f"{{arn: '{ARN}', timeout: 841}}",
         "functions.f.timeout: found 841s, allowed at most 840s, as mapping m reads Kafka"),
        ("{handler: a.b, code: ., environment: {AWS_REGION: x}}",
         "functions.f.environment.AWS_REGION: set by the runtime, allowed any other variable"),
        ("{handler: a.b, code: ., environment: 5}",
         "functions.f.environment: found 5, allowed a block of variables"),
        ("{handler: a.b, code: ., environment: {A: [x]}}",
         "functions.f.environment.A: found a list, allowed text, a number, true or false"),
        ("{handler: a.b, code: ., environment: {A: " + "x" * 4096 + "}}",
         "functions.f.environment: found 4097 bytes of names and values, allowed at most 4096"),
    ],
)  # fmt: skip
def test_a_wrong_function(tmp_path, function, expected):
    text = RIGHT.replace("{handler: app.handle, code: .}", function)
    assert mistakes(tmp_path, text) == [f"headrace.yaml:2: {expected}"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("listen: 9301", "listen: found 9301, allowed host:port"),
        ("listen: 0.0.0.0:9301", NEEDS_KEYS),
        ("listen: example.org:9301", NEEDS_KEYS),
        ("listen: example.org:9301\napi: {keys: []}", NEEDS_KEYS),
        (
            "failures: {keep_bytes: 1GB!}",
            'failures.keep_bytes: found "1GB!", allowed at least 1MiB: bytes as a number, or 500MB, 1GiB',
        ),
        ("failures: {keep_for: 30s}", 'failures.keep_for: found "30s", allowed 1m to 3650d'),
        (
            "state: 5",
            (
                "state: found 5, allowed a directory; or redis://[[user]:password@]host[:port][/database], or "
                "rediss:// for TLS"
            ),
        ),
        ("log_level: trace", 'log_level: found "trace", allowed debug, info, warning or error'),
        (
            "aws: {profile: me}",
            ("aws.profile: not supported yet; "
            "the usual AWS environment and profile are used (AWS_PROFILE, AWS_ACCESS_KEY_ID, ...)"),
        ),
        (
            "aws: {endpoint_url: 'http://user:hunter2@host'}",
            ("aws.endpoint_url: found a URL with credentials (not shown), "
            "allowed http(s)://host[:port] without credentials"),
        ),
        ("aws: 5", "aws: found 5, allowed a block of keys"),
        ('"a\\nb": 5', ('"a\\nb": unknown key, allowed functions, event_source_mappings, state, fleet, lease, '
         "local, listen, api, aws, drain_timeout, failures, durability, logs, log_level")),
    ],
)  # fmt: skip
def test_a_wrong_key_at_the_top(tmp_path, line, expected):
    assert mistakes(tmp_path, f"{RIGHT}{line}\n") == [f"headrace.yaml:7: {expected}"]


API = "api: {keys: [{access_key_id: %s, secret_access_key: %s}%s]}"
HIDDEN = "found another text (not shown), allowed 16 or more letters of ASCII without spaces, best as "
REFERRING = "${env:NAME} or ${file:PATH}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("api: {strict: maybe}", 'api.strict: found "maybe", allowed true or false'),
        ("api: {keys: {}}", "api.keys: found a block, allowed a list of 0 to 100: a block of keys"),
        (
            API % ("a b", "0123456789abcdef", ""),
            'api.keys[0].access_key_id: found "a b", allowed 1 to 128 letters, digits and _',
        ),
        (API % ("A", "hunter2", ""), f"api.keys[0].secret_access_key: {HIDDEN}{REFERRING}"),
        (API % ("A", "'hunter2 with spaces'", ""), f"api.keys[0].secret_access_key: {HIDDEN}{REFERRING}"),
        ("api: {metrics_token: hunter2}", f"api.metrics_token: {HIDDEN}{REFERRING}"),
        (
            API % ("A", "0123456789abcdef", ", {access_key_id: A, secret_access_key: 0123456789abcdefg}"),
            "api.keys[1].access_key_id: found the name of another key too, allowed each once",
        ),
        (
            API % ("A", "0123456789abcdef, service: S3", ""),
            'api.keys[0].service: found "S3", allowed a service as policies name it, such as s3.amazonaws.com',
        ),
        ("aws: {account_id: 1}", "aws.account_id: found 1, allowed the 12 digits of an account"),
        ("aws: {account_id: true}", "aws.account_id: found true, allowed the 12 digits of an account"),
    ],
)  # fmt: skip
def test_a_wrong_key_of_the_api(tmp_path, line, expected):
    lines = mistakes(tmp_path, f"{RIGHT}{line}\n")
    assert lines == [f"headrace.yaml:7: {expected}"]
    assert "hunter2" not in lines[0]


def test_a_missing_key_is_told_at_the_line_of_its_block(tmp_path):
    assert mistakes(tmp_path, f"{RIGHT}    starting_position: AT_TIMESTAMP\n") == [
        f"headrace.yaml:4: {M}.starting_position_timestamp: found nothing, needed with starting_position AT_TIMESTAMP"
    ]


def test_all_mistakes_come_at_once_in_the_order_of_the_file(tmp_path):
    text = """\
listen: 127.0.0.1
functions:
  orders:
    handler: orders.handler
    timout: 5
  orders: {}
event_source_mappings:
  a:
    function: order
    batch_size: 0
    source: {sns: {topic: clicks}}
  b:
    source: {kafka: {bootstrap_servers: [broker, "b:9092"]}}
  c: 5
  d.e: {function: orders, source: {}}
"""
    assert mistakes(tmp_path, text) == [
        'headrace.yaml:1: listen: found "127.0.0.1", allowed host:port',
        "headrace.yaml:3: functions.orders.code: found nothing, allowed path of a folder or .zip file",
        "headrace.yaml:5: functions.orders.timout: unknown key, did you mean timeout?",
        "headrace.yaml:6: functions.orders: found a second time, first in line 3",
        'headrace.yaml:9: event_source_mappings.a.function: found "order", allowed a function of this file: orders',
        "headrace.yaml:10: event_source_mappings.a.batch_size: found 0, allowed 1 to 10000",
        (
            "headrace.yaml:11: event_source_mappings.a.source.sns: "
            "not supported yet, only kafka, kinesis, dynamodb, sqs and s3 are"
        ),
        (
            "headrace.yaml:12: event_source_mappings.b.function: "
            "found nothing, allowed the name of a function in this file"
        ),
        (
            'headrace.yaml:13: event_source_mappings.b.source.kafka.bootstrap_servers[0]: found "broker", '
            "allowed host:port"
        ),
        (
            "headrace.yaml:13: event_source_mappings.b.source.kafka.topic: "
            "found nothing, allowed a topic name of 1 to 249 letters, digits, ., - and _"
        ),
        "headrace.yaml:14: event_source_mappings.c: found 5, allowed a block of keys",
        'headrace.yaml:15: event_source_mappings."d.e": found the name "d.e", allowed 1 to 64 letters, digits, - and _',
        (
            'headrace.yaml:15: event_source_mappings."d.e".source: '
            "found nothing, allowed kafka, kinesis, dynamodb, sqs or s3"
        ),
    ]


def test_two_mappings_of_one_group_and_topic_are_refused(tmp_path):
    second = """\
  n:
    function: f
    source: {kafka: {bootstrap_servers: ["other:9092", "127.0.0.1:9092"], topic: orders, consumer_group: m}}
"""
    expected = "same topic and consumer group as mapping m, allowed another group"
    assert mistakes(tmp_path, RIGHT + second) == [
        f"headrace.yaml:9: event_source_mappings.n.source.kafka.consumer_group: {expected}"
    ]
    for different in ("    enabled: false\n", ""):
        changed = second if different else second.replace("consumer_group: m", "consumer_group: n")
        assert mistakes(tmp_path, RIGHT + changed + different) == []
    assert mistakes(tmp_path, RIGHT + second.replace("topic: orders", "topic: bills")) == []


@pytest.mark.parametrize(
    ("stamp", "right"),
    [
        ("2023-11-14T22:13:20Z", True),
        ("2023-11-14T23:13:20+01:00", True),
        ("1700000000", True),
        ("1700000001", False),
        ("2023-11-14T22:13:21Z", False),
        ("2023-11-14T22:13:20", False),
        ("yesterday", False),
        ("true", False),
        ("-1", False),
        ("0001-01-01T00:00:00+14:00", False),
    ],
)
def test_a_starting_time_has_a_zone_and_is_past(tmp_path, stamp, right):
    text = f"{RIGHT}    starting_position: AT_TIMESTAMP\n    starting_position_timestamp: {stamp}\n"
    lines = mistakes(tmp_path, text)
    assert [line.split(": found ")[0] for line in lines] == [
        f"headrace.yaml:8: {M}.starting_position_timestamp" for _ in range(not right)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "headrace.yaml:1: found nothing at top level, allowed a block of keys"),
        ("# nothing\n", "headrace.yaml:1: found nothing at top level, allowed a block of keys"),
        ("- 1\n", "headrace.yaml:1: found a list at top level, allowed a block of keys"),
        ("\nhello\n", 'headrace.yaml:2: found "hello" at top level, allowed a block of keys'),
        ("a: 1\n---\nb: 1\n", "headrace.yaml:2: a second document begins, allowed one in a file"),
        ("a:\n  - 'x\n", "headrace.yaml:3: not YAML: found unexpected end of stream"),
        ("a: b: c\n", "headrace.yaml:1: not YAML: mapping values are not allowed here"),
        ("a: 1\nb: \x07\n", "headrace.yaml:2: not YAML: a control character in the text"),
        ('a: "\\UFFFFFFFF"\n', "headrace.yaml:1: not YAML: an escape or a directive that means nothing"),
        ("a: 1\n b: *hunter2\n", "headrace.yaml:2: not YAML: mapping values are not allowed here"),
        ("*hunter2 : 1\n", "headrace.yaml:1: [0]: found a key that is no text, allowed names"),
        ("a: [1\n", "headrace.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("&a &b\n", "headrace.yaml:1: not YAML: expected '<document start>', but found ('<anchor>',)"),
        ("? [a]\n: 1\n", "headrace.yaml:1: [0]: found a key that is no text, allowed names"),
        ("a: &x [*x]\n", "headrace.yaml:1: a[0]: found an alias of nothing that is complete above it"),
        (b"a: 1\nb: \xff\n", "headrace.yaml:2: the text is not UTF-8"),
        ("#" * (LIMIT_BYTES + 1), f"headrace.yaml: the file is larger than {LIMIT_BYTES} bytes"),
    ],
)
def test_what_is_no_document(tmp_path, text, expected):
    assert mistakes(tmp_path, text) == [expected]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: the file does not exist$"):
        load(tmp_path / "gone.yaml", {}, NOW_S)
    with pytest.raises(ConfigError, match=r": the file is not a file$"):
        load(tmp_path, {}, NOW_S)
    with pytest.raises(ConfigError, match=r"x: the file does not exist$"):
        load(written(tmp_path, RIGHT) / "x", {}, NOW_S)


def test_a_mistake_is_a_value_for_machines(tmp_path):
    path = written(tmp_path, f"{RIGHT}    batch_size: 0\n")
    with pytest.raises(InvalidConfiguration) as caught:
        load(path, {}, NOW_S)
    assert caught.value.mistakes == (Mistake(str(path), 7, f"{M}.batch_size", "found 0, allowed 1 to 10000"),)


def test_names_the_file_as_it_was_named(tmp_path, monkeypatch):
    written(tmp_path, f"{RIGHT}    batch_size: 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^headrace\.yaml:7: "):
        load(Path("headrace.yaml"), {}, NOW_S)
