"""The judge of ledgers finds what it is there to find."""

from __future__ import annotations

import pytest

from bench.ledger_judge import Kill, Place, Produced, Verdict, judge, read

SECOND = 10**9
#: Offsets 0 to 2 are key a, 1 to 3; offset 3 is a poison record of key b.
PRODUCED = {
    **{Place(0, number): Produced("a", number + 1, poison=False) for number in range(3)},
    Place(0, 3): Produced("b", 1, poison=True),
}
POISON = frozenset({Place(0, 3)})
KILLED_WORKER = Kill(5 * SECOND, 5 * SECOND, "worker", (7,))
KILLED_DAEMON = Kill(5 * SECOND, 6 * SECOND, "daemon", (7, 8))


def batch(process: int, start_s: float, end_s: float | None, *offsets: int, phase: str = "ok") -> list[str]:
    moments = [(start_s, "S")] if end_s is None else [(start_s, "S"), (end_s, phase)]
    return [
        f"{int(at_s * SECOND)} {process} request-{start_s} {record.key} {record.number} 0 {offset} {said}"
        for at_s, said in moments
        for offset in offsets
        for record in [PRODUCED[Place(0, offset)]]
    ]


def verdict(*batches: list[str], kills: tuple[Kill, ...] = (), failed: frozenset[Place] = POISON) -> Verdict:
    deliveries = read([line for lines in batches for line in lines], kills)
    return judge(PRODUCED, deliveries, set(failed), kills, attempts_limit=2, commit_late_s=2.0)


@pytest.mark.parametrize(
    ("batches", "kills"),
    [
        ([batch(7, 1, 2, 0, 1, 2)], ()),
        ([batch(7, 1, 2, 0), batch(8, 2, 3, 1, 2)], ()),
        ([batch(7, 4, None, 0, 1, 2), batch(8, 5.1, 6, 0, 1, 2)], (KILLED_WORKER,)),
        ([batch(7, 3, 4, 0, 1, 2), batch(9, 7, 8, 0, 1, 2)], (KILLED_DAEMON,)),
    ],
)
def test_what_is_as_it_should_be(batches: list[list[str]], kills: tuple[Kill, ...]) -> None:
    assert verdict(*batches, kills=kills).violations == []


@pytest.mark.parametrize(
    ("violation", "batches", "kills"),
    [
        ("lost", [batch(7, 1, 2, 0, 1)], ()),
        ("out of order", [batch(7, 1, 2, 1, 2), batch(7, 3, 4, 0)], ()),
        ("overlap", [batch(7, 1, 3, 0, 1), batch(8, 2, 4, 1, 2)], ()),
        ("overlap", [batch(7, 4, None, 0, 1, 2), batch(9, 5.5, 7, 0, 1, 2)], (KILLED_DAEMON,)),
        ("unexplained end", [batch(7, 1, None, 0, 1, 2), batch(8, 6, 7, 0, 1, 2)], ()),
        ("repeated", [batch(7, 1, 2, 0, 1, 2), batch(8, 3, 4, 0)], ()),
        ("repeated", [batch(7, 1, 2, 0, 1, 2), batch(9, 7, 8, 0)], (KILLED_DAEMON,)),
        ("repeated", [batch(8, 4, 4.9, 0, 1, 2), batch(9, 7, 8, 0)], (KILLED_WORKER,)),
        ("poison", [batch(7, 1, 2, 0, 1, 2), *(batch(7, at, at + 0.5, 3, phase="bad") for at in (3, 4, 5))], ()),
    ],
)
def test_what_breaks_a_promise(violation: str, batches: list[list[str]], kills: tuple[Kill, ...]) -> None:
    found = verdict(*batches, kills=kills).violations
    assert any(line.startswith(violation) for line in found), found


def test_a_good_record_among_the_failures_is_one() -> None:
    found = verdict(batch(7, 1, 2, 0, 1, 2), failed=POISON | {Place(0, 1)}).violations
    assert found == ["stored as failed, but good: Place(partition=0, offset=1)"]


def test_a_poison_record_may_be_tried_once_more_for_each_kill() -> None:
    kill = Kill(int(3.7 * SECOND), int(3.8 * SECOND), "worker", (8,))
    tries = [batch(7, at, at + 0.5, 3, phase="bad") for at in (3, 4, 5)]
    found = verdict(batch(7, 1, 2, 0, 1, 2), *tries, kills=(kill,))
    assert found.violations == []
    assert (found.most_attempts, found.most_extra_attempts) == (3, 1)
