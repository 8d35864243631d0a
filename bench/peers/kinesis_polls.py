"""Get records with plain aioboto3, all shards of a stream in one loop; nothing is done with them."""

import asyncio
import sys
from typing import Any

import aioboto3
import uvloop


async def poll(kinesis: Any, stream: str, shard: str, limit: int) -> None:
    found = await kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    iterator = found["ShardIterator"]
    while True:
        page = await kinesis.get_records(ShardIterator=iterator, Limit=limit)
        iterator = page["NextShardIterator"]


async def main(url: str, stream: str, limit: int) -> None:
    async with aioboto3.Session().client("kinesis", endpoint_url=url) as kinesis, asyncio.TaskGroup() as polls:
        for shard in (await kinesis.list_shards(StreamName=stream))["Shards"]:
            polls.create_task(poll(kinesis, stream, shard["ShardId"], limit))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
