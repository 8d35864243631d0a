"""A daemon as a container has it: a read-only root, a user without rights, one folder to write to."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.daemon import COMMAND, Daemon, await_committed, plain, produce

#: In a mount namespace of its own: everything is read-only but the folder given first.
CONTAIN = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec setpriv "$@"'
CURIOUS = """
    import os

    def handle(event, context):
        for folder in (os.path.dirname(__file__), "/etc", "/var"):
            try:
                open(os.path.join(folder, "headrace-was-here"), "w")
            except OSError as error:
                print(folder, "is closed:", error.strerror)
        for secret in ("environ", "mem"):
            try:
                open(f"/proc/{os.getppid()}/{secret}")
            except OSError as error:
                print(secret, "is closed:", error.strerror)
        print("user", os.getuid())
"""


def contained(user: int, writable: Path) -> list[str]:
    """Give the start of a command that runs the rest in there."""
    rights = (f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    return ["unshare", "-m", "sh", "-c", CONTAIN, str(writable), *rights, "--inh-caps=-all"]


def succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others can enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="headrace-test-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("user", [65534, 0], ids=["nobody", "root without rights"])
async def test_nothing_but_the_state_directory_is_written(
    open_folder: Path, kafka_bootstrap: str, topic: Any, user: int
) -> None:
    async with Daemon(open_folder) as daemon:
        daemon.state.mkdir(mode=0o700)
        through = contained(user, daemon.state)
        # With a shell between: what setpriv itself starts may still read what the user may not.
        if not succeeds([*through, "sh", "-c", f"{COMMAND} --version && :"]):
            pytest.skip("this needs root, unshare, setpriv, and an installation that the user can read")
        os.chown(daemon.state, user, user)
        name = await topic()
        code = daemon.function("orders", CURIOUS).parent
        daemon.mapping("orders", plain(kafka_bootstrap, name))
        daemon.through = through
        await daemon.start()
        await produce(kafka_bootstrap, name, [("key", 1)])
        await await_committed(kafka_bootstrap, name, {0: 1})
        log = daemon.state / "logs" / "orders.log"
        await daemon.until(lambda: log.exists() and f"user {user}" in log.read_text(), "the handler's log is written")
        assert log.read_text().count(" is closed: ") == 5
        assert await daemon.terminate() == 0
        assert [path.name for path in code.iterdir()] == ["app.py"]
        assert {path.stat().st_uid for path in daemon.state.rglob("*")} == {user}
        assert [each for each in daemon.state.rglob("*") if each.is_file() and each.stat().st_mode & 0o077] == []
