"""What the embedded store promises beyond its port: crashes, full disks, foreign files, a second daemon, copies."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - nothing else runs on the loop while a test prepares files and processes

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from connectors.store.reader import SqliteReader
from connectors.store.sqlite import SqliteStore
from connectors.store.writer import Writer
from router.errors import StoreUnavailable
from router.ports import KeepFailure, PutState, Selection
from tests.conformance.store import ALL, ids, keep
from tests.fakes.failures import EVENT, entry

ROOT = Path(__file__).parents[2]
KIB_64 = os.urandom(64 * 1024)


@pytest.fixture
def store(sqlite_store: SqliteStore) -> SqliteStore:
    return sqlite_store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- durability

WRITE_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from connectors.store.sqlite import SqliteStore
from router.ports import KeepFailure, PutState
from tests.fakes.failures import entry

async def write(store, lane):
    for number in range(1_000_000):
        failure = f"{lane}-{number}"
        await store.apply([KeepFailure(entry(failure), b"{}"), PutState("orders", f"lane-{lane}", failure)])
        print(failure, flush=True)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    await asyncio.gather(*(write(store, lane) for lane in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 200])
async def test_no_acknowledged_write_is_lost_to_kill_9(tmp_path: Path, lines: int) -> None:
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline().strip() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.stdout.read().split()
    store = await SqliteStore.open(tmp_path)
    kept = set(await ids(store))
    assert len(acknowledged) >= lines
    assert kept >= set(acknowledged)
    last = await store.states("orders")
    # Each apply is whole: a failure is there exactly if the state that was written with it is.
    assert kept == {f"{lane}-{n}" for lane in range(8) for n in range(_count(last.get(f"lane-{lane}")))}
    await store.close()


def _count(last: str | None) -> int:
    return int(last.rpartition("-")[2]) + 1 if last else 0


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path)
    await keep(first, entry())
    await first.claim(["f1"])
    await first.close()
    second = await SqliteStore.open(tmp_path)
    assert [each.status for each in await second.failures(ALL)] == ["replaying"]
    assert await second.event("f1") == EVENT
    await second.close()


async def test_an_apply_that_fails_takes_nothing_else_of_its_group_with_it(tmp_path: Path) -> None:
    path = tmp_path / "plain.db"
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    writer = Writer(database, path)
    numbers = [1, 2, 1, 3, 2, 4]
    results = await asyncio.gather(
        *(writer.run(lambda db, n=n: db.execute("INSERT INTO t VALUES (?)", (n,)).rowcount) for n in numbers),  # type: ignore[misc]
        return_exceptions=True,
    )
    writer.close()
    assert [isinstance(each, StoreUnavailable) for each in results] == [False, False, True, False, True, False]
    with closing(sqlite3.connect(path)) as reading:
        assert [n for (n,) in reading.execute("SELECT n FROM t")] == [1, 2, 3, 4]


async def test_an_apply_is_written_whole_or_not_at_all(store: SqliteStore) -> None:
    unwritable = entry("f2", batch_info={"a": object()})
    with pytest.raises(TypeError):
        await store.apply([KeepFailure(entry("f1"), EVENT), KeepFailure(unwritable, EVENT)])
    assert await ids(store) == []
    await keep(store, entry("f3"))
    assert await ids(store) == ["f3"]


async def test_applies_that_wait_share_one_transaction(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "plain.db", isolation_level=None, check_same_thread=False)
    statements: list[str] = []
    database.set_trace_callback(statements.append)
    writer = Writer(database, tmp_path)
    await asyncio.gather(*(writer.run(lambda db: db.execute("SELECT 1").fetchone()) for _ in range(200)))
    writer.close()
    assert statements.count("SELECT 1") == 200
    assert statements.count("COMMIT") < 50


async def test_a_cancelled_apply_disturbs_nobody(store: SqliteStore) -> None:
    waiting = asyncio.ensure_future(keep(store, entry("f1")))
    await asyncio.sleep(0)
    waiting.cancel()
    await keep(store, entry("f2"))
    assert await ids(store) == ["f1", "f2"]


# --- trouble with the disk


async def test_a_full_disk_is_named_and_writing_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200 * 1024)
    store = await SqliteStore.open(small_disk / "state")
    kept: list[str] = []

    async def fill() -> None:
        for number in range(100):
            await keep(store, entry(f"f{number:02}"), event=KIB_64)
            kept.append(f"f{number:02}")

    with pytest.raises(StoreUnavailable, match="disk is full; free space"):
        await fill()
    assert await ids(store) == kept
    ballast.unlink()
    await keep(store, entry("later"), event=KIB_64)
    assert await ids(store) == [*kept, "later"]
    assert await store.event("later") == KIB_64
    await store.close()
    reopened = await SqliteStore.open(small_disk / "state")
    assert await ids(reopened) == [*kept, "later"]
    await reopened.close()


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from connectors.store.sqlite import SqliteStore
from router.errors import StoreUnavailable
from tests.conformance.store import ids, keep
from tests.fakes.failures import entry

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await SqliteStore.open(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, resource.RLIM_INFINITY))
    kept = []
    try:
        for number in range(100):
            await keep(store, entry(f"f{number:02}"), event=bytes([number]) + open("/dev/urandom", "rb").read(40000))
            kept.append(f"f{number:02}")
    except StoreUnavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await keep(store, entry("later"))
    assert kept and await ids(store) == [*kept, "later"], kept
    await store.close()

asyncio.run(main())
"""


