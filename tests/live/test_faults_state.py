"""Trouble with the state directory: read-only, full, taken, or of another version."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing, suppress
from pathlib import Path

from tests.conftest import MakeTopic
from tests.live.daemon import Daemon, await_committed, plain, produce

POISON = """
def handle(event, context):
    raise ValueError("no total")
"""

FINE = """
def handle(event, context):
    pass
"""


async def test_a_full_disk_holds_what_fails_and_nothing_else(
    tmp_path: Path, disk: Path, kafka_bootstrap: str, topic: MakeTopic
) -> None:
    failing, fine = await topic(1), await topic(1)
    async with Daemon(tmp_path) as daemon:
        daemon.function("failing", POISON)
        daemon.function("fine", FINE)
        daemon.mapping("failing", plain(kafka_bootstrap, failing), batch_size=1, maximum_retry_attempts=0)
        daemon.mapping("fine", plain(kafka_bootstrap, fine))
        await produce(kafka_bootstrap, failing, [("a", "before")])
        await produce(kafka_bootstrap, fine, [("a", "before")])
        await daemon.start()
        # Workers that are there need nothing of the disk.
        await await_committed(kafka_bootstrap, failing, {0: 1})
        await await_committed(kafka_bootstrap, fine, {0: 1})
        fill(disk / "ballast")
        await produce(kafka_bootstrap, failing, [("a", "x" * 1000), ("a", "y" * 1000)])
        refused = await daemon.line("failure.not_stored", mapping="failing")
        assert "disk is full" in refused["error"]
        status = await daemon.status("failing")
        assert status["state"] == "holding"
        assert "disk is full" in str(status["reason"])
        await produce(kafka_bootstrap, fine, [(None, 1)])
        await await_committed(kafka_bootstrap, fine, {0: 2})
        assert len(daemon.events("batch.discarded")) == 1

        (disk / "ballast").unlink()
        await await_committed(kafka_bootstrap, failing, {0: 3})
        assert [int(each["first_position"]) for each in await daemon.failures()] == [0, 1, 2]
        assert await daemon.terminate() == 0


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 512)


async def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, disk: Path, kafka_bootstrap: str) -> None:
    daemon = Daemon(tmp_path)
    daemon.function("fine", FINE)
    daemon.mapping("fine", plain(kafka_bootstrap, "headrace-test-nobody-makes-this"))
    remount(disk, "ro")
    assert "cannot be written" in await refusal(daemon)
    remount(disk, "rw")

    async with daemon:
        await daemon.start()
        second = Daemon(tmp_path)
        second.document = {**daemon.document, "listen": f"127.0.0.1:{second.port}"}
        said = await refusal(second)
        assert "in use by another headrace" in said
        assert str(daemon.process.pid) in said
        assert await daemon.terminate() == 0

    with closing(sqlite3.connect(disk / "headrace.db")) as database:
        database.execute("PRAGMA user_version = 99")
    assert "written by a newer headrace" in await refusal(daemon)


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


async def refusal(daemon: Daemon) -> str:
    """Start a daemon that must not start; gives the one line that it says."""
    before = len(daemon.lines)
    await daemon.start(ready=False)
    assert await daemon.exit() == 1
    [line] = daemon.lines[before:]
    return str(line["text"])
