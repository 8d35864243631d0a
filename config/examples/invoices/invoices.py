# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: prints the invoices of a batch and reports the messages that cannot be read."""

from __future__ import annotations

import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of SQS messages, as AWS Lambda would give it."""
    failures = []
    for message in event["Records"]:
        try:
            invoice = json.loads(message["body"])
            print(context.aws_request_id, invoice["number"], invoice["amount"])
        except (ValueError, KeyError, TypeError) as error:
            print("cannot read", message["messageId"], repr(error))
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}
