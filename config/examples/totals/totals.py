# ruff: noqa: INP001 - a folder of code, as in a user's project
"""Handler of the example: counts the clicks on each page in a window, and prints them when it ends."""

from __future__ import annotations

import base64
import json
from typing import Any


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Take some records of a tumbling window with what was counted so far, as AWS Lambda would give it."""
    pages = event["state"]
    for record in event["Records"]:
        page = json.loads(base64.b64decode(record["kinesis"]["data"]))["page"]
        pages[page] = pages.get(page, 0) + 1
    if event["isFinalInvokeForWindow"]:
        print(context.aws_request_id, event["shardId"], event["window"]["start"], json.dumps(pages, sort_keys=True))
    return {"state": pages}
