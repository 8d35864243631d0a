"""A store of an older version is brought forward whole, or stays what it was, however that is cut off."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - nothing else runs on the loop while a test prepares files and processes

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from connectors.store import reader, schema
from connectors.store.reader import SqliteReader, back_up
from connectors.store.sqlite import SqliteStore
from router.cli import main
from router.errors import StoreUnavailable
from tests.conformance.old_store import VECTORS, VERSION_1, assert_upgraded, put_old_store
from tests.conformance.store import ALL, keep
from tests.fakes.failures import entry

ROOT = Path(__file__).parents[2]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


@pytest.mark.parametrize("version", range(1, schema.VERSION))
async def test_an_old_store_is_copied_aside_and_brought_forward(tmp_path: Path, version: int) -> None:
    put_old_store(tmp_path, version)
    store = await SqliteStore.open(tmp_path)
    aside = tmp_path / f"headrace.db.version-{version}"
    assert store.upgraded == schema.Upgrade(version, schema.VERSION, aside)
    await store.close()
    assert dump(aside) == dump(VECTORS / f"store-version-{version}.db")
    assert aside.stat().st_mode & 0o777 == 0o600
    await assert_upgraded(tmp_path)


async def test_the_copy_put_back_is_the_old_store_again(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    await (await SqliteStore.open(tmp_path)).close()
    (tmp_path / "headrace.db.version-1").rename(path)
    assert reader.version(tmp_path) == 1
    await assert_upgraded(tmp_path)


async def test_a_copy_of_an_earlier_upgrade_makes_room_for_this_one(tmp_path: Path) -> None:
    put_old_store(tmp_path)
    (tmp_path / "headrace.db.version-1").write_text("half a copy, or an older one")
    await (await SqliteStore.open(tmp_path)).close()
    assert dump(tmp_path / "headrace.db.version-1") == dump(VERSION_1)


@pytest.mark.parametrize("version", range(1, schema.VERSION))
async def test_an_upgraded_store_is_laid_out_as_a_new_one(tmp_path: Path, version: int) -> None:
    put_old_store(tmp_path / "old", version)
    for name in ("old", "new"):
        await (await SqliteStore.open(tmp_path / name)).close()

    def layout(name: str) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(tmp_path / name / "headrace.db")) as database:
            return database.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()

    assert layout("old") == layout("new")


async def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await SqliteStore.open(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "headrace.db")) as database:
        database.execute("PRAGMA user_version = 7")
    before = (tmp_path / "headrace.db").read_bytes()
    refusal = rf"newer headrace \(store version 7, this one knows up to {schema.VERSION}\); run that version or a newer"
    with pytest.raises(StoreUnavailable, match=refusal):
        await SqliteStore.open(tmp_path)
    with pytest.raises(StoreUnavailable, match=refusal):
        await SqliteReader.open_read_only(tmp_path)
    assert (tmp_path / "headrace.db").read_bytes() == before


async def test_an_old_store_is_not_read_but_can_be_copied(tmp_path: Path) -> None:
    put_old_store(tmp_path)
    with pytest.raises(StoreUnavailable, match="store version 1, this headrace reads version 3; upgrade it with"):
        await SqliteReader.open_read_only(tmp_path)
    back_up(tmp_path, tmp_path / "copy")
    assert dump(tmp_path / "copy") == dump(VERSION_1)


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    path = tmp_path / "headrace.db"
    table = "CREATE TABLE leases (shard TEXT)"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        schema.prepare(database, path)
        with pytest.raises(StoreUnavailable, match=r"cannot be brought to 4; it is as it was: .*no such table: absent"):
            schema.prepare(database, path, [*schema.STEPS, f"{table}; DROP TABLE absent"])
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        assert schema.check(database, path) == schema.VERSION
        assert "leases" not in {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
        assert schema.prepare(database, path, [*schema.STEPS, table, "CREATE TABLE more (shard TEXT)"])
        assert schema.check(database, path, newest=5) == 5


# --- cut off

DIE_AT_EVERY_POINT = """
import os, shutil, signal, sqlite3, sys
from pathlib import Path
from connectors.store import schema
from connectors.store.reader import connect
from tests.conformance.old_store import put_old_store

reached = 0

def die_at(point):
    def reach(*_):
        global reached
        reached += 1
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)
    return reach

def upgrade(path, point):
    database = connect(path, mode="mode=rw")
    database.execute("PRAGMA journal_mode = WAL")
    die = die_at(point)
    database.set_trace_callback(die)
    sys.addaudithook(die)  # what Python opens, links and renames
    schema.prepare(database, path)
    database.close()

point, finished = 0, False
while not finished:
    point += 1
    home = Path(sys.argv[1], str(point))
    path = put_old_store(home)
    child = os.fork()
    if not child:
        try:
            upgrade(path, point)
        finally:
            os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
