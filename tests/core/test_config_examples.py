"""The files under `config/examples` are right as they are and with their comments taken in, and their handlers run."""

import base64
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from jsonschema import Draft202012Validator

from config.json_schema import json_schema
from config.load import load
from config.settings import ApiKey, ApiSettings, EventInvokeSettings, FleetSettings, FunctionSettings
from connectors.settings import (
    DynamoDbSettings,
    KinesisSettings,
    RedisSettings,
    S3Settings,
    Secret,
    Security,
    SqsSettings,
)
from router.core.model import STREAM_RULES, Pace
from tests.core.configured import NOW_S, plain

FOLDER = Path(__file__).parents[2] / "config/examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))
SECRETS = {"API_KEY": "key", "KAFKA_PASSWORD": "word", "DEPLOY_SECRET": "d" * 16, "METRICS_TOKEN": "m" * 16}
PRICED = "arn:aws:lambda:us-east-1:000000000000:function:priced"
CONTEXT = SimpleNamespace(aws_request_id="r-1")

VALIDATOR = Draft202012Validator(json_schema())


def loaded(name):
    return load(FOLDER / name, {}, NOW_S)


def with_comments(name):
    """Give an example with the keys that its comments hold."""
    return re.sub(r"^( +)# ( *[A-Za-z_]+:.*)$", r"\1\2", (FOLDER / name).read_text(), flags=re.MULTILINE)


def taken_in(folder, name):
    (folder / name).write_text(with_comments(name))
    for handlers in FOLDER.iterdir():
        if handlers.is_dir():
            (folder / handlers.name).mkdir()
    (folder / "ca.pem").touch()
    return load(folder / name, SECRETS, NOW_S)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_right(tmp_path, example):
    settings = load(example, {}, NOW_S)
    for function in settings.functions.values():
        if isinstance(function, FunctionSettings):
            module = function.handler.partition(".")[0]
            assert (function.code / f"{module}.py").is_file()
    full = taken_in(tmp_path, example.name)
    assert (full.mappings, full.event_invoke, full.api) != (settings.mappings, settings.event_invoke, settings.api)
    for text in (example.read_text(), with_comments(example.name)):
        VALIDATOR.validate(plain(text))


def test_there_is_one_of_each_source():
    kinds = {type(mapping.source) for path in EXAMPLES for mapping in load(path, {}, NOW_S).mappings}
    assert {kind.__name__ for kind in kinds} == {
        "KafkaSettings",
        "KinesisSettings",
        "DynamoDbSettings",
        "SqsSettings",
        "S3Settings",
    }


def test_kafka(tmp_path):
    (mapping,) = loaded("kafka.yaml").mappings
    assert mapping.mapping.name == "orders-stream"
    full = taken_in(tmp_path, "kafka.yaml")
    assert full.functions["orders"].environment["API_KEY"] == Secret("key")
    assert full.mappings[0].source.security == Security(
        "SASL_SSL", "SCRAM-SHA-512", "orders", Secret("word"), ca=tmp_path / "ca.pem"
    )


def test_queues(tmp_path):
    (mapping,) = loaded("sqs.yaml").mappings
    assert mapping.source == SqsSettings("invoices", "invoices", None, "us-east-1", windowed=True)
    (mapping,) = taken_in(tmp_path, "sqs.yaml").mappings
    assert mapping.source.endpoint_url == "http://127.0.0.1:4566"
    assert (mapping.mapping.polling.heartbeat, mapping.mapping.polling.needed_lease_s) == (True, 30.0)
    assert mapping.mapping.polling.function_concurrency == 200
    (mapping,) = loaded("sqs-fifo.yaml").mappings
    assert mapping.mapping.polling.hold_group
    assert mapping.mapping.polling.fifo


def test_notifications():
    (mapping,) = loaded("s3.yaml").mappings
    assert mapping.source == S3Settings(
        SqsSettings("uploads", "upload-events", None, "us-east-1", windowed=False),
        "uploads",
        ("s3:ObjectCreated:*",),
        "in/",
        ".csv",
        by_sequencer=True,
    )


