# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: prints what happened to which object."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus


def handler(event: dict[str, Any], context: Any) -> None:
    """Take S3 events, as AWS Lambda would give them."""
    for record in event["Records"]:
        bucket, item = record["s3"]["bucket"]["name"], record["s3"]["object"]
        key = unquote_plus(item["key"])  # S3 encodes it as in a form
        print(context.aws_request_id, record["eventName"], f"s3://{bucket}/{key}", item.get("size"))
