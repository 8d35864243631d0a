"""A queue that costs next to nothing, in a process of its own: `python -m bench.sqs_endpoint --help`.

It answers as SQS does in its JSON protocol, standard or FIFO, for one queue of any name and any signature, so that what
a consumer spends is measured and not what a server does. Bodies and replies are made beforehand as far as they can be,
a supply of any length is made while it is read, and `GET /report` tells how many messages went and were deleted.

It is a bench's tool, not a stand-in for SQS. Left out are: message attributes, delays, purging and setting attributes,
redrive to another queue, retention, deduplication, the limit of messages in flight, the older query protocol, several
queues, checks of requests, chunked requests, and delays as a network has them.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import json
import random
import string
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast

import orjson
import uvloop

ACCOUNT: Final = "000000000000"
REGION: Final = "us-east-1"
#: As long as one of SQS: 256 bytes in base64.
_HANDLE_CHARS: Final = 344
_HANDLE_PAD: Final = bytes(random.Random(2).choices(string.ascii_letters.encode(), k=_HANDLE_CHARS - 24))
#: Different bodies of a supply.
_BODIES: Final = 64
#: How often leases are looked at.
_LOOK_S: Final = 0.05
_TYPE: Final = b"application/x-amz-json-1.0"


def plain_body(number: int, size_bytes: int) -> str:
    """Make a JSON text of just this size."""
    rng = random.Random(number)
    order = {
        "order": number,
        "customer": f"c-{rng.randrange(10**6):06d}",
        "placed": "2026-11-21T10:00:00Z",
        "items": [{"sku": f"s-{rng.randrange(10**4):04d}", "count": rng.randrange(1, 9)} for _ in range(6)],
        "note": "",
    }
    missing = size_bytes - len(json.dumps(order))
    return json.dumps({**order, "note": "".join(rng.choices(string.ascii_letters + " ", k=missing))})


def s3_body(number: int, bucket: str) -> str:
    """Make a notification as S3 sends it for one object."""
    rng = random.Random(number)
    thing = {
        "key": f"in/2026/11/21/upload-{number:06d}.csv",
        "size": rng.randrange(10**6),
        "eTag": f"{rng.getrandbits(128):032x}",
        "sequencer": f"{rng.getrandbits(72):018X}",
    }
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": "2026-11-21T10:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDAIENQZJOLO23YVJ4VO:uploader"},
        "requestParameters": {"sourceIPAddress": "203.0.113.7"},
        "responseElements": {
            "x-amz-request-id": f"{rng.getrandbits(64):016X}",
            "x-amz-id-2": "".join(rng.choices(string.ascii_letters, k=76)),
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "headrace",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": thing,
        },
    }
    return json.dumps({"Records": [record]}, separators=(",", ":"))


def _content(body: str) -> bytes:
    """Make the part of a received message that depends on its body."""
    found = {"MD5OfBody": hashlib.md5(body.encode()).hexdigest(), "Body": body}
    return orjson.dumps(found)[1:-1]


@dataclass(slots=True, eq=False)
class Group:
    """One message group of a FIFO queue."""

    name: str
    waiting: deque[Message] = field(default_factory=deque)
    in_flight: int = 0
    #: Messages of the supply that are still to come.
    supply: int = 0


@dataclass(slots=True, eq=False)
class Message:
    number: int
    content: bytes
    group: Group | None = None
    receives: int = 0
    #: Visible again at this time, while it is in flight.
    due_s: float = 0.0


class Queue:
    """What is in the queue, and who has it."""

    def __init__(self, options: argparse.Namespace, content: Sequence[bytes]) -> None:
        self.fifo: bool = options.fifo
        self.visibility_s: int = options.visibility
        self.counts = dict.fromkeys(("receives", "empty", "received", "again", "deletes", "deleted", "extended"), 0)
        self._content = content
        self._numbers = count()
        self._supply: int = 0 if options.fifo else options.messages
        self._rate: float = options.rate
        self._owed = 0.0
        self._filled_s = time.monotonic()
        self._waiting: deque[Message] = deque()
        self._flying: dict[int, Message] = {}
        self._leases: list[tuple[float, int, Sequence[Message]]] = []
        self._lease_numbers = count()
        self._groups: dict[str, Group] = {}
        #: Groups that have messages and none in flight.
        self._open: deque[Group] = deque()
        if options.fifo:
            for number in range(options.groups):
                self._group(f"group-{number:04d}").supply = options.messages // options.groups
            self._open.extend(self._groups.values())

    # --- out

    def take(self, limit: int, visibility_s: int) -> list[Message]:
        """Hand out messages, as far as there are some."""
        taken = self._take_grouped(limit) if self.fifo else self._take(limit)
        if taken:
            due_s = time.monotonic() + visibility_s
            for message in taken:
                message.due_s = due_s
                message.receives += 1
                self._flying[message.number] = message
            heapq.heappush(self._leases, (due_s, next(self._lease_numbers), taken))
            self.counts["received"] += len(taken)
            self.counts["again"] += sum(message.receives > 1 for message in taken)
        return taken

    def _take(self, limit: int) -> list[Message]:
        taken: list[Message] = []
        while self._waiting and len(taken) < limit:
            taken.append(self._waiting.popleft())
        made = min(limit - len(taken), self._supply)
        self._supply -= made
        for _ in range(made):
            number = next(self._numbers)
            taken.append(Message(number, self._content[number % _BODIES]))
        return taken

    def _take_grouped(self, limit: int) -> list[Message]:
        """Take as many as there are of one group before the next, as SQS does."""
        taken: list[Message] = []
        while self._open and len(taken) < limit:
            group = self._open.popleft()
            while len(taken) < limit and (message := self._next_of(group)):
                group.in_flight += 1
                taken.append(message)
        return taken

    def _next_of(self, group: Group) -> Message | None:
        if group.waiting:
            return group.waiting.popleft()
        if not group.supply:
            return None
        group.supply -= 1
        number = next(self._numbers)
        return Message(number, self._content[number % _BODIES], group)

    # --- back, or away

    def delete(self, number: int) -> bool:
        """Delete a message; False when a FIFO queue has not handed it out."""
        message = self._flying.pop(number, None)
        if message is None:
            return not self.fifo
        self.counts["deleted"] += 1
        if message.group:
            self._landed(message.group)
        return True

    def extend(self, number: int, visibility_s: int) -> bool:
        message = self._flying.get(number)
        if message is None:
            return False
        self.counts["extended"] += 1
        message.due_s = time.monotonic() + visibility_s
        heapq.heappush(self._leases, (message.due_s, next(self._lease_numbers), (message,)))
        return True

    def expire(self) -> None:
        """Let what was not deleted in its time be seen again."""
        now_s = time.monotonic()
        while self._leases and self._leases[0][0] <= now_s:
            due_s, _, messages = heapq.heappop(self._leases)
            for message in reversed(messages):
                if message.due_s == due_s and message.number in self._flying:
                    del self._flying[message.number]
                    if message.group:
                        message.group.waiting.appendleft(message)
                        self._landed(message.group)
                    else:
                        self._waiting.append(message)

    def _landed(self, group: Group) -> None:
        group.in_flight -= 1
        if not group.in_flight and (group.waiting or group.supply):
            self._open.append(group)

    # --- in

    def fill(self) -> None:
        """Add to a supply that comes at a rate."""
        now_s = time.monotonic()
        self._owed += self._rate * (now_s - self._filled_s)
        self._filled_s = now_s
        come = int(self._owed)
        self._owed -= come
        self._supply += come

    def send(self, body: str, group: str | None) -> int:
        message = Message(next(self._numbers), _content(body))
        if group is None:
            self._waiting.append(message)
        else:
            message.group = self._group(group)
            if not message.group.waiting and not message.group.supply and not message.group.in_flight:
                self._open.append(message.group)
            message.group.waiting.append(message)
        return message.number

    def _group(self, name: str) -> Group:
        return self._groups.setdefault(name, Group(name))

    @property
    def depth(self) -> int:
        return (
            self._supply + len(self._waiting) + sum(len(each.waiting) + each.supply for each in self._groups.values())
        )

    @property
    def in_flight(self) -> int:
        return len(self._flying)


class Refused(Exception):
    """The caller's mistake, as SQS words its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(slots=True, eq=False)