print(point)
"""


async def test_kill_9_at_any_point_leaves_a_store_of_one_version_or_the_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DIE_AT_EVERY_POINT, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    points = int(ended.stdout)
    assert points > 15
    versions = [reader.version(tmp_path / str(point)) for point in range(1, points + 1)]
    assert versions == sorted(versions)
    assert set(versions) == {1, schema.VERSION}
    for point in range(1, points + 1):
        await assert_upgraded(tmp_path / str(point))
        assert not list((tmp_path / str(point)).glob("*.partial"))


async def test_kill_9_of_the_command_in_loops_loses_nothing(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    grow(path, 3000)
    command = [sys.executable, "-m", "router.cli", "-c", str(configuration(tmp_path)), "state", "upgrade"]
    chance = Random(3)
    longest_s = 0.5
    while reader.version(tmp_path) == 1:
        # Kills fall anywhere, and later each time, so that one round gets through however slow the machine is.
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as upgrading:
            with suppress(subprocess.TimeoutExpired):
                upgrading.wait(chance.uniform(0.0, longest_s))
            upgrading.kill()
        longest_s += 0.5
    store = await SqliteStore.open(tmp_path)
    assert len(await store.failures(ALL)) == await store.count(ALL) == 3013
    await store.close()


def grow(path: Path, failures: int) -> None:
    """Put more failures into a store of version 1."""
    with closing(sqlite3.connect(path)) as database, database:
        columns = [name for _, name, *_ in database.execute("PRAGMA table_info(failures)") if name != "id"]
        names = ", ".join(columns)
        database.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {failures}) "
            f"INSERT INTO failures (id, {names}) SELECT 'n' || i, {names} FROM failures, n WHERE id = 'f00'"
        )


# --- the disk


async def test_a_full_disk_leaves_the_old_store_which_is_upgraded_once_there_is_room(small_disk: Path) -> None:
    directory = small_disk / "state"
    grow(put_old_store(directory), 300)
    ballast = small_disk / "ballast"
    said: list[str] = []
    store = None
    # First there is no room to open it, then none for the copy, then none for what comes after the copy.
    for room_kib in range(4, 1000, 32):
        ballast.unlink(missing_ok=True)
        ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - room_kib * 1024))
        try:
            store = await SqliteStore.open(directory)
            break
        except StoreUnavailable as error:
            said.append(str(error))
        assert not list(directory.glob("*.partial"))
        assert reader.version(directory) == 1
    assert len(said) > 5
    assert [each for each in said if not re.search("disk is full|free space", each)] == []
    assert store
    assert store.upgraded
    assert await store.count(ALL) == 313
    await store.close()


# --- the command


def configuration(directory: Path) -> Path:
    (directory / "code").mkdir(exist_ok=True)
    file = directory / "headrace.yaml"
    document = {
        "state": str(directory),
        "functions": {"f": {"handler": "a.b", "code": str(directory / "code")}},
        "event_source_mappings": {"m": {"function": "f", "source": {"sqs": {"queue": "q"}}}},
    }
    file.write_text(json.dumps(document))
    return file


def test_the_command_says_from_what_to_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_old_store(tmp_path)
    command = ["-c", str(configuration(tmp_path)), "state", "upgrade"]
    assert main(command) == 0
    aside = tmp_path / "headrace.db.version-1"
    assert capsys.readouterr().out == f"the store was of version 1 and is now of 3; as it was, it is in {aside}\n"
    assert main(command) == 0
    assert capsys.readouterr().out == "the store is of version 3 already; there is nothing to do\n"
    assert main(["--json", *command]) == 0
    assert json.loads(capsys.readouterr().out) == {"from": 3, "to": 3, "copy": None}


def test_the_command_refuses_without_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-c", str(configuration(tmp_path)), "state", "upgrade"]) == 1
    assert "no headrace has run with it yet" in capsys.readouterr().err
    assert not (tmp_path / "headrace.db").exists()


async def test_the_command_refuses_while_a_daemon_runs(tmp_path: Path) -> None:
    put_old_store(tmp_path)
    hold = "import sys, time; from pathlib import Path; from connectors.store.lock import DirectoryLock; "
    hold += "lock = DirectoryLock(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    holding = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(holding, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        daemon.stdout.readline()
        command = [sys.executable, "-m", "router.cli", "-c", str(configuration(tmp_path)), "state", "upgrade"]
        refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (refused.returncode, reader.version(tmp_path)) == (1, 1)
        assert f"in use by another headrace (process {daemon.pid})" in refused.stderr


async def test_what_is_written_while_it_is_of_the_newest_version_is_not_copied_aside(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    await keep(store, entry())
    await store.close()
    again = await SqliteStore.open(tmp_path)
    assert again.upgraded is None
    await again.close()
    assert not list(tmp_path.glob("*version*"))
