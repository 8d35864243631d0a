"""A Redis of a test's own, to break."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from tests.services.process import HOST
from tests.services.redis import redis_server

START_S = 20.0
FLEET = "faults"
#: Opens a store of that fleet as a replica of a name, in the test's own Redis unless other settings are given.
OpenStore: TypeAlias = Callable[..., Awaitable[RedisStore]]
CLUSTER = ("--cluster-enabled", "yes")
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


class OwnRedis:
    """`redis-server` on a free port; what it keeps is in the folder. Also a context manager, which starts it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.options: Sequence[str] = options
        self.tls: Sequence[str] = ()
        self._client = Redis(HOST, self.port, decode_responses=False, retry=Retry(NoBackoff(), 0))
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> RedisSettings:
        return RedisSettings(bool(self.tls), "localhost" if self.tls else HOST, self.port, 0)

    def start(self) -> None:
        """Start it, and wait until it listens. Raises ServiceError: there is no such program."""
        self.folder.mkdir(exist_ok=True)
        port = ("--port", "0", "--tls-port", str(self.port), *self.tls) if self.tls else ("--port", str(self.port))
        if CLUSTER[0] in self.options:
            port += ("--cluster-port", str(free_port()))  # its own choice may be no port
        words = (redis_server(), "--bind", HOST, *port, "--dir", str(self.folder), "--save", "", *self.options)
        log = self.folder / "log"
        with log.open("ab") as file:
            self._server = subprocess.Popen(words, stdout=file, stderr=file)
        until_s = time.monotonic() + START_S
        while not self._listens():
            assert self._server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until_s, log.read_text()[-2000:]
            time.sleep(0.02)  # a server that starts says nothing

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it stand still; its connections stay, and what it is sent waits."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False) -> None:
        self.kill()
        if empty:
            for path in sorted(self.folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        self.start()

    def say(self, *words: Any) -> Any:
        """Say something to it as its administrator; texts come back as bytes."""
        return self._client.execute_command(*words)

    def found(self, pattern: str = "*") -> list[Any]:
        """Give the names of its keys."""
        return list(self._client.scan_iter(pattern, count=1000))

    def clients(self) -> list[dict[str, str]]:
        return self._client.client_list()  # type: ignore[return-value]  # of the client that does not wait

    def become_cluster(self) -> None:
        """Let a server with CLUSTER among its options be a cluster of one node."""
        self.say("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        until_s = time.monotonic() + START_S
        while "'cluster_state': 'ok'" not in str(self.say("CLUSTER INFO")):
            assert time.monotonic() < until_s
            time.sleep(0.02)  # it says so when it is ready, and to nobody by itself

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        self._client.close()
        if self._server:
            self._signal(signal.SIGCONT)
            self._signal(how)
            self._server.wait()
            self._server = None

    def _signal(self, number: signal.Signals) -> None:
        if self._server:
            self._server.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
