"""Functions that run elsewhere, and mappings that name a function by its ARN."""

import pytest
from jsonschema import Draft202012Validator

from config.json_schema import json_schema
from connectors.settings import LambdaFunction, Secret, UrlFunction
from tests.core.configured import RIGHT, configuration, mistakes, plain

WORKER = "{handler: app.handle, code: .}"
BASE = "arn:aws:lambda:eu-west-1:123456789012:function"
ARN = f"{BASE}:priced"
SCHEMA = Draft202012Validator(json_schema())


def with_function(keys, more=""):
    return RIGHT.replace(WORKER, f"{{{keys}}}").replace("event_source", f"{more}event_source", 1)


def only(settings):
    (function,) = settings.functions.values()
    return function


def test_a_function_on_lambda_with_what_the_file_leaves_out(tmp_path):
    settings = configuration(tmp_path, with_function(f"arn: '{ARN}'"))
    assert only(settings) == LambdaFunction("f", ARN, None, None, "eu-west-1", 60.0, 100, logs=True)
    (mapping,) = settings.mappings
    assert mapping.mapping.drain_s == 65.0


@pytest.mark.parametrize(("qualifier", "kept"), [("prod", "prod"), ("7", "7"), ("$LATEST", None)])
def test_every_key_of_a_function_on_lambda_arrives(tmp_path, qualifier, kept):
    keys = "timeout: 15m, reserved_concurrency: 3, logs: off, region: us-east-1, endpoint_url: 'http://h:1'"
    function = only(configuration(tmp_path, with_function(f"arn: '{ARN}:{qualifier}', {keys}").replace("15m", "14m")))
    assert function == LambdaFunction("f", ARN, kept, "http://h:1", "us-east-1", 840.0, 3, logs=False)


def test_the_endpoint_of_aws_counts_and_the_region_of_the_arn(tmp_path):
    text = with_function(f"arn: '{ARN}'", "aws: {endpoint_url: 'http://h:2', region: us-west-2}\n")
    function = only(configuration(tmp_path, text))
    assert (function.endpoint_url, function.region) == ("http://h:2", "eu-west-1")


def test_a_function_behind_a_url_and_its_defaults(tmp_path):
    function = only(configuration(tmp_path, with_function("url: 'http://127.0.0.1:8080/a?code=x%20y'")))
    assert function == UrlFunction("f", Secret("http://127.0.0.1:8080/a?code=x%20y"), {}, None, 60.0, 10, logs=True)


def test_every_key_of_a_function_behind_a_url_arrives_and_secrets_do_not_show(tmp_path):
    (tmp_path / "ca.pem").touch()
    keys = (
        "url: '${env:URL}', headers: {Authorization: 'Bearer ${env:TOKEN}', X-Team: shop}, ca: ca.pem, "
        "timeout: 5, reserved_concurrency: 1, logs: off"
    )
    settings = configuration(tmp_path, with_function(keys), URL="https://[::1]/hush", TOKEN="hush")
    headers = {"Authorization": Secret("Bearer hush"), "X-Team": Secret("shop")}
    ca = tmp_path / "ca.pem"
    assert only(settings) == UrlFunction("f", Secret("https://[::1]/hush"), headers, ca, 5.0, 1, logs=False)
    assert "hush" not in repr(settings)
    assert mistakes(tmp_path, with_function(keys), URL="hush", TOKEN="a\nhush") == [
        (
            "headrace.yaml:2: functions.f.url: found another text (not shown), "
            "allowed http(s)://host[:port]/path without credentials"
        ),
        (
            "headrace.yaml:2: functions.f.headers.Authorization: found a text with line breaks or control characters "
            "(not shown), allowed one line of text, best as ${env:NAME} or ${file:PATH}"
        ),
    ]


@pytest.mark.parametrize(
    ("keys", "is_right"),
    [
        (f"arn: '{ARN}'", True),
        (
            f"arn: '{ARN}:prod', timeout: 5, reserved_concurrency: 2, logs: off, region: x, endpoint_url: 'http://h'",
            True,
        ),
        ("url: 'http://h:1/x', headers: {A: b}, ca: ca.pem", True),
        ("handler: a.b, code: ., memory_size: 256", True),
        ("timeout: 5", False),
        ("handler: a.b", False),
        ("handler: a.b, code: ., url: 'http://h'", False),
        (f"arn: '{ARN}', url: 'http://h'", False),
        (f"arn: '{ARN}', MemorySize: 128", False),
        ("url: 'http://h', region: x", False),
        ("url: 'ftp://h'", False),
    ],
)
def test_editors_are_told_which_keys_belong_together(tmp_path, keys, is_right):
    (tmp_path / "ca.pem").touch()
    text = with_function(keys)
    assert SCHEMA.is_valid(plain(text)) is is_right
    assert (mistakes(tmp_path, text) == []) is is_right


# --- mappings that name a function by its ARN


def named(arn, functions="f: {handler: app.handle, code: .}", key="FunctionName"):
    return f"""\
functions:
  {functions}
event_source_mappings:
  m:
    {key}: {arn}
    source: {{kafka: {{bootstrap_servers: "127.0.0.1:9092", topic: orders}}}}
"""


