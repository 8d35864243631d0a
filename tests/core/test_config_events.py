"""What the file says of events that are invoked asynchronously: bounds, destinations by name and ARN, dead letters."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.diff import diff
from config.settings import EventInvokeSettings
from tests.core.configured import configuration, mistakes

ACCOUNT = "eu-west-1:123456789012"
QUEUE = f"arn:aws:sqs:{ACCOUNT}:q"


def file(keys: str) -> str:
    return f"""\
functions:
  f:
    handler: app.handle
    code: .
    {keys}
  g: {{handler: app.handle, code: .}}
event_source_mappings:
  m:
    function: f
    source: {{kafka: {{bootstrap_servers: "127.0.0.1:9092", topic: orders}}}}
"""


def settings(folder: Path, keys: str) -> EventInvokeSettings:
    return configuration(folder, file(keys)).event_invoke["f"]


def destination(place: str, which: str = "on_failure") -> str:
    return f"event_invoke_config: {{destination_config: {{{which}: {place}}}}}"


def test_all_keys(tmp_path: Path) -> None:
    keys = (
        "event_invoke_config: {maximum_retry_attempts: 0, maximum_event_age_in_seconds: 60, "
        "destination_config: {on_success: {function: g}, on_failure: {sqs: {queue: q}}}}\n"
        f"    dead_letter_config: {{target_arn: '{QUEUE}'}}"
    )
    assert settings(tmp_path, keys) == EventInvokeSettings(0, 60, "lambda:function:g", "sqs:q", QUEUE)


def test_what_is_not_said_is_none_and_a_function_that_says_nothing_is_not_there(tmp_path: Path) -> None:
    said = configuration(tmp_path, file("event_invoke_config: {maximum_retry_attempts: 1}"))
    assert said.event_invoke == {"f": EventInvokeSettings(1, None, None, None, None)}


def test_the_same_as_aws_writes_it(tmp_path: Path) -> None:
    keys = (
        "EventInvokeConfig: {MaximumRetryAttempts: 2, MaximumEventAgeInSeconds: 21600, DestinationConfig: "
        f"{{OnSuccess: {{Destination: '{QUEUE}'}}, OnFailure: {{Destination: 'arn:aws:s3:::failed'}}}}}}\n"
        f"    DeadLetterConfig: {{TargetArn: 'arn:aws:sns:{ACCOUNT}:t'}}"
    )
    assert settings(tmp_path, keys) == EventInvokeSettings(2, 21600, QUEUE, "s3:failed", f"arn:aws:sns:{ACCOUNT}:t")


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("{sqs: {queue: q}}", "sqs:q"),
        (f"{{sqs: {{queue: '{QUEUE}'}}}}", QUEUE),
        ("{sns: {topic: t}}", "sns:t"),
        ("{function: g}", "lambda:function:g"),
        ("{function: 'g:live'}", "lambda:function:g:live"),
        (f"{{function: 'arn:aws:lambda:{ACCOUNT}:function:h:1'}}", f"arn:aws:lambda:{ACCOUNT}:function:h:1"),
        ("{eventbridge: {bus: results}}", "events:event-bus/results"),
        ("{s3: {bucket: failed}}", "s3:failed"),
        (f"{{Destination: 'arn:aws:events:{ACCOUNT}:event-bus/b'}}", f"arn:aws:events:{ACCOUNT}:event-bus/b"),
        (f"{{Destination: 'arn:aws:lambda:{ACCOUNT}:function:h'}}", f"arn:aws:lambda:{ACCOUNT}:function:h"),
    ],
)
def test_destinations(tmp_path: Path, place: str, named: str) -> None:
    assert settings(tmp_path, destination(place)).on_failure == named


SUCCESS = "functions.f.event_invoke_config.destination_config.on_success"
FAILURE = "functions.f.event_invoke_config.destination_config.on_failure"


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        (
            "event_invoke_config: {maximum_retry_attempts: 3}",
            "functions.f.event_invoke_config.maximum_retry_attempts: found 3, allowed 0 to 2",
        ),
        (
            "event_invoke_config: {maximum_event_age_in_seconds: 59}",
            "functions.f.event_invoke_config.maximum_event_age_in_seconds: found 59, allowed 60 to 21600",
        ),
        (destination("{}"), f"{FAILURE}: found nothing, allowed sqs, sns, function, eventbridge or s3"),
        (destination("{s3: {bucket: b23}}", "on_success"), f"{SUCCESS}.s3: AWS has buckets for failures only"),
        (destination("{function: f}", "on_success"), f"{SUCCESS}.function: found the function itself, allowed another"),
        (destination("{function: 'f:live'}"), f"{FAILURE}.function: found the function itself, allowed another"),
        (
            destination("{sqs: {queue: q.fifo}}"),
            f'{FAILURE}.sqs.queue: found "q.fifo", allowed name or ARN of a standard',
        ),
        (
            destination("{sns: {topic: t.fifo}}"),
            f'{FAILURE}.sns.topic: found "t.fifo", allowed name or ARN of a standard',
        ),
        (
            destination(f"{{Destination: '{QUEUE}.fifo'}}"),
            f'{FAILURE}.Destination: found "{QUEUE}.fifo", allowed a standard queue or topic, as on AWS',
        ),
        (
            destination("{Destination: 'arn:aws:s3:::failed'}", "on_success"),
            f'{SUCCESS}.Destination: found "arn:aws:s3:::failed", allowed ARN of an SQS queue, SNS topic, function or',
        ),
        (
            f"dead_letter_config: {{target_arn: '{QUEUE}.fifo'}}",
            f'functions.f.dead_letter_config.target_arn: found "{QUEUE}.fifo", allowed ARN of a standard SQS queue or',
        ),
        (
            "dead_letter_config: {}",
            "functions.f.dead_letter_config.target_arn: found nothing, allowed ARN of a standard",
        ),
    ],
)
def test_mistakes(tmp_path: Path, keys: str, mistake: str) -> None:
    [found] = mistakes(tmp_path, file(keys))
    assert mistake in found


def test_a_change_is_taken_on_at_once_and_restarts_nothing(tmp_path: Path) -> None:
    before = configuration(tmp_path, file("event_invoke_config: {maximum_retry_attempts: 1}"))
    after = configuration(tmp_path, file("event_invoke_config: {maximum_retry_attempts: 2}"))
    changes = diff(before, after)
    assert changes.taken_on == ("event_invoke_config",)
    assert [each.action for each in (*changes.functions, *changes.mappings)] == ["unchanged"] * 2
