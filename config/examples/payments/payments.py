# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: books payments, in order for each account, and stops an account at the first that fails."""

from __future__ import annotations

import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of a FIFO queue, as AWS Lambda would give it, of several message groups perhaps."""
    failures = []
    stopped = set()
    for message in event["Records"]:
        account = message["attributes"]["MessageGroupId"]
        try:
            if account not in stopped:
                print(context.aws_request_id, account, json.loads(message["body"])["amount"])
        except (ValueError, KeyError, TypeError) as error:
            print("cannot book", message["messageId"], repr(error))
            stopped.add(account)
        if account in stopped:  # also the later ones: on AWS they would be deleted, and the order lost
            failures.append({"itemIdentifier": message["messageId"]})
    return {"batchItemFailures": failures}
