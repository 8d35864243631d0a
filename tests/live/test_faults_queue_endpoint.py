"""An endpoint of SQS that refuses, is away, slow or broken, or does half of what it is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live.daemon import PATIENCE_S, Daemon
from tests.live.queue_rig import (
    Fault,
    FaultyEndpoint,
    Queues,
    add_mapping,
    half_an_answer,
    late,
    page,
    partly,
    refusal,
)

#: Notes every body.
NOTING = """
import os
def handle(event, context):
    with open(os.environ["LEDGER"], "a") as ledger:
        for record in event["Records"]:
            print(record["body"], file=ledger)
"""
SECRET = "hunter2-is-wrong"
UNREACHABLE = "it cannot be reached; check endpoint_url, region and network"
NOT_ACCEPTED = "the credentials are not accepted; check AWS_ACCESS_KEY_ID"


@pytest.fixture
async def endpoint(aws_endpoint: str) -> AsyncIterator[FaultyEndpoint]:
    async with FaultyEndpoint(aws_endpoint, waits=False) as made:
        yield made


class Reader(Daemon):
    """A daemon with the noting function."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"AWS_SECRET_ACCESS_KEY": SECRET})
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.function("orders", NOTING, environment={"LEDGER": str(self.ledger)})

    def bodies(self) -> list[str]:
        return self.ledger.read_text().splitlines()

    async def why(self, mapping: str) -> str:
        """Give the sentence that `status` says of a mapping that does not move, once its last call has failed."""
        async with asyncio.timeout(PATIENCE_S):
            while (status := await self.status(mapping))["reason"] is None:
                assert status["state"] in ("running", "idle")
        assert status["state"] in ("starting", "retrying")
        assert status["reason"]["code"] == "SourceUnavailable"
        said = str(status["reason"]["message"])
        assert "\n" not in said
        return said


async def test_credentials_that_are_refused_at_the_start_and_later(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint
) -> None:
    queue, steady = await queues.make(), await queues.make()
    wrong = refusal(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
    for operation in ("GetQueueUrl", "GetQueueAttributes", "ReceiveMessage", "DeleteMessageBatch"):
        endpoint.faults[operation] = wrong
    await endpoint.come()
    async with Reader(tmp_path) as daemon:
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        add_mapping(daemon, "steady", steady.source())
        await daemon.start()
        waiting = await daemon.line("mapping.waiting", mapping="orders")
        assert NOT_ACCEPTED in waiting["error"]
        assert queue.name in waiting["error"]
        assert NOT_ACCEPTED in await daemon.why("orders")
        await steady.send("steady")
        await steady.until((0, 0))
        done = await daemon.command("check", "--connect")
        assert done.status == 1
        assert NOT_ACCEPTED in " ".join(done.out.split())

        endpoint.mend()
        await queue.send("one")
        await queue.until((0, 0))

        endpoint.faults["ReceiveMessage"] = refusal(
            403, "SignatureDoesNotMatch", "The request signature we calculated does not match the one you provided."
        )
        failed = await daemon.line("source.failed", mapping="orders")
        assert NOT_ACCEPTED in failed["error"]
        assert "SignatureDoesNotMatch" in await daemon.why("orders")
        endpoint.faults["ReceiveMessage"] = refusal(403, "AccessDenied", "no identity-based policy allows it")
        await daemon.line("source.failed", mapping="orders", error=denied(queue.name))
        endpoint.mend()
        await queue.send("two")
        await queue.until((0, 0))
        assert await daemon.terminate() == 0
        assert daemon.bodies() == ["steady", "one", "two"]
        assert SECRET not in str(daemon.lines)


def denied(queue: str) -> str:
    return (
        f"SQS queue {queue}: the credentials do not allow this; give their owner the permission "
        "(ReceiveMessage: AccessDenied)"
    )


async def test_an_endpoint_that_comes_late_and_goes_again(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint
) -> None:
    queue, steady = await queues.make(), await queues.make()
    async with Reader(tmp_path) as daemon:
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        add_mapping(daemon, "steady", steady.source())
        await queue.send("one")
        await daemon.start()
        waiting = await daemon.line("mapping.waiting", mapping="orders")
        assert UNREACHABLE in waiting["error"]
        assert UNREACHABLE in await daemon.why("orders")
        await endpoint.come()
        await queue.until((0, 0))

        await endpoint.go()
        failed = await daemon.line("source.failed", mapping="orders", error=f"SQS queue {queue.name}: {UNREACHABLE}")
        assert failed["retry_in_s"] > 0
        assert UNREACHABLE in await daemon.why("orders")
        await queue.send("two")
        await steady.send("steady")
        await steady.until((0, 0))
        await endpoint.come()
        await queue.until((0, 0))
        assert (await daemon.status("orders"))["reason"] is None
        assert daemon.bodies() == ["one", "steady", "two"]
        assert await daemon.terminate() == 0
        assert not daemon.events("source.failed", mapping="steady")


async def test_a_drain_without_an_endpoint_ends_in_bounded_time(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint
) -> None:
    queue = await queues.make(VisibilityTimeout="4")
    await endpoint.come()
    async with Reader(tmp_path) as daemon:
        daemon.document["drain_timeout"] = "1s"
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        await daemon.start()
        endpoint.faults["DeleteMessageBatch"] = refusal(500, "InternalError")
        await queue.send("one")
        await daemon.line("message.not_deleted", mapping="orders")
        await endpoint.go()
        assert await daemon.terminate() == 0
        assert daemon.events("queue.abandoned", messages=1)
        assert sum(await queue.counts()) == 1
        endpoint.mend()
        await endpoint.come()
        await daemon.start()
        await queue.until((0, 0))
        assert daemon.bodies() == ["one", "one"], "nobody could know that it was done"
        assert await daemon.terminate() == 0


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (page(500, "<html>Oops</html>"), "ReceiveMessage: HTTP status 500"),
        (refusal(500, "InternalFailure", "we are\nsorry"), "ReceiveMessage: InternalFailure: we are sorry"),
        (refusal(503, "ServiceUnavailable", "later"), "ReceiveMessage: ServiceUnavailable: later"),
        (refusal(403, "SignatureDoesNotMatch", "Signature expired: 1 is earlier than 2"), "set this machine's clock"),
        (page(200, "<html>Log in</html>"), "what answers is not the service"),
        (half_an_answer, "it closed the connection"),
    ],
    ids=["500", "InternalFailure", "503", "clock", "page", "half"],
)
async def test_receives_that_go_wrong_lose_nothing(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint, fault: Fault, said: str
) -> None:
    queue = await queues.make(VisibilityTimeout="2")
    await endpoint.come()
    async with Reader(tmp_path) as daemon:
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        await daemon.start()
        await daemon.until(lambda: endpoint.made("ReceiveMessage"), "it receives")
        endpoint.faults["ReceiveMessage"] = fault
        await queue.send(*(str(number) for number in range(20)))
        failed = await daemon.line("source.failed", mapping="orders")
        assert said in failed["error"]
        assert "\n" not in failed["error"]
        assert said in await daemon.why("orders")
        endpoint.mend()
        await queue.until((0, 0))
        assert sorted(daemon.bodies(), key=int) == [str(number) for number in range(20)]
        assert await daemon.terminate() == 0


