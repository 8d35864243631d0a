# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: prints the clicks of a batch and stops at the first record that cannot be read."""

from __future__ import annotations

import base64
import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of Kinesis records, as AWS Lambda would give it."""
    for record in event["Records"]:
        number = record["kinesis"]["sequenceNumber"]
        try:
            click = json.loads(base64.b64decode(record["kinesis"]["data"]))
            print(context.aws_request_id, record["kinesis"]["partitionKey"], click["page"])
        except (ValueError, KeyError, TypeError) as error:
            print("cannot read", number, repr(error))
            return {"batchItemFailures": [{"itemIdentifier": number}]}  # this one and those behind it come again
    return {"batchItemFailures": []}
