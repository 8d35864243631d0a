"""Commands on the state of a daemon that runs: copied, compacted and freed of a key without stopping it."""

from __future__ import annotations

from tests.live.daemon import Daemon, await_committed, plain, produce

POISON = """
def handle(event, context):
    raise ValueError("no total")
"""


async def test_the_state_of_a_running_daemon_is_kept_in_order(tmp_path, kafka_bootstrap, topic):
    name = await topic(1)
    async with Daemon(tmp_path) as daemon:
        daemon.function("failing", POISON)
        daemon.mapping("failing", plain(kafka_bootstrap, name), batch_size=10, maximum_retry_attempts=0)
        await produce(kafka_bootstrap, name, [("alice", "secret-1"), ("bob", "2"), ("alice", "secret-3")])
        await daemon.start()
        await await_committed(kafka_bootstrap, name, {0: 3})

        erased = await daemon.command("state", "erase", "--key", "alice", "--yes", "--json")
        assert (erased.status, erased.json()["records"], erased.json()["kept"]) == (0, 2, []), erased.err
        left = [
            record
            for failure in await daemon.failures()
            for records in (await daemon.command("failures", "show", failure["id"], "--json"))
            .json()["event"]["records"]
            .values()
            for record in records
        ]
        assert [record["offset"] for record in left] == [1]
        state = tmp_path / "state"
        files = b"".join(path.read_bytes() for path in state.glob("headrace.db*"))
        assert b"alice" not in files

        assert (await daemon.command("state", "compact")).status == 0
        assert (await daemon.command("state", "backup", str(tmp_path / "copy.db"))).status == 0
        assert (tmp_path / "copy.db").stat().st_size > 0
        upgraded = await daemon.command("state", "upgrade")
        assert (upgraded.status, "nothing to do" in upgraded.out) == (0, True)
        assert await daemon.terminate() == 0
