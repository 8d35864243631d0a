"""The inboxes that one machine has, against the suite, and what only the embedded one promises."""

# ruff: noqa: ASYNC220 - nothing else runs on the loop while a test prepares processes

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from connectors.store import compaction
from connectors.store.inbox import SqliteInbox, lines, page, write
from connectors.store.reader import back_up
from connectors.store.sqlite import SqliteStore
from router.errors import StoreUnavailable
from router.event_ports import AcceptEvent, Inbox
from tests.conformance.inbox import (
    LARGE,
    ORDERS,
    PAYLOAD,
    InboxConformance,
    InboxSharing,
    accept,
    event,
    forgotten,
    ids,
)
from tests.conformance.test_sqlite_size import cost
from tests.fakes.inbox import MemoryInbox

ROOT = Path(__file__).parents[2]


class TestMemoryInbox(InboxConformance):
    @pytest.fixture
    def inbox(self) -> Inbox:
        return MemoryInbox()


class TestMemorySharing(InboxSharing):
    @pytest.fixture
    def mine(self) -> MemoryInbox:
        return MemoryInbox("r1")

    @pytest.fixture
    def other(self, mine: MemoryInbox) -> Inbox:
        return MemoryInbox("r2", mine.rows)


class TestSqliteInbox(InboxConformance):
    @pytest.fixture
    async def inbox(self, sqlite_store: SqliteStore) -> AsyncIterator[Inbox]:
        opened = await sqlite_store.open_inbox()
        yield opened
        await opened.close()


# --- durability

ACCEPT_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from connectors.store.sqlite import SqliteStore
from tests.conformance.inbox import accept, event

async def work(inbox, lane):
    for number in range(lane, 1_000_000, 8):
        await accept(inbox, event(number))
        print(number, flush=True)

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), power_safe=False)
    inbox = await store.open_inbox()
    await asyncio.gather(*(work(inbox, lane) for lane in range(8)))

asyncio.run(main())
"""


async def test_no_accepted_event_is_lost_to_kill_9(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ACCEPT_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        accepted = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        accepted += process.stdout.read().split()
    store = await SqliteStore.open(tmp_path)
    inbox = await store.open_inbox()
    waiting = await inbox.lines()
    found = set(await _all_ids(inbox))
    assert found >= {event(int(number)).id for number in accepted}
    assert waiting[ORDERS].rows == len(found)
    await inbox.close()
    await store.close()


async def _all_ids(inbox: SqliteInbox) -> list[str]:
    known: list[str] = []
    while rows := (await inbox.page(ORDERS, 1e12, 1000, LARGE, known)).rows:
        known += [row.id for row, _ in rows]  # type: ignore[union-attr]
    return known


@pytest.mark.parametrize("power_safe", [True, False])
async def test_what_is_accepted_waits_for_the_disk_whatever_else_does(tmp_path: Path, power_safe: bool) -> None:  # noqa: FBT001
    store = await SqliteStore.open(tmp_path, power_safe=power_safe)
    inbox = await store.open_inbox()
    statements: list[str] = []
    [level] = await store._writer.run(lambda database: database.execute("PRAGMA synchronous").fetchone())
    await store._writer.run(lambda database: database.set_trace_callback(statements.append))
    levels: list[str] = []
    for step in (accept(inbox, event(1)), inbox.apply([forgotten(event(1))]), accept(inbox, event(2))):
        await step
        levels += [each for each in statements if each.startswith("PRAGMA synchronous")]
        assert statements[-1] == "COMMIT"
        statements.clear()
    if power_safe:
        full = 2
        assert (level, levels) == (full, []), "all that is written waits for the disk"
    else:
        assert [each.rpartition(" ")[2] for each in levels] == ["FULL", "NORMAL", "FULL"]
    await inbox.close()
    await store.close()


async def test_a_full_disk_accepts_no_event_and_no_half_of_several(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * 300 * 1024)
    store = await SqliteStore.open(small_disk / "state")
    inbox = await store.open_inbox()
    accepted = 0
    with suppress(StoreUnavailable):
        while True:
            await accept(inbox, event(accepted), payload=os.urandom(16 * 1024))
            accepted += 1
    several = [AcceptEvent(event(10_000 + n), os.urandom(16 * 1024)) for n in range(4)]
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await inbox.apply(several)
    assert len(await _all_ids(inbox)) == accepted
    assert (await inbox.lines())[ORDERS].rows == accepted
    (small_disk / "ballast").unlink()
    await inbox.apply([forgotten(event(0))])
    await inbox.apply(several)
    assert (await inbox.lines())[ORDERS].rows == accepted - 1 + 4
    await inbox.close()
    await store.close()


# --- what is done to the store as a whole


async def test_a_copy_and_a_store_that_was_written_anew_have_what_waits(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "state")
    inbox = await store.open_inbox()
    await accept(inbox, event(1), event(2))
    back_up(tmp_path / "state", tmp_path / "copy")
    await inbox.apply([forgotten(event(1))])
    await inbox.close()
    await store.close()
    compaction.rewrite(tmp_path / "state")
    (tmp_path / "restored").mkdir()
    shutil.copyfile(tmp_path / "copy", tmp_path / "restored" / "headrace.db")
    for name, count in (("state", 1), ("restored", 2)):
        opened = await SqliteStore.open(tmp_path / name)
        again = await opened.open_inbox()
        assert len(await ids(again)) == count
        assert (await again.lines())[ORDERS].rows == count
        await again.close()
        await opened.close()


async def test_what_was_done_with_leaves_no_trace_of_its_payload(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    inbox = await store.open_inbox()
    secret = os.urandom(2000)
    await accept(inbox, event(1), payload=secret)
    await inbox.apply([forgotten(event(1))])
    assert await store.scrub()
    assert all(secret[:64] not in each.read_bytes() for each in tmp_path.iterdir())  # noqa: ASYNC240
    await inbox.close()
    await store.close()


async def test_a_closed_inbox_says_so(sqlite_store: SqliteStore) -> None:
    inbox = await sqlite_store.open_inbox()
    await inbox.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await inbox.lines()


# --- size


def filled(directory: Path, count: int) -> sqlite3.Connection:
    database = sqlite3.connect(directory / "headrace.db", isolation_level=None)
    database.execute("BEGIN")
    write(database, [AcceptEvent(event(n, due_s=1000.0 + n), PAYLOAD) for n in range(count)])
    database.execute("COMMIT")
    return database


async def test_what_is_asked_costs_the_same_however_much_waits(tmp_path: Path) -> None:
    costs = []
    for count in (1_000, 8_000):
        directory = tmp_path / str(count)
        await (await SqliteStore.open(directory)).close()
        with closing(filled(directory, count)) as database:
            known = [event(n).id for n in range(50)]
            costs.append(
                [
                    cost(database, lines),
                    cost(database, lambda each: page(each, ORDERS, 1e12, 100, LARGE, known)),  # noqa: B023
                    cost(database, lambda each: write(each, [forgotten(event(500, due_s=1500.0))])),
                    cost(database, lambda each: write(each, [AcceptEvent(event(99_999), PAYLOAD)])),
                ]
            )
    small, large = costs
    assert all(more <= 1.3 * less for less, more in zip(small, large, strict=True)), costs