@pytest.mark.parametrize(
    ("arn", "functions", "meant"),
    [
        (f"{BASE}:f", "f: {handler: app.handle, code: .}", "f"),
        (f"{BASE}:f:$LATEST", "f: {handler: app.handle, code: .}", "f"),
        (ARN, f"f: {{arn: '{ARN}'}}", "f"),
        (f"{ARN}:$LATEST", f"f: {{arn: '{ARN}'}}", "f"),
        (ARN, f"f: {{arn: '{ARN}:$LATEST'}}", "f"),
        (ARN, f"priced: {{arn: '{ARN}'}}", "priced"),
        (f"{ARN}:prod", f"f: {{arn: '{ARN}:prod'}}", "f"),
    ],
)
@pytest.mark.parametrize("key", ["FunctionName", "function"])
def test_the_arn_means_the_function_of_the_file_that_has_it_or_its_name(tmp_path, arn, functions, meant, key):
    settings = configuration(tmp_path, named(arn, functions, key))
    assert [mapping.mapping.function for mapping in settings.mappings] == [meant]
    assert list(settings.functions) == [meant]
    assert settings.notices == ()
    assert SCHEMA.is_valid(plain(named(arn, functions, key)))


@pytest.mark.parametrize(("qualifier", "name"), [("", "priced"), (":prod", "priced-prod"), (":$LATEST", "priced")])
def test_the_arn_of_a_function_that_the_file_has_not_means_the_one_that_is_deployed(tmp_path, qualifier, name):
    settings = configuration(tmp_path, named(f"{ARN}{qualifier}"))
    (mapping,) = settings.mappings
    assert mapping.mapping.function == name
    kept = "prod" if qualifier == ":prod" else None
    assert settings.functions[name] == LambdaFunction(name, ARN, kept, None, "eu-west-1", 60.0, 100, logs=True)
    assert settings.notices == (
        (
            "event_source_mappings.m.FunctionName: it is no function of this file, "
            "so the one that is deployed there is invoked"
        ),
    )


def test_two_mappings_may_name_the_same_deployed_function(tmp_path):
    text = named(ARN)
    mapping = text.partition("event_source_mappings:\n")[2].replace("m:", "n:", 1).replace("topic: orders", "topic: o2")
    settings = configuration(tmp_path, text + mapping)
    assert list(settings.functions) == ["f", "priced"]
    assert [mapping.mapping.function for mapping in settings.mappings] == ["priced", "priced"]


@pytest.mark.parametrize(
    ("arn", "functions", "expected"),
    [
        (f"{BASE}:f:3", "f: {handler: app.handle, code: .}",
         "allowed a function without version or alias: a function of this file has one code"),
        (ARN, f"a: {{arn: '{ARN}'}}, b: {{arn: '{ARN}'}}",
         "which may be the functions a and b of this file: allowed one of these names"),
        (ARN, f"a: {{arn: '{ARN}'}}, priced: {{handler: app.handle, code: .}}",
         "which may be the functions a and priced of this file: allowed one of these names"),
        (f"{ARN}:prod", f"priced: {{arn: '{ARN}'}}",
         "and function priced of this file is another: allowed a function of this file by its name"),
        (ARN, "priced: {url: 'http://h'}",
         "and function priced of this file is another: allowed a function of this file by its name"),
        (f"{ARN}:prod", "priced-prod: {handler: app.handle, code: .}",
         "which would be called priced-prod, as another is: allowed a function of this file, with that arn"),
    ],
)  # fmt: skip
def test_an_arn_that_may_mean_several_functions_is_refused(tmp_path, arn, functions, expected):
    text = named(arn, functions).replace(f"  {functions}", f"  {{{functions}}}")
    shown = f"{arn[:60]}..." if len(arn) > 60 else arn
    assert mistakes(tmp_path, text) == [
        f'headrace.yaml:5: event_source_mappings.m.FunctionName: found "{shown}", {expected}'
    ]


def test_a_mistake_elsewhere_in_the_function_is_told_once(tmp_path):
    assert mistakes(tmp_path, named(ARN, f"f: {{arn: '{ARN}', timeout: 0}}")) == [
        "headrace.yaml:2: functions.f.timeout: found 0, allowed 1s to 15m"
    ]


@pytest.mark.parametrize(
    ("top", "own", "kept", "shipped"),
    [
        ("", "", True, False),
        ("logs: off\n", "", False, False),
        ("logs: cloudwatch\n", "", True, True),
        ("logs: cloudwatch\n", ", logs: on", True, False),
        ("logs: off\n", ", logs: cloudwatch", True, True),
        ("logs: cloudwatch\n", ", logs: off", False, False),
    ],
)
def test_what_a_function_prints_goes_where_it_says_else_where_the_file_says(tmp_path, top, own, kept, shipped):
    settings = configuration(tmp_path, with_function(f"handler: app.handle, code: .{own}", top))
    function = only(settings)
    assert (function.logs, function.ships_logs, function.log_group, function.log_format) == (
        kept,
        shipped,
        None,
        "text",
    )
    assert settings.logs == (top.removeprefix("logs: ").strip() or "on")


def test_what_a_function_prints_that_runs_elsewhere_cannot_be_shipped(tmp_path):
    place = "headrace.yaml:2: functions.f.logs: found cloudwatch with"
    assert mistakes(tmp_path, with_function(f"arn: '{ARN}', logs: cloudwatch")) == [
        f"{place} arn, allowed on or off: on AWS Lambda it is in CloudWatch Logs anyway"
    ]
    assert mistakes(tmp_path, with_function("url: 'http://h', logs: cloudwatch")) == [
        f"{place} url, allowed on or off: who runs it has its log"
    ]
    assert only(configuration(tmp_path, with_function("url: 'http://h'", "logs: cloudwatch\n"))).logs
