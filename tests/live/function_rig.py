"""Functions of a running daemon, as boto3 makes and invokes them."""

from __future__ import annotations

import json
from typing import Any

import boto3
from botocore.config import Config

from tests.fakes.api import ROLE, archive
from tests.live.daemon import Daemon

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}


def answering(text: str) -> bytes:
    return archive(f"def handler(event, context): return [{text!r}, context.function_version]")


def api_of(daemon: Daemon) -> Any:
    return boto3.client(
        "lambda",
        endpoint_url=f"http://127.0.0.1:{daemon.port}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def create(api: Any, name: str = "orders", **members: Any) -> Any:
    given = {"Runtime": "python3.12", "Role": ROLE, "Handler": "orders.handler", "Code": {"ZipFile": answering("a")}}
    return api.create_function(FunctionName=name, **given | members)


def invoked(api: Any, name: str = "orders") -> Any:
    answer = api.invoke(FunctionName=name, Payload=b"{}")
    assert "FunctionError" not in answer
    return json.loads(answer["Payload"].read())
