import contextlib

import pytest

from config.load import load
from config.mistakes import InvalidConfiguration
from config.settings import Configuration, FunctionSettings, MappingSettings, Retention
from config.watching import look
from connectors.settings import (
    AwsSettings,
    FileDestination,
    HttpDestination,
    KafkaDestination,
    KafkaSettings,
    S3Destination,
    Secret,
    Security,
    SnsDestination,
    SqsDestination,
)
from router.core.model import KAFKA_RULES, Backoff, EventSourceMapping
from tests.core.configured import NOW_S, RIGHT, configuration, mistakes, with_source, written


def only(settings):
    (mapping,) = settings.mappings
    return mapping


def test_defaults(tmp_path):
    assert configuration(tmp_path, RIGHT) == Configuration(
        path=tmp_path / "headrace.yaml",
        state_dir=tmp_path / ".headrace",
        listen_host="127.0.0.1",
        listen_port=9301,
        aws=AwsSettings(None, None),
        functions={
            "f": FunctionSettings(
                name="f",
                handler="app.handle",
                code=tmp_path,
                python=None,
                timeout_s=3.0,
                memory_bytes=128 * 1024 * 1024,
                reserved_concurrency=None,
                concurrency_per_worker=1,
                snap_start=False,
                environment={},
                logs=True,
            )
        },
        mappings=(
            MappingSettings(
                mapping=EventSourceMapping("m", "f", KAFKA_RULES, batch_size=100, window_s=0.5, drain_s=8.0),
                enabled=True,
                source=KafkaSettings(
                    mapping="m",
                    bootstrap_servers=("127.0.0.1:9092",),
                    topic="orders",
                    consumer_group="m",
                    starting_position="TRIM_HORIZON",
                    starting_timestamp_s=None,
                    drain_s=8.0,
                    security=Security(),
                    isolation_level="read_uncommitted",
                    client_id="headrace",
                    group_instance_id=None,
                    session_timeout_s=10.0,
                    event_source="SelfManagedKafka",
                ),
                filters=(),
                destination=None,
            ),
        ),
        drain_timeout_s=30.0,
        failures=Retention(30 * 86400.0, 1024**3, drop_oldest=False),
        power_safe=True,
        log_level="info",
        notices=(),
    )


def test_every_key_of_a_mapping_arrives(tmp_path):
    text = f"""{RIGHT}\
    enabled: false
    log_level: warning
    starting_position: AT_TIMESTAMP
    starting_position_timestamp: 2023-01-01T00:00:00Z
    batch_size: 7
    maximum_batching_window_in_seconds: 0.25
    parallelization_factor: 3
    maximum_retry_attempts: 0
    maximum_record_age_in_seconds: 60
    bisect_batch_on_function_error: true
    function_response_types: [ReportBatchItemFailures]
    filter_criteria:
      filters: [{{pattern: {{value: {{n: [1, null, true], "ü": [x]}}}}}}, {{pattern: '{{"key": ["a"]}}'}}]
    init_errors_count: true
    commit_interval: 250ms
    retry_backoff: {{base: 1, cap: 2h}}
"""
    settings = only(configuration(tmp_path, text.replace("2h", "1h")))
    assert settings.mapping == EventSourceMapping(
        name="m",
        function="f",
        rules=KAFKA_RULES,
        batch_size=7,
        window_s=0.25,
        parallelization_factor=3,
        maximum_retry_attempts=0,
        maximum_record_age_s=60.0,
        bisect=True,
        report_item_failures=True,
        init_errors_count=True,
        drain_s=8.0,
        commit_interval_s=0.25,
        backoff=Backoff(1.0, 3600.0),
    )
    assert settings.log_level == "warning"
    assert settings.filters == ('{"value": {"n": [1, null, true], "ü": ["x"]}}', '{"key": ["a"]}')
    assert (settings.enabled, settings.source.starting_position) == (False, "AT_TIMESTAMP")
    assert settings.source.starting_timestamp_s == 1672531200.0


def test_every_key_of_a_function_arrives(tmp_path):
    (tmp_path / "code.zip").touch()
    (tmp_path / "python").touch()
    text = RIGHT.replace(
        "{handler: app.handle, code: .}",
        "{handler: pkg/mod.fn, code: code.zip, python: ./python, timeout: 1m, memory_size: 256, logs: off,"
        " reserved_concurrency: 4, concurrency_per_worker: 5, snap_start: true,"
        " log_level: error, environment: {A: 0x10, B: true, C: on, PYTHONPATH: lib, PATH: /bin,"
        " D: ${env:D}, E: $${env:D}}}",
    )
    (function,) = configuration(tmp_path, text, D="dee").functions.values()
    assert function == FunctionSettings(
        name="f",
        handler="pkg/mod.fn",
        code=tmp_path / "code.zip",
        python=str(tmp_path / "python"),
        timeout_s=60.0,
        memory_bytes=256 * 1024 * 1024,
        reserved_concurrency=4,
        concurrency_per_worker=5,
        snap_start=True,
        environment={
            name: Secret(text)
            for name, text in {
                "A": "0x10",
                "B": "true",
                "C": "on",
                "PYTHONPATH": "lib",
                "PATH": "/bin",
                "D": "dee",
                "E": "${env:D}",
            }.items()
        },
        logs=False,
        log_level="error",
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), ("0.5", 0.5), ("500ms", 0.5), ("1.5s", 1.5), ("5m", 300.0), ("1h", 3600.0)]
)
def test_durations(tmp_path, text, seconds):
    assert configuration(tmp_path, f"{RIGHT}drain_timeout: {text}\n").drain_timeout_s == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("2000000", 2_000_000), ("500MB", 500_000_000), ("1.5GiB", 1_610_612_736), ("2 TiB", 2 * 1024**4)],
)
def test_sizes(tmp_path, text, count):
    assert configuration(tmp_path, f"{RIGHT}failures: {{keep_bytes: {text}}}\n").failures.keep_bytes == count


