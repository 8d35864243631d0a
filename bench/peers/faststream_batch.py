"""Read a topic with a FastStream batch subscriber whose handler does nothing. Runs in the peers' environment."""

import asyncio
import sys
import uuid

import uvloop
from faststream.kafka import KafkaBroker

from bench.peers.meter import Meter

#: As many as one poll of the Java client gives; without a limit FastStream is not faster.
_POLL_COUNT = 500


async def main(servers: str, topic: str, records: int) -> None:
    broker = KafkaBroker(servers, logger=None)
    meter = Meter(records)
    over = asyncio.Event()

    @broker.subscriber(
        topic,
        batch=True,
        max_records=_POLL_COUNT,
        group_id=f"headrace-bench-{uuid.uuid4().hex[:12]}",
        auto_offset_reset="earliest",
    )
    async def handle(messages: list[bytes]) -> None:
        meter.add(len(messages))
        if meter.is_over and not over.is_set():
            meter.report()
            over.set()

    async with broker:
        await broker.start()
        await over.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
