"""Every file under `config/examples` runs as it stands, on real servers, with the handlers beside it.

Only what a user has to change is changed in a copy: names, ports and the account; where AWS is comes from the
environment. That a record reached its handler is read from the log of the function.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiokafka import AIOKafkaConsumer

from handlers.log_reader import LogReader
from handlers.logs import log_file
from tests.conftest import MakeTopic
from tests.fakes.function_server import function_server
from tests.live.daemon import PATIENCE_S, Daemon, produce
from tests.live.queue_rig import Queue, Queues
from tests.live.s3_rig import S3Rig, open_rig
from tests.live.stream_rig import Streams

FOLDER = Path(__file__).parents[2] / "config/examples"


class Example(Daemon):
    """A copy of the examples' folder, with one of the files as headrace.yaml."""

    def __init__(self, folder: Path, name: str, aws_endpoint: str) -> None:
        super().__init__(folder, {"AWS_ENDPOINT_URL": aws_endpoint})
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        self.text = (FOLDER / name).read_text()

    def change(self, old: str, new: str) -> None:
        """Change a value that stands in the file once."""
        assert self.text is not None
        assert self.text.count(old) == 1, old
        self.text = self.text.replace(old, new)

    async def check(self, *options: str) -> Sequence[dict[str, Any]]:
        """Demand that `check --connect` is content; gives what it looked at."""
        self.write()
        done = await self.command("check", "--connect", *options, "--json")
        checks = done.json()["checks"]
        assert done.status == 0, checks
        assert all(check["ok"] for check in checks)
        return list(checks)

    def printed(self, function: str) -> list[str]:
        """Give what the handler has printed, without the request id that begins each line."""
        with closing(LogReader(log_file(self.folder / ".headrace", function))) as reader:
            lines = [line for entry in reader.read() for line in entry.message.splitlines()]
        return [words for line in lines if re.match("[0-9a-f]{8}-", line) for _, words in [line.split(" ", 1)]]

    async def until_printed(self, function: str, lines: int) -> list[str]:
        await self.until(lambda: len(self.printed(function)) >= lines, f"{function} has printed {lines} lines")
        return self.printed(function)

    async def given_up(self, mapping: str) -> Mapping[str, Any]:
        """Wait for the one failure that there is to be."""
        line = await self.line("batch.discarded", mapping=mapping)
        [failure] = await self.failures()
        assert failure["id"] == line["failure"]
        return failure


@pytest.fixture
async def rig(aws_endpoint: str) -> AsyncIterator[S3Rig]:
    async with open_rig(aws_endpoint) as made:
        yield made


