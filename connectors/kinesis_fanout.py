"""Reading the shards of a Kinesis stream as one of its registered consumers, to whom records are pushed.

A subscription to a shard is one answer that goes on for up to five minutes, in frames of AWS's event stream. It is held
from read to read: what it sends meanwhile waits in the connection, whose buffer is bounded. When it ends, the next read
subscribes behind where it is asked to read. When it breaks off, or the service fails, what is there is asked for by a
poll, which also says what is wrong, and tells the end of shards to which some stand-ins do not say it.

Sources: Kinesis API reference, SubscribeToShard (five minutes; five seconds between two subscriptions to a shard);
Smithy, "Amazon Event Stream".
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final

import aiohttp
import msgspec
from botocore.eventstream import EventStreamBuffer, ParserError
from yarl import URL

from connectors.aws import are_credentials_refused, aws_errors
from connectors.aws_access import Access
from connectors.aws_json import Refused, refused
from connectors.aws_service import AwsService
from connectors.http_answer import Answer
from connectors.kinesis_client import INVALID, NOT_FOUND, SERVICE, TARGET, VERSION, Place
from connectors.kinesis_codec import KinesisCodec, ReceivedRecord
from connectors.kinesis_reading import Poller, Rest, columns, place
from connectors.sigv4 import Signer
from router.core.facts import Demand
from router.core.model import Chunk
from router.errors import SourceUnavailable, Throttled

_SUBSCRIBE: Final = "SubscribeToShard"
_EVENT: Final = "SubscribeToShardEvent"
_IN_USE: Final = "ResourceInUseException"
_DENIED: Final = "AccessDeniedException"
#: Codes by which services say that they have no such operation.
_UNKNOWN: Final = frozenset({"InvalidAction", "UnknownOperationException"})
_OK: Final = 200
_SERVERS_FAULT: Final = 500
#: A subscription that says nothing for this long is taken for broken.
_SILENCE_S: Final = 30.0
#: From one poll of a shard that found nothing to the next.
_POLL_S: Final = 1.0
#: From any other one (Kinesis allows five in a second).
_BUSY_POLL_S: Final = 0.2
#: No record's, so that this begins no subscription that would lock the shard for five seconds.
_NOWHERE: Final = Place("AFTER_SEQUENCE_NUMBER", 0)
_OLDEST: Final = Place("TRIM_HORIZON")


class _Pushed(msgspec.Struct, gc=False):
    """What a SubscribeToShardEvent says."""

    Records: list[ReceivedRecord] = []
    MillisBehindLatest: int | None = None
    #: Only at the end of a shard.
    ChildShards: list[Any] | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode_pushed: Final = msgspec.json.Decoder(_Pushed).decode


class _Broken(Exception):
    """A subscription broke off, or could not be begun; a poll says why."""


class _TakenOver(Exception):
    """The subscription is another's."""


class _Subscription:
    """One that is held."""

    def __init__(self, answer: aiohttp.ClientResponse, after: int) -> None:
        self.answer = answer
        #: What it sends next is behind this.
        self.after = after
        self.rest: Rest | None = None
        self._frames = EventStreamBuffer()
        self._heard_s = time.monotonic()

    async def next(self, wait_s: float) -> _Pushed | None:
        """Wait for an event; None = none came, or it has ended.

        Raises:
            _Broken, _TakenOver
        """
        try:
            async with asyncio.timeout(wait_s):
                while (pushed := self._take()) is None:
                    data = await self.answer.content.readany()
                    if not data:
                        self.answer.close()
                        return None
                    self._heard_s = time.monotonic()
                    self._frames.add_data(data)
                return pushed
        except TimeoutError:
            if time.monotonic() - self._heard_s > _SILENCE_S:
                raise _Broken from None
            return None
        except (aiohttp.ClientError, OSError, ParserError, msgspec.MsgspecError) as error:
            raise _Broken from error

    def _take(self) -> _Pushed | None:
        frame: Any
        for frame in self._frames:
            if frame.headers.get(":message-type") != "event":
                raise _TakenOver if frame.headers.get(":exception-type") == _IN_USE else _Broken
            if frame.headers.get(":event-type") == _EVENT:
                return _decode_pushed(frame.payload)
        return None


