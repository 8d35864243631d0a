"""A short run of bench/ledger.py: kills at random moments; nothing lost, reordered, overlapping, tried too often."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 120
KILLS = 8


def test_kills_at_random_moments_break_no_promise(tmp_path: Path, kafka_bootstrap: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    options = ["--kills", str(KILLS), "--rounds", "1", "--seed", str(seed), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.ledger", *options],
        cwd=ROOT,
        env={**os.environ, "HEADRACE_TEST_KAFKA": kafka_bootstrap},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.stdout, f"seed {seed}: {done.stderr}"
    [found] = json.loads(done.stdout)
    assert not found["violations"], f"seed {seed}: {found}"
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert found["daemon_kills"] + found["worker_kills"] == KILLS
    assert found["finished"] + found["failed"] == found["produced"] > 500