def test_streams(tmp_path):
    (mapping,) = loaded("kinesis.yaml").mappings
    assert mapping.source == KinesisSettings("clicks", "clicks", None, "us-east-1")
    assert (mapping.mapping.rules, mapping.mapping.pace) == (STREAM_RULES, Pace(1.0, 0.2, 2_000_000))
    (mapping,) = taken_in(tmp_path, "kinesis.yaml").mappings
    assert mapping.source == KinesisSettings("clicks", "clicks", "http://127.0.0.1:4566", "us-east-1", deaggregate=True)
    assert mapping.mapping.pace == Pace(5.0, 0.2, 2_000_000)
    (mapping,) = loaded("dynamodb.yaml").mappings
    assert mapping.source == DynamoDbSettings("changes", "orders", None, "us-east-1")
    (mapping,) = loaded("tumbling-window.yaml").mappings
    assert (mapping.mapping.tumbling_window_s, mapping.filters) == (60, ())


def test_replicas(tmp_path):
    settings = load(FOLDER / "fleet.yaml", {"HEADRACE_REPLICA": "a"}, NOW_S)
    redis = RedisSettings(tls=False, host="127.0.0.1", port=6379, database=0)
    assert settings.fleet == FleetSettings(redis, "clicks", "a", 30.0)
    assert settings.state_dir == FOLDER / ".headrace/a"
    text = (FOLDER / "fleet.yaml").read_text()
    block = "\n".join(line[4:] for line in text.splitlines() if re.match("#   +[a-z]", line))
    (tmp_path / "fleet.yaml").write_text(text.replace("state: redis://127.0.0.1:6379/0", block, 1))
    (tmp_path / "ca.pem").touch()
    (tmp_path / "clicks").mkdir()
    full = load(tmp_path / "fleet.yaml", {"REDIS_PASSWORD": "word"}, NOW_S).fleet.redis
    assert (full.tls, full.username, full.password) == (True, "headrace", Secret("word"))
    assert (full.payloads.bucket, full.payloads_over_bytes) == ("headrace-payloads", 65536)


def test_functions_that_run_elsewhere(tmp_path):
    priced, legacy = loaded("targets.yaml").functions.values()
    assert (priced.arn, priced.qualifier, priced.region) == (PRICED, "live", "us-east-1")
    assert (legacy.url.reveal(), legacy.concurrency) == ("http://127.0.0.1:8080/orders", 4)
    priced, legacy = taken_in(tmp_path, "targets.yaml").functions.values()
    assert (priced.endpoint_url, priced.concurrency) == ("http://127.0.0.1:4566", 50)
    assert (legacy.headers["Authorization"], legacy.ca) == (Secret("Bearer key"), tmp_path / "ca.pem")


def test_functions_that_are_invoked_asynchronously(tmp_path):
    [said] = loaded("events.yaml").event_invoke.values()
    assert said == EventInvokeSettings(1, 3600, None, "sqs:uploads-failed", None)
    [said] = taken_in(tmp_path, "events.yaml").event_invoke.values()
    assert said.on_success == "events:event-bus/results"
    assert said.dead_letter == "arn:aws:sqs:us-east-1:000000000000:uploads-dlq"


def test_the_spelling_of_aws():
    ours, theirs = loaded("sqs.yaml").mappings[0], loaded("cloudformation.yaml").mappings[0]
    assert theirs.filters == ours.filters
    assert theirs.mapping.batch_size == ours.mapping.batch_size
    assert theirs.mapping.polling == ours.mapping.polling
    clicks = loaded("cloudformation.yaml").mappings[1]
    assert (clicks.source.name, clicks.mapping.parallelization_factor) == ("clicks", 4)


# --- the handlers


def handler(name):
    (function,) = loaded(name).functions.values()
    module, _, attribute = function.handler.partition(".")
    spec = importlib.util.spec_from_file_location(f"example_{module}", function.code / f"{module}.py")
    loaded_module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(loaded_module)
    finally:
        sys.dont_write_bytecode = before
    return getattr(loaded_module, attribute)


def message(number, body, group=None):
    return {"messageId": f"m-{number}", "body": body, "attributes": {"MessageGroupId": group} if group else {}}


def failures(*numbers):
    return {"batchItemFailures": [{"itemIdentifier": f"m-{number}"} for number in numbers]}


