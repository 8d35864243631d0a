"""`headrace demo --kafka` as people and machines run it, on a real Kafka that is named to it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from router.demo import acts as demo_acts
from router.demo import kafka_story as demo_kafka
from router.demo.show import JsonLines
from router.demo.stage import EXAMPLES, DemoFailed, Project, Service
from router.demo.topics import Topics

COMMAND = Path(sys.executable).with_name("headrace")
TIMEOUT_S = 120


@pytest.fixture
def stage(tmp_path, kafka_bootstrap):
    """The environment of a demo whose temporary folders are in `tmp_path`."""
    return {**os.environ, "HEADRACE_DEMO_KAFKA": kafka_bootstrap, "TMPDIR": str(tmp_path)}


async def until_gone(bootstrap, topic):
    """Wait until Kafka shows a topic no more: the broker hears of a deletion some time after that was acknowledged."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while topic in await admin.list_topics():
                pass  # every turn is a round trip to the broker
    finally:
        await admin.close()


def run(stage, *arguments):
    return subprocess.run(
        [COMMAND, "demo", "--kafka", *arguments],
        env=stage,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


async def test_machines_get_every_step_and_exit_status_0_and_nothing_is_left(stage, tmp_path, kafka_bootstrap):
    done = await asyncio.to_thread(run, stage, "--json")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    by_name = {step["step"]: step for step in steps}
    assert [step["step"] for step in steps if step["step"] != "kafka"] == [
        "service",
        "flow",
        "bisect",
        "kept",
        "dead_letter",
        "fix",
        "restart",
        "replay",
        "done",
        "next",
    ]
    assert by_name["bisect"]["sizes"] == sorted(by_name["bisect"]["sizes"], reverse=True)
    assert by_name["kept"]["failure"]["batch_size"] == 1
    assert by_name["dead_letter"]["condition"] == "RetriesExhausted"
    assert by_name["replay"]["failure"]["status"] == "replayed"
    assert by_name["done"]["orders"] == demo_kafka.ORDERS
    assert list(tmp_path.iterdir()) == []
    await until_gone(kafka_bootstrap, by_name["kafka"]["topic"])


async def test_an_interrupted_demo_leaves_nothing_behind(stage, tmp_path, kafka_bootstrap):
    process = await asyncio.create_subprocess_exec(
        COMMAND, "demo", "--kafka", "--json", env=stage, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(TIMEOUT_S):
        topic = json.loads(await process.stdout.readline())["topic"]
        service = json.loads(await process.stdout.readline())
        assert service["step"] == "service"
        assert Path(service["file"]).is_relative_to(tmp_path)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert list(tmp_path.iterdir()) == []
    await until_gone(kafka_bootstrap, topic)


def test_a_kafka_that_does_not_answer_is_one_line_and_exit_status_1(stage, tmp_path):
    done = run({**stage, "HEADRACE_DEMO_KAFKA": "127.0.0.1:1"})
    assert (done.returncode, done.stdout) == (1, "")
    assert "headrace: Kafka at 127.0.0.1:1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bug", "repair", "complaint", "patience_s"),
    [
        # The handler never fails: there is nothing to show.
        (demo_acts.BUG, demo_acts.REPAIR, "the poison record is given up", 8.0),
        # The handler loses what it should have written down; the poison record must be given up before.
        ("write(", "str(", "all else is processed", 20.0),
    ],
)
async def test_the_story_ends_where_it_is_not_true(kafka_bootstrap, bug, repair, complaint, patience_s):
    async with Topics.made(kafka_bootstrap, keep=False) as topics:
        with Project.made(os.environ, keep=False) as project:
            demo_kafka.set_up(project, topics)
            assert bug in (EXAMPLES / demo_kafka.HANDLER).read_text()
            project.fix(demo_kafka.HANDLER, bug, repair)
            service = Service(project)
            try:
                with pytest.RaisesGroup(pytest.RaisesExc(DemoFailed, match=complaint)):
                    await demo_kafka.Story(JsonLines(), topics, project, service, patience_s=patience_s).play()
            finally:
                assert await service.stop() == 0
