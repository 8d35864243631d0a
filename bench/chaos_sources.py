"""Sends numbered records of a few keys into every source at once, past all that is in trouble but the servers."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aioboto3 import Session
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.chaos_function import KEYS, is_poison
from bench.chaos_judge import Place

REGION: Final = "us-east-1"
NAMES: Final = ("kafka", "sqs", "fifo", "kinesis", "dynamodb")
AWS_NAMES: Final = NAMES[1:]
PARTITIONS: Final = 6
VISIBILITY_S: Final = 40
_AT_ONCE: Final = 4
#: A server may be frozen for some seconds while it is sent something. Nothing is sent twice.
_PATIENT: Final = Config(read_timeout=60, connect_timeout=60, retries={"max_attempts": 0})

#: Sends these numbers of a key, in order.
Send = Callable[[int, Sequence[int]], Awaitable[None]]


@dataclass(slots=True)
class Source:
    """One source: how a mapping reads it, and how it is written."""

    name: str
    #: The mapping's source block, with what else its mapping has.
    mapping: Mapping[str, Any]
    send: Send
    produced: dict[Place, bool] = field(default_factory=dict)
    #: Changes the number of shards; by a number in [0, 1), and `split` or `merge`.
    reshard: Callable[[str, float], Awaitable[bool]] | None = None

    async def flow(self, rng: random.Random, rate: float, is_over: asyncio.Event) -> None:
        """Send at a steady rate until all is over; a key's number only grows by one."""
        numbers: Counter[int] = Counter()
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while not is_over.is_set():
            key = rng.randrange(KEYS)
            new = range(numbers[key] + 1, numbers[key] + 1 + rng.randint(1, _AT_ONCE))
            await self.send(key, new)
            numbers[key] += len(new)
            self.produced |= {Place(self.name, key, number): is_poison(key, number) for number in new}
            next_s = max(next_s + len(new) / rate, loop.time() - 1)
            with suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), max(0.0, next_s - loop.time()))


@asynccontextmanager
async def open_sources(names: Sequence[str], bootstrap: str, endpoint_url: str) -> AsyncIterator[Sequence[Source]]:
    """Make the topic, the queues, the stream and the table of a run; they are removed at its end."""
    run = f"headrace-chaos-{uuid.uuid4().hex[:8]}"
    openers = {"kafka": _kafka, "sqs": _sqs, "fifo": _fifo, "kinesis": _kinesis, "dynamodb": _dynamodb}
    async with AsyncExitStack() as opened:
        yield [
            await openers[name](opened, f"{run}-{name}", bootstrap if name == "kafka" else endpoint_url)
            for name in names
        ]


async def _kafka(opened: AsyncExitStack, topic: str, bootstrap: str) -> Source:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    opened.push_async_callback(admin.close)
    await admin.create_topics([NewTopic(topic, PARTITIONS, 3)])
    opened.push_async_callback(_delete, admin, topic)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=60_000
    )
    await opened.enter_async_context(producer)

    async def send(key: int, numbers: Sequence[int]) -> None:
        sent = [
            await producer.send(topic, json.dumps({"key": key, "n": number}).encode(), key=f"key-{key}".encode())
            for number in numbers
        ]
        await asyncio.gather(*sent)

    block = {
        "bootstrap_servers": bootstrap.split(","),
        "topic": topic,
        "consumer_group": topic,
        "session_timeout": "6s",
    }
    return Source("kafka", {"source": {"kafka": block}, **_STREAM, **_REPORTING, "parallelization_factor": 2}, send)


async def _delete(admin: AIOKafkaAdminClient, topic: str) -> None:
    with suppress(KafkaError, TimeoutError):  # what a run that broke off has left does not matter more than why it did
        await admin.delete_topics([topic])


async def _client(opened: AsyncExitStack, service: str, endpoint_url: str) -> Any:
    client = Session().client(service, endpoint_url=endpoint_url, region_name=REGION, config=_PATIENT)
    return await opened.enter_async_context(client)


async def _sqs(opened: AsyncExitStack, name: str, endpoint_url: str) -> Source:
    return await _queue(opened, "sqs", name, endpoint_url, {})