def test_the_handler_of_kafka_runs(capsys):
    records = [{"offset": 5, "value": base64.b64encode(text).decode()} for text in (b'{"n": 1}', b"no")]
    assert handler("kafka.yaml")({"records": {"orders-0": records[:1], "orders-1": records[1:]}}, CONTEXT) == {
        "batchItemFailures": [{"itemIdentifier": {"partition": "orders-1", "offset": 5}}]
    }
    assert capsys.readouterr().out == "r-1 {'n': 1}\n"


def test_the_handler_of_a_queue_runs(capsys):
    good = json.dumps({"number": 7, "amount": 12})
    event = {"Records": [message(1, good), message(2, "no"), message(3, "{}"), message(4, "5")]}
    assert handler("sqs.yaml")(event, CONTEXT) == failures(2, 3, 4)
    assert capsys.readouterr().out.startswith("r-1 7 12\n")


def test_the_handler_of_a_fifo_queue_keeps_the_order_of_what_it_reports():
    good = json.dumps({"amount": 12})
    bodies = [("a", good), ("b", "no"), ("a", good), ("b", good), ("a", "no"), ("a", good)]
    event = {"Records": [message(number, body, group) for number, (group, body) in enumerate(bodies)]}
    assert handler("sqs-fifo.yaml")(event, CONTEXT) == failures(1, 3, 4, 5)


def click(number, data):
    encoded = base64.b64encode(data).decode()
    return {"kinesis": {"sequenceNumber": f"s-{number}", "partitionKey": "user-1", "data": encoded}}


def test_the_handler_of_kinesis_runs_up_to_what_it_cannot_read(capsys):
    records = [click(1, b'{"page": "/a"}'), click(2, b"no"), click(3, b'{"page": "/b"}')]
    assert handler("kinesis.yaml")({"Records": records}, CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "s-2"}]}
    assert capsys.readouterr().out.startswith("r-1 user-1 /a\n")
    assert handler("kinesis.yaml")({"Records": records[2:]}, CONTEXT) == {"batchItemFailures": []}


def change(number, image):
    return {"eventName": "INSERT", "dynamodb": {"SequenceNumber": f"s-{number}", **image}}


def test_the_handler_of_a_table_runs_up_to_what_it_cannot_read(capsys):
    good = {"NewImage": {"id": {"S": "7"}, "total": {"N": "12"}}}
    records = [change(1, good), change(2, {"NewImage": {"id": {"S": "8"}}}), change(3, good)]
    assert handler("dynamodb.yaml")({"Records": records}, CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "s-2"}]}
    assert capsys.readouterr().out.startswith("r-1 INSERT 7 12\n")
    assert handler("dynamodb.yaml")({"Records": records[2:]}, CONTEXT) == {"batchItemFailures": []}


def test_the_handler_of_a_window_counts_over_its_batches(capsys):
    count = handler("tumbling-window.yaml")
    window = {"shardId": "s-0", "window": {"start": "2026-01-01T00:00:00Z"}, "isFinalInvokeForWindow": False}
    pages = ["/a", "/b", "/a"]
    records = [click(number, json.dumps({"page": page}).encode()) for number, page in enumerate(pages)]
    state = {}
    for part in (records[:2], records[2:]):
        state = count({"Records": part, "state": state, **window}, CONTEXT)["state"]
    assert state == {"/a": 2, "/b": 1}
    assert capsys.readouterr().out == ""
    count({"Records": [], "state": state, **window, "isFinalInvokeForWindow": True}, CONTEXT)
    assert capsys.readouterr().out == 'r-1 s-0 2026-01-01T00:00:00Z {"/a": 2, "/b": 1}\n'


def test_the_handler_of_notifications_runs(capsys):
    stored = {"bucket": {"name": "uploads"}, "object": {"key": "in/a+b%C3%BC.csv", "size": 3}}
    event = {"Records": [{"eventName": "ObjectCreated:Put", "s3": stored}]}
    assert handler("s3.yaml")(event, CONTEXT) is None
    assert capsys.readouterr().out == "r-1 ObjectCreated:Put s3://uploads/in/a bü.csv 3\n"


def test_all_through_the_api(tmp_path):
    settings = loaded("api.yaml")
    assert (settings.functions, settings.mappings, settings.api) == ({}, (), ApiSettings())
    full = taken_in(tmp_path, "api.yaml").api
    assert full.keys == (ApiKey("DEPLOY", Secret("d" * 16)),)
    assert full.metrics_token == Secret("m" * 16)
