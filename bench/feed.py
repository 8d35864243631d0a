"""Writes records into a topic at a steady rate until it is killed: `python -m bench.feed --help`.

Values are random bytes. One record in so many has the key that a bench's handler takes for poison.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from typing import Final

import uvloop
from aiokafka import AIOKafkaProducer

from bench.topics import KEYS, PARTITIONS

POISON: Final = b"poison"
_STEP_S: Final = 0.05
_BATCH_BYTES: Final = 256 * 1024


async def feed(options: argparse.Namespace) -> None:
    pool = random.Random(1).randbytes(options.size + 65536)
    loop = asyncio.get_running_loop()
    async with AIOKafkaProducer(bootstrap_servers=options.servers, max_batch_size=_BATCH_BYTES) as producer:
        began_s, written = loop.time(), 0
        while True:
            due = int((loop.time() - began_s) * options.rate)
            # After a pause of the machine it goes on in steps that fit into batches.
            due = min(due, written + PARTITIONS * _BATCH_BYTES // (2 * (options.size + 64)))
            for partition in range(PARTITIONS):
                batch = producer.create_batch()
                for number in range(written + partition, due, PARTITIONS):
                    key = POISON if options.poison and number % options.poison == 0 else KEYS[number % len(KEYS)]
                    value = pool[number % 65536 :][: options.size]
                    assert batch.append(key=key, value=value, timestamp=None), "a step fits into a batch"
                if batch.record_count():
                    await producer.send_batch(batch, options.topic, partition=partition)
            written = due
            await asyncio.sleep(_STEP_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("servers", metavar="HOST:PORT")
    parser.add_argument("topic", help=f"of {PARTITIONS} partitions")
    parser.add_argument("--rate", type=float, default=20_000, help="records a second")
    parser.add_argument("--size", type=int, default=200, help="bytes of a value")
    parser.add_argument("--poison", type=int, default=0, metavar="N", help="one record in N; 0 = none")
    uvloop.run(feed(parser.parse_args()))


if __name__ == "__main__":
    main()