async def _fifo(opened: AsyncExitStack, name: str, endpoint_url: str) -> Source:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    return await _queue(opened, "fifo", f"{name}.fifo", endpoint_url, attributes)


async def _queue(
    opened: AsyncExitStack, source: str, name: str, endpoint_url: str, attributes: Mapping[str, str]
) -> Source:
    client = await _client(opened, "sqs", endpoint_url)
    visibility = {"VisibilityTimeout": str(VISIBILITY_S)}
    url = (await client.create_queue(QueueName=name, Attributes={**attributes, **visibility}))["QueueUrl"]
    opened.push_async_callback(client.delete_queue, QueueUrl=url)

    async def send(key: int, numbers: Sequence[int]) -> None:
        entries = [
            {"Id": str(number), "MessageBody": json.dumps({"key": key, "n": number})}
            | ({"MessageGroupId": f"key-{key}"} if attributes else {})
            for number in numbers
        ]
        answer = await client.send_message_batch(QueueUrl=url, Entries=entries)
        assert not answer.get("Failed"), answer

    block = {"queue": name, "visibility_heartbeat": True}
    return Source(source, {"source": {"sqs": block}, "batch_size": 10, **_TRIES, **_REPORTING}, send)


async def _kinesis(opened: AsyncExitStack, stream: str, endpoint_url: str) -> Source:
    client = await _client(opened, "kinesis", endpoint_url)
    await client.create_stream(StreamName=stream, ShardCount=3)
    opened.push_async_callback(client.delete_stream, StreamName=stream, EnforceConsumerDeletion=True)
    await client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})

    async def send(key: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            data = json.dumps({"key": key, "n": number}).encode()
            await _until_taken(client, PartitionKey=f"key-{key}", Data=data, StreamName=stream)

    source = Source(
        "kinesis", {"source": {"kinesis": {"stream": stream}}, **_STREAM, "parallelization_factor": 2}, send
    )
    source.reshard = lambda how, chance: _reshard(client, stream, how, chance)
    return source


async def _until_taken(client: Any, **record: Any) -> None:
    """Put a record; a stream that is being changed refuses some, surely without having taken them."""
    while True:
        try:
            await client.put_record(**record)
        except ClientError as error:
            if error.response["Error"]["Code"] not in (
                "ResourceInUseException",
                "ProvisionedThroughputExceededException",
            ):
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def _reshard(client: Any, stream: str, how: str, chance: float) -> bool:
    """Split one shard, or merge two neighbours; False when the stream has too many or too few for it."""
    shards = (await client.list_shards(StreamName=stream))["Shards"]
    open_ones = sorted(
        (int(shard["HashKeyRange"]["StartingHashKey"]), int(shard["HashKeyRange"]["EndingHashKey"]), shard["ShardId"])
        for shard in shards
        if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
    )
    if how == "split" and len(open_ones) < 6:
        first, last, name = open_ones[int(chance * len(open_ones))]
        middle = str((first + last) // 2)
        await client.split_shard(StreamName=stream, ShardToSplit=name, NewStartingHashKey=middle)
    elif how == "merge" and len(open_ones) > 1:
        place = int(chance * (len(open_ones) - 1))
        one, other = open_ones[place][2], open_ones[place + 1][2]
        await client.merge_shards(StreamName=stream, ShardToMerge=one, AdjacentShardToMerge=other)
    else:
        return False
    await client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    return True


async def _dynamodb(opened: AsyncExitStack, table: str, endpoint_url: str) -> Source:
    client = await _client(opened, "dynamodb", endpoint_url)
    await client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    opened.push_async_callback(client.delete_table, TableName=table)
    await client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})

    async def send(key: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            await client.put_item(TableName=table, Item={"id": {"S": f"key-{key}"}, "n": {"N": str(number)}})

    block = {"source": {"dynamodb": {"table": table}}, **_STREAM, **_REPORTING, "parallelization_factor": 2}
    return Source("dynamodb", block, send)


RETRIES: Final = 3
_TRIES: Final = {"maximum_retry_attempts": RETRIES, "bisect_batch_on_function_error": True}
_STREAM: Final = {"starting_position": "TRIM_HORIZON", "batch_size": 25, **_TRIES}
_REPORTING: Final = {"function_response_types": ["ReportBatchItemFailures"]}
