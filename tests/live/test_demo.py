"""`headrace demo` as people and machines run it: with nothing but Python, and with nothing left behind."""

import asyncio
import codecs
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from router.demo import acts as demo_acts
from router.demo import story as demo
from router.demo.aws import BUCKET, DEAD_LETTERS, ORDERS, UPLOAD_EVENTS, Aws
from router.demo.show import JsonLines
from router.demo.stage import EXAMPLES, DemoFailed, Project, Service

COMMAND = Path(sys.executable).with_name("headrace")
TIMEOUT_S = 120

pytestmark = pytest.mark.skipif(find_spec("ministack") is None, reason="the extra `demo` is not installed: make demo")


@pytest.fixture
def stage(tmp_path):
    """The environment of a demo with its temporary folders in `tmp_path`; AWS settings and proxies are in it."""
    disturbing = {
        "AWS_PROFILE": "no-such-profile",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "GATEWAY_PORT": "1",
        "PERSIST_STATE": "1",
    }
    return {**os.environ, **disturbing, "TMPDIR": str(tmp_path)}


def processes(folder):
    """Give the processes that have to do with a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            about = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            if str(folder).encode() in about and int(process.name) != os.getpid():
                found.add(int(process.name))
    return found


def command_line(process):
    """Give its command line; nothing once it has ended."""
    try:
        return Path("/proc", str(process), "cmdline").read_bytes()
    except OSError:
        return b""


@asynccontextmanager
async def running(stage, *arguments):
    """Run the demo for machines."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, "demo", "--json", *arguments, env=stage, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def until_it_is_so(fact):
    """Wait for something that nobody announces."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not fact():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


async def until(process, name):
    """Read steps to the one of this name."""
    async for line in process.stdout:
        step = json.loads(line)
        if step["step"] == name:
            return step
    raise AssertionError(f"it ended before {name}: {(await process.stderr.read()).decode()}")


async def test_machines_get_every_step_and_exit_status_0_and_nothing_is_left(stage, tmp_path):
    with ExitStack() as taken:
        for port in (4566, 9301):  # where such servers and the service usually listen
            with suppress(OSError):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
        async with running(stage) as process:
            out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    steps = [json.loads(line) for line in out.splitlines()]
    by_name = {step["step"]: step for step in steps}
    assert [step["step"] for step in steps] == [
        "aws",
        "setup",
        "service",
        "flow",
        "bisect",
        "kept",
        "list",
        "show",
        "failure_record",
        "fix",
        "restart",
        "replaying",
        "replay",
        "done",
        "next",
    ]
    sizes = by_name["bisect"]["sizes"]
    assert sizes == sorted(sizes, reverse=True)
    assert by_name["kept"]["failure"]["batch_size"] == 1
    [[listed]] = by_name["list"]["output"]
    [shown] = by_name["show"]["output"]
    assert listed["id"] == shown["id"] == by_name["kept"]["failure"]["id"]
    assert json.loads(shown["event"]["Records"][0]["body"])["order"] == demo.POISON
    assert by_name["replay"]["output"][-1]["summary"]["replayed"] == 1
    assert (by_name["done"]["orders"], by_name["done"]["uploads"]) == (demo.ORDER_COUNT, demo.UPLOAD_COUNT)
    assert list(tmp_path.iterdir()) == []
    assert processes(tmp_path) == set()


def test_a_person_sees_it_and_may_look_around_until_ctrl_c(stage, tmp_path):
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [COMMAND, "demo", "--keep"], env=stage, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        text, decoder = "", codecs.getincrementaldecoder("utf-8")()
        while "The folder stays" not in text:
            text += decoder.decode(os.read(ours, 65536))
        exported = [shlex.split(line) for line in re.findall(r"export (.*)\r", text)]
        shell = {**os.environ, **dict(pair.split("=", 1) for pairs in exported for pair in pairs)}
        upload = f"import boto3; boto3.client('s3').put_object(Bucket={BUCKET!r}, Key='in/my.csv', Body=b'row')"
        subprocess.run([sys.executable, "-c", upload], env=shell, check=True)
        [folder] = tmp_path.iterdir()
        until_it_is_so(lambda: "1 in/my.csv" in (folder / demo.PROCESSED_UPLOADS).read_text())
        status = subprocess.run(
            [COMMAND, "status", "--json"], env=shell, capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        )
        assert [each["name"] for each in json.loads(status.stdout)["mappings"]] == ["orders", "uploads"]
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    os.close(ours)
    assert re.search(r"orders sent .*\d+/400", text), "a bar"
    assert "$ headrace failures list" in text
    assert f"All {demo.ORDER_COUNT} orders and {demo.UPLOAD_COUNT} uploads are processed" in text
    assert "every try, and the event" in text
    assert (folder / "headrace.yaml").exists()
    assert processes(tmp_path) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", ["aws", "bisect"])
async def test_an_interrupted_demo_leaves_nothing_behind(stage, tmp_path, step, number):
    async with running(stage) as process:
        await until(process, step)
        process.send_signal(number)
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert list(tmp_path.iterdir()) == []
    assert processes(tmp_path) == set()


async def test_a_killed_demo_leaves_no_process(stage, tmp_path):
    async with running(stage) as process:
        await until(process, "bisect")
        assert len(processes(tmp_path)) >= 5, "the demo, the emulator, the leash, the service, workers"
        process.kill()
        await asyncio.to_thread(until_it_is_so, lambda: not processes(tmp_path))


async def test_an_emulator_that_dies_is_one_line_and_exit_status_1(stage, tmp_path):
    async with running(stage) as process:
        await until(process, "flow")
        [emulator] = [each for each in processes(tmp_path) if b"ministack_program" in command_line(each)]
        os.kill(emulator, signal.SIGKILL)
        _, err = await process.communicate()
    assert process.returncode == 1
    [line] = err.decode().splitlines()
    assert line.startswith("headrace: the emulator of AWS refused something, or ended: ")
    assert list(tmp_path.iterdir()) == []
    assert processes(tmp_path) == set()


def test_without_the_extra_it_says_what_to_install_and_exit_status_2():
    program = "import sys; sys.modules['ministack'] = None; from router.cli import main; sys.exit(main(['demo']))"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert "make demo" in line
    assert "pip install 'ministack==1.4.21' 'hypercorn" in line


@pytest.mark.parametrize(
    ("handler", "bug", "repair", "complaint", "patience_s"),
    [
        # The handler never fails: there is nothing to show.
        (demo.ORDERS_HANDLER, demo_acts.BUG, demo_acts.REPAIR, "the poison record is given up", 8.0),
        # The handler loses what it should have written down; the poison record must be given up before.
        (demo.ORDERS_HANDLER, "write(", "str(", "all else is processed", 30.0),
        (demo.UPLOADS_HANDLER, "output.write(", "str(", "all else is processed", 30.0),
    ],
)
async def test_the_story_ends_where_it_is_not_true(handler, bug, repair, complaint, patience_s):
    async with Aws.running() as aws:
        with Project.made({}, keep=False) as project:
            demo.set_up(project, aws.url)
            assert bug in (EXAMPLES / handler).read_text()
            project.fix(handler, bug, repair)
            service = Service(project)
            try:
                with pytest.RaisesGroup(pytest.RaisesExc(DemoFailed, match=complaint)):
                    await demo.Story(JsonLines(), aws, project, service, patience_s=patience_s).play()
            finally:
                assert await service.stop() == 0


# --- what the story needs of the emulator


@pytest.fixture
async def aws():
    async with Aws.running() as aws:
        await aws.set_up()
        yield aws


async def url(aws, queue):
    return (await aws.sqs.get_queue_url(QueueName=queue))["QueueUrl"]


async def receive(aws, queue, **options):
    answer = await aws.sqs.receive_message(QueueUrl=await url(aws, queue), MaxNumberOfMessages=10, **options)
    return answer.get("Messages", [])


async def test_the_emulator_listens_on_loopback_only(aws):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", aws.url)
    assert listening(int(aws.url.rpartition(":")[2])) == {"0100007F"}


def listening(port):
    """Give the addresses, in hexadecimal, on which a port is open."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    places = [line.split()[1].rpartition(":") for line in lines]
    return {address for address, _, number in places if number == f"{port:04X}"}


