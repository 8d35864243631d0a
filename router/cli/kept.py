"""Where what a command is about is kept: a state directory, or what replicas share. Opens it, and finds a daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from router.errors import ConfigError, NotFound, NotRunning

if TYPE_CHECKING:
    from config.state import Shared
    from connectors.redis.lease_table import RedisLeaseTable
    from connectors.redis.reader import RedisReader
    from connectors.store.reader import SqliteReader
    from router.core.fleet import Heard
    from router.ports import Backlog, Selection, Store

#: By which name a command is in what it writes; none of a replica.
_COMMAND: Final = "@command"
#: Longer than between two beats of a replica that lives.
_BEAT_S: Final = 1.5


class Reader(Protocol):
    """The reading half of a store."""

    async def states(self, mapping: str) -> Mapping[str, str]: ...

    async def failures(self, selection: Selection) -> Any: ...

    async def count(self, selection: Selection) -> int: ...

    async def event(self, failure_id: str) -> bytes | None: ...

    async def tallies(self) -> Any: ...

    async def backlog(self, mapping: str) -> Backlog: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """A state directory, which one daemon has alone."""

    directory: Path

    def daemon(self) -> Path:
        """Give the folder in which a daemon listens, if one does."""
        return self.directory

    async def open_reader(self) -> SqliteReader:
        """Open the store to read, whether a daemon runs on it or not. Raises StoreUnavailable."""
        from connectors.store.reader import SqliteReader

        return await SqliteReader.open_read_only(self.directory)

    async def open(self) -> Store:
        """Open the store of a daemon that does not run; one that is there and does not answer holds the lock."""
        from connectors.store.sqlite import SqliteStore

        return await SqliteStore.open(self.directory)

    @property
    def is_there(self) -> bool:
        """Has a daemon ever run on it?"""
        from connectors.store.reader import FILE_NAME

        return (self.directory / FILE_NAME).exists()

    def logs(self) -> Path:
        """Give the folder in which logs of functions are."""
        return self.directory

    def others(self) -> list[str]:
        """Name the files of the state directory that are copies of the store."""
        from router.commands.state import OTHER_FILES

        return sorted(path.name for path in self.directory.iterdir() if path.name.startswith(OTHER_FILES))

    def overwrite(self) -> None:
        """Overwrite what was deleted. Raises StoreUnavailable."""
        from connectors.store.compaction import rewrite

        rewrite(self.directory)

    async def fleet(self) -> dict[str, Any] | None:
        """Describe the replicas: there are none."""
        return None

    async def require_no_replica(self) -> None:
        """Nobody else has it: the lock says so."""


@dataclass(frozen=True, slots=True)
class InRedis:
    """State that replicas share."""

    shared: Shared
    #: The replica that is meant; None = whichever there is.
    replica: str | None
    #: Where several run on this machine, one that takes longer to answer is passed over, s.
    patience_s: float = 2.0

    @property
    def where(self) -> str:
        """For messages."""
        return f"state in {self.shared.redis.shown}, fleet {self.shared.fleet}"

    def daemon(self) -> Path:
        """Give the folder of a replica of this machine that answers. Raises NotRunning."""
        from router.commands import control_client

        running = [folder for folder in self._folders() if self._runs(folder)]
        if len(running) == 1:
            return running[0]
        if running:  # one that hangs takes connections all the same
            answering = (each for each in running if control_client.is_answering(each, self.patience_s))
            return next(answering, running[0])
        if self.replica is not None:
            raise NotRunning(
                f"replica {self.replica} of fleet {self.shared.fleet} does not run on this machine (it would listen in "
                f"{self.shared.local / self.replica}); start it with `headrace run --replica {self.replica}`"
            )
        raise NotRunning(
            f"no replica of fleet {self.shared.fleet} runs on this machine (it would listen in {self.shared.local}/*); "
            "start one with `headrace run --replica NAME`, or give the command where one runs"
        )

    def _runs(self, folder: Path) -> bool:
        """Is there a replica of this fleet that takes connections in a folder?"""
        from connectors.redis.birth import noted_fleet
        from router.commands import control_client

        try:
            control_client.connect(folder, control_client.ANSWER_S).close()
        except NotRunning:
            return False
        return noted_fleet(folder) in ("", self.shared.fleet)  # several fleets may have one folder

    def _folders(self) -> list[Path]:
        local = self.shared.local
        if self.replica is not None:
            return [local / self.replica]
        try:
            return sorted(each for each in local.iterdir() if each.is_dir())
        except OSError:
            return []

    async def open_reader(self) -> RedisReader:
        """Open the store to read, whether replicas run or not. Raises StoreUnavailable."""
        from connectors.redis.reader import RedisReader

        return await RedisReader.open_read_only(self.shared.redis, self.shared.fleet)

    async def open(self) -> Store:
        """Open the store to write, beside whatever replicas run. Raises StoreUnavailable."""
        from connectors.redis.store import RedisStore

        return await RedisStore.open(self.shared.redis, self.shared.fleet, replica=_COMMAND, folder=None)

    @property
    def is_there(self) -> bool:
        return True

    def logs(self) -> Path:
        """Give the folder in which the logs of functions of one replica are. Raises ConfigError and NotFound."""
        from handlers.logs import kept_logs

        folders = [each for each in self._folders() if kept_logs(each)]
        if len(folders) > 1:
            names = ", ".join(each.name for each in folders)
            raise ConfigError(f"each replica has a log of its own: say which is meant, --replica NAME: {names}")
        if not folders and self.replica is not None:
            raise NotFound(f"replica {self.replica} has kept no log in {self.shared.local / self.replica}")
        if not folders:
            raise NotFound(f"no replica has kept a log on this machine, under {self.shared.local}")
        return folders[0]

    @asynccontextmanager
    async def table(self) -> AsyncIterator[RedisLeaseTable]:
        """Give the table of the fleet, without being in it. Raises StoreUnavailable."""
        from connectors.redis.birth import known_fleet
        from connectors.redis.lease_table import RedisLeaseTable
        from connectors.redis.link import RedisLink

        link = await RedisLink.open(self.shared.redis, self.shared.fleet)
        try:
            await known_fleet(link)
            yield RedisLeaseTable(link, _COMMAND, "", self.shared.lease_s)
        finally:
            await link.close()

    def others(self) -> list[str]:
        """Say what may hold copies."""
        return ["snapshots and append-only files of Redis, and its replicas"]

    def overwrite(self) -> None:
        """Have Redis write its append-only file without what was deleted. Raises StoreUnavailable."""
        import asyncio

        asyncio.run(self._scrub())

    async def _scrub(self) -> None:
        store = await self.open()
        try:
            await store.scrub()
        finally:
            await store.close()

    async def look(self) -> tuple[Heard, Mapping[str, str]]:
        """Give the table, and what replicas say of themselves. Raises StoreUnavailable."""
        async with self.table() as table:
            return await table.look(), await table.abouts()

    async def fleet(self) -> dict[str, Any]:
        """Describe the replicas, by looking twice: one whose beat stood still meanwhile is not heard of."""
        import asyncio
        import json
        import time

        from router.fleet.document import Seen, fleet_document

        async with self.table() as table:
            before = (await table.look()).replicas
            if before:
                await asyncio.sleep(_BEAT_S)
            heard, abouts = await table.look(), await table.abouts()
        dead = [name for name, each in heard.replicas.items() if name in before and before[name].beat == each.beat]
        return fleet_document(
            Seen(
                self.shared.fleet,
                None,
                heard.replicas,
                frozenset(dead),
                {key: lease for key, lease in heard.leases.items() if lease},
                {name: json.loads(text) for name, text in abouts.items() if text},
                {},
                frozenset(),
                time.time(),
            )
        )

    async def tell(self) -> None:
        """Have all replicas read what was changed. Raises StoreUnavailable."""
        async with self.table() as table:
            await table.steered()

    async def require_no_replica(self) -> None:
        """Refuse what replicas must take part in while some are in the table. Raises NotRunning."""
        heard, _ = await self.look()
        if heard.replicas:
            raise NotRunning(
                f"replicas of fleet {self.shared.fleet} run on other machines, or have died a while ago: "
                f"{', '.join(sorted(heard.replicas))}; give the command where one runs, or start one here with "
                "`headrace run --replica NAME`"
            )


Kept: TypeAlias = Embedded | InRedis
