"""Note when each message comes out of a plain aiokafka consumer: a line with the time, then the messages' own times."""

import os
import sys
import time

import uvloop
from aiokafka import AIOKafkaConsumer


async def main(servers: str, topic: str, notes: str) -> None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    print("ready", flush=True)
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            began = time.time_ns()
            sent = " ".join(record.value.decode() for record in records)
            os.write(descriptor, f"{began} {sent}\n".encode())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:4]))
