"""A short run of bench/queue_ledger.py for each kind of queue: kills at random moments break no promise."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 240
KILLS = 8


@pytest.mark.parametrize("kind", ["sqs", "fifo", "s3"])
def test_kills_at_random_moments_break_no_promise(tmp_path: Path, aws_endpoint: str, kind: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    options = ["--kind", kind, "--kills", str(KILLS), "--round", str(1 + seed % 4), "--seed", str(seed), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.queue_ledger", *options, "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "HEADRACE_TEST_AWS": aws_endpoint},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.stdout, f"seed {seed}: {done.stderr}"
    [found] = json.loads(done.stdout)
    assert not found["violations"], f"seed {seed}: {found}"
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert found["daemon_kills"] + found["worker_kills"] + found["endpoint_kills"] == KILLS
    assert found["finished"] + found["failed"] == found["produced"] > 100
