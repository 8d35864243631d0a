"""The commands and HTTP of a real daemon on a real Kafka, as an operator uses them."""

import asyncio
import json
import os
import signal
import stat

import aiohttp
import pytest

from router.commands.control_client import SOCKET_NAME
from tests.live.daemon import Daemon, plain, produce

BROKEN = """
import base64, json

def handle(event, context):
    for records in event["records"].values():
        for record in records:
            if json.loads(base64.b64decode(record["value"])) is None:
                raise ValueError("no total")
"""
FIXED = "def handle(event, context): ..."

#: Bisects quickly, and gives a lone poison record up after its first retry.
QUICK = {
    "batch_size": 10,
    "maximum_retry_attempts": 1,
    "bisect_batch_on_function_error": True,
    "retry_backoff": {"base": "50ms", "cap": "100ms"},
}


async def started(folder, bootstrap, topic, **parameters):
    daemon = Daemon(folder)
    daemon.function("orders", BROKEN)
    daemon.mapping("orders", plain(bootstrap, topic), **{**QUICK, **parameters})
    await daemon.start()
    return daemon


async def fetch(daemon, path):
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{daemon.port}{path}") as answer:
        return answer.status, await answer.text()


async def until_idle(daemon, position):
    """Wait until everything is committed up to a position; gives the mapping's status."""
    async with asyncio.timeout(30):
        while True:
            mapping = await daemon.status("orders")
            if [shard["position"] for shard in mapping["shards"]] == [position] and mapping["state"] == "idle":
                return mapping


