"""A stream that costs next to nothing, in a process of its own: `python -m bench.kinesis_server --help`.

It answers as Kinesis does in its JSON protocol, for one stream of any name and any signature, so that what a consumer
spends is measured and not what a server does. Pages are made beforehand; only the middle digits of their sequence
numbers are put in when one is asked for. Iterators say themselves where they stand, so a shard costs nothing, and
`GET /report` tells how many records went.

It is a bench's tool, not a stand-in for Kinesis. Left out are: writing, resharding, trimming and the limits of a shard,
expiry of iterators, AT_TIMESTAMP (all is younger), fan-out, checks of requests, chunked requests, and delays as a
network has them.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import orjson
import uvloop

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
#: Sequence numbers have 56 digits: these, then 12 for the page and 6 for the place in it.
_PREFIX: Final = "49668219930458362175408213964527810453"
_PAGE_DIGITS: Final = 12
_PLACE_DIGITS: Final = 6
#: Stands for the page's digits in what is made beforehand.
_PAGE_MARK: Final = b"#" * _PAGE_DIGITS
#: As long as one of Kinesis.
_ITERATOR_CHARS: Final = 224
#: What a key's hash is below; shards have equal ranges of it.
_HASHES: Final = 1 << 128
_TYPE: Final = b"application/x-amz-json-1.1"
#: Different data, and shards that have records of their own: the others repeat theirs.
_BODIES: Final = 64
_DIFFERENT: Final = 4


def key_name(number: int) -> str:
    """Name a partition key."""
    return f"key-{number:04d}"


def shard_name(number: int) -> str:
    return f"shardId-{number:012d}"


def keys_of(shards: int, keys: int) -> Sequence[Sequence[str]]:
    """Give the partition keys of each shard: as in Kinesis, by their MD5."""
    found: list[list[str]] = [[] for _ in range(shards)]
    for name in map(key_name, range(keys)):
        found[int(hashlib.md5(name.encode()).hexdigest(), 16) * shards // _HASHES].append(name)
    return found


class Shard:
    """The records of one shard: one page, again and again, with other sequence numbers."""

    def __init__(self, keys: Sequence[str], records: int, size_bytes: int, began_s: float, rng: random.Random) -> None:
        self.count = records
        in_turn = rng.sample(keys, len(keys))
        bodies = [base64.b64encode(rng.randbytes(size_bytes)).decode() for _ in range(_BODIES)]
        made = [
            orjson.dumps(
                {
                    "ApproximateArrivalTimestamp": began_s,
                    "Data": bodies[place % _BODIES],
                    "PartitionKey": in_turn[place % len(in_turn)],
                    "SequenceNumber": f"{_PREFIX}{_PAGE_MARK.decode()}{place:0{_PLACE_DIGITS}d}",
                }
            )
            for place in range(records)
        ]
        self._size_bytes = len(made[0]) + 1
        assert all(len(each) + 1 == self._size_bytes for each in made), "records are cut out by their place"
        self._page = b",".join([*made, b""])

    def cut(self, number: int, limit: int) -> tuple[bytes, int]:
        """Give records from a number on, to the end of its page at most, and how many they are."""
        page, first = divmod(number, self.count)
        count = min(limit, self.count - first)
        cut = self._page[first * self._size_bytes : (first + count) * self._size_bytes - 1]
        return cut.replace(_PAGE_MARK, b"%0*d" % (_PAGE_DIGITS, page)), count

    def number_of(self, sequence_number: str) -> int:
        page = int(sequence_number[len(_PREFIX) : -_PLACE_DIGITS])
        return page * self.count + int(sequence_number[-_PLACE_DIGITS:])


class Service:
    """The calls of the protocol."""

    def __init__(self, options: argparse.Namespace) -> None:
        rng = random.Random(1)
        #: Whole seconds and some milliseconds: as many characters in each record.
        self._began_s = int(time.time()) + 0.125
        self._name: str = options.stream
        self._arn = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{options.stream}"
        self._supply: int = options.supply
        keys = keys_of(min(options.shards, _DIFFERENT), options.keys)
        different = [Shard(each, options.page, options.size, self._began_s, rng) for each in keys]
        self._shards = {shard_name(number): different[number % len(different)] for number in range(options.shards)}
        self._counts = dict.fromkeys(("polls", "empty", "records"), 0)
        self.calls: Mapping[bytes, Callable[[Any], bytes]] = {
            b"describestreamsummary": self._describe,
            b"listshards": self._list,
            b"getsharditerator": self._get_iterator,
            b"getrecords": self._get_records,
        }

    def _get_records(self, asked: Any) -> bytes:
        name, _, rest = asked["ShardIterator"].partition("=")
        number = int(rest.partition("=")[0])
        limit = min(asked.get("Limit", 10_000), self._supply - number)
        self._counts["polls"] += 1
        records = b""
        if limit <= 0:
            self._counts["empty"] += 1
        else:
            records, count = self._shards[name].cut(number, limit)
            self._counts["records"] += count
            number += count
        behind_ms = 1000 if number < self._supply else 0
        return b'{"MillisBehindLatest":%d,"NextShardIterator":"%s","Records":[%s]}' % (
            behind_ms,
            _iterator(name, number),
            records,
        )

    def _get_iterator(self, asked: Any) -> bytes:
        name, number = asked["ShardId"], 0
        if "StartingSequenceNumber" in asked:
            number = self._shards[name].number_of(asked["StartingSequenceNumber"])
            number += asked["ShardIteratorType"] == "AFTER_SEQUENCE_NUMBER"
        elif asked["ShardIteratorType"] == "LATEST":
            number = self._supply
        return b'{"ShardIterator":"%s"}' % _iterator(name, number)

    def _describe(self, _: Any) -> bytes:
        summary = {
            "StreamName": self._name,
            "StreamARN": self._arn,
            "StreamStatus": "ACTIVE",
            "StreamCreationTimestamp": self._began_s,
            "RetentionPeriodHours": 24,
            "OpenShardCount": len(self._shards),
            "ConsumerCount": 0,
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        }
        return orjson.dumps({"StreamDescriptionSummary": summary})

    def _list(self, _: Any) -> bytes:
        width = _HASHES // len(self._shards)
        listed = [
            {
                "ShardId": name,
                "HashKeyRange": {
                    "StartingHashKey": str(width * number),
                    "EndingHashKey": str(width * (number + 1) - 1),
                },
                "SequenceNumberRange": {"StartingSequenceNumber": f"{_PREFIX}{0:018d}"},
            }
            for number, name in enumerate(self._shards)
        ]
        return orjson.dumps({"Shards": listed})

    def report(self) -> bytes:
        return orjson.dumps({**self._counts, "cpu_s": time.process_time(), "at_s": time.monotonic()})


def _iterator(shard: str, number: int) -> bytes:
    return f"{shard}={number}=".encode().ljust(_ITERATOR_CHARS, b"A")


class _Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other, each with a Content-Length."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            head = data[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            after = end + (int(head[at + 17 : head.index(b"\r\n", at + 17)]) if at >= 0 else 0)
            if len(data) < after:
                break
            self._answer(head, data[end:after])
            data = data[after:]
        self._rest = data

    def _answer(self, head: bytes, body: bytes) -> None:
        at = head.find(b"\r\nx-amz-target:")
        if at < 0:
            self._reply(self._service.report())
            return
        operation = head[at + 15 : head.index(b"\r\n", at + 15)].rpartition(b".")[2].strip()
        call = self._service.calls.get(operation)
        if call is None:
            refusal = {"__type": "UnknownOperationException", "message": operation.decode()}
            self._reply(orjson.dumps(refusal), b"400 Bad Request")
            return
        self._reply(call(orjson.loads(body)))

    def _reply(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.writelines(
            [
                b"HTTP/1.1 %s\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\nContent-Type: %s\r\n"
                b"Content-Length: %d\r\n\r\n" % (status, _TYPE, len(body)),
                body,
            ]
        )


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input ends; print the URL first."""
    service = Service(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(service), "127.0.0.1", options.port, backlog=4096)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--stream", default="bench", help="its name, as its ARN has it")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--supply", type=int, default=10**12, help="records of each shard, there from the start")
    parser.add_argument("--page", type=int, default=1000, help="records of a page, at most")
    parser.add_argument("--size", type=int, default=180, help="bytes of a record's data")
    parser.add_argument("--keys", type=int, default=1000, help="partition keys of all shards")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