async def test_notifications_come_for_keys_of_the_filter_alone(aws):
    queue = (await aws.sqs.create_queue(QueueName=UPLOAD_EVENTS))["QueueUrl"]
    arn = (await aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    rules = [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".csv"}]
    wanted = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": rules}}}
    await aws.s3.put_bucket_notification_configuration(
        Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [wanted]}
    )
    for key in ("in/a.txt", "out/b.csv", "in/c d+e.csv"):
        await aws.upload(key, "content")
    bodies = []
    while len(bodies) < 2:
        bodies += [json.loads(message["Body"]) for message in await receive(aws, UPLOAD_EVENTS, WaitTimeSeconds=5)]
    assert bodies[0]["Event"] == "s3:TestEvent"
    assert [body["Records"][0]["s3"]["object"]["key"] for body in bodies[1:]] == ["in/c d+e.csv"]


async def test_a_long_poll_wakes_up_and_gives_tens_that_are_deleted_together(aws):
    polling = asyncio.create_task(receive(aws, ORDERS, WaitTimeSeconds=20))
    async with asyncio.timeout(10):
        await aws.send({"order": number} for number in range(20))
        messages = await polling
    assert len(messages) == 10
    assert await aws.messages(ORDERS) == 20
    entries = [{"Id": str(number), "ReceiptHandle": each["ReceiptHandle"]} for number, each in enumerate(messages)]
    answer = await aws.sqs.delete_message_batch(QueueUrl=await url(aws, ORDERS), Entries=entries)
    assert len(answer["Successful"]) == 10
    assert await aws.messages(ORDERS) == 10


async def test_a_poller_that_has_gone_takes_nothing(aws):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await receive(aws, ORDERS, WaitTimeSeconds=20)
    await aws.send([{"order": 1}])
    assert len(await receive(aws, ORDERS, WaitTimeSeconds=1)) == 1


async def test_what_was_received_is_hidden(aws):
    await aws.send([{"order": 1}])
    assert len(await receive(aws, ORDERS, VisibilityTimeout=60)) == 1
    assert await receive(aws, ORDERS) == []


async def test_what_is_not_deleted_comes_back_and_after_five_times_is_a_dead_letter(aws):
    await aws.send([{"order": 1}])
    for count in range(1, 6):
        [message] = await receive(
            aws, ORDERS, VisibilityTimeout=1, WaitTimeSeconds=20, MessageSystemAttributeNames=["All"]
        )
        assert message["Attributes"]["ApproximateReceiveCount"] == str(count)
    async with asyncio.timeout(TIMEOUT_S):
        while not await aws.messages(DEAD_LETTERS):  # moved when somebody asks for it once more
            assert await receive(aws, ORDERS, WaitTimeSeconds=1) == []
    assert (await aws.messages(ORDERS), await aws.messages(DEAD_LETTERS)) == (0, 1)
