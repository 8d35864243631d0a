"""What `headrace failures deliver` prints and answers; the daemon is handed in."""

import json
from dataclasses import replace

import pytest

from router.commands.deliver import choose, deliver
from router.errors import NotRunning
from tests.fakes.failures import entry

NEXT = "2026-01-01T00:01:40.000Z"


def end(failure_id, outcome, **members):
    return {"id": failure_id, "outcome": outcome, "reason": None, "form": None, "next_try": None, **members}


GOOD = end("f1", "delivered", form="whole")
LARGE = end("f2", "delivered", form="claim check")
BAD = end("f3", "not_delivered", reason="queue away", next_try=NEXT)
NOT = end("f4", "refused", reason="it was dropped")


def test_all_that_was_delivered_is_exit_status_0(capsys):
    assert deliver(["f1", "f2"], lambda: [GOOD, LARGE], as_json=False) == 0
    assert capsys.readouterr().out == (
        "f1  delivered\n"
        "f2  delivered as a claim check: it is too large for its destination\n"
        "2 delivered, 0 not delivered, 0 refused\n"
    )


def test_what_was_not_is_exit_status_1_and_says_why_and_when_again(capsys):
    assert deliver(["f1", "f3", "f4"], lambda: [GOOD, BAD, NOT], as_json=False) == 1
    assert capsys.readouterr().out == (
        "f1  delivered\n"
        f"f3  not_delivered: queue away; next try {NEXT}\n"
        "f4  refused: it was dropped\n"
        "1 delivered, 1 not delivered, 1 refused\n"
    )


def test_machines_get_a_line_a_failure_and_a_summary(capsys):
    assert deliver(["f1", "f3"], lambda: [GOOD, BAD], as_json=True) == 1
    first, second, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first, second) == (GOOD, BAD)
    assert summary == {"summary": {"delivered": 1, "not_delivered": 1, "refused": 0}}


def test_where_nothing_waits_nobody_is_asked(capsys):
    def ask():
        raise AssertionError("the daemon is not needed")

    assert deliver([], ask, as_json=False) == 0
    assert capsys.readouterr().out == "0 delivered, 0 not delivered, 0 refused\n"


def test_a_daemon_that_ends_meanwhile_is_told_behind_what_was_done(capsys):
    def ends():
        yield GOOD
        raise NotRunning("the daemon stopped")

    with pytest.raises(NotRunning):
        deliver(["f1", "f2"], ends, as_json=False)
    assert capsys.readouterr().out.endswith("1 delivered, 0 not delivered, 0 refused\n")


def test_selectors_take_what_waits_and_ids_what_they_name():
    waiting, accepted = entry("f1"), replace(entry("f2"), status="delivered", deliveries=1)
    assert choose([waiting, accepted], ()) == [waiting]
    assert choose([waiting, accepted], ["f1", "f2"]) == [waiting, accepted]
