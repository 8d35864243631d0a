"""Logs as JSON: what AWS's own runtime makes of the same log calls, and the lines around them."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from awslambdaric.lambda_runtime_log_utils import JsonFormatter

from tests.handlers.conftest import Shop

BOTH_WAYS = True

SAYS = """
    import logging
    log = logging.getLogger("shop")

    def handle(event, context):
        log.debug("not said")
        log.info("order %s", 7, extra={"order": 7, "at": {1, 2}, "price": None})
        log.warning({"customer": "é", "total": 2})
        log.log(35, "between")
        print("as it is")
        try:
            event["price"]
        except KeyError:
            log.exception("no price")
"""


def lines(shop: Shop, index: int = 0) -> list[Any]:
    return [json.loads(line) if line.startswith("{") else line for line in shop.log.requests[index][1].splitlines()]


async def test_lines_of_logging_are_those_of_awss_own_runtime(shop: Shop) -> None:
    await shop.invoke(shop.pool(SAYS, json_logs=True), {}, "id-1")
    start, order, customer, between, printed, failed, report = lines(shop)
    assert start["type"] == "platform.start"
    assert printed == "as it is"
    theirs = JsonFormatter()

    def expected(message: object, level: int, arguments: tuple[object, ...] = (), **extra: object) -> Any:
        record = logging.LogRecord("shop", level, "/var/task/app.py", 1, message, arguments, None)
        vars(record).update(extra, aws_request_id="id-1")
        return json.loads(theirs.format(record))

    for said, theirs_says in (
        (order, expected("order %s", logging.INFO, (7,), order=7, at=order["at"])),
        (customer, expected({"customer": "é", "total": 2}, logging.WARNING)),
        (between, expected("between", 35)),
    ):
        assert {**said, "timestamp": ""} == {**theirs_says, "timestamp": ""}
        assert list(said) == list(theirs_says), "in the same order, for who reads them"
        assert datetime.fromisoformat(said["timestamp"]).tzinfo == UTC
    assert failed["errorType"] == "KeyError"
    assert failed["errorMessage"] == "'price'"
    assert failed["location"].startswith("/var/task/app.py:handle:")
    assert failed["stackTrace"][0].startswith('  File "/var/task/app.py", line ')
    assert list(failed) == [
        "timestamp", "level", "message", "logger", "stackTrace", "errorType", "errorMessage", "requestId", "location",
    ]  # fmt: skip
    assert report["type"] == "platform.report"


async def test_the_lines_around_them_are_those_of_the_telemetry_api(shop: Shop) -> None:
    pool = shop.pool("def handle(event, context): pass", json_logs=True)
    for request_id in ("id-1", "id-2"):
        await shop.invoke(pool, None, request_id)
    (start, report), (_, second) = lines(shop), lines(shop, 1)
    assert start["record"] == {"requestId": "id-1", "version": "$LATEST"}
    assert report["record"]["status"] == "success"
    metrics = report["record"]["metrics"]
    assert (metrics["memorySizeMB"], metrics["billedDurationMs"] >= metrics["durationMs"]) == (128, True)
    assert metrics["restoreDurationMs" if shop.snap_start else "initDurationMs"] > 0
    assert set(second["record"]["metrics"]) == {"durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB"}


async def test_an_error_is_an_object_too(shop: Shop) -> None:
    outcome = await shop.run("def handle(event, context): raise KeyError('lost')", json_logs=True)
    _, said, report = lines(shop)
    assert said.pop("timestamp")
    assert said == {
        "level": "ERROR",
        "errorMessage": "'lost'",
        "errorType": "KeyError",
        "requestId": "request-1",
        "stackTrace": list(outcome.error.trace),
    }
    assert report["record"]["status"] == "success", "for the platform, which the function has answered"


@pytest.mark.parametrize(
    ("source", "timeout_s", "outcome"),
    [
        ("import time\ndef handle(event, context): time.sleep(99)", 0.5, {"status": "timeout"}),
        (
            "import os\ndef handle(event, context): os._exit(1)",
            30.0,
            {"status": "error", "errorType": "Runtime.ExitError"},
        ),
    ],
)
async def test_an_end_with_the_worker_is_told(
    shop: Shop, source: str, timeout_s: float, outcome: dict[str, str]
) -> None:
    await shop.run(source, json_logs=True, timeout_s=timeout_s)
    record = lines(shop)[-1]["record"]
    assert {key: record.get(key) for key in outcome} == outcome


async def test_a_module_that_breaks_is_told(shop: Shop) -> None:
    await shop.run("raise ValueError('no table')", json_logs=True)
    said, report = [json.loads(line) for line in shop.log.texts[0][1].splitlines()]
    assert (said["errorType"], said["requestId"]) == ("ValueError", "")
    assert report["type"] == "platform.initReport"
    assert report["record"]["status"] == "error"


async def test_the_level_is_info_where_nobody_says_another(shop: Shop) -> None:
    source = """
        import logging, os
        def handle(event, context): return [logging.getLogger().level, os.environ["AWS_LAMBDA_LOG_FORMAT"]]
    """
    assert (await shop.run(source, json_logs=True)).body == [logging.INFO, "JSON"]
    assert (await shop.run(source, json_logs=True, log_level="error")).body == [logging.ERROR, "JSON"]