@pytest.mark.parametrize(("durability", "power_safe"), [("power_loss", True), ("kill", False)])
def test_what_is_stored_survives_what_the_file_says(tmp_path, durability, power_safe):
    assert configuration(tmp_path, f"{RIGHT}durability: {durability}\n").power_safe is power_safe


@pytest.mark.parametrize(
    ("text", "address"),
    [("localhost:0", ("localhost", 0)), ("127.3.0.1:80", ("127.3.0.1", 80)), ("'[::1]:80'", ("::1", 80))],
)
def test_listen(tmp_path, text, address):
    settings = configuration(tmp_path, f"{RIGHT}listen: {text}\n")
    assert (settings.listen_host, settings.listen_port) == address


OTHER = Security("SASL_PLAINTEXT", "PLAIN", "u", Secret("p"))


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("sqs: {queue: q}", SqsDestination("q", "http://127.0.0.1:4566", "eu-west-1")),
        ("sqs: {queue: q, endpoint_url: 'http://h', region: r}", SqsDestination("q", "http://h", "r")),
        (
            "sqs: {queue: 'arn:aws:sqs:us-west-2:000000000000:q'}",
            SqsDestination("arn:aws:sqs:us-west-2:000000000000:q", "http://127.0.0.1:4566", "us-west-2"),
        ),
        ("sns: {topic: t}", SnsDestination("t", "http://127.0.0.1:4566", "eu-west-1")),
        (
            "sns: {topic: 'arn:aws:sns:us-west-2:000000000000:t'}",
            SnsDestination("arn:aws:sns:us-west-2:000000000000:t", "http://127.0.0.1:4566", "us-west-2"),
        ),
        ("s3: {bucket: dead}", S3Destination("dead", "", "http://127.0.0.1:4566", "eu-west-1")),
        (
            "s3: {bucket: dead, prefix: failed/, endpoint_url: 'http://h', region: r}",
            S3Destination("dead", "failed/", "http://h", "r"),
        ),
        ("http: {url: 'https://h/x?y=z'}", HttpDestination(Secret("https://h/x?y=z"), None, {}, None, 10.0)),
        (
            "http: {url: 'http://h:1', secret: 'text of 24 bytes or more', headers: {A: b}, timeout: 500ms}",
            HttpDestination(Secret("http://h:1"), Secret("text of 24 bytes or more"), {"A": Secret("b")}, None, 0.5),
        ),
        ("kafka: {topic: dead}", KafkaDestination("dead", ("127.0.0.1:9092",), OTHER)),
        (
            "kafka: {topic: orders, bootstrap_servers: 'a:1, b:2'}",
            KafkaDestination("orders", ("a:1", "b:2"), Security()),
        ),
        (
            "kafka: {topic: t, bootstrap_servers: [a:1], security: {protocol: SSL}}",
            KafkaDestination("t", ("a:1",), Security("SSL")),
        ),
    ],
)
def test_destinations(tmp_path, destination, expected):
    text = with_source("security: {protocol: SASL_PLAINTEXT, mechanism: PLAIN, username: u, password: p}")
    text += f"    destination_config: {{on_failure: {{{destination}}}}}\n"
    text += "aws: {endpoint_url: 'http://127.0.0.1:4566', region: eu-west-1}\n"
    assert only(configuration(tmp_path, text)).destination == expected


def test_unlimited_retries_with_a_destination_are_ten_and_a_notice(tmp_path):
    text = f"{RIGHT}    destination_config: {{on_failure: {{file: {{path: failed.jsonl}}}}}}\n"
    settings = configuration(tmp_path, text)
    assert only(settings).mapping.maximum_retry_attempts == 10
    assert only(settings).destination == FileDestination(tmp_path / "failed.jsonl")
    assert settings.notices == (
        (
            "event_source_mappings.m.maximum_retry_attempts: -1 with a destination means 10 retries, as on AWS; "
            "give a number to choose another limit"
        ),
    )
    chosen = configuration(tmp_path, f"{text}    maximum_retry_attempts: 12\n")
    assert (only(chosen).mapping.maximum_retry_attempts, chosen.notices) == (12, ())