def test_a_file_size_limit_is_survived_too(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "headrace.db: " in ended.stdout


async def test_a_read_only_directory_is_named(small_disk: Path) -> None:
    (small_disk / "state").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreUnavailable, match="cannot be written; make the directory"):
        await SqliteStore.open(small_disk / "state")
    with pytest.raises(StoreUnavailable, match="cannot be written; make the directory"):
        await SqliteStore.open(small_disk / "new")


async def test_another_program_that_holds_a_lock_is_named(store: SqliteStore, tmp_path: Path) -> None:
    await keep(store, entry())
    with closing(sqlite3.connect(tmp_path / "state" / "headrace.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program holds it locked"):
            await keep(store, entry("f2"))
    await keep(store, entry("f3"))
    assert await ids(store) == ["f1", "f3"]


async def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreUnavailable, match=r"state in .*File exists"):
        await SqliteStore.open(tmp_path / "state")


# --- whose file it is


async def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "state")
    await keep(store, entry())
    assert mode(tmp_path / "state") == 0o700
    names = {path.name: mode(path) for path in (tmp_path / "state").iterdir()}
    assert names == dict.fromkeys(["daemon.lock", "headrace.db", "headrace.db-shm", "headrace.db-wal"], 0o600)
    await store.close()


async def test_a_second_daemon_is_refused_until_the_first_ends(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=rf"in use by another headrace \(process {os.getpid()}\)"):
        await SqliteStore.open(tmp_path / "state")
    await store.close()
    second = await SqliteStore.open(tmp_path / "state")
    await second.close()


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as database:
        database.execute("CREATE TABLE songs (title)")
    before = (tmp_path / "headrace.db").read_bytes()
    with pytest.raises(StoreUnavailable, match="of another program; choose another state directory"):
        await SqliteStore.open(tmp_path)
    assert (tmp_path / "headrace.db").read_bytes() == before


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "headrace.db").write_text("not a database at all " * 100)
    with pytest.raises(StoreUnavailable, match="damaged or no database; move it away"):
        await SqliteStore.open(tmp_path)


async def test_pages_overwritten_by_somebody_are_found_when_they_are_read(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    for number in range(50):
        await keep(store, entry(f"f{number}"))
    await store.close()
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as database:
        roots = database.execute(
            "SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'failures' AND rootpage"
        ).fetchall()
    with (tmp_path / "headrace.db").open("r+b") as file:
        for (page,) in roots:
            file.seek((page - 1) * 4096)
            file.write(b"\xff" * 4096)
    reader = await SqliteStore.open(tmp_path)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await reader.failures(ALL)
    await reader.close()


# --- reading beside it, and copies


async def test_commands_read_beside_a_running_daemon(store: SqliteStore, tmp_path: Path) -> None:
    reader = await SqliteReader.open_read_only(tmp_path / "state")
    await keep(store, entry())
    assert [each.batch.id for each in await reader.failures(ALL)] == ["f1"]
    assert await reader.event("f1") == EVENT
    await reader.close()


async def test_commands_read_what_a_stopped_or_killed_daemon_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline().strip()
        writer.send_signal(signal.SIGKILL)
    await _holds(tmp_path, first)
    await (await SqliteStore.open(tmp_path)).close()
    assert not (tmp_path / "headrace.db-wal").exists()
    await _holds(tmp_path, first)


async def test_commands_read_a_directory_that_they_cannot_write(small_disk: Path) -> None:
    store = await SqliteStore.open(small_disk)
    await keep(store, entry())
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    await _holds(small_disk, "f1")


async def _holds(directory: Path, failure_id: str) -> None:
    reader = await SqliteReader.open_read_only(directory)
    [found] = await reader.failures(Selection(ids=(failure_id,)))
    assert found.batch.id == failure_id
    await reader.close()


async def test_a_directory_without_state_is_named_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no headrace has run with it yet"):
        await SqliteReader.open_read_only(tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_long_list_does_not_hold_up_writes(store: SqliteStore) -> None:
    await store.apply([KeepFailure(entry(f"f{number}"), EVENT) for number in range(3000)])
    is_under_way, is_written = threading.Event(), threading.Event()

    def pause() -> bool:
        is_under_way.set()
        return not is_written.wait(60)

    store._reading.set_progress_handler(pause, 1000)
    listing = asyncio.ensure_future(store.failures(ALL))
    assert await asyncio.to_thread(is_under_way.wait, 60)
    await store.apply([PutState("a", "x", "1")])
    assert not listing.done()
    is_written.set()
    assert len(await listing) == 3000
