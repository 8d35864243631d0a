"""A short run of bench/chaos.py: a fleet over every source, in trouble of a few kinds, breaks no promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import KafkaCluster, give_up
from tests.services.process import ServiceError
from tests.services.redis import redis_server

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 280
EVENTS = 6
#: `make chaos` is for others.
SEED = 7


@pytest.fixture
def needed(kafka_cluster: KafkaCluster, streams_endpoint: str, toxiproxy: str) -> None:
    """What the program starts by itself if it is not there, or this machine cannot run."""
    try:
        redis_server()
    except ServiceError as error:
        give_up(f"no redis: {error}")


@pytest.mark.usefixtures("needed")
def test_a_fleet_in_trouble_breaks_no_promise(tmp_path: Path) -> None:
    options = ["--events", str(EVENTS), "--seed", str(SEED), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos", *options],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert done.stdout, done.stderr[-4000:]
    found = json.loads(done.stdout)
    broken = [each for verdict in found["sources"].values() for each in verdict["violations"]]
    assert [*found["violations"], *broken] == []
    assert done.returncode == 0, done.stderr[-4000:]
    assert sum(found["events"].values()) + found["skipped"] == EVENTS
    for verdict in found["sources"].values():
        assert verdict["finished"] + verdict["failed"] == verdict["produced"] > 50
    kept = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"events.json", "failures.json", "ledger.txt.gz", "produced.json", "summary.json", "logs"} <= kept
