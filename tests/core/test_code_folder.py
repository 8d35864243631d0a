"""Archives of code in the state directory: there whole or not at all, and nobody else's to read."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import signal
import stat
from pathlib import Path

import pytest

from connectors.store.archives import CodeFolder
from router.errors import NotFound, StoreUnavailable

ARCHIVE = bytes(range(256)) * 1000
HASH = hashlib.sha256(ARCHIVE).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archives"


def test_what_is_kept_is_there_for_us_alone_until_it_is_dropped(folder: Path) -> None:
    store = CodeFolder(folder)
    asyncio.run(store.put(HASH, ARCHIVE))
    path = asyncio.run(store.path(HASH))
    assert path.read_bytes() == ARCHIVE
    assert path.suffix == ".zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    asyncio.run(store.put(HASH, ARCHIVE))
    assert [each.name for each in folder.iterdir()] == [path.name]
    for _ in range(2):
        asyncio.run(store.drop(HASH))
        with pytest.raises(NotFound, match=f"there is no code under the hash {HASH}"):
            asyncio.run(store.path(HASH))


def test_all_but_some_go_and_so_does_what_a_crash_left(folder: Path) -> None:
    store = CodeFolder(folder)
    asyncio.run(store.keep_only([]))
    asyncio.run(store.put(HASH, ARCHIVE))
    asyncio.run(store.put(OTHER, b"other"))
    (folder / f"{OTHER[:-1]}0.part").write_bytes(b"half")
    asyncio.run(store.keep_only([OTHER]))
    assert [each.name for each in folder.iterdir()] == [f"{OTHER}.zip"]


def test_a_half_written_one_is_written_anew(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{HASH}.part").write_bytes(b"half" * 100_000)
    asyncio.run(CodeFolder(folder).put(HASH, ARCHIVE))
    assert (folder / f"{HASH}.zip").read_bytes() == ARCHIVE


def test_those_who_keep_the_same_at_once_all_have_it(folder: Path) -> None:
    content = bytes(8 * 1024 * 1024)
    sha256 = hashlib.sha256(content).hexdigest()

    async def keep() -> None:
        await asyncio.gather(*(CodeFolder(folder).put(sha256, content) for _ in range(4)))

    asyncio.run(keep())
    assert {each.name: each.read_bytes() == content for each in folder.iterdir()} == {f"{sha256}.zip": True}


def test_nothing_is_left_where_the_disk_takes_no_more(folder: Path) -> None:
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(ARCHIVE) // 2, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match="code cannot be kept in"):
            asyncio.run(CodeFolder(folder).put(HASH, ARCHIVE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_named(folder: Path) -> None:
    folder.write_text("in the way")
    with pytest.raises(StoreUnavailable, match=str(folder)):
        asyncio.run(CodeFolder(folder).put(HASH, ARCHIVE))
