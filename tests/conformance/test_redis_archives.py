"""Archives of functions' code in the Redis of a fleet: kept by one replica, run by another, deleted when nobody's."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from connectors.redis.archives import ORPHAN_S, RedisCode, sweep
from connectors.redis.birth import Note, find_fleet
from connectors.redis.link import RedisLink
from connectors.settings import RedisSettings
from router.errors import NotFound, StoreUnavailable
from tests.conformance.test_redis_store import delete_fleet

pytestmark = pytest.mark.live

ARCHIVE = bytes(range(256)) * 5000
HASH = hashlib.sha256(ARCHIVE).hexdigest()


class Folder:
    """The archives of one replica."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()

    async def keep_only(self, hashes: Collection[str]) -> None:
        for each in self._folder.iterdir():
            if each.name not in hashes:
                each.unlink()

    async def put(self, sha256: str, archive: bytes) -> None:
        (self._folder / sha256).write_bytes(archive)

    async def path(self, sha256: str) -> Path:
        if not (self._folder / sha256).exists():
            raise NotFound(sha256)
        return self._folder / sha256

    async def drop(self, sha256: str) -> None:
        (self._folder / sha256).unlink(missing_ok=True)


@pytest.fixture
async def link(redis_settings: RedisSettings, fleet_name: str) -> AsyncIterator[RedisLink]:
    opened = await RedisLink.open(redis_settings, fleet_name)
    await find_fleet(opened, Note(None))
    yield opened
    await opened.close()
    await delete_fleet(redis_settings, fleet_name)


async def age(link: RedisLink, seconds: int) -> None:
    """Let what is kept have been so for some time."""
    then_s = int((await link.command("TIME"))[0]) - seconds
    await link.command("HSET", link.key("codes"), HASH, then_s)


async def test_what_one_replica_has_kept_another_runs(link: RedisLink, tmp_path: Path) -> None:
    a, b = RedisCode(link, Folder(tmp_path / "a")), RedisCode(link, Folder(tmp_path / "b"))
    with pytest.raises(NotFound, match="update the code of its function"):
        await b.path(HASH)
    await a.put(HASH, ARCHIVE)
    path = await b.path(HASH)
    assert (path.parent, path.read_bytes()) == (tmp_path / "b", ARCHIVE)
    await link.command("DEL", link.key("code", HASH))
    assert await b.path(HASH) == path, "it has its own copy then"


async def test_what_is_not_what_was_kept_is_not_run(link: RedisLink, tmp_path: Path) -> None:
    code = RedisCode(link, Folder(tmp_path / "a"))
    await link.command("SET", link.key("code", HASH), ARCHIVE[1:])
    with pytest.raises(StoreUnavailable, match="is not what was kept"):
        await code.path(HASH)
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize(("old", "named", "stays"), [(0, 0, 1), (1, 0, 0), (1, 1, 1)])
async def test_what_no_function_names_is_deleted_once_it_is_old(
    link: RedisLink, tmp_path: Path, old: int, named: int, stays: int
) -> None:
    a, b = RedisCode(link, Folder(tmp_path / "a")), RedisCode(link, Folder(tmp_path / "b"))
    await a.put(HASH, ARCHIVE)
    await age(link, old * (ORPHAN_S + 60))
    if named:
        await link.command("HSET", link.key("states", "$functions"), "orders", f'{{"sha256":"{HASH}"}}')
    await a.drop(HASH)
    await sweep(link)
    assert await link.command("EXISTS", link.key("code", HASH)) == stays
    if stays:
        assert (await b.path(HASH)).read_bytes() == ARCHIVE


async def test_what_is_kept_again_is_as_new(link: RedisLink, tmp_path: Path) -> None:
    code = RedisCode(link, Folder(tmp_path / "a"))
    await code.put(HASH, ARCHIVE)
    await age(link, ORPHAN_S + 60)
    await code.put(HASH, ARCHIVE)
    await sweep(link)
    assert await link.command("EXISTS", link.key("code", HASH)) == 1


async def test_our_own_copies_go_without_those_of_the_fleet(link: RedisLink, tmp_path: Path) -> None:
    code = RedisCode(link, Folder(tmp_path / "a"))
    await code.put(HASH, ARCHIVE)
    await code.keep_only([])
    assert list((tmp_path / "a").iterdir()) == []
    assert (await code.path(HASH)).read_bytes() == ARCHIVE
