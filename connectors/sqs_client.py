"""The calls that a source of messages needs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors.aws_access import Access, Credentials
from connectors.aws_json import JsonClient
from connectors.sqs_codec import ReceivedMessage
from router.errors import SourceUnavailable


class _Received(msgspec.Struct, gc=False):
    Messages: list[ReceivedMessage] | None = None


class _Done(msgspec.Struct, gc=False):
    Id: str


class _NotDone(msgspec.Struct, gc=False):
    Id: str
    Code: str
    Message: str | None = None


class _Results(msgspec.Struct, gc=False):
    """What became of each entry of a batch."""

    Successful: list[_Done] | None = None
    Failed: list[_NotDone] | None = None


class _Described(msgspec.Struct, gc=False):
    Attributes: dict[str, str] = {}


class _Found(msgspec.Struct, gc=False):
    QueueUrl: str


_encode: Final = msgspec.json.Encoder().encode
_decode_received: Final = msgspec.json.Decoder(_Received).decode
_decode_results: Final = msgspec.json.Decoder(_Results).decode
_decode_described: Final = msgspec.json.Decoder(_Described).decode
_decode_found: Final = msgspec.json.Decoder(_Found).decode


async def find_url(access: Access, name: str, owner: str | None, what: str, *, call_s: float) -> str:
    """Find the URL of a queue; `owner` is its account, if it is not ours. May raise SourceUnavailable."""
    request = {"QueueName": name, "QueueOwnerAWSAccountId": owner} if owner else {"QueueName": name}
    service = _service(access, what)
    try:
        return (await service.call("GetQueueUrl", _encode(request), call_s, _decode_found)).QueueUrl
    finally:
        await service.close()


def _service(access: Access, what: str) -> JsonClient:
    return JsonClient(access, service="sqs", target="AmazonSQS", version="1.0", what=what)


class SqsClient:
    """Calls one queue. Every call but `renew` and `close` may raise SourceUnavailable."""

    def __init__(self, access: Access, queue_url: str, what: str, *, call_s: float) -> None:
        """Prepare without I/O.

        Args:
            access: where SQS is.
            queue_url: names the queue there.
            what: names the queue in errors.
            call_s: longest time a call may take, beyond what the queue was asked to wait.
        """
        self._call_s = call_s
        self._queue_url = queue_url
        self._what = what
        self._service = _service(access, what)

    async def receive(self, limit: int, wait_s: int) -> Sequence[ReceivedMessage]:
        """Receive up to `limit` messages with all attributes, under the queue's own visibility timeout."""
        request = {
            "QueueUrl": self._queue_url,
            "MaxNumberOfMessages": limit,
            "WaitTimeSeconds": wait_s,
            # The older name of MessageSystemAttributeNames, which every service understands.
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        }
        answer = await self._service.call("ReceiveMessage", _encode(request), wait_s + self._call_s, _decode_received)
        messages = answer.Messages or ()
        for message in messages:
            if hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest() != message.md5_of_body:
                raise SourceUnavailable(
                    f"{self._what}: the body of message {message.message_id} is not what was sent (its MD5 differs); "
                    "it comes again, check what is between us and the queue"
                )
        return messages

    async def delete(self, receipts: Sequence[str]) -> Mapping[int, str]:
        """Delete 1 to 10 messages; give by index why one was not deleted."""
        entries = [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)]
        return await self._each("DeleteMessageBatch", entries)

    async def extend(self, receipts: Sequence[str], lease_s: int) -> Mapping[int, str]:
        """Let 1 to 10 leases end `lease_s` from now; give by index why one does not."""
        entries = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": lease_s}
            for index, receipt in enumerate(receipts)
        ]
        return await self._each("ChangeMessageVisibilityBatch", entries)

    async def attributes(self, *names: str) -> Mapping[str, str]:
        """Look up attributes of the queue."""
        request = {"QueueUrl": self._queue_url, "AttributeNames": names}
        answer = await self._service.call("GetQueueAttributes", _encode(request), self._call_s, _decode_described)
        return answer.Attributes

    def renew(self, credentials: Credentials) -> None:
        """Use other credentials from the next call on."""
        self._service.credentials = credentials

    async def close(self) -> None:
        """End all calls. May come twice."""
        await self._service.close()

    async def _each(self, operation: str, entries: Sequence[Mapping[str, Any]]) -> Mapping[int, str]:
        request = {"QueueUrl": self._queue_url, "Entries": entries}
        results = await self._service.call(operation, _encode(request), self._call_s, _decode_results)
        done = {result.Id for result in results.Successful or ()}
        if len(done) == len(entries):
            return {}
        why = {
            result.Id: f"{result.Code}: {result.Message}" if result.Message else result.Code
            for result in results.Failed or ()
        }
        return {
            index: why.get(entry["Id"], "the queue did not say what became of it")
            for index, entry in enumerate(entries)
            if entry["Id"] not in done
        }
