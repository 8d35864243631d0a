"""Each worker has a folder of its own to write in, which goes with it."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from handlers import scratch
from router.core.model import Refused
from tests.handlers.conftest import Shop, eventually

BOTH_WAYS = True

WRITES = """
    import os, tempfile
    tempfile.gettempdir()  # asked for at import, as many libraries do

    def handle(event, context):
        path = os.path.join(tempfile.gettempdir(), "written")
        count = os.path.getsize(path) + 1 if os.path.exists(path) else 0
        with open(path, "a") as file:
            file.write("x")
        with tempfile.NamedTemporaryFile() as file:
            assert os.path.dirname(file.name) == os.environ["TMPDIR"]
        return [os.environ["TMPDIR"], count]
"""


def folders(shop: Shop) -> list[Path]:
    place = shop.folder / "state" / "scratch"
    return sorted(place.iterdir()) if place.exists() else []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_worker_writes_to_a_folder_of_its_own_that_stays_between_invocations(shop: Shop) -> None:
    pool = shop.pool(WRITES, concurrency=1)
    first, second = [(await shop.invoke(pool)).body for _ in range(2)]
    assert first[0] == second[0]
    assert [first[1], second[1]] == [0, 2]
    folder = Path(first[0])
    assert folder in folders(shop)
    assert [mode(folder), mode(folder.parent)] == [0o700, 0o700]


async def test_no_two_workers_share_a_folder(shop: Shop) -> None:
    source = """
        import os, tempfile, time
        tempfile.gettempdir()
        def handle(event, context):
            open(os.path.join(event, str(os.getpid())), "w").close()
            while len(os.listdir(event)) < 3:
                time.sleep(0.01)
            return tempfile.gettempdir()
    """
    meeting = shop.folder / "meeting"
    meeting.mkdir()
    pool = shop.pool(source, concurrency=3, timeout_s=30)
    outcomes = await asyncio.gather(*(shop.invoke(pool, str(meeting)) for _ in range(3)))
    assert len({outcome.body for outcome in outcomes}) == 3


async def test_the_folder_goes_with_its_worker_whatever_is_in_it(shop: Shop) -> None:
    source = """
        import os, sys
        def handle(event, context):
            folder = os.path.join(os.environ["TMPDIR"], "closed", "deeper")
            os.makedirs(folder)
            open(os.path.join(folder, "file"), "w").close()
            os.symlink(event, os.path.join(os.environ["TMPDIR"], "link"))
            os.chmod(os.path.dirname(folder), 0)
            sys.exit(1)
    """
    kept = shop.folder / "kept"
    kept.mkdir(mode=0o755)
    kept.joinpath("file").write_text("theirs")
    pool = shop.pool(source)
    await shop.invoke(pool, str(kept))
    await pool.close()
    await eventually(lambda: folders(shop) == [], "nothing is left")
    assert kept.joinpath("file").read_text() == "theirs"
    assert mode(kept) == 0o755


async def test_a_function_may_have_a_place_of_its_own(shop: Shop) -> None:
    place = shop.folder / "place"
    place.mkdir()
    assert (await shop.run(WRITES, environment={"TMPDIR": str(place)})).body[0] == str(place)


async def test_a_disk_that_takes_no_folder_starts_no_worker_and_says_so(shop: Shop) -> None:
    state = shop.folder / "state"
    state.mkdir()
    state.joinpath("scratch").write_text("a file where the folder should be")
    pool = shop.pool(WRITES)
    outcome = await shop.invoke(pool)
    assert isinstance(outcome, Refused)
    assert not outcome.initialising
    assert "cannot start a worker of function orders" in outcome.error.message
    assert "scratch" in outcome.error.message
    state.joinpath("scratch").unlink()
    assert (await shop.invoke(pool)).body[1] == 0


MAKES = "import sys; from pathlib import Path; from handlers.scratch import make; print(make(Path(sys.argv[1])))"


def test_what_a_daemon_has_left_that_was_killed_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", MAKES, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    left = Path(made.stdout.strip())
    left.joinpath("file").write_text("left")
    used = scratch.make(tmp_path)
    scratch.sweep(tmp_path)
    assert not left.exists()
    assert used.exists()


def test_the_name_leaves_room_for_names_of_sockets() -> None:
    with tempfile.TemporaryDirectory() as state:
        assert len(str(scratch.make(Path(state)))) - len(state) < 45
        assert scratch.make(Path(state)).is_absolute()
