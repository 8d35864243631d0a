"""What `headrace failures replay --from FAILURE-RECORDS` prints and answers; the daemon is handed in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from router.commands.failures import LISTED
from router.commands.records import look, replay
from router.errors import NotRunning


def end(where: str, outcome: str, reason: str | None = None, *new: str, gone: int = 0) -> dict[str, Any]:
    return {
        "id": "record:0",
        "where": where,
        "mapping": "clicks",
        "outcome": outcome,
        "reason": reason,
        "new_failures": list(new),
        "gone": gone,
    }


GOOD = end("f:1", "replayed", "1 of 3 records of s-0 from 4 to 6 are gone", gone=1)
BAD = end("f:2", "failed_again", None, "a1b2")
REFUSED = end("f:3", "refused", "it is no JSON")
SETTLED, LATER = end("f:4", "settled"), end("f:5", "later")


GONE = "at least 1 of their records are gone"


def yes(_: str) -> bool:
    return True


def run(*ends: dict[str, Any], ask: Any = yes, as_json: bool = False, count: int | None = 2) -> int:
    return replay("f", count, "clicks", lambda: iter(ends), ask, is_file=True, as_json=as_json)


def test_each_is_named_by_where_it_was_found_and_what_is_no_news_is_only_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(GOOD, BAD, REFUSED, SETTLED, LATER) == 1
    assert capsys.readouterr().out.splitlines() == [
        "f:1  replayed: 1 of 3 records of s-0 from 4 to 6 are gone",
        "f:2  failed_again: a1b2",
        "f:3  refused: it is no JSON",
        f"1 replayed, 1 failed again, 1 refused, 1 settled before, 1 made since it began, {GONE}",
    ]


def test_what_succeeded_or_was_settled_is_exit_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(end("f:1", "replayed"), SETTLED, LATER) == 0
    assert run() == 0
    assert capsys.readouterr().out.endswith("\n0 replayed, 0 failed again, 0 refused\n")


def test_machines_get_a_line_a_record_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(BAD, SETTLED, as_json=True) == 1
    first, second, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first, second["outcome"]) == ({**BAD, "new_failure": "a1b2"}, "settled")
    counts = {"replayed": 0, "failed_again": 1, "refused": 0, "settled": 1, "later": 0, "gone": 0}
    assert summary == {"summary": counts}


def test_it_asks_first() -> None:
    asked: list[str] = []

    def no(question: str) -> bool:
        asked.append(question)
        return False

    assert run(ask=no) == run(ask=no, count=1) == run(ask=no, count=None) == 1
    assert replay("s3://b/p", 3, None, lambda: iter(()), no, is_file=False, as_json=False) == 1
    through = "through mapping clicks? Their original order is past."
    assert asked == [
        f"Replay 2 failure records of f {through}",
        f"Replay 1 failure record of f {through}",
        f"Replay the failure records of f {through}",
        "Replay 3 failure records of s3://b/p through the mappings of their streams? Their original order is past.",
    ]


def test_an_interrupt_says_what_goes_on_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> Iterator[dict[str, Any]]:
        yield GOOD
        raise KeyboardInterrupt

    for is_file, said in ((True, "finishes what it has begun; replay the file again"), (False, "goes on with it")):
        with pytest.raises(KeyboardInterrupt):
            replay("f", 2, None, interrupted, yes, is_file=is_file, as_json=False)
        printed = capsys.readouterr()
        assert said in printed.err
        assert "1 replayed" in printed.out


def test_what_came_before_a_daemon_ended_is_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    def cut_off() -> Iterator[dict[str, Any]]:
        yield BAD
        raise NotRunning("the daemon stopped")

    with pytest.raises(NotRunning):
        replay("f", 2, None, cut_off, yes, is_file=True, as_json=False)
    assert capsys.readouterr().out.endswith("0 replayed, 1 failed again, 0 refused\n")


# --- a dry run


def prospect(where: str, **changes: Any) -> dict[str, Any]:
    values = {
        "id": "record:0",
        "where": where,
        "mapping": "clicks",
        "stream": "arn",
        "ranges": [["s-0", "4", "6"]],
        "records": 3,
        "has_event": False,
        "is_settled": False,
        "held": 3,
        "gone": 0,
        "note": None,
        "why_not": None,
    }
    return {**values, **changes}


def test_a_dry_run_says_what_each_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        prospect("f:1", ranges=[["s-0", "4", "6"], ["s-1", "7", "7"]]),
        prospect("f:2", has_event=True, held=None),
        prospect("f:3", is_settled=True, held=None),
        prospect("f:4", held=1, gone=2, note="2 of 3 records are gone"),
        prospect("f:5", mapping=None, ranges=[], records=None, why_not="it is no JSON"),
    ]
    assert look(lambda: iter(found), len(found), as_json=False) == 1
    head, *rows, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["RECORD", "MAPPING", "SHARD", "FROM", "TO", "FAILED", "WOULD", "RUN", "NOTE"]
    assert [" ".join(row.split()) for row in rows] == [
        "f:1 clicks s-0 4 6 3 3 read again -",
        "f:1 clicks s-1 7 7 3 3 read again -",
        "f:2 clicks s-0 4 6 3 its event -",
        "f:3 clicks s-0 4 6 3 no: settled -",
        "f:4 clicks s-0 4 6 3 1 read again 2 of 3 records are gone",
        "f:5 - - - - - no it is no JSON",
    ]
    assert summary == "5 failure records, 1 would not run, 1 settled before, 2 of their records are gone"
    assert look(lambda: iter(found), len(found), as_json=True) == 1
    *told, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert told == found
    assert last == {"summary": {"records": 5, "would_not_run": 1, "settled": 1, "gone": 2}}


def test_a_long_dry_run_shows_the_first_ones_and_counts_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert look(lambda: (prospect(f"f:{number}") for number in range(LISTED + 5)), None, as_json=False) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + LISTED + 1
    assert printed.out.endswith(
        f"{LISTED + 5} failure records, 0 would not run, 0 settled before, 0 of their records are gone\n"
    )
    assert printed.err == "5 more; --json prints all\n"
    assert look(lambda: iter(()), 0, as_json=False) == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_what_a_queue_does_not_show_before_it_runs_is_told(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    assert look(lambda: (prospect(f"sqs:{number}") for number in range(10)), 22, as_json=as_json) == 0
    assert capsys.readouterr().err == "about 12 more; of a queue the first ones are looked at\n"
