"""What is wrong in a ledger of deliveries is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.live.stream_ledger import Ledger


def line(run: int, request: str, what: str, *records: int, key: str = "k") -> dict[str, Any]:
    return {"run": run, "request": request, what: [["s", f"{number}", key, number] for number in records]}


def judge(tmp_path: Path, *lines: dict[str, Any], committed: int = -1, ended: bool = False) -> list[str]:
    ledger = Ledger(tmp_path / "ledger")
    ledger.file.write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    ledger.committed[0] = [
        {"shard": "s", "position": f"{committed}" if committed >= 0 else "TRIM_HORIZON", "ended": ended}
    ]
    return ledger.judge({"k": 3})


GOOD = (
    line(0, "a", "begins", 0, 1),
    line(0, "a", "fails"),
    line(0, "a", "begins", 0, 1),
    line(0, "a", "ends", 0, 1),
    line(0, "b", "begins", 2),
    line(1, "c", "begins", 1, 2),
    line(1, "c", "ends", 1, 2),
)


def test_nothing_is_wrong_with_what_is_repeated_behind_no_checkpoint(tmp_path: Path):
    assert judge(tmp_path, *GOOD, committed=0) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (GOOD[:5], "lost: ('k', 2)"),
        ((*GOOD[:2], *GOOD[4:]), "k 2 began before [0, 1]"),
        ((*GOOD[:3], line(0, "x", "begins", 0), *GOOD[3:]), "k began in (0, 'x') while it ran in (0, 'a')"),
    ],
)
def test_what_is_lost_early_or_twice_at_one_time_is_found(tmp_path: Path, lines: tuple[Any, ...], found: str):
    assert found in judge(tmp_path, *lines)


def test_what_runs_again_behind_a_checkpoint_is_found(tmp_path: Path):
    assert any("k 1 ran in run 1" in each for each in judge(tmp_path, *GOOD, committed=1))
    assert any("k 2 ran in run 1" in each for each in judge(tmp_path, *GOOD, ended=True))
