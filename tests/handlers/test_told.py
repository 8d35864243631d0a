"""What a handler is told of one invocation beside its event, and what who invokes it is given of its log."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.core.model import Failed, Refused, Returned
from router.ports import Invocation, Told
from tests.handlers.conftest import PATIENCE_S
from tests.handlers.test_interpreters import python

BOTH_WAYS = True

__all__ = ["python"]

ARN = "arn:aws:lambda:us-east-1:000000000000:function:orders"
SOURCE = """
import os

{kind} handle(event, context):
    said = context.client_context
    client = said and said.client
    return {{
        "event": event,
        "arn": context.invoked_function_arn,
        "custom": said and said.custom,
        "env": said and said.env,
        "app": client and [client.installation_id, client.app_title],
        "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }}
"""
KINDS = pytest.mark.parametrize(("kind", "together"), [("def", 1), ("async def", 1), ("async def", 8)])


async def ask(pool, event=None, *, told=None, logs=None):
    outcome = asyncio.get_running_loop().create_future()
    log = None if logs is None else logs.append
    body = json.dumps(event).encode()
    pool.invoke(Invocation("the-request", lambda: body, True, outcome.set_result, told=told, log=log))
    return await asyncio.wait_for(outcome, PATIENCE_S)


@KINDS
async def test_the_handler_finds_what_it_is_told_and_only_then(shop, python, kind, together):
    pool = shop.pool(SOURCE.format(kind=kind), python=python, concurrency_per_worker=together)
    context = {"client": {"installation_id": "i", "app_title": "é"}, "custom": {"a": [1]}, "env": {"locale": "de"}}
    told = Told(f"{ARN}:live", json.dumps(context), "Root=1-67891233-abcdef012345678912345678;Sampled=1")
    before = (await ask(pool, "before")).body
    found = (await ask(pool, {"text": "é"}, told=told)).body
    after = (await ask(pool, "after")).body
    assert found["event"] == {"text": "é"}
    assert (found["arn"], found["custom"], found["env"]) == (f"{ARN}:live", {"a": [1]}, {"locale": "de"})
    assert (found["app"], found["identity"]) == (["i", "é"], [None, None])
    assert together > 1 or found["trace"] == told.trace_id
    for each in (before, after):
        assert (each["arn"], each["custom"], each["app"]) == (ARN, None, None)
        assert each["trace"] != told.trace_id


async def test_a_large_event_arrives_behind_what_is_told(shop):
    pool = shop.pool("def handle(event, context): return [len(event), context.client_context.custom]")
    told = Told(client_context=json.dumps({"custom": {"a": "b" * 3000}}))
    answer = (await ask(pool, "x" * 3_000_000, told=told)).body
    assert answer == [3_000_000, {"a": "b" * 3000}]


async def test_a_client_context_that_is_no_object_fails_the_invocation_alone(shop):
    pool = shop.pool("def handle(event, context): return event")
    outcome = await ask(pool, told=Told(client_context="[1]"))
    assert isinstance(outcome, Failed)
    assert outcome.error.error_type == "AttributeError"
    assert await ask(pool, 1) == Returned(1, pytest.approx(0, abs=5000))


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("together", [1, 8])
async def test_the_log_of_one_invocation_is_told_before_its_end_also_where_none_is_kept(shop, kept, together):
    source = """
        import os
        async def handle(event, context):
            print("said", event)
            return os.getpid()
    """
    pool = shop.pool(source, logs=kept, concurrency_per_worker=together)
    logs = []
    await ask(pool, "unasked")
    first = await ask(pool, "first", logs=logs)
    second = await ask(pool, "second", logs=logs)
    await ask(pool, "unasked")
    assert [each.count("\nsaid ") or each.count("said ") for each in logs] == [1, 1]
    assert "said first\n" in logs[0]
    lines = logs[1].splitlines()
    assert lines[0] == "START RequestId: the-request Version: $LATEST"
    assert lines[1:3] == ["said second", "END RequestId: the-request"]
    assert lines[3].startswith("REPORT RequestId: the-request\tDuration: ")
    assert first.body == second.body, "each has a worker of its own"
    assert len(shop.log.requests) == (4 if kept else 0)


async def test_the_log_tells_of_timeouts_and_of_what_keeps_a_function_from_beginning(shop):
    pool = shop.pool("import time\ndef handle(*_):\n print('begun')\n time.sleep(60)", timeout_s=2, logs=False)
    logs = []
    assert isinstance(await ask(pool, logs=logs), Failed)
    assert "begun\n" in logs[0]
    assert "the-request Task timed out after " in logs[0]
    broken = shop.pool("print('loading')\nraise KeyError('none')", logs=False)
    assert isinstance(await ask(broken, logs=logs), Refused)
    assert "loading\n" in logs[1]
    assert "[ERROR] KeyError: 'none'" in logs[1]


async def test_a_version_is_what_handlers_and_logs_are_told(shop):
    source = """
        import os
        def handle(event, context):
            names = ("AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_EXECUTION_ENV")
            return [context.function_version, context.invoked_function_arn, *map(os.environ.get, names)]
    """
    pool = shop.pool(source, version="3", account_id="123456789012", region="cn-north-1", runtime="python3.12")
    version, arn, variable, stream, runtime = (await ask(pool)).body
    assert (version, variable, runtime) == ("3", "3", "AWS_Lambda_python3.12")
    assert arn == "arn:aws-cn:lambda:cn-north-1:123456789012:function:orders:3"
    assert "/[3]" in stream
    assert "START RequestId: the-request Version: 3\n" in shop.log.requests[0][1]
