"""SQS as a QueueSource: one queue, standard or FIFO.

The AWS library says where SQS is and renews credentials; the calls go through a client of our own
(`connectors.sqs_client`). When credentials are refused, the environment and the profile are read anew before the next
call. What the queue's settings say is looked up again as part of a receive, at most once a minute and after each
failure, since a queue that was made anew may have others.

Nothing is received with a visibility timeout of ours: the queue's own holds, as with AWS Lambda.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil, inf
from typing import Any, Final

from connectors.aws import are_credentials_refused
from connectors.aws_access import forget
from connectors.settings import SqsSettings, queue_name
from connectors.sqs_client import SqsClient
from connectors.sqs_codec import MessageCodec, SqsCodec, message_of
from connectors.sqs_queue import FoundQueue, QueueState, describe, find_queue
from router.core.model import Chunk
from router.errors import SourceUnavailable
from router.ports import Codec

#: Longest long poll, and most messages of one receive (Amazon SQS quotas).
_WAIT_LIMIT_S: Final = 20
_RECEIVE_LIMIT: Final = 10


class SqsSource:
    """One queue. A closed source stays closed: make another."""

    pinned = False
    handicap = None

    def __init__(
        self, settings: SqsSettings, codec: MessageCodec | None = None, *, call_s: float = 10.0, look_s: float = 60.0
    ) -> None:
        """Prepare without I/O.

        Args:
            settings: which queue.
            codec: what the messages are, if they are not the records themselves.
            call_s: longest time a call may take, beyond what the queue was asked to wait.
            look_s: how long what the queue's settings say is believed.
        """
        self._codec: MessageCodec = codec or SqsCodec()
        self.codec: Codec = self._codec
        self.name = queue_name(settings.queue)
        #: The queue's ARN, once it is open.
        self.identity = ""
        self.lease_s = 0.0
        self._settings = settings
        self._call_s = call_s
        self._look_s = look_s
        self._queue: FoundQueue | None = None
        self._client: SqsClient | None = None
        self._waiting: int | None = None
        #: Were our credentials refused, so that they are to be read anew?
        self._is_refused = False
        #: Monotonic time of the last look at the queue's settings.
        self._looked_s = 0.0

    async def open(self) -> None:
        """Find the queue."""
        queue = await find_queue(self._settings, call_s=self._call_s)
        self._client = SqsClient(queue.access, queue.url, describe(self._settings), call_s=self._call_s)
        self._queue = queue
        self.identity = queue.arn
        self._learn(queue.state)

    async def receive(self, limit: int, wait_s: float) -> Chunk:
        queue, client = await self._ready()
        with self._failing():
            if time.monotonic() - self._looked_s >= self._look_s:
                # Other receives need not look as well.
                self._looked_s = time.monotonic()
                attributes = await client.attributes(*QueueState.NAMES)
                self._learn(QueueState.of(attributes, describe(self._settings)))
            received = await client.receive(min(limit, _RECEIVE_LIMIT), min(ceil(wait_s), _WAIT_LIMIT_S))
        if self._waiting:
            # What came does not wait any more, and the next look may be a minute away.
            self._waiting = max(0, self._waiting - len(received))
        arn, region, windowed = queue.arn, queue.region, self._settings.windowed
        return self._codec.chunk(
            self.name, [message_of(each, arn=arn, region=region, windowed=windowed) for each in received]
        )

    async def delete(self, rows: Sequence[Any]) -> Mapping[int, str]:
        _, client = await self._ready()
        with self._failing():
            return await client.delete([self._codec.receipt(row) for row in rows])

    async def extend(self, rows: Sequence[Any], lease_s: int) -> Mapping[int, str]:
        _, client = await self._ready()
        with self._failing():
            return await client.extend([self._codec.receipt(row) for row in rows], lease_s)

    def backlog(self) -> int | None:
        return self._waiting

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _ready(self) -> tuple[FoundQueue, SqsClient]:
        if self._queue is None or self._client is None:
            raise SourceUnavailable(f"{describe(self._settings)}: it is not open yet")
        if self._is_refused:
            self._is_refused = False
            with self._failing():
                self._queue = await find_queue(self._settings, call_s=self._call_s)
            self._client.renew(self._queue.access.credentials)
        return self._queue, self._client

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Note what a failure says about what we know."""
        try:
            yield
        except SourceUnavailable as error:
            self._looked_s = -inf
            if self._queue and are_credentials_refused(error):
                self._is_refused = True
                forget(self._queue.access)
            raise

    def _learn(self, state: QueueState) -> None:
        self._looked_s = time.monotonic()
        self.lease_s = float(state.visibility_s)
        self._waiting = state.waiting
