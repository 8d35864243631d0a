"""Work off a topic with plain aiokafka, in order for each key, so many records at once, each of them waiting a while.

A record runs when no other of its key runs; reading pauses while enough wait. No group, no commit. Prints JSON.
"""

import asyncio
import json
import sys
import time
from collections import deque
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer

_HELD = 50_000


class Keyed:
    """Records by key; a key is ready when it has records and none of them runs."""

    def __init__(self, work_s: float) -> None:
        self._work_s = work_s
        self._waiting: dict[bytes, deque[Any]] = {}
        self._ready: asyncio.Queue[bytes] = asyncio.Queue()
        self.room = asyncio.Event()
        self.held = 0
        self.done = 0

    def add(self, record: Any) -> None:
        self.held += 1
        waiting = self._waiting.get(record.key)
        if waiting is None:
            self._waiting[record.key] = deque([record])
            self._ready.put_nowait(record.key)
        else:
            waiting.append(record)

    async def work(self) -> None:
        while True:
            key = await self._ready.get()
            waiting = self._waiting[key]
            waiting.popleft()
            await asyncio.sleep(self._work_s)
            self.done += 1
            self.held -= 1
            if self.held < _HELD:
                self.room.set()
            if waiting:
                self._ready.put_nowait(key)
            else:
                del self._waiting[key]


async def read(consumer: AIOKafkaConsumer, keyed: Keyed) -> None:
    while True:
        for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
            for record in records:
                keyed.add(record)
        if keyed.held >= _HELD:
            keyed.room.clear()
            await keyed.room.wait()


async def main(servers: str, topic: str, in_flight: int, work_s: float, warm_s: float, seconds: float) -> None:
    keyed = Keyed(work_s)
    tasks = [asyncio.create_task(keyed.work()) for _ in range(in_flight)]
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    tasks.append(asyncio.create_task(read(consumer, keyed)))
    await asyncio.sleep(warm_s)
    done, began_s, cpu_s = keyed.done, time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    measured = {
        "records": keyed.done - done,
        "seconds": time.monotonic() - began_s,
        "cpu_s": time.process_time() - cpu_s,
    }
    assert keyed.held, "there is more to do"
    print(json.dumps(measured), flush=True)
    for task in tasks:
        task.cancel()
    await consumer.stop()


if __name__ == "__main__":
    server_list, name, count, *times = sys.argv[1:]
    uvloop.run(main(server_list, name, int(count), *map(float, times)))
