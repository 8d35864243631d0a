"""Mappings that get another name or another source, and what becomes of what they kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.conftest import MakeTopic
from tests.live.daemon import PATIENCE_S, Daemon, await_committed, committed, plain
from tests.live.reload_scene import Scene


@pytest.fixture
async def scene(tmp_path: Path, kafka_bootstrap: str, topic: MakeTopic):
    topics = [await topic(1), await topic(1)]
    async with Daemon(tmp_path) as daemon:
        yield Scene(daemon, kafka_bootstrap, topics)


async def test_a_rename_carries_failures_and_progress_over_while_it_runs(scene: Scene) -> None:
    daemon, (one, _) = scene.daemon, scene.topics
    scene.add("orders", one, maximum_retry_attempts=0)
    del daemon.document["event_source_mappings"]["orders"]["source"]["kafka"]["consumer_group"]
    await daemon.start()
    await scene.put(one, "poison")
    await daemon.line("batch.discarded", mapping="orders")
    mapping = daemon.document["event_source_mappings"].pop("orders")
    daemon.document["event_source_mappings"]["purchases"] = {**mapping, "renamed_from": "orders"}
    before = await scene.rewrite()
    assert (await daemon.line("mapping.renamed", after=before))["failures"] == 1
    await daemon.line("mapping.started", mapping="purchases", after=before)
    await scene.put(one, "second")
    await scene.note("orders", '1 1 "second"')
    assert [each["mapping"] for each in await daemon.failures()] == ["purchases"]
    assert {offset for offset, _ in (await committed(scene.bootstrap, one, "orders")).values()} <= {1, 2}
    assert daemon.events("position.pinned", mapping="purchases") == [], "it goes on in its former group"
    # Without the key the group would be another one, and the topic be read again: that is refused.
    del daemon.document["event_source_mappings"]["purchases"]["renamed_from"]
    before = await scene.rewrite()
    await daemon.line("mapping.refused", mapping="purchases", reason="SourceChanged", after=before)
    daemon.document["event_source_mappings"]["purchases"]["source"]["kafka"]["consumer_group"] = "orders"
    before = await scene.rewrite()
    await daemon.line("mapping.started", mapping="purchases", after=before)
    done = await daemon.command("failures", "replay", "--all", "--json")
    assert '"outcome":"failed_again"' in done.out.replace(" ", ""), done.err
    assert await daemon.terminate() == 0
    assert scene.noted("orders").count('1 1 "second"') == 1, "nothing was read again"


async def test_another_source_waits_until_it_is_accepted(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    await scene.put(one, "first")
    await scene.note("orders", '1 1 "first"')
    await scene.put(two, "other")
    await await_committed(scene.bootstrap, one, {0: 1})
    daemon.mapping("orders", plain(scene.bootstrap, two))
    before = await scene.rewrite()
    await daemon.line("mapping.refused", mapping="orders", reason="SourceChanged", after=before)
    status = await daemon.status("orders")
    assert (status["state"], status["reason"]["code"]) == ("failed", "SourceChanged")
    assert "headrace mapping accept orders" in status["reason"]["message"]
    assert await daemon.terminate() == 0
    before = len(daemon.lines)
    await daemon.start()
    # A restart does not accept it.
    await daemon.line("mapping.refused", mapping="orders", reason="SourceChanged", after=before)
    before = len(daemon.lines)
    done = await daemon.command("mapping", "accept", "orders", "--json")
    was = f"kafka:{one} as {one}"
    assert done.json() == {"mapping": "orders", "accepted": True, "was": was, "running": True}
    await daemon.line("mapping.started", mapping="orders", after=before)
    await scene.note("orders", '1 1 "other"')
    assert (await daemon.command("mapping", "accept", "orders")).status == 1
    assert await daemon.terminate() == 0


async def test_another_source_can_be_accepted_while_nothing_runs(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one)
    await daemon.start()
    assert await daemon.terminate() == 0
    daemon.mapping("orders", plain(scene.bootstrap, two))
    daemon.write()
    done = await daemon.command("mapping", "accept", "orders")
    assert f"had read kafka:{one} as {one}; its next start begins with its source" in done.out
    await daemon.start()
    assert daemon.events("mapping.refused") == []
    assert await daemon.terminate() == 0


async def test_what_a_mapping_left_stays_until_it_is_forgotten(scene: Scene) -> None:
    daemon, (one, two) = scene.daemon, scene.topics
    scene.add("orders", one, maximum_retry_attempts=0)
    scene.add("clicks", two)
    await daemon.start()
    await scene.put(one, "poison")
    await daemon.line("batch.discarded", mapping="orders")
    done = await daemon.command("mapping", "forget", "orders", "--yes")
    assert (done.status, "mapping orders runs" in done.err) == (1, True)
    del daemon.document["event_source_mappings"]["orders"]
    before = await scene.rewrite()
    await daemon.line("mapping.drained", mapping="orders", after=before)
    async with asyncio.timeout(PATIENCE_S):
        while "mapping orders runs" in (done := await daemon.command("mapping", "forget", "orders")).err:
            pass  # its source is closed only now
    assert (done.status, "--yes is needed" in done.err) == (2, True)
    assert len(await daemon.failures()) == 1
    done = await daemon.command("mapping", "forget", "orders", "--yes")
    assert "orders: deleted 1 state and 1 failure" in done.out
    assert f"It read kafka:{one} as {one}" in done.out
    assert await daemon.failures() == []
    assert (await daemon.command("mapping", "forget", "orders", "--yes")).status == 1
    assert await daemon.terminate() == 0
    done = await daemon.command("mapping", "forget", "clicks", "--yes", "--json")
    kept = {"states": 1, "failures": 0, "undelivered": 0, "source": f"kafka:{two} as {two}"}
    assert done.json() == {"mapping": "clicks", "deleted": kept}
