"""What a daemon has that shares its state: the Redis of its fleet, and its own place among the replicas."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from config.settings import Configuration, FleetSettings
from connectors.redis.archives import RedisCode
from connectors.redis.birth import Note
from connectors.redis.inbox import RedisInbox
from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.link import RedisLink
from connectors.redis.payloads import open_payloads
from connectors.redis.peers import RedisPeers
from connectors.redis.store import RedisStore
from connectors.settings import KafkaSettings
from connectors.store.archives import ARCHIVES, CodeFolder
from connectors.store.lock import DirectoryLock
from handlers.leash_holder import Leash
from handlers.predecessors import registry
from router.core.tenant import MARGIN_S, MARGIN_SHARE, Tenant
from router.errors import StoreUnavailable
from router.fleet.fleet import Fleet, boot_s
from router.telemetry import Log

#: Share of Kafka's session timeout for which a daemon that is stopped may let its workers run: the group believes that
#: it lives for at least as long, counted from its last heartbeat.
SESSION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Replica:
    """What makes a daemon one of a fleet."""

    store: RedisStore
    fleet: Fleet
    leash: Leash
    #: Nobody else uses our folder.
    lock: DirectoryLock
    peers: RedisPeers
    code: RedisCode
    inbox: RedisInbox


async def open_replica(configuration: Configuration, log: Log, current: Callable[[], Configuration]) -> Replica:
    """Take our own folder; Redis is not reached yet, and may be away.

    Args:
        configuration: what the daemon begins with.
        log: takes what happens.
        current: gives what it runs later, once it runs.

    Raises:
        StoreUnavailable: the folder cannot be used, or what it has; or a file of the settings cannot be read.
    """
    settings = configuration.fleet
    assert settings is not None, "asked for only then"
    lock = await asyncio.to_thread(_lock, configuration.state_dir)
    try:
        note = Note.read(configuration.state_dir)
        link = RedisLink(settings.redis, settings.name)
        store = RedisStore(
            link,
            note,
            open_payloads(settings.redis, settings.name),
            replica=settings.replica,
            limit_bytes=settings.redis.payloads_over_bytes,
            power_safe=configuration.power_safe,
        )
    except BaseException:
        lock.close()
        raise
    place = f"{socket.gethostname()}:{configuration.state_dir}"
    table = RedisLeaseTable(link, settings.replica, note.home, settings.lease_s, place)
    peers = RedisPeers(link, table)
    rng = SystemRandom()

    async def reach() -> None:
        await store.look()
        link.check_usable()

    fleet = Fleet(
        settings.replica,
        lambda: Tenant(settings.replica, settings.lease_s, rng),
        table,
        peers,
        log=log,
        rng=rng,
        reach=reach,
    )
    code = RedisCode(link, CodeFolder(configuration.state_dir / ARCHIVES))
    inbox = RedisInbox(link, settings.replica)
    leash = _leash(configuration.state_dir, current, settings, fleet, log)
    return Replica(store, fleet, leash, lock, peers, code, inbox)


def _lock(folder: Path) -> DirectoryLock:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return DirectoryLock(folder, "a name and an address of its own: --replica NAME --listen HOST:PORT")
    except OSError as error:
        raise StoreUnavailable(f"the replica's own folder {folder} cannot be used ({error.strerror})") from error


def _leash(
    folder: Path, current: Callable[[], Configuration], settings: FleetSettings, fleet: Fleet, log: Log
) -> Leash:
    margin_s = min(MARGIN_S, settings.lease_s * MARGIN_SHARE)

    def limit_s() -> float:
        sources = [each.source for each in current().mappings]
        sessions_s = [SESSION_SHARE * each.session_timeout_s for each in sources if isinstance(each, KafkaSettings)]
        return min([settings.lease_s - margin_s, *sessions_s])

    # The daemon has a quarter of the margin to lose by itself what has run out, and to say so.
    return Leash(
        registry(folder),
        lambda: min(fleet.expires_s, boot_s() + limit_s()) + margin_s / 4,
        every_s=margin_s / 8,
        ended=lambda status: log.write("leash.lost", status=status),
    )
