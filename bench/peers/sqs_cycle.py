"""Receive ten and delete ten with plain aioboto3, several pollers in one loop; nothing is done with the messages."""

import asyncio
import sys
from typing import Any

import aioboto3
import uvloop


async def poll(sqs: Any, queue: str, attributes: list[str]) -> None:
    while True:
        received = await sqs.receive_message(
            QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=20, MessageSystemAttributeNames=attributes
        )
        messages = received.get("Messages", [])
        if messages:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            await sqs.delete_message_batch(QueueUrl=queue, Entries=entries)


async def main(url: str, name: str, pollers: int, attributes: list[str]) -> None:
    async with aioboto3.Session().client("sqs", endpoint_url=url) as sqs, asyncio.TaskGroup() as polls:
        queue = (await sqs.get_queue_url(QueueName=name))["QueueUrl"]
        for _ in range(pollers):
            polls.create_task(poll(sqs, queue, attributes))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
