"""`headrace event`: sample events of every kind that Lambda functions get, from files beside this module.

Their values are made up; their members are those of deliveries on AWS (AWS Lambda developer guide, and recordings).
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from importlib.resources import files
from typing import Final

from router.commands.failures import print_json
from router.commands.tables import show_table
from router.errors import ConfigError

#: Kind, which is also the name of its file -> what it shows.
KINDS: Final = {
    "alb": "a request through an Application Load Balancer",
    "alb-multi-value": "the same, from a target group with multi-value headers",
    "apigw-v1": "a request through an API Gateway REST API (payload format 1.0)",
    "apigw-v2": "a request through an API Gateway HTTP API (payload format 2.0)",
    "cloudformation": "a custom resource that CloudFormation updates",
    "cloudwatch-logs": "log lines of a subscription, compressed",
    "codecommit": "a push to a CodeCommit repository",
    "cognito": "a Cognito user pool before a sign-up",
    "config": "an AWS Config rule whose resource changed",
    "dynamodb": "an insert, an update and a time-to-live delete in a DynamoDB stream",
    "eventbridge": "an event on an EventBridge bus",
    "function-url": "a request to a function URL, signed with IAM",
    "kafka": "records of a self-managed Kafka topic, of two partitions",
    "kafka-schema-registry": "a Kafka record that a schema registry decoded to JSON",
    "kinesis": "records of a Kinesis stream, one of them no JSON",
    "kinesis-tumbling-window": "the same in a tumbling window, with its state",
    "msk": "records of an Amazon MSK topic, of two partitions",
    "s3-put": "an object put into an S3 bucket, its key URL-encoded",
    "scheduled": "a scheduled rule that fires",
    "ses": "a mail that SES received",
    "sns": "a notification of an SNS topic",
    "sqs": "messages of an SQS queue, one with attributes and one of plain text",
    "sqs-fifo": "messages of one group of an SQS FIFO queue",
}


def show_event(kind: str, *, as_json: bool) -> None:
    """Print a sample event; as JSON for machines, on one line.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS) or [name for name in KINDS if kind and (kind in name or name in kind)]
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"there is no kind of event {kind!r}; {meant}`headrace event` lists them all")
    text = files("router.commands").joinpath("sample_events", f"{kind}.json").read_text("utf-8")
    if as_json:
        print_json(json.loads(text))
    else:
        print(text, end="")


def show_kinds(*, as_json: bool) -> None:
    """Print which kinds there are."""
    if as_json:
        print_json([{"kind": kind, "shows": shows} for kind, shows in KINDS.items()])
    else:
        show_table(("KIND", "SHOWS"), list(KINDS.items()))
