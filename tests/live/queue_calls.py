"""What a test does with a real queue from outside: make it, send, count, take."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence

from tests.live.s3_rig import S3Rig

#: Longest time for what the queue is to come to.
PATIENCE_S = 40.0


async def make_queue(rig: S3Rig, *, fifo: bool = False, **attributes: object) -> str:
    """Make a queue, FIFO or standard; gives its name. Attributes that are no text are written as JSON."""
    name = rig.name() + (".fifo" if fifo else "")
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in attributes.items()}
    await rig.sqs.create_queue(QueueName=name, Attributes={**({"FifoQueue": "true"} if fifo else {}), **texts})
    return name


async def redrive(rig: S3Rig, dead: str, receives: int) -> dict[str, object]:
    """Give a redrive policy to a queue."""
    return {"deadLetterTargetArn": (await rig.attributes(dead))["QueueArn"], "maxReceiveCount": receives}


async def send(rig: S3Rig, queue: str, bodies: Sequence[object], group: str | None = None) -> list[str]:
    """Send what is text as it is, and all else as JSON; gives the message ids."""
    url = await rig.url(queue)
    ids = []
    for body in bodies:
        text = body if isinstance(body, str) else json.dumps(body)
        more = {"MessageGroupId": group, "MessageDeduplicationId": uuid.uuid4().hex} if group else {}
        ids.append((await rig.sqs.send_message(QueueUrl=url, MessageBody=text, **more))["MessageId"])
    return ids


async def take(rig: S3Rig, queue: str) -> str:
    """Wait for one message of a queue; gives its body."""
    answer = await rig.sqs.receive_message(QueueUrl=await rig.url(queue), WaitTimeSeconds=20)
    [message] = answer["Messages"]
    return str(message["Body"])


async def counts(rig: S3Rig, queue: str) -> tuple[int, int]:
    """Count the messages that are visible, and in flight."""
    attributes = await rig.attributes(queue)
    suffixes = ("", "NotVisible")
    visible, hidden = (int(attributes[f"ApproximateNumberOfMessages{suffix}"]) for suffix in suffixes)
    return visible, hidden


async def until_counts(rig: S3Rig, queue: str, wanted: tuple[int, int]) -> None:
    """Wait until so many messages are visible, and in flight."""
    found = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            while (found := await counts(rig, queue)) != wanted:  # noqa: ASYNC110 - a queue announces nothing
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise AssertionError(f"{queue}: not {wanted} in {PATIENCE_S:.0f} s, but {found}") from error
