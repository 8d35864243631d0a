"""Room of deleted failures is used again, or given back beside a writer or at once, and what was deleted is gone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from connectors.store import reader
from connectors.store.compaction import rewrite
from connectors.store.sqlite import SqliteStore
from router.cli import main
from router.commands import state
from router.errors import StoreUnavailable
from router.ports import DeleteFailure, KeepFailure
from router.upkeep import compact
from tests.conformance.old_store import assert_upgraded, put_old_store
from tests.conformance.store import ALL, ids, keep
from tests.conformance.test_sqlite_upgrade import configuration
from tests.fakes.failures import EVENT, entry

MIB = 1024**2


def noise() -> bytes:
    return os.urandom(32 * 1024)


async def fill(store: SqliteStore, failures: int) -> None:
    await store.apply([KeepFailure(entry(f"f{number:03}"), noise()) for number in range(failures)])


def size(directory: Path) -> int:
    return (directory / "headrace.db").stat().st_size


async def test_room_of_what_was_deleted_is_used_again(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    await fill(sqlite_store, 100)
    await sqlite_store.scrub()
    full = size(tmp_path / "state")
    for _ in range(3):
        await sqlite_store.drop(await ids(sqlite_store))
        await fill(sqlite_store, 100)
    await sqlite_store.scrub()
    assert size(tmp_path / "state") < full * 1.1


async def test_room_is_given_back_beside_a_writer(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    await fill(sqlite_store, 200)
    await sqlite_store.apply([DeleteFailure(f"f{number:03}") for number in range(0, 200, 2)])
    before = await sqlite_store.shrink(0)
    assert before.free_bytes > 3 * MIB
    written: list[str] = []
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            await keep(sqlite_store, entry(f"n{len(written)}"))
            written.append(f"n{len(written)}")

    writing = asyncio.create_task(write())
    while (await compact(sqlite_store, within_s=60.0)).free_bytes:
        pass
    assert written  # the steps leave room for others
    stop.set()
    await writing
    after = await compact(sqlite_store, within_s=60.0)
    assert (after.free_bytes, after.used_bytes) == (0, size(tmp_path / "state"))
    assert len(await sqlite_store.event("f001") or b"") == 32 * 1024
    assert set(await ids(sqlite_store)) == {*written, *(f"f{number:03}" for number in range(1, 200, 2))}


async def test_a_request_to_compact_is_answered_in_time(sqlite_store: SqliteStore) -> None:
    await fill(sqlite_store, 100)
    await sqlite_store.drop(await ids(sqlite_store))
    some = await compact(sqlite_store, within_s=0.0)
    assert some.free_bytes > 0
    assert (await compact(sqlite_store, within_s=60.0)).free_bytes == 0


async def test_an_upgraded_store_gives_room_back_once_it_is_written_anew(tmp_path: Path) -> None:
    put_old_store(tmp_path)
    store = await SqliteStore.open(tmp_path)
    with pytest.raises(StoreUnavailable, match=r"made by an older headrace.*stop the service and compact again"):
        await compact(store)
    await store.close()
    rewrite(tmp_path)
    await assert_upgraded(tmp_path)
    store = await SqliteStore.open(tmp_path)
    assert (await compact(store)).can_shrink
    await store.close()


async def test_an_old_store_that_is_written_anew_is_still_of_its_version(tmp_path: Path) -> None:
    put_old_store(tmp_path)
    rewrite(tmp_path)
    assert reader.version(tmp_path) == 1
    await assert_upgraded(tmp_path)


async def test_it_is_not_written_anew_while_somebody_uses_it(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    await keep(sqlite_store, entry())
    with pytest.raises(StoreUnavailable, match="in use by another headrace"):
        rewrite(tmp_path / "state")
    await sqlite_store.close()
    looking = await reader.SqliteReader.open_read_only(tmp_path / "state")
    await looking.failures(ALL)
    with pytest.raises(StoreUnavailable, match="locked; end that program"):
        rewrite(tmp_path / "state")
    await looking.close()
    rewrite(tmp_path / "state")
    again = await SqliteStore.open(tmp_path / "state")
    assert await again.event("f1") == EVENT
    await again.close()


async def test_without_room_to_write_it_anew_it_stays_as_it_is(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk / "state")
    await fill(store, 12)
    await store.close()
    (small_disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 100 * 1024))
    with pytest.raises(StoreUnavailable, match="disk is full"):
        rewrite(small_disk / "state")
    assert [path.name for path in (small_disk / "state").glob("*.partial")] == []
    again = await SqliteStore.open(small_disk / "state")
    assert len(await ids(again)) == 12
    await again.close()


async def test_what_was_deleted_is_nowhere_in_the_files(sqlite_store: SqliteStore, tmp_path: Path) -> None:
    marks = [f"secret-{number:05}-of-somebody".encode() for number in range(600)]
    changes = []
    for number, mark in enumerate(marks):
        # Texts in rows, keys in an index, and events that take less than a page, and more.
        kept = entry(f"f{number:03}", keys=(b"key-" + mark,), shard=f"shard-{mark.decode()}")
        changes.append(KeepFailure(kept, mark + os.urandom((number % 7) * 2000)))
    for first in range(0, 600, 50):
        await sqlite_store.apply(changes[first : first + 50])
    gone = list(range(0, 600, 3))
    await sqlite_store.apply([DeleteFailure(f"f{number:03}") for number in gone])
    assert await sqlite_store.scrub()
    await asyncio.sleep(0)
    found = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert [number for number in gone if marks[number] in found] == []
    assert all(mark in found for number, mark in enumerate(marks) if number % 3)


# --- what survives what


@pytest.mark.parametrize(("power_safe", "synchronous"), [(True, 2), (False, 1)])
async def test_a_store_waits_for_the_disk_as_it_is_told_to(
    tmp_path: Path, *, power_safe: bool, synchronous: int
) -> None:
    store = await SqliteStore.open(tmp_path, power_safe=power_safe)
    asked = store._writer.run(lambda database: database.execute("PRAGMA synchronous").fetchone())
    assert await asked == (synchronous,)
    await store.close()


# --- the command


def test_the_write_ahead_log_is_counted_with_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, log = tmp_path / "headrace.db", tmp_path / "headrace.db-wal"
    file.write_bytes(bytes(10))
    log.write_bytes(bytes(90))

    def daemon() -> int:
        file.write_bytes(bytes(60))
        log.write_bytes(b"")
        return 0

    assert state.compact(file, daemon, pytest.fail, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"before_bytes": 100, "after_bytes": 60}


def test_the_command_writes_the_store_of_a_stopped_service_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def make() -> None:
        store = await SqliteStore.open(tmp_path)
        await fill(store, 30)
        await store.drop(await ids(store))
        await store.close()

    asyncio.run(make())
    command = ["-c", str(configuration(tmp_path)), "state", "compact"]
    before = size(tmp_path)
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"before_bytes": before, "after_bytes": size(tmp_path)}
    assert size(tmp_path) < before / 5
    assert main(command) == 0
    after = size(tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'headrace.db'}: {after} bytes before, {after} now\n"
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