async def test_a_failure_is_found_shown_replayed_and_replayed_again(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await produce(kafka_bootstrap, name, [(f"k{n % 3}", None if n == 7 else {"n": n}) for n in range(19)])
        await produce(kafka_bootstrap, name, [("bad", b"null")])
        [first] = [await daemon.line("batch.discarded", mapping="orders", first_position=19)]
        mapping = await until_idle(daemon, 19)
        assert (mapping["source"], mapping["lag_records"], mapping["lag_seconds"]) == (f"kafka:{name}", 0, 0.0)
        assert mapping["records_per_second"] >= 0

        failures = await daemon.failures("--key", "bad")
        assert [(each["id"], each["batch_size"], each["error_type"]) for each in failures] == [
            (first["failure"], 1, "ValueError")
        ]
        whole = (await daemon.command("failures", "show", first["failure"], "--json")).json()
        assert whole["event"]["records"][f"{name}-0"][0]["offset"] == 19
        assert "no total" in whole["tries"][-1]["error"]["message"]

        again = await daemon.command("failures", "replay", first["failure"], "--json")
        assert again.status == 1
        end, summary = map(json.loads, again.out.splitlines())
        assert (end["id"], end["outcome"]) == (first["failure"], "failed_again")
        assert summary == {"summary": {"replayed": 0, "failed_again": 1, "refused": 0}}
        [child] = await daemon.failures("--status", "stored", "--key", "bad")
        assert (child["id"], child["parent"]) == (end["new_failure"], first["failure"])

        assert await daemon.terminate() == 0
        daemon.function("orders", FIXED)
        await daemon.start()
        done = await daemon.command("failures", "replay", "--all", "--yes")
        assert done.status == 0, done.err
        assert "replayed" in done.out
        assert {each["id"]: each["status"] for each in await daemon.failures("--key", "bad")} == {
            first["failure"]: "failed_again",
            child["id"]: "replayed",
        }
        assert await daemon.terminate() == 0


async def test_replays_keep_to_their_rate(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await produce(kafka_bootstrap, name, [("bad", b"null")] * 5)
        await until_idle(daemon, 4)
        clock = asyncio.get_running_loop().time
        began_s = clock()
        done = await daemon.command("failures", "replay", "--all", "--rate", "5", "--json")
        assert clock() - began_s >= 0.8
        assert done.status == 1
        assert json.loads(done.out.splitlines()[-1])["summary"]["failed_again"] == 5


async def test_drop_goes_through_the_running_daemon(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await produce(kafka_bootstrap, name, [("bad", b"null")] * 2)
        await until_idle(daemon, 1)
        done = await daemon.command("failures", "drop", "--all", "--yes", "--json")
        assert done.status == 0, done.err
        assert len(done.json()["dropped"]) == 2
        assert {each["status"] for each in await daemon.failures()} == {"dropped"}
        refused = await daemon.command("failures", "replay", done.json()["dropped"][0], "--json")
        assert refused.status == 1
        assert json.loads(refused.out.splitlines()[-1])["summary"]["refused"] == 1


async def test_a_backup_is_made_while_the_daemon_runs(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await produce(kafka_bootstrap, name, [("bad", b"null")])
        await until_idle(daemon, 0)
        kept = await daemon.failures()
        assert (await daemon.command("state", "backup", "copy.db")).status == 0
        assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600
        await daemon.terminate()
        (tmp_path / "copy.db").replace(daemon.state / "headrace.db")
        assert await daemon.failures() == kept
        assert len(kept) == 1


async def test_metrics_and_status_follow_the_lag_of_a_slow_function(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with Daemon(tmp_path) as daemon:
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        daemon.function("orders", f"def handle(event, context): open({str(gate)!r}).read()", timeout=60)
        daemon.mapping("orders", plain(kafka_bootstrap, name), batch_size=10)
        await daemon.start()
        await produce(kafka_bootstrap, name, [("k", n) for n in range(30)])
        writing = await asyncio.to_thread(gate.open, "w")  # opens once the function reads
        # How far the topic goes is known from what was fetched last.
        mapping = await daemon.until_status("orders", lambda found: found["lag_records"] == 30, "all is behind")
        assert mapping["state"] == "running"
        assert mapping["in_flight"] > 0
        assert mapping["lag_seconds"] > 0
        wanted = {
            'headrace_sum_offset_lag{mapping="orders"} 30.0',
            'headrace_polled_event_count_total{mapping="orders"} 30.0',
        }
        async with asyncio.timeout(30):
            while not wanted <= set((await fetch(daemon, "/metrics"))[1].splitlines()):
                pass  # every turn is a request
        writing.close()
        await daemon.kill()


async def test_a_mapping_without_its_broker_says_why_and_the_others_run(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", FIXED)
        daemon.mapping("orders", plain(kafka_bootstrap, name))
        daemon.mapping("away", plain("127.0.0.1:1", name), function="orders")
        await daemon.start()
        away = await daemon.status("away")
        assert (away["state"], away["reason"]["code"]) == ("starting", "SourceUnavailable")
        assert "127.0.0.1:1" in away["reason"]["message"]
        assert "\n" not in away["reason"]["message"]
        assert (await daemon.status("orders"))["state"] == "idle"
        assert (await fetch(daemon, "/health/ready?mapping=orders"))[0] == 200
        assert (await fetch(daemon, "/health/ready?mapping=away"))[0] == 503
        shown = await daemon.command("status")
        assert "away: SourceUnavailable: " in shown.out
        assert await daemon.terminate() == 0


async def test_a_second_daemon_is_refused_with_the_reason(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        second = await daemon.command("run")
        assert second.status == 1
        assert second.err.startswith("headrace: ")
        assert f"process {daemon.process.pid}" in second.err
        assert (await daemon.command("status")).status == 0


async def test_a_port_that_is_taken_is_one_line_and_exit_status_1(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    async with await started(tmp_path / "first", kafka_bootstrap, name) as first, Daemon(tmp_path / "second") as second:
        second.function("orders", FIXED)
        second.mapping("orders", plain(kafka_bootstrap, await topic()))
        second.document["listen"] = f"127.0.0.1:{first.port}"
        await second.start(ready=False)
        assert await second.exit() == 1
        [complaint] = [line["text"] for line in second.lines if "text" in line]
        assert f"127.0.0.1:{first.port}: Address already in use" in complaint


async def test_the_socket_of_a_killed_daemon_is_replaced_and_that_of_a_stopped_one_removed(
    tmp_path, kafka_bootstrap, topic
):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await daemon.kill()
        assert (daemon.state / SOCKET_NAME).exists()
        assert (await daemon.command("status")).status == 3
        await daemon.start()
        assert (await daemon.command("status")).status == 0
        assert await daemon.terminate() == 0
        assert not (daemon.state / SOCKET_NAME).exists()


async def test_a_drain_does_not_wait_for_who_watches_a_replay(tmp_path, kafka_bootstrap, topic):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        await produce(kafka_bootstrap, name, [("bad", b"null")] * 3)
        await until_idle(daemon, 2)
        await daemon.until(lambda: len(daemon.events("batch.discarded")) == 3, "all are given up")
        # One now, the next in a minute: the job is not over when the daemon stops.
        watching = asyncio.create_task(daemon.command("failures", "replay", "--all", "--rate", "0.02", "--json"))
        await daemon.until(lambda: len(daemon.events("batch.discarded")) == 4, "one is given up again")
        assert await daemon.terminate() == 0
        watched = await watching
        assert watched.status == 3
        assert "stopped before the replay was over" in watched.err


async def test_check_connect_names_what_cannot_be_reached(tmp_path, kafka_bootstrap, topic):
    async with Daemon(tmp_path) as daemon:
        daemon.function("orders", FIXED)
        daemon.mapping("orders", plain(kafka_bootstrap, await topic()))
        daemon.mapping("gone", plain(kafka_bootstrap, "headrace-test-no-such-topic"), function="orders")
        daemon.file.write_text(json.dumps(daemon.document))
        done = await daemon.command("check", "--connect", "--json")
        assert done.status == 1
        assert {check["name"]: check["ok"] for check in done.json()["checks"]} == {
            "event_source_mappings.orders.source": True,
            "event_source_mappings.gone.source": False,
            "functions.orders": True,
        }
        assert not daemon.state.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_both_signals_drain_and_end_with_0(tmp_path, kafka_bootstrap, topic, number):
    name = await topic()
    async with await started(tmp_path, kafka_bootstrap, name) as daemon:
        daemon.process.send_signal(number)
        assert await daemon.exit() == 0
        assert [line["event"] for line in daemon.lines][-1] == "daemon.stopped"
        assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in daemon.lines)
