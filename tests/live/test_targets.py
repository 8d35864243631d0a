"""Functions that run elsewhere, in the whole pipeline: on AWS Lambda, and behind a URL."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTopic
from tests.fakes.function_server import FunctionServer, function_server, refusal
from tests.live.daemon import Daemon, await_committed, plain, produce
from tests.live.queue_rig import free_port

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:priced:live"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
KINDS = pytest.mark.parametrize("kind", ["url", "arn"])


def target(kind: str, url: str) -> dict[str, Any]:
    return {"url": f"{url}/fn"} if kind == "url" else {"arn": ARN, "endpoint_url": url}


def records(event: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Give the records of an event, and what they say."""
    for partition in event["records"].values():
        for record in partition:
            yield record, json.loads(base64.b64decode(record["value"]))


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[tuple[Daemon, FunctionServer]]:
    async with function_server() as server, Daemon(folder, KEYS) as daemon:
        yield daemon, server


#: What a record wishes, and what is then stored about it: error type and part of its message.
WISHES = {
    "raise": ("KeyError", "total"),
    "wait": ("Sandbox.Timedout", "Task timed out after 3.00 seconds: it did not answer, and may still run"),
    "large": ("Function.ResponseSizeTooLarge", "6291556 bytes"),
    "garbage": ("Headrace.BadBatchResponse", "malformed"),
    "nonsense": ("Headrace.BadBatchResponse", "malformed"),
}


@KINDS
async def test_every_way_to_fail_spends_its_attempts_and_is_stored_under_its_name(
    kind: str, tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    ledger: Counter[str] = Counter()
    async with rig(tmp_path) as (daemon, server):

        async def obey(event: Any) -> bytes | None:
            [(_, wish)] = records(event)
            ledger[wish] += 1
            match wish:
                case "raise":
                    return None
                case "wait":
                    await server.wait()
                case "large":
                    return b'"' + b"x" * 10_000_000 + b'"'
                case "garbage":
                    return b"\x00<p>garbage\xff"
                case "nonsense":
                    return b'{"batchItemFailures": [{"itemIdentifier": "nonsense"}]}'
            return b"null"

        server.function = obey
        daemon.document["functions"]["priced"] = {**target(kind, server.url), "timeout": 3}
        daemon.mapping(
            "priced",
            plain(kafka_bootstrap, name),
            batch_size=1,
            maximum_retry_attempts=1,
            function_response_types=["ReportBatchItemFailures"],
            destination_config={"on_failure": {"file": {"path": "failed.jsonl"}}},
        )
        await produce(kafka_bootstrap, name, [(None, "fine"), *((None, wish) for wish in WISHES), (None, "fine")])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: len(WISHES) + 2})
        failures = await daemon.failures()
        told = tmp_path / "failed.jsonl"
        await daemon.until(lambda: told.read_text().count("\n") == len(WISHES), "the destination is told of all")
        assert await daemon.terminate() == 0
    arns = {json.loads(line)["requestContext"]["functionArn"] for line in told.read_text().splitlines()}
    assert arns == {ARN if kind == "arn" else "arn:aws:lambda:us-east-1:000000000000:function:priced"}
    assert ledger == {"fine": 2, **dict.fromkeys(WISHES, 2)}
    for failure, (wish, (error_type, message)) in zip(failures, WISHES.items(), strict=True):
        assert (failure["attempts"], failure["error_type"]) == (2, error_type), wish
        assert message in failure["error_message"], wish


