"""The worker's file runs in the user's interpreter, from the oldest on, and the daemon under both event loops."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import uvloop

from router.core.model import Failed, Refused, Returned
from tests.handlers.conftest import Shop

BOTH_WAYS = True


def find(version: str) -> str | None:
    minor = ".".join(version.split(".")[:2])
    home = Path.home() / ".pyenv" / "versions"
    installed = sorted(home.glob(f"{minor}.*/bin/python")) if home.is_dir() else []
    return str(installed[-1]) if installed else shutil.which(f"python{minor}")


@pytest.fixture(params=["3.9", "3.12", "3.13"])
def python(request) -> str:
    return find(request.param) or pytest.skip(f"no CPython {request.param} on this machine")


SOURCE = """
import logging, os, sys
from decimal import Decimal

async def handle(event, context):
    logging.warning("warned")
    if event == "raise":
        raise ValueError("é")
    if event == "generator":
        return (item for item in event)
    if event == "die":
        os._exit(5)
    return [event, list(sys.version_info[:2]), os.environ["AWS_EXECUTION_ENV"], Decimal("1.5"), context.function_name]
"""


async def scenario(shop, python: str) -> None:
    pool = shop.pool(SOURCE, python=python)
    answer = (await shop.invoke(pool, {"text": "é", "big": 2**70})).body
    _, minor = answer[1]
    assert answer == [{"text": "é", "big": 2.0**70}, [3, minor], f"AWS_Lambda_python3.{minor}", 1.5, "orders"]
    assert (await shop.invoke(pool, "raise")).error.message == "é"
    assert (await shop.invoke(pool, "raise")).error.trace[-1].endswith('raise ValueError("é")\n')
    assert (await shop.invoke(pool, "generator")).error.error_type == "Runtime.MarshalError"
    assert (await shop.invoke(pool, "die")).error.message.endswith("exit status 5")
    assert isinstance(await shop.invoke(pool, "x" * 3_000_000), Returned)
    assert "[WARNING]" in shop.log.requests[0][1]
    missing = await shop.invoke(shop.pool(handler="lost.handle", python=python))
    assert isinstance(missing, Refused)
    assert missing.error.error_type == "Runtime.ImportModuleError"
    hung = await shop.run("import time\ndef handle(*_): time.sleep(9)", python=python, timeout_s=0.2)
    assert isinstance(hung, Failed)
    said = shop.pool(SOURCE, python=python, json_logs=True)
    assert (await shop.invoke(said, "raise", "as-json")).error.trace[-1].startswith('  File "/var/task/app.py"')
    [(_, text)] = [each for each in shop.log.requests if each[0] == "as-json"]
    start, warned, raised, report = map(json.loads, text.splitlines())
    assert (start["type"], report["type"]) == ("platform.start", "platform.report")
    assert (warned["message"], warned["requestId"], raised["errorType"]) == ("warned", "as-json", "ValueError")


TASKS = """
import asyncio, logging, os, sys, time

gate = asyncio.Event() if sys.version_info >= (3, 10) else None  # before, it belonged to the loop of its making

async def handle(event, context):
    global gate
    gate = gate or asyncio.Event()
    logging.warning("%s begins", event)
    if event == "wait":
        await gate.wait()
    if event == "open":
        gate.set()
    if event == "raise":
        raise ValueError("é")
    if event == "die":
        await asyncio.sleep(0.1)
        sys.exit(5)
    if event == "block":
        time.sleep(1000)
    if event == "hang":
        await asyncio.sleep(1000)
    await asyncio.to_thread(print, event, "ends")
    return [event, list(sys.version_info[:2]), "uvloop" in sys.modules]
"""


async def tasks_scenario(shop, python: str | None, *, uvloop: bool) -> None:
    pool = shop.pool(TASKS, python=python, concurrency_per_worker=8)
    held = [shop.start(pool, "wait", f"wait-{number}") for number in range(3)]
    failed = shop.start(pool, "raise", "raise")
    opened = shop.start(pool, "open", "open")
    answers = [(await each).body for each in (opened, *held)]
    assert [answer[0] for answer in answers] == ["open", "wait", "wait", "wait"]
    assert {answer[2] for answer in answers} == {uvloop}
    assert (await failed).error.trace[-1].endswith('raise ValueError("é")\n')
    for name, text in shop.log.requests:
        event = name.partition("-")[0]
        assert f"\t{name}\t{event} begins\n" in text
        assert ("ends" in text) == (event != "raise")
        assert text.count(" begins\n") == 1
    assert isinstance(await shop.invoke(pool, "x" * 3_000_000), Returned)
    pool = shop.pool(TASKS, python=python, concurrency_per_worker=8, timeout_s=2)
    late = await shop.invoke(pool, "hang")
    assert isinstance(late, Failed)
    ends = await asyncio.gather(*(shop.settle(pool, event, f"new-{event}") for event in ("die", "open", "block")))
    died, ended, blocked = (outcome for outcome, _ in ends)
    assert died.error.message == "RequestId: new-die Error: Runtime exited with error: exit status 5"
    assert isinstance(ended, Returned)
    assert blocked.error.error_type == "Sandbox.Timedout"
    plain = await shop.run("def handle(*_): pass", python=python, concurrency_per_worker=2)
    assert isinstance(plain, Refused)
    assert plain.error.error_type == "Runtime.HandlerNotAsync"


async def test_the_users_interpreter_runs_the_function(shop, python):
    await scenario(shop, python)


async def test_the_users_interpreter_runs_several_at_once(shop, python):
    await tasks_scenario(shop, python, uvloop=False)


def test_workers_run_under_uvloop(tmp_path):
    async def main() -> None:
        shop = Shop(tmp_path)
        await scenario(shop, None)
        shop.log.texts.clear()
        await tasks_scenario(shop, None, uvloop=True)
        for pool in shop.pools:
            await pool.close()

    uvloop.run(main())


async def test_an_interpreter_that_is_too_old_says_so(shop):
    old = find("3.6") or pytest.skip("no CPython 3.6 on this machine")
    outcome = await shop.run("def handle(event, context): pass", python=old)
    assert isinstance(outcome, Refused)
    assert "exit status 1 (last output: SyntaxError" in outcome.error.message
