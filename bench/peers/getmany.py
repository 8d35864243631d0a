"""Read a topic with plain aiokafka, defaults all over: no group, no commit, nothing done with the records."""

import sys

import uvloop
from aiokafka import AIOKafkaConsumer

from bench.peers.meter import Meter


async def main(servers: str, topic: str, records: int) -> None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    meter = Meter(records)
    while not meter.is_over:
        fetched = await consumer.getmany(timeout_ms=1000)
        if fetched:
            meter.add(sum(map(len, fetched.values())))
    meter.report()
    await consumer.stop()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