class Subscriber:
    """Reads the shards of one consumer."""

    def __init__(
        self,
        service: AwsService,
        access: Access,
        consumer_arn: str,
        what: str,
        poller: Poller,
        codec: KinesisCodec,
        *,
        call_s: float,
        wait_s: float,
    ) -> None:
        """Prepare without I/O.

        Args:
            service: knows as whom we subscribe.
            access: where Kinesis is.
            consumer_arn: names the consumer.
            what: names it in errors.
            poller: polls the same stream; it is told how far behind shards are.
            codec: the same as the poller's.
            call_s: longest time until a subscription is answered.
            wait_s: longest wait of a read for something to come.
        """
        self._service = service
        self._access = access
        self._consumer_arn = consumer_arn
        self._what = what
        self._poller = poller
        self._codec = codec
        self._call_s = call_s
        self._wait_s = wait_s
        self._signer = Signer(
            access.endpoint_url,
            service=SERVICE,
            region=access.region,
            content_type=f"application/x-amz-json-{VERSION}",
        )
        self._held: dict[str, _Subscription] = {}
        #: Monotonic time before which a shard is not polled again.
        self._poll_s: dict[str, float] = {}
        self._session: aiohttp.ClientSession | None = None

    async def serves(self, shard: str) -> str | None:
        """Find out whether subscriptions are to be had here; say why not, or None.

        Raises:
            SourceUnavailable: we may not subscribe.
        """
        try:
            answer = await self._ask(shard, _NOWHERE)
            if answer.status >= _SERVERS_FAULT:
                # A stand-in may fail where it ought to refuse a place that leads nowhere.
                answer.close()
                answer = await self._ask(shard, _OLDEST)
        except _Broken:
            return f"{_SUBSCRIBE} is not answered"
        async with answer:
            if answer.status == _OK:
                answer.close()
                return None
            problem = await self._refusal(answer)
        if answer.status >= _SERVERS_FAULT or (isinstance(problem, Refused) and problem.code in _UNKNOWN):
            return f"{_SUBSCRIBE} is not served (HTTP status {answer.status})"
        if _is_denied(problem):
            raise problem
        return None

    async def read(self, shard: str, wish: Demand) -> Chunk:
        """Give what follows, as ShardSource.read does, waiting a bounded time for it.

        Raises:
            SourceUnavailable, Throttled, PositionLost, ShardGone
            ValueError: what came is nothing that Kinesis says.
        """
        held = self._held.get(shard)
        try:
            if held is None or held.after != wish.after:
                self._drop(shard)
                held = self._held[shard] = _Subscription(await self._subscribe(shard, wish.after), wish.after)
            rest = held.rest or Rest(await self._received(shard, held))
        except _Broken:
            self._drop(shard)
            return await self.poll(shard, wish)
        except _TakenOver as error:
            self._drop(shard)
            raise self._in_use(shard) from error
        chunk, held.rest = rest.take(wish.limit)
        held.after = chunk.through
        if chunk.ended or (held.answer.closed and not held.rest):
            self._drop(shard)
        return chunk

    async def poll(self, shard: str, wish: Demand) -> Chunk:
        """Do the same without a subscription. Where a push would wait for something, this waits for the next poll."""
        now_s = asyncio.get_running_loop().time
        await asyncio.sleep(self._poll_s.get(shard, 0.0) - now_s())
        began_s = now_s()
        self._poll_s[shard] = began_s + _BUSY_POLL_S
        chunk = await self._poller.read(shard, wish)
        if not (chunk.rows or chunk.more):
            self._poll_s[shard] = began_s + _POLL_S
        return chunk

    async def close(self) -> None:
        """End all subscriptions. May come twice."""
        for shard in list(self._held):
            self._drop(shard)
        if self._session:
            await self._session.close()

    async def _received(self, shard: str, held: _Subscription) -> Chunk:
        """Wait for what is pushed next."""
        pushed = await held.next(self._wait_s)
        if pushed is None:
            return Chunk(shard, [], [], [], [], [], held.after)
        # What was taken is given, or the subscription begins anew.
        del self._held[shard]
        try:
            chunk = await columns(self._codec, shard, pushed.Records, held.after)
        except BaseException:
            held.answer.close()
            raise
        self._held[shard] = held
        chunk.ended = bool(pushed.ChildShards)
        chunk.more = not chunk.ended and bool(pushed.MillisBehindLatest)
        if pushed.MillisBehindLatest is not None:
            self._poller.behind_ms[shard] = pushed.MillisBehindLatest
        return chunk

    async def _subscribe(self, shard: str, after: int) -> aiohttp.ClientResponse:
        answer = await self._ask(shard, place(self._codec, after))
        if answer.status == _OK:
            return answer
        async with answer:
            problem = await self._refusal(answer)
        if isinstance(problem, Refused):
            if problem.code == _IN_USE:
                raise self._in_use(shard) from problem
            if problem.code in (INVALID, NOT_FOUND) or answer.status >= _SERVERS_FAULT:
                raise _Broken from problem
        raise problem

    def _in_use(self, shard: str) -> Throttled:
        return Throttled(
            f"{self._what}: shard {shard} is subscribed to already, or was less than 5 s ago; if it stays so, somebody "
            "else reads with this consumer: register one for each reader"
        )

    async def _ask(self, shard: str, at: Place) -> aiohttp.ClientResponse:
        """Ask for a subscription; give the answer, of which only the head has come.

        Raises:
            SourceUnavailable: there are no credentials.
            _Broken
        """
        position: dict[str, object] = {"Type": at.kind}
        if at.sequence_number is not None:
            position["SequenceNumber"] = str(at.sequence_number)
        if at.time_s is not None:
            position["Timestamp"] = at.time_s
        request = _encode({"ConsumerARN": self._consumer_arn, "ShardId": shard, "StartingPosition": position})
        access = await self._service.access()
        with aws_errors(SourceUnavailable, self._what):
            keys = await access.credentials.get_frozen_credentials()
        headers = self._signer.headers(keys, f"{TARGET}.{_SUBSCRIBE}", request, time.time())
        session = self._session = self._session or self._open()
        url = URL(self._access.endpoint_url, encoded=True)
        try:
            async with asyncio.timeout(self._call_s):
                return await session.post(
                    url, data=request, headers=headers, proxy=self._access.proxy, allow_redirects=False
                )
        except (aiohttp.ClientError, OSError) as error:
            raise _Broken from error

    async def _refusal(self, answer: aiohttp.ClientResponse) -> Refused | Throttled:
        try:
            body = await answer.read()
        except (aiohttp.ClientError, OSError):
            body = b""
        problem = refused(self._what, _SUBSCRIBE, Answer(answer.status, body))
        self._service.note(problem)
        return problem

    def _open(self) -> aiohttp.ClientSession:
        trusted: Any = True
        if self._access.endpoint_url.startswith("https"):
            trusted = ssl.create_default_context(cafile=self._access.ca)
        return aiohttp.ClientSession(
            # Each shard holds one.
            connector=aiohttp.TCPConnector(limit=0, ssl=trusted),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._call_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _drop(self, shard: str) -> None:
        held = self._held.pop(shard, None)
        if held:
            held.answer.close()


def _is_denied(problem: Refused | Throttled) -> bool:
    return are_credentials_refused(problem) or (isinstance(problem, Refused) and problem.code == _DENIED)
