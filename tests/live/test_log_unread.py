"""A log that nobody reads: the daemon carries on, and tells afterwards what is missing."""

import json
import os
from contextlib import contextmanager

import aiohttp
import pytest

from tests.live.daemon import Daemon, plain, produce

#: Every failing record makes a line of this size and more.
SAID_BYTES = 20_000
RECORDS = 150

FAILING = f"""
def handle(event, context):
    raise ValueError("x" * {SAID_BYTES})
"""


@contextmanager
def pipe():
    """Give the two ends of a pipe; the daemon has the second as its standard error."""
    reading, writing = os.pipe()
    try:
        yield reading, writing
    finally:
        os.close(writing)
        os.close(reading)


@pytest.fixture
async def daemon(tmp_path, topic, kafka_bootstrap):
    """A daemon whose every record fails, with more to say of them than any pipe or buffer takes."""
    name = await topic()
    await produce(kafka_bootstrap, name, [(None, number) for number in range(RECORDS)])
    async with Daemon(tmp_path) as made:
        made.function("orders", FAILING)
        made.mapping("orders", plain(kafka_bootstrap, name), batch_size=1, maximum_retry_attempts=0)
        yield made


async def until_all_failed(daemon):
    while len(await daemon.failures()) < RECORDS:
        pass  # every turn is a command that takes a while


async def dropped_lines(daemon):
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{daemon.port}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("headrace_log_lines_dropped_total "))


async def test_records_flow_and_the_daemon_stops_though_nobody_reads_its_log(daemon):
    with pipe() as (_, writing):
        await daemon.start(stderr=writing)
        await until_all_failed(daemon)
        assert await dropped_lines(daemon) > 0
        assert await daemon.terminate() == 0


async def test_who_reads_the_log_late_learns_what_is_missing_and_sees_the_rest(daemon):
    with pipe() as (reading, writing):
        await daemon.start(stderr=writing)
        await until_all_failed(daemon)
        dropped = await dropped_lines(daemon)
        told = 0
        with os.fdopen(os.dup(reading)) as log:
            while told < dropped:
                line = json.loads(log.readline())
                told += line["lines"] if line["event"] == "log.dropped" else 0
            assert told == await dropped_lines(daemon)  # which may be more by now
            daemon.process.terminate()
            while json.loads(log.readline())["event"] != "daemon.stopped":
                pass
        assert await daemon.exit() == 0


async def test_a_second_signal_ends_it_though_nobody_reads_its_log(daemon):
    with pipe() as (_, writing):
        await daemon.start(stderr=writing)
        await until_all_failed(daemon)
        daemon.process.terminate()
        daemon.process.terminate()
        assert await daemon.exit() in (0, -15)
