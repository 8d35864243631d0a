"""What is asked often costs the same however much is stored: counted in steps of SQLite's machine, not in time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from connectors.store import rows, schema
from router.commands.selecting import OPEN, REPLAYABLE
from router.core.retention import EXPENDABLE
from router.ports import DeleteFailure, KeepFailure, Selection, SetStatus
from tests.fakes.failures import EVENT, entry

Work = Callable[[sqlite3.Connection], object]

#: Failures in the smaller store and in the larger one, half of them settled, and older than the others.
SIZES = (1_000, 8_000)
PAGE = 20


@pytest.fixture(scope="module")
def databases() -> Iterator[list[sqlite3.Connection]]:
    made = [filled(size) for size in SIZES]
    yield made
    for each in made:
        each.close()


def filled(size: int) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(database, Path("nowhere"))
    for number in range(size):
        kept = entry(f"f{number:06}", failed_at_s=float(number), keys=(b"key-%d" % (number % (size // 10)),))
        rows.write(database, KeepFailure(kept, EVENT))
        if number < size // 2:
            rows.write(database, SetStatus(kept.batch.id, "replayed"))
    return database


@contextmanager
def steps(database: sqlite3.Connection) -> Iterator[Callable[[], int]]:
    counted = count()
    database.set_progress_handler(lambda: next(counted) and None, 1)
    yield lambda: next(counted)
    database.set_progress_handler(None, 1)


def cost(database: sqlite3.Connection, work: Work) -> int:
    database.execute("BEGIN")
    with steps(database) as so_far:
        work(database)
        done = so_far()
    database.execute("ROLLBACK")
    return done


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(lambda db: rows.failures(db, Selection(statuses=OPEN, limit=PAGE)), id="first page of the list"),
        pytest.param(
            lambda db: rows.failures(db, Selection(statuses=OPEN, limit=PAGE, after=(900.0, "f000900"))),
            id="a later page",
        ),
        pytest.param(lambda db: rows.failures(db, Selection(limit=PAGE)), id="first page of all"),
        pytest.param(
            lambda db: rows.failures(db, Selection(mapping="orders", statuses=REPLAYABLE, limit=PAGE)),
            id="page of a mapping",
        ),
        pytest.param(
            lambda db: rows.failures(db, Selection(mapping="orders", since_s=900.0, statuses=OPEN, limit=PAGE)),
            id="page from a time on",
        ),
        pytest.param(lambda db: rows.failures(db, Selection(key=b"key-7")), id="all of a key"),
        pytest.param(
            lambda db: rows.failures(db, Selection(mapping="orders", statuses=EXPENDABLE, until_s=0.0, limit=PAGE)),
            id="what is to expire, when nothing is",
        ),
        pytest.param(
            lambda db: rows.failures(db, Selection(mapping="orders", statuses=("dropped",), limit=PAGE)),
            id="the oldest of a status that there is none of",
        ),
        pytest.param(lambda db: rows.count(db, Selection(mapping="orders", statuses=OPEN)), id="how many are open"),
        pytest.param(lambda db: rows.count(db, Selection()), id="how many there are"),
        pytest.param(rows.tallies, id="the tallies of all mappings"),
        pytest.param(lambda db: rows.backlog(db, "orders"), id="the backlog of a mapping"),
        pytest.param(lambda db: rows.write(db, KeepFailure(entry("new", failed_at_s=1e6), EVENT)), id="keeping one"),
        pytest.param(lambda db: rows.claim(db, ["f000700"]), id="claiming one"),
        pytest.param(lambda db: rows.write(db, SetStatus("f000700", "replayed")), id="settling one"),
        pytest.param(lambda db: rows.drop(db, ["f000700"]), id="dropping one"),
        pytest.param(lambda db: rows.write(db, DeleteFailure("f000700")), id="deleting one"),
    ],
)
def test_it_costs_the_same_in_a_larger_store(databases: list[sqlite3.Connection], work: Work) -> None:
    small, large = (cost(database, work) for database in databases)
    assert large <= small * 1.2 + 20
