"""A configuration that changes under a daemon that works."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.conftest import MakeTopic
from tests.live.daemon import PATIENCE_S, Daemon, await_committed
from tests.live.reload_scene import NOTES, Scene


@pytest.fixture
async def scene(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic):
    topics = [await topic(1), await topic(1)]
    async with Daemon(tmp_path, {"VERSION": "1"}) as daemon:
        yield Scene(daemon, kafka_bootstrap, topics)


async def test_only_what_changed_restarts_and_what_is_in_flight_ends_first(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    scene.add("clicks", two)
    await daemon.start()
    scene.hold.touch()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    daemon.document["event_source_mappings"]["orders"]["batch_size"] = 7
    before = await scene.rewrite()
    changed = await daemon.line("mapping.changed", after=before)
    assert (changed["mapping"], changed["action"], changed["keys"]) == ("orders", "replace", ["batch_size"])
    status = await daemon.status("orders")
    assert (status["state"], status["in_flight"], status["reason"]["code"]) == ("draining", 1, "Draining")
    scene.hold.unlink()
    await daemon.line("mapping.started", mapping="orders", after=before)
    await scene.put(one, "second")
    await scene.put(two, "second")
    await scene.note("orders", '1 1 "second"')
    await scene.note("clicks", '1 1 "second"')
    assert len(daemon.events("mapping.changed")) == 1
    assert len(daemon.events("mapping.started", mapping="clicks")) == 1
    await await_committed(scene.bootstrap, one, {0: 2})
    assert await daemon.terminate() == 0
    assert scene.noted("orders") == ['1 1 "first"', '1 1 "second"'], "nothing was delivered twice"


async def test_mappings_come_and_go(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    former = dict(daemon.document["event_source_mappings"])
    scene.add("clicks", two)
    await scene.put(two, "first")
    await scene.rewrite()
    await scene.note("clicks", '1 1 "first"')
    daemon.document["event_source_mappings"] = former
    before = await scene.rewrite()
    await daemon.line("mapping.drained", mapping="clicks", after=before)
    async with asyncio.timeout(PATIENCE_S):
        while [each["name"] for each in (await daemon.command("status", "--json")).json()["mappings"]] != ["orders"]:
            pass  # its source is being closed; every turn is a command that takes a while
    await daemon.until(lambda: len(daemon.workers()) == 0, "the workers of a function that nobody uses end")
    assert not [line for line in await scene.metric("headrace_") if "clicks" in line]
    assert await daemon.terminate() == 0


async def test_a_broken_file_is_refused_again_and_again_and_the_former_one_goes_on(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    assert await scene.metric("headrace_config_usable") == ["headrace_config_usable 1.0"]
    right = json.dumps(daemon.document)
    daemon.text = right.replace('"TRIM_HORIZON"', '"SOMEWHERE", "batch_sizes": 1')
    before = await scene.rewrite()
    refused = await daemon.line("config.refused", after=before)
    assert [("starting_position" in text or "batch_sizes" in text) for text in refused["mistakes"]] == [True, True]
    daemon.text = "state: ./state\nfunctions: {"
    before = await scene.rewrite()
    await daemon.line("config.refused", after=before)
    before = len(daemon.lines)
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.line("config.refused", after=before)
    config = await scene.config()
    assert config["refused"]["mistakes"] == daemon.events("config.refused")[-1]["mistakes"]  # type: ignore[index]
    assert "refused at" in (await daemon.command("status")).out
    assert await scene.metric("headrace_config_usable") == ["headrace_config_usable 0.0"]
    await scene.put(one, "goes on")
    await scene.note("orders", '1 1 "goes on"')
    daemon.text = None
    before = await scene.rewrite()
    await scene.reloaded(after=before)
    assert (await scene.config())["refused"] is None
    assert daemon.events("mapping.changed") == []
    assert await daemon.terminate() == 0


async def test_a_function_that_changed_gets_new_workers_under_a_mapping_that_goes_on(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    scene.hold.touch()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    daemon.document["functions"]["orders"]["environment"]["VERSION"] = "2"
    before = await scene.rewrite()
    changed = await daemon.line("function.changed", after=before)
    assert changed["keys"] == ["environment.VERSION"]
    scene.hold.unlink()
    await scene.put(one, "second")
    await scene.note("orders", '2 1 "second"')
    assert daemon.events("mapping.changed") == daemon.events("mapping.drained") == []
    assert await daemon.terminate() == 0
    assert scene.noted("orders") == ['1 1 "first"', '2 1 "second"']


async def test_a_hangup_brings_code_that_changed_and_a_change_of_files_does_not(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    [worker] = daemon.workers()
    daemon.function("orders", NOTES.replace('"1")', '"new")'), **daemon.document["functions"]["orders"])
    daemon.document["event_source_mappings"]["orders"]["batch_size"] = 7
    before = await scene.rewrite()
    await scene.reloaded(after=before)
    assert daemon.workers() == [worker]
    before = len(daemon.lines)
    daemon.process.send_signal(signal.SIGHUP)
    await scene.reloaded(after=before)
    await scene.put(one, "second")
    await scene.note("orders", 'new 1 "second"')
    assert await daemon.terminate() == 0


async def test_what_needs_a_restart_is_said_and_the_rest_is_taken_on(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    listen = daemon.document["listen"]
    daemon.document |= {"listen": "127.0.0.1:1", "drain_timeout": "7s"}
    before = await scene.rewrite()
    assert (await daemon.line("config.needs_restart", after=before))["keys"] == ["listen"]
    assert daemon.events("config.reloaded")[-1]["taken_on"] == ["drain_timeout"]
    assert (await scene.config())["needs_restart"] == ["listen"]
    assert "needs a restart: listen" in (await daemon.command("status")).out
    daemon.document["listen"] = listen
    before = await scene.rewrite()
    await scene.reloaded(after=before)
    assert (await scene.config())["needs_restart"] == []
    assert await daemon.terminate() == 0
    assert daemon.events("daemon.draining")[-1]["within_s"] == 7.0


async def test_files_behind_links_and_files_that_are_replaced(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    daemon.document["functions"]["orders"]["environment"]["VERSION"] = "${file:./volume/version}"
    for number in (1, 2):
        (daemon.folder / f"..{number}").mkdir()
        (daemon.folder / f"..{number}" / "version").write_text(f"v{number}")
    # As Kubernetes exchanges a volume: the folder is a link, which a new one replaces.
    volume = daemon.folder / "volume"
    volume.symlink_to("..1")
    await daemon.start()
    await scene.put(one, "first")
    await scene.note("orders", 'v1 1 "first"')
    before = len(daemon.lines)
    (daemon.folder / "fresh").symlink_to("..2")
    (daemon.folder / "fresh").replace(volume)
    assert (await daemon.line("function.changed", after=before))["keys"] == ["environment.VERSION"]
    assert "v2" not in json.dumps(daemon.lines), "what a file brings is not told"
    await scene.put(one, "second")
    await scene.note("orders", 'v2 1 "second"')
    # As editors save: beside it, and then in its place.
    daemon.document["event_source_mappings"]["orders"]["batch_size"] = 7
    beside = daemon.folder / ".headrace.yaml.swp"
    beside.write_text(json.dumps(daemon.document))
    before = len(daemon.lines)
    beside.replace(daemon.file)
    await daemon.line("mapping.changed", mapping="orders", after=before)
    # A file that is missing is noticed when it is there again.
    before = len(daemon.lines)
    (daemon.folder / "..2" / "version").unlink()
    await daemon.line("config.refused", after=before)
    before = len(daemon.lines)
    (daemon.folder / "..2" / "version").write_text("v3")
    await daemon.line("function.changed", after=before)
    assert await daemon.terminate() == 0


async def test_a_reload_in_the_middle_of_a_retry_keeps_its_attempts(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    waits = {"base": "2s", "cap": "2s"}
    scene.add("orders", one, maximum_retry_attempts=4, retry_backoff=waits)
    await daemon.start()
    await scene.put(one, "poison")
    await daemon.until(lambda: len(scene.noted("orders")) >= 2, "it is tried again")
    daemon.document["event_source_mappings"]["orders"]["batch_size"] = 7
    before = await scene.rewrite()
    await daemon.line("mapping.started", mapping="orders", after=before)
    assert (await daemon.line("retry_state.restored", after=before))["mapping"] == "orders"
    await daemon.line("batch.discarded")
    assert await daemon.terminate() == 0
    [failure] = await daemon.failures()
    assert failure["attempts"] == 5
    assert len(scene.noted("orders")) == 5


async def test_reloads_in_quick_succession_and_a_stop_amid_one(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one)
    daemon.document["drain_timeout"] = "5s"  # from the first reload on: both, and the stop, come within it
    await daemon.start()
    scene.hold.touch()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    for size in (5, 6):
        daemon.document["event_source_mappings"]["orders"]["batch_size"] = size
        before = await scene.rewrite()
        daemon.process.send_signal(signal.SIGHUP)
        await daemon.line("mapping.changed", after=before)
    async with asyncio.timeout(30):
        assert await daemon.terminate() == 0
    assert len(daemon.events("mapping.started")) == 1
    scene.hold.unlink()
    await daemon.start()
    await await_committed(scene.bootstrap, one, {0: 1})
    assert await daemon.terminate() == 0
    assert scene.noted("orders") == ['1 1 "first"'] * 2, "what was cut off came again"


async def test_what_a_reload_would_change_is_shown_before_it_does(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    scene.add("clicks", two)
    daemon.document["functions"]["orders"]["environment"]["VERSION"] = "${env:VERSION}"
    daemon.write()
    done = await daemon.command("check", "--diff")
    assert (done.status, "no headrace runs" in done.err) == (3, True)
    await daemon.start()
    candidate = daemon.folder / "candidate.yaml"
    daemon.document["functions"]["orders"]["environment"]["SECRET"] = "s3cret"
    daemon.document["event_source_mappings"]["orders"]["batch_size"] = 7
    daemon.document["event_source_mappings"]["clicks"]["source"]["kafka"]["topic"] = "elsewhere"
    candidate.write_text(json.dumps(daemon.document))
    done = await daemon.command("check", str(candidate), "--diff")
    assert done.status == 0, done.err
    shown = [line.split() for line in done.out.splitlines()]
    assert ["replace", "mapping", "orders", "batch_size"] in shown
    assert ["renew", "function", "orders", "environment.SECRET"] in shown
    assert "headrace mapping accept clicks" in done.out
    assert "s3cret" not in done.out
    done = await daemon.command("check", str(candidate), "--diff", "--json")
    assert [(each["name"], each["action"]) for each in done.json()["mappings"]] == [
        ("orders", "replace"),
        ("clicks", "replace"),
    ]
    candidate.write_text(json.dumps({"state": "./state", "functions": {"orders": {}}}))
    done = await daemon.command("check", str(candidate), "--diff", "--json")
    assert (done.status, done.json()["valid"]) == (2, False)
    done = await daemon.command("check", "--diff")
    assert "2 of 2 mappings go on untouched" in done.out
    assert daemon.events("config.reloaded") == []
    assert await daemon.terminate() == 0


async def test_a_function_that_comes_back_while_its_last_work_ends_is_the_new_one(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    scene.add("clicks", two)
    await daemon.start()
    scene.hold.touch()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    mapping = daemon.document["event_source_mappings"]["orders"]
    for function, version in (("clicks", "1"), ("orders", "2")):
        mapping["function"] = function
        daemon.document["functions"]["orders"]["environment"]["VERSION"] = version
        before = await scene.rewrite()
        await daemon.line("mapping.changed", mapping="orders", after=before)
    scene.hold.unlink()
    await scene.put(one, "second")
    await scene.note("orders", '2 1 "second"')
    assert await daemon.terminate() == 0
    assert scene.noted("orders") == ['1 1 "first"', '2 1 "second"']
    assert scene.noted("clicks") == []
