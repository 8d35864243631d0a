"""Functions on an emulator of AWS Lambda that runs them in processes: the same client, a server that is not ours."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest

from connectors.aws import lambda_client
from connectors.lambda_target import LambdaTarget
from connectors.settings import LambdaFunction
from router.core.model import Failed, FailureKind, Refused, Returned
from router.demo.aws import Aws
from router.errors import HandlerUnavailable
from router.ports import Answered

pytestmark = pytest.mark.skipif(find_spec("ministack") is None, reason="the extra `demo` is not installed: make demo")

PATIENCE_S = 60.0
REGION = "us-east-1"
SOURCE = """
import time

def handler(event, context):
    print("got", event)
    if event["do"] == "raise":
        raise KeyError("total")
    if event["do"] == "sleep":
        time.sleep(60)
    if event["do"] == "large":
        return "x" * 7_000_000
    return {"echo": event["do"]}
"""


@dataclass
class Deployed:
    """A function on the emulator."""

    url: str
    arn: str

    async def call(self, event: bytes, *, name: str = "priced", timeout_s: float = PATIENCE_S) -> Answered:
        target = self.target(name, timeout_s)
        try:
            return await asyncio.wait_for(target.call("r", event), PATIENCE_S)
        finally:
            await target.close()

    def target(self, name: str = "priced", timeout_s: float = PATIENCE_S) -> LambdaTarget:
        arn = self.arn.replace("priced", name)
        return LambdaTarget(LambdaFunction("f", arn, None, self.url, REGION, timeout_s, 5, logs=True))


def archive(source: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("app.py", source)
    return content.getvalue()


@pytest.fixture
async def deployed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deployed]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with Aws.running() as aws:
        client: Any
        async with lambda_client(aws.url, REGION) as client:
            made = await client.create_function(
                FunctionName="priced",
                Runtime="python3.11",
                Role="arn:aws:iam::000000000000:role/r",
                Handler="app.handler",
                Code={"ZipFile": archive(SOURCE)},
                Timeout=2,
            )
        yield Deployed(aws.url, made["FunctionArn"])


async def test_a_function_runs_and_its_log_comes_back(deployed: Deployed) -> None:
    answered = await deployed.call(b'{"do": "hello"}')
    assert answered.outcome == Returned(b'{"echo": "hello"}')
    assert "hello" in answered.log


async def test_what_it_does_wrong_is_its_failure(deployed: Deployed) -> None:
    raised = await deployed.call(b'{"do": "raise"}')
    assert isinstance(raised.outcome, Failed)
    assert (raised.outcome.kind, raised.outcome.error.message) == (FailureKind.RAISED, "'total'")
    assert "KeyError" in raised.log
    large = (await deployed.call(b'{"do": "large"}')).outcome
    assert isinstance(large, Failed)
    assert large.error.error_type == "Function.ResponseSizeTooLarge"
    slow = (await deployed.call(b'{"do": "sleep"}')).outcome
    assert isinstance(slow, Failed)
    assert slow.error.message == "Task timed out after 2.00 seconds"
    ours = (await deployed.call(b'{"do": "sleep"}', timeout_s=0.5)).outcome
    assert isinstance(ours, Failed)
    assert ours.kind is FailureKind.TIMED_OUT


async def test_a_function_that_is_not_there_is_refused_and_one_that_is_can_be_checked(deployed: Deployed) -> None:
    missing = (await deployed.call(b"{}", name="nobody")).outcome
    assert isinstance(missing, Refused)
    assert "it does not exist there; deploy it" in missing.error.message
    for name, found in (("priced", "may be invoked; its own timeout is 2 s"), ("nobody", None)):
        target = deployed.target(name)
        try:
            if found is None:
                with pytest.raises(HandlerUnavailable, match="it does not exist there"):
                    await target.check()
            else:
                assert await target.check() == found
        finally:
            await target.close()