async def test_answers_that_come_late_are_waited_for_and_done_without_an_answer_is_done(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint
) -> None:
    queue = await queues.make(VisibilityTimeout="30")
    await endpoint.come()
    endpoint.faults["ReceiveMessage"] = late(3.0)
    async with Reader(tmp_path) as daemon:
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        await daemon.start()
        await queue.send("one")
        await queue.until((0, 0))
        assert daemon.bodies() == ["one"]
        assert not daemon.events("source.failed")

        endpoint.faults["DeleteMessageBatch"] = late(60.0)
        await queue.send("two")
        slow = await daemon.line("message.not_deleted", mapping="orders")
        assert "DeleteMessageBatch: it did not answer within 10 s" in slow["error"]
        endpoint.mend()
        deletes = len(endpoint.made("DeleteMessageBatch"))
        await daemon.until(lambda: len(endpoint.made("DeleteMessageBatch")) > deletes, "it is deleted once more")
        assert await queue.counts() == (0, 0)
        assert await daemon.terminate() == 0
        assert daemon.bodies() == ["one", "two"]
        assert daemon.events("queue.left")


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
async def test_what_is_not_deleted_is_not_run_again_and_goes_at_last(
    tmp_path: Path, queues: Queues, endpoint: FaultyEndpoint, *, fifo: bool
) -> None:
    queue = await queues.make(fifo=fifo, VisibilityTimeout="3")
    await endpoint.come()
    shown: set[str] = set()

    def is_the_first_of_its_batch(entry: object) -> bool:
        assert isinstance(entry, dict)
        shown.add(entry["ReceiptHandle"])
        return bool(entry["Id"] == "0")

    endpoint.faults["DeleteMessageBatch"] = partly(is_the_first_of_its_batch)
    async with Reader(tmp_path) as daemon:
        add_mapping(daemon, "orders", queue.source(endpoint.url))
        await queue.send(*(str(number) for number in range(6)), group="a" if fifo else None)
        await daemon.start()
        line = await daemon.line("message.not_deleted", mapping="orders")
        assert line["error"] == "InternalError: try again"
        # Each time it comes again it has a new receipt, and one of those is tried.
        await daemon.until(lambda: len(shown) >= 6 + 2, "something has come again twice")
        endpoint.mend()
        await queue.until((0, 0))
        assert sorted(daemon.bodies()) == [str(number) for number in range(6)]
        assert await daemon.terminate() == 0
        assert daemon.events("queue.left")