@KINDS
async def test_a_throttle_spends_nothing_and_all_arrives_in_order_once_it_is_over(
    kind: str, tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    seen: list[int] = []
    async with rig(tmp_path) as (daemon, server):

        async def take(event: Any) -> bytes:
            seen.extend(number for _, number in records(event))
            return b"null"

        server.function = take
        server.instead = refusal(429, "TooManyRequestsException", "Rate Exceeded.")
        daemon.document["functions"]["priced"] = target(kind, server.url)
        daemon.mapping("priced", plain(kafka_bootstrap, name), batch_size=2, maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("k", number) for number in range(9)])
        await daemon.start()
        await daemon.until(lambda: len(daemon.events("batch.refused")) >= 3, "it is tried again and again")
        status = await daemon.until_reason("priced", "FunctionUnavailable")
        assert status["state"] == "retrying"
        assert {"url": "status 429", "arn": "it is throttled"}[kind] in status["reason"]["message"]
        assert {line["attempts"] for line in daemon.events("batch.refused")} == {0}
        server.instead = None
        await await_committed(kafka_bootstrap, name, {0: 9})
        assert await daemon.failures() == []
        assert await daemon.terminate() == 0
    assert seen == list(range(9))


async def test_a_service_that_goes_away_in_the_middle_loses_nothing(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name, port = await topic(1), free_port()
    seen: list[int] = []

    async def take(event: Any) -> bytes:
        seen.extend(number for _, number in records(event))
        return b"null"

    async with Daemon(tmp_path) as daemon:
        daemon.document["functions"]["priced"] = target("url", f"http://127.0.0.1:{port}")
        daemon.mapping("priced", plain(kafka_bootstrap, name), batch_size=1, maximum_retry_attempts=0)
        await daemon.start()
        for start in (0, 5):
            async with function_server(port) as server:
                server.function = take
                await produce(kafka_bootstrap, name, [("k", number) for number in range(start, start + 4)])
                await await_committed(kafka_bootstrap, name, {0: start + 4})
                held = asyncio.Event()

                async def hold(_event: Any, held: asyncio.Event = held, server: FunctionServer = server) -> bytes:
                    held.set()
                    await server.wait()
                    return b"null"

                server.function = hold
                await produce(kafka_bootstrap, name, [("k", start + 4)])
                await held.wait()
            # It closed the connection without an answer.
            await daemon.line("batch.refused", mapping="priced", attempts=0, after=len(daemon.lines) - 1)
        async with function_server(port) as server:
            server.function = take
            await await_committed(kafka_bootstrap, name, {0: 10})
            assert await daemon.failures() == []
            assert await daemon.terminate() == 0
    assert seen == list(range(10))


@KINDS
async def test_what_it_reports_runs_again_and_no_more_at_once_than_allowed(
    kind: str, tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(6)
    seen: Counter[int] = Counter()
    async with rig(tmp_path) as (daemon, server):

        async def report(event: Any) -> bytes:
            failed = []
            for record, number in records(event):
                seen[number] += 1
                if number % 10 == 7:
                    place = f"{record['topic']}-{record['partition']}"
                    failed.append({"itemIdentifier": {"partition": place, "offset": record["offset"]}})
            return json.dumps({"batchItemFailures": failed}).encode()

        server.function = report
        daemon.document["functions"]["priced"] = {**target(kind, server.url), "reserved_concurrency": 2}
        daemon.mapping(
            "priced",
            plain(kafka_bootstrap, name),
            batch_size=10,
            maximum_retry_attempts=2,
            function_response_types=["ReportBatchItemFailures"],
        )
        for partition in range(6):
            numbers = range(partition * 20, partition * 20 + 20)
            await produce(kafka_bootstrap, name, [(None, number) for number in numbers], partition=partition)
        await daemon.start()
        await await_committed(kafka_bootstrap, name, dict.fromkeys(range(6), 20))
        failures = await daemon.failures()
        assert await daemon.terminate() == 0
    # Once in its batch; what is left of a batch is a new one, with all its retries.
    assert seen == {number: 4 if number % 10 == 7 else 1 for number in range(120)}
    assert [failure["batch_size"] for failure in failures] == [1] * 12
    assert 1 <= server.most <= 2


async def test_what_operators_see_of_a_function_on_lambda(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    async with rig(tmp_path) as (daemon, server):
        daemon.document["functions"]["priced"] = target("arn", server.url)
        daemon.mapping("priced", plain(kafka_bootstrap, name))
        daemon.write()
        looked = (await daemon.command("check", "--connect", "--json")).json()["checks"]
        found = {check["name"]: check["detail"] for check in looked}["functions.priced"]
        assert found == f"{ARN}: may be invoked; its own timeout is 3 s"

        invoked = await daemon.command("invoke", "priced", "--json")
        assert invoked.status == 0, invoked.err
        document = invoked.json()
        assert (document["status_code"], document["function_error"], document["payload"]) == (200, None, {})
        assert document["log"] == server.log
        shown = await daemon.command("invoke", "priced")
        assert (shown.out, shown.err) == ("{}\n", server.log)
        event = tmp_path / "event.json"
        event.write_text('{"do": "raise"}')
        raised = await daemon.command("invoke", "priced", "--event", str(event))
        assert raised.status == 1
        assert raised.err.endswith("headrace: the function failed: KeyError: 'total'\n")
        server.instead = refusal(429, "TooManyRequestsException", "Rate Exceeded.")
        throttled = await daemon.command("invoke", "priced")
        expected = "headrace: function priced: it is throttled (Invoke: TooManyRequestsException)\n"
        assert (throttled.status, throttled.out, throttled.err) == (1, "", expected)
        server.instead = None

        nothing = await daemon.command("logs", "priced")
        assert nothing.err == "headrace: function priced has printed nothing yet\n"
        await produce(kafka_bootstrap, name, [("k", 1)])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 1})
        status = (await daemon.command("status", "--json")).json()
        assert [(each["name"], each["handler"]) for each in status["functions"]] == [("priced", ARN)]
        assert await daemon.terminate() == 0
        logged = await daemon.command("logs", "priced")
        assert logged.out == server.log


async def test_what_was_with_the_function_when_the_daemon_was_killed_comes_again(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    seen: list[int] = []
    async with rig(tmp_path) as (daemon, server):

        async def hold(event: Any) -> bytes:
            seen.extend(number for _, number in records(event))
            await server.wait()
            return b"null"

        async def take(event: Any) -> bytes:
            seen.extend(number for _, number in records(event))
            return b"null"

        server.function = hold
        daemon.document["functions"]["priced"] = target("url", server.url)
        daemon.mapping("priced", plain(kafka_bootstrap, name), maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("k", 1)])
        await daemon.start()
        await daemon.until(lambda: seen == [1], "it has the record")
        await daemon.kill()
        server.function = take
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert await daemon.failures() == []
        assert await daemon.terminate() == 0
    assert seen == [1, 1]


async def test_a_stop_waits_for_the_answer_and_commits_it(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    async with rig(tmp_path) as (daemon, server):

        async def take(_event: Any) -> bytes:
            await server.count(1)
            return await answers.get()

        server.function = take
        daemon.document["functions"]["priced"] = target("url", server.url)
        daemon.mapping("priced", plain(kafka_bootstrap, name), maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("k", 1)])
        await daemon.start()
        await server.began(1)
        stopping = asyncio.create_task(daemon.terminate())
        await daemon.line("daemon.draining")
        answers.put_nowait(b"null")
        assert await stopping == 0
        await await_committed(kafka_bootstrap, name, {0: 1})
        assert server.begun == 1


async def test_a_function_that_moves_is_called_where_it_is_now(
    tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    name = await topic(1)
    seen: dict[str, list[int]] = {"old": [], "new": []}

    def taking(place: str) -> Any:
        async def take(event: Any) -> bytes:
            seen[place].extend(number for _, number in records(event))
            return b"null"

        return take

    async with function_server() as moved, rig(tmp_path) as (daemon, server):
        server.function, moved.function = taking("old"), taking("new")
        daemon.document["functions"]["priced"] = target("url", server.url)
        daemon.mapping("priced", plain(kafka_bootstrap, name))
        await produce(kafka_bootstrap, name, [("k", 1)])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 1})
        daemon.document["functions"]["priced"] = target("url", moved.url)
        daemon.write()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("config.reloaded")
        await produce(kafka_bootstrap, name, [("k", 2)])
        await await_committed(kafka_bootstrap, name, {0: 2})
        assert await daemon.terminate() == 0
    assert seen == {"old": [1], "new": [2]}
