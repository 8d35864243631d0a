"""Work off a FIFO queue with plain aioboto3: each poller receives up to ten messages, handles them one by one, deletes.

As many pollers as messages may be in flight; the handler waits as the bench's does. A receive brings messages of one
group first, so groups run beside each other and each of them in order.
"""

import asyncio
import sys
from typing import Any

import aioboto3
import uvloop
from aiobotocore.config import AioConfig


async def poll(sqs: Any, queue: str, work_s: float) -> None:
    while True:
        received = await sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        messages = received.get("Messages", [])
        for _ in messages:
            await asyncio.sleep(work_s)
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


async def main(url: str, name: str, in_flight: int, work_s: float) -> None:
    settings = AioConfig(max_pool_connections=in_flight)
    client = aioboto3.Session().client("sqs", endpoint_url=url, config=settings)
    async with client as sqs, asyncio.TaskGroup() as polls:
        queue = (await sqs.get_queue_url(QueueName=name))["QueueUrl"]
        for _ in range(in_flight):
            polls.create_task(poll(sqs, queue, work_s))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
