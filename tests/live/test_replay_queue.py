"""Dead-letter queues of a real SQS, replayed through the mappings of a real daemon."""

from __future__ import annotations

import asyncio
import json
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aioboto3
import pytest

from tests.live.daemon import COMMAND, Daemon

REGION = "us-east-1"
#: Notes every message that succeeds; fails for bodies that are null.
BROKEN = """
import json

def handle(event, context):
    for record in event["Records"]:
        if json.loads(record["body"]) is None:
            raise ValueError("no total")
        with open({done!r}, "a") as done:
            done.write(record["body"] + "\\n")
"""
FIXED = BROKEN.replace('raise ValueError("no total")', "pass")


class Rig:
    """Queues under names of their own, and a daemon that reads one of them."""

    def __init__(self, daemon: Daemon, endpoint_url: str, sqs: Any) -> None:
        self.daemon = daemon
        self.endpoint_url = endpoint_url
        self.sqs = sqs
        self.urls: list[str] = []
        self.done = daemon.folder / "done"
        self.done.touch()

    async def queue(self, *, fifo: bool = False, **attributes: object) -> tuple[str, str]:
        """Make a queue; gives its name and URL."""
        name = f"headrace-test-{uuid.uuid4().hex[:12]}" + (".fifo" if fifo else "")
        given = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if fifo else {}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
        made = await self.sqs.create_queue(QueueName=name, Attributes={**given, **texts})
        self.urls.append(made["QueueUrl"])
        return name, made["QueueUrl"]

    async def arn(self, url: str) -> str:
        answer = await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    async def send(self, url: str, bodies: Sequence[object], group: str | None = None) -> list[str]:
        """Send JSON bodies; gives the ids that replays have."""
        more = {"MessageGroupId": group} if group else {}
        sent = [await self.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(body), **more) for body in bodies]
        return [f"sqs:{each['MessageId']}" for each in sent]

    async def counts(self, url: str) -> tuple[int, int]:
        """Count messages that are visible, and in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        visible, hidden = (int(answer["Attributes"][name]) for name in names)
        return visible, hidden

    async def until(self, url: str, counts: tuple[int, int]) -> None:
        """Wait for counts at two looks in a row: a message that is just handed out is counted as neither."""
        before = found = (-1, -1)
        async with asyncio.timeout(60):
            while not before == found == counts:
                before, found = found, await self.counts(url)
                await asyncio.sleep(0.2)

    def function(self, source: str) -> None:
        self.daemon.function("orders", source.replace("{done!r}", repr(str(self.done))))

    def mapping(self, queue: str, **parameters: object) -> None:
        self.add("orders", {"sqs": {"queue": queue, "endpoint_url": self.endpoint_url, "region": REGION}}, **parameters)

    def add(self, name: str, source: dict[str, Any], **parameters: object) -> None:
        mappings = self.daemon.document["event_source_mappings"]
        mappings[name] = {"function": "orders", "source": source, **parameters}

    async def replay(self, queue: str, *options: str, mapping: str = "orders") -> tuple[int, list[dict[str, Any]], str]:
        """Replay a queue; gives the exit status, what was printed, and standard error."""
        place = f"sqs:{queue}"
        done = await self.daemon.command(
            "failures", "replay", "--from", place, "--mapping", mapping, "--json", "--yes", *options
        )
        return done.status, [json.loads(line) for line in done.out.splitlines()], done.err

    def bodies(self) -> list[Any]:
        """Give the bodies that have succeeded."""
        return [json.loads(line) for line in self.done.read_text().splitlines()]


@pytest.fixture
async def rig(tmp_path, aws_endpoint) -> AsyncIterator[Rig]:
    session = aioboto3.Session()
    async with session.client("sqs", endpoint_url=aws_endpoint, region_name=REGION) as sqs, Daemon(tmp_path) as daemon:
        rig = Rig(daemon, aws_endpoint, sqs)
        rig.function(BROKEN)
        yield rig
        for url in rig.urls:
            await sqs.delete_queue(QueueUrl=url)


async def test_what_fails_stays_and_goes_once_the_function_is_right(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    good = await rig.send(url, [{"n": number} for number in range(25)])
    bad = await rig.send(url, [None, None])

    status, [*ends, summary], _ = await rig.replay(dead)
    assert status == 1
    assert summary == {"summary": {"replayed": 25, "failed_again": 2, "refused": 0}}
    assert {end["id"]: end["outcome"] for end in ends} == {
        **dict.fromkeys(good, "replayed"),
        **dict.fromkeys(bad, "failed_again"),
    }
    assert {end["reason"] for end in ends if end["id"] in bad} == {"ValueError: no total"}
    assert await rig.counts(url) == (2, 0)
    assert await rig.daemon.failures() == []

    assert await rig.daemon.terminate() == 0
    rig.function(FIXED)
    await rig.daemon.start()
    status, [*ends, summary], _ = await rig.replay(await rig.arn(url))
    assert (status, summary["summary"]["replayed"]) == (0, 2)
    assert {end["id"] for end in ends} == set(bad)
    assert await rig.counts(url) == (0, 0)
    assert sorted(rig.bodies(), key=json.dumps) == sorted(
        [*({"n": number} for number in range(25)), None, None], key=json.dumps
    )
    [line] = rig.daemon.events("queue.replayed", queue=dead, replayed=2)
    assert line["mapping"] == "orders"


async def test_what_the_queue_itself_has_moved_away_is_replayed(rig):
    _, dead_url = await rig.queue(VisibilityTimeout="5")
    redrive = {"deadLetterTargetArn": await rig.arn(dead_url), "maxReceiveCount": 1}
    # Long enough for a worker to start: what has not run when its lease ends is moved away, too.
    source, url = await rig.queue(VisibilityTimeout="6", RedrivePolicy=redrive)
    rig.mapping(source, batch_size=1)
    await rig.daemon.start()
    await rig.send(url, [None, {"n": 1}, None])
    await rig.until(dead_url, (2, 0))
    assert await rig.daemon.terminate() == 0
    rig.function(FIXED)
    await rig.daemon.start()
    status, [*_, summary], err = await rig.replay(dead_url)
    assert (status, err) == (0, "")
    assert summary["summary"]["replayed"] == 2
    assert await rig.counts(dead_url) == (0, 0)


async def test_a_dry_run_shows_some_and_changes_nothing(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    rig.mapping(source, filter_criteria={"filters": [{"pattern": json.dumps({"body": {"n": [{"exists": True}]}})}]})
    await rig.daemon.start()
    ids = await rig.send(url, [{"n": 1}, {"other": 2}])
    status, [found], _ = await rig.replay(dead, "--dry-run")
    assert status == 0
    assert (found["queue"], found["waiting"]) == (dead, 2)
    assert {each["id"]: json.loads(each["preview"]) for each in found["messages"]} == dict(
        zip(ids, [{"n": 1}, {"other": 2}], strict=True)
    )
    reasons = {each["id"]: each["why_not"] for each in found["messages"]}
    assert reasons[ids[0]] is None
    assert "filter_criteria" in reasons[ids[1]]
    assert await rig.counts(url) == (2, 0)
    shown = await rig.daemon.command("failures", "replay", "--from", f"sqs:{dead}", "--mapping", "orders", "--dry-run")
    assert shown.out.startswith(f"{dead}: about 2 messages waiting\n")
    assert rig.bodies() == []
    status, [*_, summary], _ = await rig.replay(dead)
    assert (status, summary["summary"]) == (1, {"replayed": 1, "failed_again": 0, "refused": 1})


async def test_groups_keep_their_order(rig):
    (source, _), (dead, url) = await rig.queue(fifo=True), await rig.queue(fifo=True)
    rig.mapping(source)
    await rig.daemon.start()
    await rig.send(url, [f"a{number:02}" for number in range(15)], group="a")
    [_, bad, behind] = await rig.send(url, ["b0", None, "b2"], group="b")
    status, [*ends, summary], _ = await rig.replay(dead)
    assert (status, summary["summary"]) == (1, {"replayed": 16, "failed_again": 1, "refused": 1})
    assert {end["id"]: end["outcome"] for end in ends if end["outcome"] != "replayed"} == {
        bad: "failed_again",
        behind: "refused",
    }
    assert [body for body in rig.bodies() if body.startswith("a")] == [f"a{number:02}" for number in range(15)]
    rig.function(FIXED)
    assert await rig.daemon.terminate() == 0
    await rig.daemon.start()
    assert (await rig.replay(dead))[0] == 0
    assert rig.bodies()[-2:] == [None, "b2"]


async def test_notifications_of_a_bucket_reach_the_function_as_s3_sends_them(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    carrier = {"queue": source, "endpoint_url": rig.endpoint_url, "region": REGION}
    rig.add("uploads", {"s3": {"bucket": "uploads", "events": ["s3:ObjectCreated:*"], **carrier}})
    rig.function(
        """
        def handle(event, context):
            with open({done!r}, "a") as done:
                done.write('"' + event["Records"][0]["s3"]["object"]["key"] + '"\\n')
        """
    )
    await rig.daemon.start()
    sample = json.loads((await rig.daemon.command("event", "s3-put")).out)
    sample["Records"][0]["s3"]["bucket"]["name"] = "uploads"
    [_, foreign] = await rig.send(url, [sample, {"hello": "world"}])
    status, [*ends, summary], _ = await rig.replay(dead, mapping="uploads")
    assert (status, summary["summary"]) == (1, {"replayed": 1, "failed_again": 0, "refused": 1})
    assert "no S3 notification" in next(end["reason"] for end in ends if end["id"] == foreign)
    assert rig.bodies() == ["in/summer+trip/caf%C3%A9.jpg"]
    assert await rig.counts(url) == (1, 0)


async def test_what_is_not_there_is_one_line(rig):
    (source, _), (dead, _) = await rig.queue(), await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    for queue, mapping, complaint in (
        (dead, "nobody", "there is no mapping 'nobody'"),
        ("headrace-test-no-such-queue", "orders", "does not exist"),
    ):
        for more in ((), ("--dry-run",)):
            status, _, err = await rig.replay(queue, *more, mapping=mapping)
            assert (status, err.count("\n")) == (1, 1)
            assert complaint in err


async def test_replays_keep_to_their_rate(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    await rig.send(url, [{"n": number} for number in range(5)])
    clock = asyncio.get_running_loop().time
    began_s = clock()
    assert (await rig.replay(dead, "--rate", "4"))[0] == 0
    assert clock() - began_s >= 1.0


async def test_the_job_goes_on_when_the_one_who_asked_has_gone(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    await rig.send(url, [{"n": number} for number in range(20)])
    asking = ("-c", rig.daemon.file, "failures", "replay", "--from", f"sqs:{dead}", "--mapping", "orders")
    who_asked = await asyncio.create_subprocess_exec(COMMAND, *asking, "--rate", "10", stdout=DEVNULL)
    await rig.daemon.line("failure.replayed")
    who_asked.kill()
    await who_asked.wait()
    await rig.daemon.line("queue.replayed", replayed=20)
    assert await rig.counts(url) == (0, 0)


async def test_a_drain_stops_the_job_and_leaves_the_rest_to_be_had(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    await rig.send(url, [{"n": number} for number in range(30)])
    watching = asyncio.create_task(rig.replay(dead, "--rate", "5"))
    await rig.daemon.line("failure.replayed")
    assert await rig.daemon.terminate() == 0
    status, printed, err = await watching
    assert status in (1, 3)
    assert "replay it again" in err
    done = printed[-1]["summary"]["replayed"]
    assert 0 < done < 30
    assert await rig.counts(url) == (30 - done, 0)
    await rig.daemon.start()
    status, [*_, summary], _ = await rig.replay(dead)
    assert (status, summary["summary"]["replayed"]) == (0, 30 - done)
    assert sorted(body["n"] for body in rig.bodies()) == list(range(30))


async def test_a_daemon_that_is_killed_loses_nothing(rig):
    (source, _), (dead, url) = await rig.queue(), await rig.queue(VisibilityTimeout="5")
    rig.mapping(source)
    await rig.daemon.start()
    await rig.send(url, [{"n": number} for number in range(30)])
    watching = asyncio.create_task(rig.replay(dead, "--rate", "20"))
    await rig.daemon.line("failure.replayed")
    await rig.daemon.kill()
    status, _, err = await watching
    assert status == 3
    assert "the daemon stopped before the queue was empty" in err
    await rig.daemon.start()
    async with asyncio.timeout(90):
        while await rig.counts(url) != (0, 0):  # what was held comes back when its lease ends
            assert (await rig.replay(dead))[0] == 0
    assert {body["n"] for body in rig.bodies()} == set(range(30))


async def test_a_function_is_invoked_beside_the_daemon_that_runs_it(rig):
    source, _ = await rig.queue()
    rig.mapping(source)
    await rig.daemon.start()
    (rig.daemon.folder / "event.json").write_text(json.dumps({"Records": [{"body": "7"}]}))
    done = await rig.daemon.command("invoke", "orders", "--event", "event.json", "--json")
    assert (done.status, done.json()["payload"]) == (0, None)
    assert rig.bodies() == [7]
    assert (await rig.daemon.status("orders"))["state"] == "idle"
