"""Long polls of empty queues and nothing else: one client of ours for each queue, and so many receives at once on it.

The receives themselves cost CPU whoever asks: this is what a daemon's mappings may be compared with.
"""

import asyncio
import sys

import uvloop

from connectors.settings import SqsSettings
from connectors.sqs_client import SqsClient
from connectors.sqs_queue import describe, find_queue

#: Of one receive, and messages that it asks for.
WAIT_S, LIMIT = 20, 10
CALL_S = 10.0


async def poll(client: SqsClient) -> None:
    while True:
        await client.receive(LIMIT, WAIT_S)


async def main(url: str, queues: int, at_once: int) -> None:
    # The credentials are the same for all: found once, they are no part of a poll.
    settings = SqsSettings("idle", "idle", url, "us-east-1", windowed=False)
    found = await find_queue(settings, call_s=CALL_S)
    async with asyncio.TaskGroup() as polls:
        for _ in range(queues):
            client = SqsClient(found.access, found.url, describe(settings), call_s=CALL_S)
            for _ in range(at_once):
                polls.create_task(poll(client))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