class Waiting:
    """A receive that found nothing yet."""

    connection: Connection
    request: Mapping[str, Any]
    timer: asyncio.TimerHandle


class Service:
    """The calls of the protocol."""

    def __init__(self, queue: Queue, url: str, name: str) -> None:
        self._queue = queue
        self._url = url
        self._name = name
        self._began_ms = int(time.time() * 1000)
        self._waiting: deque[Waiting] = deque()
        self.calls: Mapping[bytes, Callable[[Mapping[str, Any]], bytes]] = {
            b"getqueueurl": self._get_queue_url,
            b"getqueueattributes": self._get_queue_attributes,
            b"deletemessage": self._delete,
            b"deletemessagebatch": self._delete_batch,
            b"changemessagevisibility": self._extend,
            b"changemessagevisibilitybatch": self._extend_batch,
            b"sendmessage": self._send,
            b"sendmessagebatch": self._send_batch,
        }

    # --- receiving

    def receive(self, connection: Connection, request: Mapping[str, Any]) -> bytes | None:
        """Answer a receive; None: it waits, and is answered later."""
        self._queue.counts["receives"] += 1
        reply = self._received(request)
        wait_s = request.get("WaitTimeSeconds", 0)
        if reply is None and wait_s:
            timer = asyncio.get_running_loop().call_later(wait_s, self._give_up, connection)
            connection.waiting = Waiting(connection, request, timer)
            self._waiting.append(connection.waiting)
            return None
        if reply is None:
            self._queue.counts["empty"] += 1
        return reply or b"{}"

    def _received(self, request: Mapping[str, Any]) -> bytes | None:
        lease_s = request.get("VisibilityTimeout", self._queue.visibility_s)
        messages = self._queue.take(request.get("MaxNumberOfMessages", 1), lease_s)
        if not messages:
            return None
        asked = request.get("MessageSystemAttributeNames") or request.get("AttributeNames")
        shown = [self._shown(message, b"," + self._attributes(message) if asked else b"") for message in messages]
        return b'{"Messages":[' + b",".join(shown) + b"]}"

    def _shown(self, message: Message, attributes: bytes) -> bytes:
        return b'{"MessageId":"%s","ReceiptHandle":"AQEB%016d%04d%s",%s%s}' % (
            message_id(message.number),
            message.number,
            message.receives,
            _HANDLE_PAD,
            message.content,
            attributes,
        )

    def _attributes(self, message: Message) -> bytes:
        ordered = b""
        if message.group:
            ordered = b',"SequenceNumber":"188%017d","MessageGroupId":"%s","MessageDeduplicationId":"%d"' % (
                message.number,
                message.group.name.encode(),
                message.number,
            )
        return (
            b'"Attributes":{"SenderId":"AIDAIENQZJOLO23YVJ4VO","ApproximateFirstReceiveTimestamp":"%d",'
            b'"ApproximateReceiveCount":"%d","SentTimestamp":"%d"%s}'
            % (self._began_ms, message.receives, self._began_ms, ordered)
        )

    def _give_up(self, connection: Connection) -> None:
        if connection.waiting:
            self._queue.counts["empty"] += 1
            self.forget(connection)
            connection.reply(b"{}")

    def forget(self, connection: Connection) -> None:
        """Let a receive wait no longer, answered or not."""
        if connection.waiting:
            connection.waiting.timer.cancel()
            self._waiting.remove(connection.waiting)
            connection.waiting = None

    def serve(self) -> None:
        """Answer receives that wait, as far as there are messages now."""
        while self._waiting:
            connection = self._waiting[0].connection
            reply = self._received(self._waiting[0].request)
            if reply is None:
                return
            self.forget(connection)
            connection.reply(reply)

    def look(self) -> None:
        """Take back what was not deleted in time, and bring what is due, again and again."""
        self._queue.expire()
        self._queue.fill()
        self.serve()
        asyncio.get_running_loop().call_later(_LOOK_S, self.look)

    # --- the other calls

    def _get_queue_url(self, request: Mapping[str, Any]) -> bytes:
        return orjson.dumps({"QueueUrl": f"{self._url}/{ACCOUNT}/{request['QueueName']}"})

    def _get_queue_attributes(self, request: Mapping[str, Any]) -> bytes:
        attributes = {
            "QueueArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._name}",
            "ApproximateNumberOfMessages": str(self._queue.depth),
            "ApproximateNumberOfMessagesNotVisible": str(self._queue.in_flight),
            "ApproximateNumberOfMessagesDelayed": "0",
            "CreatedTimestamp": str(self._began_ms // 1000),
            "LastModifiedTimestamp": str(self._began_ms // 1000),
            "VisibilityTimeout": str(self._queue.visibility_s),
            "MaximumMessageSize": "262144",
            "MessageRetentionPeriod": "345600",
            "DelaySeconds": "0",
            "ReceiveMessageWaitTimeSeconds": "0",
            "SqsManagedSseEnabled": "true",
            **({"FifoQueue": "true", "ContentBasedDeduplication": "true"} if self._queue.fifo else {}),
        }
        wanted = set(request.get("AttributeNames", ()))
        shown = {name: value for name, value in attributes.items() if name in wanted or "All" in wanted}
        return orjson.dumps({"Attributes": shown} if shown else {})

    def _delete(self, request: Mapping[str, Any]) -> bytes:
        self._queue.counts["deletes"] += 1
        if not self._queue.delete(_number(request)):
            raise Refused("InvalidParameterValue", "The receipt handle has expired.")
        return b"{}"

    def _delete_batch(self, request: Mapping[str, Any]) -> bytes:
        self._queue.counts["deletes"] += 1
        return _batch_reply(request, lambda entry: self._queue.delete(_number(entry)), "ReceiptHandleIsInvalid")

    def _extend(self, request: Mapping[str, Any]) -> bytes:
        if not self._queue.extend(_number(request), request["VisibilityTimeout"]):
            raise Refused("MessageNotInflight", "The message is not in flight.")
        return b"{}"

    def _extend_batch(self, request: Mapping[str, Any]) -> bytes:
        return _batch_reply(
            request,
            lambda entry: self._queue.extend(_number(entry), entry["VisibilityTimeout"]),
            "MessageNotInflight",
        )

    def _send(self, request: Mapping[str, Any]) -> bytes:
        return orjson.dumps(self._sent(request))

    def _send_batch(self, request: Mapping[str, Any]) -> bytes:
        sent = [{"Id": entry["Id"], **self._sent(entry)} for entry in request["Entries"]]
        return orjson.dumps({"Successful": sent, "Failed": []})

    def _sent(self, entry: Mapping[str, Any]) -> dict[str, str]:
        if entry.get("MessageAttributes"):
            raise Refused("UnsupportedOperation", "This queue takes no message attributes.")
        body = entry["MessageBody"]
        number = self._queue.send(body, entry.get("MessageGroupId") if self._queue.fifo else None)
        sent = {"MessageId": message_id(number).decode(), "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}
        return {**sent, "SequenceNumber": f"188{number:017d}"} if self._queue.fifo else sent

    def report(self) -> bytes:
        found = {**self._queue.counts, "in_flight": self._queue.in_flight, "cpu_s": time.process_time()}
        return orjson.dumps({**found, "at_s": time.monotonic()})


def message_id(number: int) -> bytes:
    return b"00000000-0000-4000-8000-%012x" % number


def _number(entry: Mapping[str, Any]) -> int:
    """Give the number of the message that a receipt handle names."""
    try:
        return int(entry["ReceiptHandle"][4:20])
    except ValueError:
        raise Refused("ReceiptHandleIsInvalid", "The receipt handle is not of this queue.") from None


def _batch_reply(request: Mapping[str, Any], does: Callable[[Mapping[str, Any]], bool], code: str) -> bytes:
    failed = [entry["Id"] for entry in request["Entries"] if not does(entry)]
    if not failed:
        listed = b",".join(b'{"Id":"%s"}' % entry["Id"].encode() for entry in request["Entries"])
        return b'{"Successful":[%s],"Failed":[]}' % listed
    good = [{"Id": entry["Id"]} for entry in request["Entries"] if entry["Id"] not in failed]
    bad = [{"Id": each, "SenderFault": True, "Code": code, "Message": code} for each in failed]
    return orjson.dumps({"Successful": good, "Failed": bad})


class Connection(asyncio.Protocol):
    """One client's connection: requests come one after the other, each with a Content-Length."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rest = b""
        self._transport: asyncio.Transport
        self.waiting: Waiting | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.forget(self)

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
            self.reply(self._service.report())
            return
        action = head[at + 15 : head.index(b"\r\n", at + 15)].rpartition(b".")[2].strip()
        try:
            request = orjson.loads(body or b"{}")
            if action == b"receivemessage":
                reply = self._service.receive(self, request)
            else:
                reply = self._service.calls[action](request)
        except (Refused, KeyError) as error:
            kind = error.kind if isinstance(error, Refused) else "UnsupportedOperation"
            self.reply(orjson.dumps({"__type": f"com.amazonaws.sqs#{kind}", "message": str(error)}), b"400 Bad Request")
            return
        if reply is not None:
            self.reply(reply)
        if action != b"receivemessage":
            self._service.serve()

    def reply(self, body: bytes, status: bytes = b"200 OK") -> None:
        self._transport.write(
            b"HTTP/1.1 %s\r\nx-amzn-RequestId: 00000000-0000-4000-8000-000000000000\r\nContent-Type: %s\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (status, _TYPE, len(body), body)
        )


async def serve(options: argparse.Namespace) -> None:
    """Serve until standard input ends; print the URL first."""
    bodies = [
        s3_body(number, options.bucket) if options.bucket else plain_body(number, options.size)
        for number in range(_BODIES)
    ]
    queue = Queue(options, [_content(body) for body in bodies])
    loop = asyncio.get_running_loop()
    made: list[Service] = []
    server = await loop.create_server(lambda: Connection(made[0]), "127.0.0.1", options.port, backlog=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made.append(Service(queue, url, options.name))
    made[0].look()
    print(json.dumps({"url": url, "body_bytes": len(bodies[0])}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="bench", help="of the queue, as its ARN has it")
    parser.add_argument("--messages", type=int, default=0, help="there from the start")
    parser.add_argument("--rate", type=float, default=0.0, help="more of them a second (a standard queue)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of their bodies")
    parser.add_argument("--bucket", help="make the bodies notifications of this bucket")
    parser.add_argument("--fifo", action="store_true")
    parser.add_argument("--groups", type=int, default=64, help="of a FIFO queue's supply")
    parser.add_argument("--visibility", type=int, default=60, help="seconds")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
