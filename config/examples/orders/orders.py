# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: prints the orders of a batch and reports those that cannot be read."""

from __future__ import annotations

import base64
import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take a batch of Kafka records, as AWS Lambda would give it."""
    failures = []
    for partition, records in event["records"].items():
        for record in records:
            try:
                print(context.aws_request_id, json.loads(base64.b64decode(record["value"])))
            except ValueError:
                failures.append({"itemIdentifier": {"partition": partition, "offset": record["offset"]}})
    return {"batchItemFailures": failures}
