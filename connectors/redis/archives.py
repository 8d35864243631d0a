"""Archives of functions' code that came through the API, in the Redis of a fleet: one key each, by the hash of it.

Each replica has those that it runs in its own folder, too, and fetches one when it needs it first. An archive is kept
before a function names it, and deleted after none has for an hour: whoever kept it names it by then, or never will.

- `code:SHA256`: the archive
- `codes`: hash; when each was kept last, seconds by the clock of Redis
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from connectors.redis.link import RedisLink
from connectors.redis.scripts import fleet_script
from router.errors import NotFound, StoreUnavailable
from router.event_ports import CodeStore

#: An archive that no function names is deleted once it is so old, seconds.
ORPHAN_S: Final = 3600
#: Longest time for one archive on its way, seconds.
ARCHIVE_S: Final = 60.0
#: Where the texts of functions are.
_FUNCTIONS: Final = "$functions"

# Says whether it is there, and if so that it is wanted. ARGV: hash.
TOUCH: Final = fleet_script("""
if redis.call('EXISTS', key('code', ARGV[3])) == 0 then return 0 end
redis.call('HSET', key('codes'), ARGV[3], redis.call('TIME')[1])
return 1
""")
PUT: Final = fleet_script("""
redis.call('SET', key('code', ARGV[3]), ARGV[4])
redis.call('HSET', key('codes'), ARGV[3], redis.call('TIME')[1])
""")
GET: Final = fleet_script("return redis.call('GET', key('code', ARGV[3]))")
LIST: Final = fleet_script("""
return {redis.call('TIME')[1], redis.call('HGETALL', key('codes')), redis.call('HVALS', key('states', ARGV[3]))}
""")
# Deletes one unless it was kept again meanwhile. ARGV: hash, when it was kept as far as the caller knows.
DROP: Final = fleet_script("""
if redis.call('HGET', key('codes'), ARGV[3]) ~= ARGV[4] then return end
redis.call('UNLINK', key('code', ARGV[3]))
redis.call('HDEL', key('codes'), ARGV[3])
""")


class RedisCode:
    """The CodeStore port over Redis."""

    def __init__(self, link: RedisLink, here: CodeStore) -> None:
        """Make it; `here` has the archives that this replica runs."""
        self._link = link
        self._here = here
        self._fetching = asyncio.Lock()

    async def keep_only(self, hashes: Collection[str]) -> None:
        """Forget our own copies of all others; those of the fleet are others', too."""
        await self._here.keep_only(hashes)

    async def put(self, sha256: str, archive: bytes) -> None:
        await self._here.put(sha256, archive)
        if not await self._link.ask(TOUCH, [sha256]):
            await self._link.ask(PUT, [sha256, archive], within_s=ARCHIVE_S)

    async def path(self, sha256: str) -> Path:
        async with self._fetching:  # several workers may want it at once
            try:
                return await self._here.path(sha256)
            except NotFound:
                await self._here.put(sha256, await self._fetch(sha256))
            return await self._here.path(sha256)

    async def drop(self, sha256: str) -> None:
        """Forget our own copy; that of the fleet goes when nothing of it has used it for a while (`sweep`)."""
        await self._here.drop(sha256)

    async def _fetch(self, sha256: str) -> bytes:
        archive: bytes | None = await self._link.ask(GET, [sha256], within_s=ARCHIVE_S)
        if archive is None:
            raise NotFound(f"{self._link.where}: the code {sha256} is not there: update the code of its function")
        if hashlib.sha256(archive).hexdigest() != sha256:
            raise StoreUnavailable(
                f"{self._link.where}: the code {sha256} is not what was kept: update the code of its function"
            )
        return archive


async def sweep(link: RedisLink) -> None:
    """Delete archives that no function names. Raises StoreUnavailable."""
    now_s, kept, texts = await link.ask(LIST, [_FUNCTIONS])
    old = [
        (sha256, kept_s)
        for sha256, kept_s in zip(kept[::2], kept[1::2], strict=True)
        if int(now_s) - int(kept_s) > ORPHAN_S and not any(sha256 in text for text in texts)
    ]
    for sha256, kept_s in old:
        await link.ask(DROP, [sha256, kept_s])
