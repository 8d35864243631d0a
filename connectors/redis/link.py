"""One fleet's connections to the Redis that its replicas share.

Everything a fleet keeps has a key `headrace:{FLEET}:...`, so that all of it is in one slot of a Redis Cluster, and one
script can change any of it in one step. Scripts are called by their digest, and sent whole only where Redis does not
know them (it forgets them when it restarts). No call waits for ever, and none is repeated here: who asked does that.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Any, Final, Self, TypeAlias

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from connectors.redis.errors import redis_errors_of, unavailable
from connectors.redis.rows import fleet_key
from connectors.settings import RedisSettings
from router.errors import StoreUnavailable

Argument: TypeAlias = str | bytes | int | float

#: Longest time that a call may take unless its caller says another, seconds.
CALL_S: Final = 10.0
#: Connections at most; calls beyond them take turns.
CONNECTIONS: Final = 16
#: Has the kernel drop what it has not sent when a connection is closed.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script that Redis runs in one step."""

    text: str
    #: What Redis knows it by.
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script with what it is called with."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument] = ()


class RedisLink:
    """Connections to one Redis, made as they are needed."""

    def __init__(self, settings: RedisSettings, fleet: str) -> None:
        """Connect to nothing yet.

        Raises:
            StoreUnavailable: a certificate or key file cannot be read.
        """
        self.fleet: Final = fleet
        #: For messages to people.
        self.where: Final = f"state in {settings.shown}, fleet {fleet}"
        #: Who the fleet is, once `birth.find_fleet` has found out: scripts of the fleet ask for nobody else.
        self.born = ""
        #: Finds that out; called by the first who asks for something of the fleet, and by the first after a connection
        #: broke: Redis may have come back with other data.
        self.reach: Callable[[], Awaitable[object]] | None = None
        self._reaching = asyncio.Lock()
        #: Why nothing is read or written now, although Redis answers; None = nothing is in the way.
        self.refused: str | None = None
        self._closed = False
        pool = BlockingConnectionPool(
            max_connections=CONNECTIONS, timeout=None, **_connection_options(settings, self.where)
        )
        self._redis = Redis.from_pool(pool)

    @classmethod
    async def open(cls, settings: RedisSettings, fleet: str) -> Self:
        """Make sure that it can be reached. Raises StoreUnavailable."""
        link = cls(settings, fleet)
        try:
            await link.command("PING")
        except BaseException:
            await link.close()
            raise
        return link

    def key(self, *parts: str) -> str:
        """Name a key of this fleet."""
        return fleet_key(self.fleet, *parts)

    async def command(self, *words: Argument, within_s: float = CALL_S) -> Any:
        """Run one command; texts come back as bytes. One that blocks needs a longer time here than there.

        Raises:
            StoreUnavailable: whether it was run may not be known.
        """
        self._check_open()
        with self._errors():
            async with asyncio.timeout(within_s):
                return await self._execute(words)

    async def ask(self, script: Script, arguments: Sequence[Argument] = (), *, within_s: float = CALL_S) -> Any:
        """Run a script of the fleet (`scripts.fleet_script`).

        Raises:
            StoreUnavailable: whether it was run may not be known; or the fleet is another one by now.
        """
        await self.be_usable()
        call = self.fleet_call(script, arguments)
        return await self.run(call.script, call.keys, call.arguments, within_s=within_s)

    def fleet_call(self, script: Script, arguments: Sequence[Argument] = ()) -> Call:
        """Give a script of the fleet with what it is called with."""
        return Call(script, [self.key("meta")], [self.born, self.key(""), *arguments])

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = (), *, within_s: float = CALL_S
    ) -> Any:
        """Run one script, and give its answer as Redis has it: numbers, bytes, lists, None.

        Raises:
            StoreUnavailable: whether it was run may not be known.
        """
        call = Call(script, keys, arguments)
        self._check_open()
        with self._errors():
            async with asyncio.timeout(within_s):
                try:
                    return await self._execute(_words(call, whole=False))
                except NoScriptError:
                    return await self._execute(_words(call, whole=True))

    async def run_all(self, calls: Sequence[Call], *, within_s: float = CALL_S) -> list[Any]:
        """Run several scripts, in order, in one round trip; give each one's answer, or its StoreUnavailable.

        Each is one step, not all of them together.

        Raises:
            StoreUnavailable: for none of them it is known whether it was run.
        """
        self._check_open()
        with self._errors():
            async with asyncio.timeout(within_s):
                answers = await self._pipeline(calls, whole=False)
                if unknown := [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]:
                    again = await self._pipeline([calls[n] for n in unknown], whole=True)
                    for n, answer in zip(unknown, again, strict=True):
                        answers[n] = answer
        return [unavailable(self.where, each) if isinstance(each, RedisError) else each for each in answers]

    async def close(self) -> None:
        """End all connections. May come twice."""
        self._closed = True
        await self._redis.aclose(close_connection_pool=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        with redis_errors_of(self.where):
            try:
                yield
            except (RedisConnectionError, OSError) as error:
                if self.reach and not isinstance(error, TimeoutError):
                    self.born = ""
                raise

    async def _execute(self, words: Sequence[Argument]) -> Any:
        return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]  # as it is published

    async def _pipeline(self, calls: Sequence[Call], *, whole: bool) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*_words(call, whole=whole))
            return list(await pipeline.execute(raise_on_error=False))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.where}: it is closed")

    async def be_usable(self) -> None:
        """Find out who the fleet is, if that is not known. Raises StoreUnavailable, also if it is closed or refused."""
        self._check_open()
        if not self.born and self.reach:
            async with self._reaching:
                if not self.born:
                    await self.reach()
        self.check_usable()

    def check_usable(self) -> None:
        """Raise StoreUnavailable if it is closed or `refused`, or the fleet not known yet."""
        self._check_open()
        if self.refused is not None:
            raise StoreUnavailable(f"{self.where}: {self.refused}")
        if not self.born:
            raise StoreUnavailable(
                f"{self.where}: it has not answered yet since the connection was lost, or the start; "
                "work goes on once it does"
            )


def _words(call: Call, *, whole: bool) -> tuple[Argument, ...]:
    script = ("EVAL", call.script.text) if whole else ("EVALSHA", call.script.digest)
    return (*script, len(call.keys), *call.keys, *call.arguments)


def _connection_options(settings: RedisSettings, where: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connection_class": _TlsConnection if settings.tls else _Connection,
        "host": settings.host,
        "port": settings.port,
        "db": settings.database,
        "username": settings.username,
        "password": settings.password.reveal() if settings.password else None,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "socket_connect_timeout": CALL_S,
        "socket_keepalive": True,
        "driver_info": None,
    }
    if settings.tls:
        options["context"] = _tls(settings, where)
    return options


class _Connection(Connection):
    """Sends nothing more once it is closed.

    What waits in the kernel for a network that is away would come to Redis later than what is sent behind it over
    another connection: a checkpoint that was given up on would take the place of a newer one.
    """

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]  # as it is published
        if self._writer is not None:
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


class _TlsConnection(_Connection, SSLConnection):
    """Trusts what its context trusts: the client library's own would trust the system's authorities in any case."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context.context = context


def _tls(settings: RedisSettings, where: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except (OSError, ssl.SSLError) as error:
        raise StoreUnavailable(f"{where}: the CA file {settings.ca} cannot be used: {error}") from error
    if settings.certificate:
        try:
            context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as error:
            raise StoreUnavailable(
                f"{where}: certificate {settings.certificate} and key {settings.key} cannot be used: {error}"
            ) from error
    return context