async def take(queue: Queue) -> str:
    """Wait for one message of a queue; gives its body."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await queue.queues.client.receive_message(QueueUrl=queue.url, WaitTimeSeconds=20)
            for message in answer.get("Messages", ()):
                return str(message["Body"])


async def read(bootstrap: str, topic: str) -> Mapping[str, Any]:
    """Wait for the first record of a topic; gives what it says."""
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        return dict(json.loads((await consumer.getone()).value))


async def test_kafka(tmp_path: Path, aws_endpoint: str, kafka_bootstrap: str, topic: MakeTopic) -> None:
    orders, failed = await topic(2), await topic()
    async with Example(tmp_path, "kafka.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("127.0.0.1:9092", kafka_bootstrap)
        daemon.change("topic: orders\n", f"topic: {orders}\n")
        daemon.change("consumer_group: orders\n", f"consumer_group: {orders}\n")
        daemon.change("{topic: orders-failed}", f"{{topic: {failed}}}")
        await daemon.check()
        await daemon.start()
        await produce(kafka_bootstrap, orders, [(f"k{n}", {"kind": "order", "n": n}) for n in range(250)])
        await produce(kafka_bootstrap, orders, [("k", {"kind": "offer"}), ("k", b"no JSON")])
        printed = await daemon.until_printed("orders", 250)
        assert sorted(printed) == sorted(str({"kind": "order", "n": n}) for n in range(250))
        failure = await daemon.given_up("orders-stream")
        assert (failure["reason"], failure["attempts"], failure["batch_size"]) == ("RetryAttemptsExhausted", 4, 1)
        told = await read(kafka_bootstrap, failed)
        assert told["requestContext"]["condition"] == "RetriesExhausted"
        assert await daemon.terminate() == 0


async def test_sqs(tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
    invoices, failed = await queues.make(VisibilityTimeout="180"), await queues.make()
    async with Example(tmp_path, "sqs.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("queue: invoices  ", f"queue: {invoices.name}  ")
        daemon.change("queue: invoices-failed", f"queue: {failed.name}")
        await daemon.check()
        await daemon.start()
        good = [{"kind": "invoice", "number": n, "amount": 5} for n in range(60)]
        await invoices.send({"kind": "offer"}, "no JSON", {"kind": "invoice"}, *good)
        assert sorted(await daemon.until_printed("invoices", 60)) == sorted(f"{n} 5" for n in range(60))
        failure = await daemon.given_up("invoices")
        assert (failure["reason"], failure["attempts"], failure["batch_size"]) == ("RetryAttemptsExhausted", 4, 1)
        told = json.loads(await take(failed))
        assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert await daemon.terminate() == 0
        assert await invoices.counts() == (0, 0)


async def test_kinesis(tmp_path: Path, aws_endpoint: str, streams: Streams, queues: Queues) -> None:
    clicks, failed = await streams.make(2), await queues.make()
    async with Example(tmp_path, "kinesis.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("stream: clicks  ", f"stream: {clicks.name}  ")
        daemon.change("queue: clicks-failed", f"queue: {failed.name}")
        await daemon.check()
        await daemon.start()
        good = [(f"user-{n % 7}", {"kind": "click", "page": f"/{n}"}) for n in range(60)]
        await clicks.put(*good[:30], ("user-1", {"kind": "view"}), ("user-1", "no JSON"))
        await clicks.put(("user-1", {"kind": "click"}), *good[30:])
        printed = await daemon.until_printed("clicks", 60)
        for key in {key for key, _ in good}:
            mine = [f"{key} {click['page']}" for user, click in good if user == key]
            assert [line for line in printed if line.startswith(f"{key} ")] == mine
        failure = await daemon.given_up("clicks")
        assert (failure["reason"], failure["attempts"], failure["batch_size"]) == ("RetryAttemptsExhausted", 4, 1)
        told = json.loads(await take(failed))
        assert told["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert told["KinesisBatchInfo"]["streamArn"] == await clicks.arn()
        assert await daemon.terminate() == 0


async def test_dynamodb(tmp_path: Path, aws_endpoint: str, streams: Streams, queues: Queues) -> None:
    orders, failed = await streams.table(), await queues.make()
    async with Example(tmp_path, "dynamodb.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("table: orders  ", f"table: {orders.name}  ")
        daemon.change("queue: changes-failed", f"queue: {failed.name}")
        await daemon.check()
        await daemon.start()
        kind = {"kind": {"S": "order"}}
        await orders.put(*({**kind, "id": {"S": f"o-{n % 10}"}, "total": {"N": str(n)}} for n in range(40)))
        await orders.put({"id": {"S": "o-11"}, "kind": {"S": "offer"}}, {"id": {"S": "o-12"}, **kind})
        printed = await daemon.until_printed("changes", 40)
        for number in range(10):
            mine = [f"{'MODIFY' if n >= 10 else 'INSERT'} o-{number} {n}" for n in range(number, 40, 10)]
            assert [line for line in printed if f" o-{number} " in line] == mine
        failure = await daemon.given_up("changes")
        assert (failure["reason"], failure["attempts"], failure["batch_size"]) == ("RetryAttemptsExhausted", 4, 1)
        told = json.loads(await take(failed))
        assert told["DDBStreamBatchInfo"]["batchSize"] == 1
        assert await daemon.terminate() == 0


async def test_tumbling_windows(tmp_path: Path, aws_endpoint: str, streams: Streams) -> None:
    clicks = await streams.make()
    async with Example(tmp_path, "tumbling-window.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("stream: clicks", f"stream: {clicks.name}")
        daemon.change("tumbling_window_in_seconds: 60", "tumbling_window_in_seconds: 1")
        await daemon.check()
        await daemon.start()
        pages = [f"/{n % 3}" for n in range(30)]
        await clicks.put(*(("user-1", {"page": page}) for page in pages))
        counted: Counter[str] = Counter()
        async with asyncio.timeout(PATIENCE_S):
            while counted != Counter(pages):
                await clicks.put(("user-1", {"page": "/end"}))  # a window ends when a record of a later one comes
                states = [json.loads(line.split(" ", 2)[2]) for line in daemon.printed("totals")]
                counted = sum(map(Counter, states), Counter())
                del counted["/end"]
        assert await daemon.terminate() == 0


async def test_functions_that_run_elsewhere(tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
    invoices, refunds = await queues.make(VisibilityTimeout="90"), await queues.make(VisibilityTimeout="90")
    async with function_server() as server, Example(tmp_path, "targets.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("http://127.0.0.1:8080/orders", f"{server.url}/fn")
        daemon.change("# endpoint_url: http://127.0.0.1:4566", f"endpoint_url: {server.url}")
        daemon.change("queue: invoices", f"queue: {invoices.name}")
        daemon.change("queue: refunds}}\n", f"queue: {refunds.name}}}}}\n")
        await daemon.check()
        await daemon.start()
        await invoices.send("an invoice")
        await refunds.send("a refund")
        for queue in (invoices, refunds):
            await queue.until((0, 0))
        posted = {asked.path: asked for asked in server.asked if asked.body}
        assert b"a refund" in posted["/fn"].body
        [invoked] = [asked for path, asked in posted.items() if path != "/fn"]
        assert (invoked.query, b"an invoice" in invoked.body) == ({"Qualifier": "live"}, True)
        assert await daemon.terminate() == 0
        logged = await daemon.command("logs", "priced")
        assert logged.out == server.log


async def test_fifo(tmp_path: Path, aws_endpoint: str, queues: Queues) -> None:
    dead = await queues.make(fifo=True)
    redrive = {"deadLetterTargetArn": await dead.arn(), "maxReceiveCount": 1}
    payments = await queues.make(fifo=True, VisibilityTimeout="11", RedrivePolicy=redrive)
    amounts = {"a": range(100, 112), "b": range(200, 212), "c": (300, 301)}
    async with Example(tmp_path, "sqs-fifo.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("queue: payments.fifo", f"queue: {payments.name}")
        await daemon.check()
        await daemon.start()
        for pair in zip(amounts["a"], amounts["b"], strict=True):
            for account, amount in zip("ab", pair, strict=True):
                await payments.send({"amount": amount}, group=account)
        await payments.send({"amount": 300}, "no JSON", group="c")
        assert await take(dead) == "no JSON"
        await payments.send({"amount": 301}, group="c")
        printed = await daemon.until_printed("payments", 26)
        for account, expected in amounts.items():
            assert [line for line in printed if line[0] == account] == [f"{account} {amount}" for amount in expected]
        assert await daemon.terminate() == 0
        assert await payments.counts() == (0, 0)


async def test_s3(tmp_path: Path, aws_endpoint: str, rig: S3Rig, queues: Queues) -> None:
    uploads, name = await rig.bucket(), rig.name()
    async with Example(tmp_path, "s3.yaml", aws_endpoint) as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        daemon.change("bucket: uploads", f"bucket: {uploads}")
        daemon.change("queue: upload-events", f"queue: {name}")
        await daemon.check("--setup")
        events = Queue(queues, name, await rig.url(name))
        await daemon.start()
        for key in ("in/a.csv", "in/b.txt", "out/c.csv", "in/d e+é.csv"):
            await rig.s3.put_object(Bucket=uploads, Key=key, Body=b"12345678")
        assert sorted(await daemon.until_printed("uploads", 2)) == [
            f"ObjectCreated:Put s3://{uploads}/in/a.csv 8",
            f"ObjectCreated:Put s3://{uploads}/in/d e+é.csv 8",
        ]
        await events.send({"hello": "world"})
        failure = await daemon.given_up("uploads")
        assert (failure["reason"], failure["batch_size"]) == ("RecordUnfit", 1)
        await daemon.until((daemon.folder / "failed.jsonl").exists, "the destination is told")
        assert await daemon.terminate() == 0
        assert await events.counts() == (0, 0)


async def test_the_spelling_of_aws(
    tmp_path: Path, aws_endpoint: str, kafka_bootstrap: str, topic: MakeTopic, queues: Queues, streams: Streams
) -> None:
    orders, failed, clicks = await topic(), await topic(), await streams.make()
    invoices = await queues.make(VisibilityTimeout="180")
    async with Example(tmp_path, "cloudformation.yaml", aws_endpoint) as daemon:
        daemon.change("state: ./.headrace\n", f"state: ./.headrace\nlisten: 127.0.0.1:{daemon.port}\n")
        daemon.change(
            "EventSourceArn: arn:aws:sqs:us-east-1:123456789012:invoices", f"EventSourceArn: {await invoices.arn()}"
        )
        daemon.change(
            "EventSourceArn: arn:aws:kinesis:us-east-1:123456789012:stream/clicks",
            f"EventSourceArn: {await clicks.arn()}",
        )
        daemon.change("127.0.0.1:9092", kafka_bootstrap)
        daemon.change("- orders\n", f"- {orders}\n")
        daemon.change("ConsumerGroupId: orders\n", f"ConsumerGroupId: {orders}\n")
        daemon.change("kafka://orders-failed", f"kafka://{failed}")
        await daemon.check()
        await daemon.start()
        await invoices.send(*({"kind": "invoice", "number": n, "amount": 5} for n in range(12)))
        await produce(kafka_bootstrap, orders, [("k", {"n": n}) for n in range(30)])
        await produce(kafka_bootstrap, orders, [("k", b"no JSON")])
        assert sorted(await daemon.until_printed("invoices", 12)) == sorted(f"{n} 5" for n in range(12))
        await clicks.put(*(("user-1", {"page": f"/{n}"}) for n in range(5)))
        assert await daemon.until_printed("clicks", 5) == [f"user-1 /{n}" for n in range(5)]
        assert await daemon.until_printed("orders", 30) == [str({"n": n}) for n in range(30)]
        assert (await daemon.given_up("orders"))["attempts"] == 4
        assert (await read(kafka_bootstrap, failed))["requestContext"]["approximateInvokeCount"] == 4
        assert await daemon.terminate() == 0
        assert await invoices.counts() == (0, 0)


async def test_all_through_the_api(tmp_path: Path) -> None:
    async with Example(tmp_path, "api.yaml", "http://127.0.0.1:1") as daemon:
        daemon.change("127.0.0.1:9301", f"127.0.0.1:{daemon.port}")
        await daemon.start()
        api = boto3.client(
            "lambda",
            endpoint_url=f"http://127.0.0.1:{daemon.port}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        (tmp_path / "echo").mkdir()
        (tmp_path / "echo/app.py").write_text("def handler(event, context):\n    return context.invoked_function_arn\n")
        made = await asyncio.to_thread(
            api.create_function,
            FunctionName="echo",
            Runtime="python3.12",
            Role="arn:aws:iam::000000000000:role/any",
            Handler="app.handler",
            Code={"S3Bucket": "headrace-local", "S3Key": str(tmp_path / "echo")},
        )
        await asyncio.to_thread(api.get_waiter("function_active_v2").wait, FunctionName="echo")
        answer = await asyncio.to_thread(api.invoke, FunctionName="echo")
        assert json.loads(answer["Payload"].read()) == made["FunctionArn"]
        assert await daemon.terminate() == 0
