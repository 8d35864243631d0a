# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: prints the orders of a batch and stops at the first change that cannot be read."""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of a table's stream, as AWS Lambda would give it."""
    for record in event["Records"]:
        change = record["dynamodb"]
        try:
            order = change["NewImage"]
            print(context.aws_request_id, record["eventName"], order["id"]["S"], order["total"]["N"])
        except KeyError as error:
            print("cannot read", change["SequenceNumber"], repr(error))
            # This one and those behind it come again.
            return {"batchItemFailures": [{"itemIdentifier": change["SequenceNumber"]}]}
    return {"batchItemFailures": []}