def test_blocks_can_be_shared(tmp_path):
    text = RIGHT.replace("  m:\n", "  m: &m\n") + "    batch_size: 5\n  n:\n    <<: *m\n    batch_size: 6\n"
    first, second = configuration(tmp_path, text).mappings
    assert (first.mapping.batch_size, second.mapping.batch_size) == (5, 6)
    assert second.source.topic == "orders"


def test_secrets_are_read_and_never_shown(tmp_path):
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "broken").write_bytes(b"\xff")
    secure = "security: {protocol: SASL_SSL, mechanism: PLAIN, username: '${env:WHO}', password: ${file:password}}"
    settings = configuration(tmp_path, with_source(secure), WHO="hunter1")
    security = only(settings).source.security
    assert security.username == "hunter1"
    assert security.password is not None
    assert security.password.reveal() == "hunter2"
    assert "hunter" not in repr(settings)
    assert "hunter" not in f"{settings} {security.password}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${env:LEVEL}", 'found "${env:LEVEL}" (value not shown), allowed debug, info, warning or error'),
        ("a ${env:LEVEL}", 'found "a ${env:LEVEL}" (value not shown), allowed debug, info, warning or error'),
        ("${env:NONE}", 'environment variable "NONE" is not set'),
        ("${file:none}", 'file "none" does not exist'),
        ("${file:broken}", 'file "broken" is not UTF-8 text'),
        ("${file:large}", 'file "large" is larger than 65536 bytes'),
        ("${file:.}", 'file "." is not a file'),
        ("${file:/proc/self/mem}", 'file "/proc/self/mem" cannot be read: Input/output error'),
        ("${file:" + "x" * 300 + "}", f'file "{"x" * 60}..." cannot be looked at: File name too long'),
        ("${LEVEL}", 'found "${LEVEL}", allowed ${env:NAME} and ${file:PATH}; a plain ${ is written $${'),
        ("${env:", 'found "${env:", allowed ${env:NAME} and ${file:PATH}; a plain ${ is written $${'),
        ("$${env:LEVEL}", 'found "$${env:LEVEL}", allowed debug, info, warning or error'),
        ("\\0", "the text has a character that is NUL or half of a pair"),
    ],
)
def test_a_reference_that_leads_nowhere(tmp_path, value, expected):
    (tmp_path / "broken").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"a" * 65537)
    assert mistakes(tmp_path, f'{RIGHT}log_level: "{value}"\n', LEVEL="hunter2") == [
        f"headrace.yaml:7: log_level: {expected}"
    ]


def test_a_pattern_takes_no_secret(tmp_path):
    text = RIGHT + "    filter_criteria: {filters: [{pattern: {value: {a: ['${env:A}']}}}]}\n"
    assert mistakes(tmp_path, text, A="hunter2") == [
        (
            "headrace.yaml:7: event_source_mappings.m.filter_criteria.filters[0].pattern: "
            "found a reference, allowed patterns without ${env:} and ${file:}"
        )
    ]


def test_a_rename_keeps_the_group_that_goes_by_the_name(tmp_path):
    renamed = configuration(tmp_path, RIGHT + "    renamed_from: old\n")
    assert (only(renamed).renamed_from, only(renamed).source.consumer_group) == ("old", "old")
    assert renamed.notices == (
        (
            "event_source_mappings.m.renamed_from: the mapping reads on as the consumer group of its former name; "
            "write that as `consumer_group` into its source before you take this key out"
        ),
    )
    settled = configuration(tmp_path, with_source("consumer_group: g") + "    renamed_from: old\n")
    assert (only(settled).source.consumer_group, settled.notices) == ("g", ())


def test_a_former_name_has_one_heir_and_no_owner(tmp_path):
    other = RIGHT[RIGHT.index("  m:\n") :].replace("topic: orders", "topic: others")
    two = RIGHT + "    renamed_from: old\n" + other.replace("  m:", "  n:") + "    renamed_from: old\n"
    assert mistakes(tmp_path, two) == [
        (
            "headrace.yaml:11: event_source_mappings.n.renamed_from: found the former name of mapping m too, "
            "allowed another one"
        )
    ]
    taken = RIGHT + "    renamed_from: n\n" + other.replace("  m:", "  n:")
    assert mistakes(tmp_path, taken) == [
        (
            "headrace.yaml:7: event_source_mappings.m.renamed_from: found the name of a mapping of this file, "
            "allowed a name that no mapping has any more"
        )
    ]


def test_every_file_that_was_looked_for_is_told(tmp_path):
    secret = tmp_path / "secret"
    text = RIGHT.replace("code: .", "code: ., environment: {A: '${file:secret}'}")
    path = written(tmp_path, text)
    for there in (False, True):
        if there:
            secret.write_text("x")
        seen = {}
        with contextlib.suppress(InvalidConfiguration):
            load(path, {}, NOW_S, seen)
        assert (set(seen), seen[secret] is not None) == ({path, secret}, there)
    before = dict(seen)
    secret.write_text("other")
    assert look(seen)[secret] != before[secret]
