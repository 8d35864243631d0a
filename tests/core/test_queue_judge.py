"""The judge of queues' ledgers finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.ledger_judge import Kill, Place, Produced, read
from bench.queue_judge import Promise, QueueVerdict, judge

SECOND = 10**9
#: Key a, messages 1 to 4, and key b, of which 1 is poison.
A = [Place(0, number) for number in range(5)]
POISON = Place(1, 1)
PRODUCED = {
    **{place: Produced("a", place.offset, poison=False) for place in A[1:]},
    POISON: Produced("b", 1, poison=True),
}
STORED = {POISON: 20 * SECOND}
STANDARD = Promise(attempts_limit=2, delete_late_s=1.0)
FIFO = replace(STANDARD, ordered=True, by_key=True)
HOLDS = replace(FIFO, holds=True)

WORKER = Kill(5 * SECOND, 5 * SECOND, "worker", (7,))
DAEMON = Kill(5 * SECOND, 6 * SECOND, "daemon", (7, 8))
#: From 2 to 4 s.
ENDPOINT = Kill(2 * SECOND, 4 * SECOND, "endpoint", ())


def batch(process: int, start_s: float, end_s: float | None, *places: Place, bad: tuple[Place, ...] = ()) -> list[str]:
    """Write the lines of one delivery; the places in `bad` fail."""
    lines = []
    for at_s in (start_s, end_s):
        for place in places:
            phase = "S" if at_s == start_s else "bad" if place in bad else "ok"
            key = "ab"[place.partition]
            if at_s is not None:
                at_ns = int(at_s * SECOND)
                lines.append(f"{at_ns} {process} request-{start_s} {key} {place.offset} {place[0]} {place[1]} {phase}")
    return lines


ALL = batch(7, 1, 2, *A[1:])


def verdict(
    *batches: list[str],
    kills: tuple[Kill, ...] = (),
    promise: Promise = STANDARD,
    stored: dict[Place, int] | None = None,
) -> QueueVerdict:
    deliveries = read([line for lines in batches for line in lines], kills)
    return judge(PRODUCED, deliveries, STORED if stored is None else stored, kills, promise)


@pytest.mark.parametrize(
    ("batches", "kills", "promise"),
    [
        ([ALL], (), FIFO),
        # one after the other, in pieces, behind failures
        ([batch(7, 1, 2, A[1], A[2], bad=(A[2],)), batch(8, 2, 3, A[2]), batch(7, 3, 4, A[3], A[4])], (), FIFO),
        ([batch(7, 1, 2, *A[1:], bad=(A[2], A[3], A[4])), batch(8, 2, 3, *A[2:])], (), FIFO),
        # order is nobody's concern
        ([batch(7, 1, 2, A[4], A[2]), batch(8, 1, 2, A[1], A[3])], (), STANDARD),
        # what stands behind a failed message comes again with it
        ([batch(7, 1, 2, *A[1:], bad=(A[2],)), batch(8, 2, 3, *A[2:])], (), HOLDS),
        # killed: with the function, before it was deleted, before the answer was heard
        ([batch(7, 4, None, *A[1:]), batch(9, 7, 8, *A[1:])], (DAEMON,), FIFO),
        ([batch(7, 3, 4.5, *A[1:]), batch(9, 7, 8, A[1]), batch(9, 8, 9, *A[2:])], (DAEMON,), FIFO),
        ([batch(7, 4, 4.9, *A[1:]), batch(8, 6, 7, *A[1:])], (WORKER,), FIFO),
        ([batch(7, 1, 2, *A[1:]), batch(8, 6, 7, *A[1:])], (ENDPOINT,), FIFO),
        # it could not be deleted before the daemon was killed, as the endpoint was away
        ([batch(7, 1, 1.9, *A[1:]), batch(9, 7, 8, *A[1:])], (ENDPOINT, DAEMON), FIFO),
    ],
)
def test_what_is_as_it_should_be(batches: list[list[str]], kills: tuple[Kill, ...], promise: Promise) -> None:
    assert verdict(*batches, kills=kills, promise=promise).violations == []


@pytest.mark.parametrize(
    ("violation", "batches", "kills", "promise"),
    [
        ("lost: Produced(key='a', number=4", [batch(7, 1, 2, *A[1:4])], (), STANDARD),
        # the first does not run again although it was held back behind a failed one
        ("lost", [batch(7, 1, 2, *A[1:], bad=(A[2],)), batch(8, 2, 3, A[2])], (), HOLDS),
        ("overlap: Place", [batch(7, 1, 3, *A[1:]), batch(8, 2, 4, A[4])], (), STANDARD),
        ("overlap: a", [batch(7, 1, 3, A[1], A[2]), batch(8, 2, 4, A[3], A[4])], (), FIFO),
        ("overlap", [batch(7, 4, None, *A[1:]), batch(9, 5.5, 7, *A[1:])], (DAEMON,), STANDARD),
        ("overtaken: 0/2", [batch(7, 1, 2, A[2]), batch(7, 3, 4, A[1], A[3], A[4])], (), FIFO),
        ("overtaken: 0/3", [batch(7, 1, 2, A[1], A[3], A[4]), batch(7, 3, 4, A[2])], (), FIFO),
        ("overtaken: 0/2", [batch(7, 1, 2, A[1], bad=(A[1],)), batch(7, 3, 4, *A[2:])], (), FIFO),
        (
            "ran after its successor: 0/1",
            [batch(7, 1, 2, A[1]), batch(7, 2, 4, *A[2:]), batch(9, 7, 8, A[1])],
            (),
            FIFO,
        ),
        ("ran after its successor: 0/2", [ALL, batch(9, 7, 8, A[1], A[4]), batch(9, 8, 9, A[2])], (DAEMON,), FIFO),
        ("out of order in a batch: 0/1", [batch(7, 1, 2, A[2], A[1], A[3], A[4])], (), FIFO),
        ("unexplained end", [batch(7, 1, None, *A[1:]), batch(8, 6, 7, *A[1:])], (), STANDARD),
        ("repeated", [ALL, batch(8, 3, 4, A[1])], (), STANDARD),
        ("repeated", [ALL, batch(9, 7, 8, A[1])], (DAEMON,), STANDARD),
        ("repeated", [batch(8, 4, 4.9, *A[1:]), batch(9, 7, 8, A[1])], (WORKER,), STANDARD),
        # the outage was over long before
        (
            "repeated",
            [ALL, batch(9, 17, 18, A[1])],
            (replace(ENDPOINT, time_ns=4 * SECOND, gone_ns=4 * SECOND),),
            STANDARD,
        ),
        ("poison", [ALL, *(batch(7, at, at + 0.5, POISON, bad=(POISON,)) for at in (3, 4, 5))], (), STANDARD),
        ("poison", [ALL, *(batch(7, at, at + 0.5, POISON, bad=(POISON,)) for at in (3, 4, 6))], (WORKER,), STANDARD),
        ("poison", [ALL, *(batch(7, at, at + 0.5, POISON, bad=(POISON,)) for at in (7, 8, 9))], (DAEMON,), STANDARD),
    ],
)
def test_what_breaks_a_promise(
    violation: str, batches: list[list[str]], kills: tuple[Kill, ...], promise: Promise
) -> None:
    found = verdict(*batches, kills=kills, promise=promise).violations
    assert any(line.startswith(violation) for line in found), found


def test_nothing_starts_before_what_was_given_up_before_it_is() -> None:
    produced = {**PRODUCED, Place(1, 2): Produced("b", 2, poison=False)}
    tries = [batch(8, at, at + 0.5, POISON, bad=(POISON,)) for at in (1, 3)]
    deliveries = read([line for lines in (ALL, *tries, batch(7, 5, 6, Place(1, 2))) for line in lines], ())
    assert judge(produced, deliveries, {POISON: 4 * SECOND}, (), FIFO).violations == []
    late = judge(produced, deliveries, {POISON: 5 * SECOND + 1}, (), FIFO).violations
    assert late == ["overtaken: 1/2 at 5000000000 before 1 was over"]


def test_a_good_message_among_the_failures_is_one() -> None:
    assert verdict(ALL, stored={**STORED, A[1]: 0}).violations == [
        "stored as failed, but good: Produced(key='a', number=1, poison=False)"
    ]


def test_a_poison_message_may_be_tried_once_more_for_each_kill_of_the_daemon() -> None:
    tries = [batch(7, at, at + 0.5, POISON, bad=(POISON,)) for at in (3, 4, 6.5)]
    found = verdict(ALL, *tries, kills=(DAEMON,))
    assert found.violations == []
    assert (found.most_attempts, found.most_extra_attempts) == (3, 1)


def test_repetitions_are_counted_by_what_explains_them() -> None:
    found = verdict(
        batch(7, 1, 1.5, *A[1:]), batch(8, 4.5, 4.75, *A[3:]), batch(9, 7, 8, A[4]), kills=(ENDPOINT, DAEMON)
    )
    assert (found.repeated_by_daemon, found.repeated_by_worker, found.repeated_by_endpoint) == (1, 0, 2)
    assert found.oldest_repeat_s == 0.5
    assert (found.finished, found.failed, found.produced, found.delivered) == (4, 1, 5, 7)
