"""The control socket: both ends of it, over a real socket."""

import asyncio
import stat
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from router.board import Board
from router.commands import control_client
from router.commands.control_client import SOCKET_NAME
from router.control import Control, bind
from router.errors import (
    CannotListen,
    ConfigError,
    InUse,
    NotFound,
    NotRunning,
    SourceUnavailable,
    StoreUnavailable,
    Throttled,
)
from router.ports import KeepFailure, PutState, Selection
from router.replay.end import UNHEARD_LIMIT, Ends, JobOver, RecordEnd, ReplayEnd
from router.replay.queue_job import QueueLook, WaitingMessage
from router.replay.record_frames import ReadText, write
from router.replay.record_job import RecordsAt
from router.supervisor import Supervisor
from router.telemetry import Log, Metrics
from tests.fakes.failures import EVENT, entry
from tests.fakes.store import MemoryStore


class ScriptedReplays:
    """Notes what is asked; the test says how it goes."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.ends = Ends()
        self.records = ScriptedRecords()
        #: What is wrong with the mapping or the queue.
        self.trouble = None

    def start(self, selection, interval_s):
        self.asked.put_nowait((selection, interval_s))
        return self.ends

    async def look(self, mapping, queue, messages):
        self.asked.put_nowait((mapping, queue, messages))
        if self.trouble:
            raise self.trouble
        waiting = [WaitingMessage("sqs:m1", "2026-01-01T00:00:00.000Z", 512, "{}", None)]
        return QueueLook("orders-dlq", 3, waiting[:messages])

    async def start_queue(self, mapping, queue, interval_s):
        self.asked.put_nowait((mapping, queue, interval_s))
        if self.trouble:
            raise self.trouble
        return self.ends


class ScriptedRecords:
    """Notes what is asked and what is sent to it; the test says how it goes."""

    def __init__(self):
        self.asked = asyncio.Queue()
        self.sent = []
        self.ends = Ends()
        #: What is wrong with the mapping or the place.
        self.trouble = None
        #: Set when the first record has come, and when they have stopped before the last.
        self.began = threading.Event()
        self.cut_off = asyncio.Event()

    async def count(self, wanted):
        self.asked.put_nowait(wanted)
        if self.trouble:
            raise self.trouble
        return 7

    async def start(self, wanted, records=None):
        self.asked.put_nowait(wanted)
        if self.trouble:
            raise self.trouble
        self.reading = records and asyncio.create_task(self.read(records))
        return self.ends

    async def read(self, records):
        try:
            async for each in records:
                self.sent.append(each)
                self.began.set()
                await self.ends.tell(RecordEnd(f"record:{len(self.sent)}", "replayed", where=each.where))
            await self.ends.tell(JobOver(None))
        except ConnectionError:
            self.cut_off.set()
        finally:
            self.ends.stop()


@dataclass
class FakeDaemon:
    state_dir: object
    store: MemoryStore = field(default_factory=MemoryStore)
    replayer: ScriptedReplays = field(default_factory=ScriptedReplays)
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(Log()))
    together: None = None
    event_deliveries: type[dict[str, object]] = dict
    metrics: Metrics = field(default_factory=Metrics)
    version: str = "1.2.3"

    def wall(self):
        return 0.0

    def functions(self):
        return []

    def event_targets(self):
        return []

    def unfit(self):
        return []

    async def preview(self, file):
        if not file.exists():
            raise ConfigError("headrace.yaml:1: a\nheadrace.yaml:2: b")
        return {"file": file.name}


@asynccontextmanager
async def controlled(state_dir):
    daemon = FakeDaemon(state_dir)
    control = Control(daemon, Board(daemon))
    await control.start()
    try:
        yield daemon
    finally:
        await control.close()


async def call(function, *arguments):
    """The client blocks, as commands do: it has a thread of its own here."""
    return await asyncio.to_thread(function, *arguments)


ALL = Selection(statuses=("stored",), until_s=1e9)


async def replayed(state_dir, selection, interval_s=0.0):
    return await call(lambda: list(control_client.replay(state_dir, selection, interval_s)))


async def tell(daemon, *ends):
    for end in ends:
        await daemon.replayer.ends.tell(end)


async def test_status_comes_over_the_socket(tmp_path):
    async with controlled(tmp_path):
        document = await call(control_client.status, tmp_path)
    assert document == {
        "version": "1.2.3",
        "state": "idle",
        "mappings": [],
        "functions": [],
        "event_targets": [],
        "config": None,
    }


async def test_only_our_user_may_use_the_socket(tmp_path):
    async with controlled(tmp_path):
        mode = (tmp_path / SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path):
    bind(tmp_path).close()
    with pytest.raises(NotRunning, match="headrace run"):
        control_client.status(tmp_path)
    async with controlled(tmp_path):
        assert await call(control_client.status, tmp_path)
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_a_state_directory_with_a_path_too_long_for_a_socket(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with controlled(deep):
        assert (deep / SOCKET_NAME).is_socket()
        assert await call(control_client.status, deep)
    with pytest.raises(NotRunning):
        control_client.status(deep)


async def test_a_state_directory_that_is_not_there(tmp_path):
    with pytest.raises(NotRunning):
        control_client.status(tmp_path / "none")
    with pytest.raises(NotRunning):
        control_client.status(tmp_path / ("n" * 200))


async def test_a_socket_that_cannot_be_made_is_an_error_that_says_where(tmp_path):
    with pytest.raises(CannotListen, match="none"):
        async with controlled(tmp_path / "none"):
            pass


async def test_a_replay_tells_each_end_as_it_comes(tmp_path):
    async with controlled(tmp_path) as daemon:
        asking = asyncio.create_task(replayed(tmp_path, ALL, 0.5))
        assert await daemon.replayer.asked.get() == (ALL, 0.5)
        await tell(
            daemon,
            ReplayEnd("a", "replayed"),
            ReplayEnd("b", "failed_again", ("n",)),
            ReplayEnd("c", "refused", reason="it is gone"),
            JobOver(None),
        )
        ends = await asking
    assert [(end["id"], end["outcome"], end["new_failures"], end["reason"]) for end in ends] == [
        ("a", "replayed", [], None),
        ("b", "failed_again", ["n"], None),
        ("c", "refused", [], "it is gone"),
    ]


async def test_ends_are_not_held_back(tmp_path):
    async with controlled(tmp_path) as daemon:
        ends = control_client.replay(tmp_path, ALL, 0.0)
        await tell(daemon, ReplayEnd("a", "replayed"))
        assert (await call(next, ends))["id"] == "a"
        await tell(daemon, ReplayEnd("b", "replayed"))
        assert (await call(next, ends))["id"] == "b"
        await tell(daemon, JobOver(None))
        assert await call(next, ends, None) is None


async def test_the_job_goes_on_when_the_one_who_asked_has_gone(tmp_path):
    async with controlled(tmp_path) as daemon:
        ends = control_client.replay(tmp_path, ALL, 0.0)
        await tell(daemon, ReplayEnd("a", "replayed"))
        await call(next, ends)
        ends.close()
        await tell(daemon, ReplayEnd("b", "replayed"))
        daemon.replayer.ends.stop()
        assert await call(control_client.status, tmp_path)
        assert daemon.replayer.asked.qsize() == 1


async def test_a_daemon_that_ends_in_the_middle_is_told_from_a_job_that_is_over(tmp_path):
    async with controlled(tmp_path) as daemon:
        asking = asyncio.create_task(replayed(tmp_path, ALL))
        await daemon.replayer.asked.get()
        await tell(daemon, ReplayEnd("a", "replayed"))
    with pytest.raises(NotRunning, match="before the replay was over"):
        await asking


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(ids=("a", "b")),
        Selection(mapping="m", shard="s", key=b"\xff\x00", since_s=0.1, until_s=1e9 / 7, error="\u00e4", limit=3),
        Selection(statuses=("stored", "delivered"), after=(1e9 / 3, "f")),
    ],
)
async def test_what_is_selected_is_the_same_at_the_other_end(tmp_path, selection):
    async with controlled(tmp_path) as daemon:
        await tell(daemon, JobOver(None))
        assert await replayed(tmp_path, selection) == []
        assert await daemon.replayer.asked.get() == (selection, 0.0)


async def test_a_job_waits_for_a_listener_that_is_far_behind_and_goes_on_when_it_leaves():
    ends = Ends()

    async def job():
        for number in range(3 * UNHEARD_LIMIT):
            await ends.tell(ReplayEnd(f"f{number}", "replayed"))

    telling = asyncio.create_task(job())
    done, _ = await asyncio.wait([telling], timeout=0.1)
    assert not done
    assert (await ends.next()).id == "f0"
    ends.leave()
    async with asyncio.timeout(60):
        await telling


async def replayed_queue(state_dir):
    ends = []

    def collect():
        ends.extend(control_client.replay_queue(state_dir, "orders", "orders-dlq", 0.25))

    try:
        await call(collect)
    except SourceUnavailable as error:
        return ends, str(error)
    return ends, None


async def test_looking_at_a_queue_tells_what_waits(tmp_path):
    async with controlled(tmp_path) as daemon:
        found = await call(control_client.look, tmp_path, "orders", "orders-dlq", 10)
        assert await daemon.replayer.asked.get() == ("orders", "orders-dlq", 10)
    assert found == {
        "queue": "orders-dlq",
        "waiting": 3,
        "messages": [
            {
                "id": "sqs:m1",
                "sent_at": "2026-01-01T00:00:00.000Z",
                "size_bytes": 512,
                "preview": "{}",
                "why_not": None,
            }
        ],
    }


async def test_replaying_a_queue_tells_each_end_as_it_comes(tmp_path):
    async with controlled(tmp_path) as daemon:
        asking = asyncio.create_task(replayed_queue(tmp_path))
        assert await daemon.replayer.asked.get() == ("orders", "orders-dlq", 0.25)
        await tell(
            daemon, ReplayEnd("sqs:m1", "replayed"), ReplayEnd("sqs:m2", "failed_again", reason="E: x"), JobOver(None)
        )
        ends, stopped = await asking
    assert [(end["id"], end["outcome"], end["reason"]) for end in ends] == [
        ("sqs:m1", "replayed", None),
        ("sqs:m2", "failed_again", "E: x"),
    ]
    assert stopped is None


async def test_a_job_over_a_queue_that_stopped_early_says_why_after_the_ends(tmp_path):
    async with controlled(tmp_path) as daemon:
        await tell(daemon, ReplayEnd("sqs:m1", "replayed"), JobOver("the queue does not exist there"))
        ends, stopped = await replayed_queue(tmp_path)
    assert len(ends) == 1
    assert stopped.startswith("the queue does not exist there; what is left")


async def test_a_daemon_that_ends_in_the_middle_of_a_queue_is_told_from_a_job_that_is_over(tmp_path):
    async with controlled(tmp_path) as daemon:
        await tell(daemon, ReplayEnd("sqs:m1", "replayed"))
        asking = asyncio.create_task(replayed_queue(tmp_path))
        await daemon.replayer.asked.get()
    with pytest.raises(NotRunning, match="before the queue was empty"):
        await asking


@pytest.mark.parametrize("trouble", [NotFound("no mapping x"), SourceUnavailable("no such queue")])
async def test_trouble_with_a_queue_is_the_same_error_at_the_other_end(tmp_path, trouble):
    async with controlled(tmp_path) as daemon:
        daemon.replayer.trouble = trouble
        with pytest.raises(type(trouble), match=str(trouble)):
            await call(control_client.look, tmp_path, "orders", "orders-dlq", 0)
        with pytest.raises(type(trouble), match=str(trouble)):
            await call(lambda: list(control_client.replay_queue(tmp_path, "orders", "orders-dlq", 0.0)))


async def test_a_path_that_a_daemon_of_another_version_does_not_know(tmp_path):
    async with controlled(tmp_path):
        with pytest.raises(NotRunning, match="another version"):
            await call(control_client._ask, tmp_path, "POST", "/queue/unheard-of", {})


async def test_drop_gives_what_was_dropped(tmp_path):
    async with controlled(tmp_path) as daemon:
        await daemon.store.apply([KeepFailure(entry("f1"), EVENT), KeepFailure(entry("f2"), EVENT)])
        await daemon.store.claim(["f2"])
        assert await call(control_client.drop, tmp_path, ["f1", "f2"]) == ["f1"]
        assert await daemon.store.event("f1") is None


async def test_a_store_that_cannot_write_is_told_as_such(tmp_path):
    async with controlled(tmp_path) as daemon:
        daemon.store.write_fault = "the disk is full"
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await call(control_client.drop, tmp_path, ["f1"])


async def test_erasing_says_what_was_and_what_stays(tmp_path):
    async with controlled(tmp_path) as daemon:
        await daemon.store.apply([KeepFailure(entry("f1", keys=(b"\xff",)), EVENT), KeepFailure(entry("f2"), EVENT)])
        erased = await call(control_client.erase, tmp_path, b"\xff", ["f1", "f2"])
        assert (erased["failures"], erased["records"]) == (0, 0)
        assert [each["id"] for each in erased["kept"]] == ["f1"]
        assert "'orders' is not configured" in erased["kept"][0]["reason"]
        await daemon.store.drop(["f1"])
        assert (await call(control_client.erase, tmp_path, b"\xff", ["f1"]))["failures"] == 1
        await call(control_client.scrub, tmp_path)
        daemon.store.write_fault = "the disk is full"
        for ask in ((control_client.erase, tmp_path, b"\xff", ["f1"]), (control_client.scrub, tmp_path)):
            with pytest.raises(StoreUnavailable, match="the disk is full"):
                await call(*ask)


async def test_compacting_says_what_is_left(tmp_path):
    async with controlled(tmp_path) as daemon:
        daemon.store.free_bytes = 3 * 2**20
        assert await call(control_client.compact, tmp_path) == 0
        daemon.store.can_shrink = False
        with pytest.raises(StoreUnavailable, match="made by an older headrace"):
            await call(control_client.compact, tmp_path)


async def test_very_many_failures_at_once(tmp_path):
    ids = [f"{number:020}" for number in range(100_000)]
    async with controlled(tmp_path):
        assert await call(control_client.drop, tmp_path, ids) == []


async def delivered(state_dir, ids):
    return await call(lambda: list(control_client.deliver(state_dir, ids)))


async def test_deliveries_are_asked_for_and_their_ends_come_back(tmp_path):
    async with controlled(tmp_path) as daemon:
        await daemon.store.apply([KeepFailure(entry("f1"), EVENT)])
        [end] = await delivered(tmp_path, ["f1"])
    assert end == {
        "id": "f1",
        "outcome": "refused",
        "reason": "its mapping 'orders' is not configured; see `headrace status`",
        "form": None,
        "next_try": None,
    }


async def test_a_store_that_cannot_be_read_is_told_to_who_asks_for_deliveries(tmp_path):
    async with controlled(tmp_path) as daemon:
        daemon.store.read_fault = "disk away"
        with pytest.raises(StoreUnavailable, match="disk away"):
            await delivered(tmp_path, ["f1"])


async def test_a_mapping_is_accepted_and_forgotten_over_the_socket(tmp_path):
    async with controlled(tmp_path) as daemon:
        with pytest.raises(NotFound, match="nothing to accept"):
            await call(control_client.accept, tmp_path, "orders")
        await daemon.store.apply([KeepFailure(entry("f1"), EVENT), PutState("orders", "begun", "memory")])
        accepted = await call(control_client.accept, tmp_path, "orders")
        held = {"mapping": "orders", "states": 1, "failures": 1, "undelivered": 1, "source": "memory"}
        assert accepted == held
        looked = await call(lambda: control_client.forget(tmp_path, "orders", only_look=True))
        assert looked == {**held, "states": 0, "source": None}
        assert await daemon.store.failures(Selection())
        assert await call(lambda: control_client.forget(tmp_path, "orders", only_look=False)) == looked
        assert not await daemon.store.failures(Selection())
        with pytest.raises(NotFound, match="nothing is kept"):
            await call(lambda: control_client.forget(tmp_path, "orders", only_look=True))


async def test_a_mapping_that_runs_is_not_forgotten_over_the_socket(tmp_path):
    async with controlled(tmp_path) as daemon:

        class Running:
            is_down = False

        daemon.supervisor.lives["orders"] = Running()
        with pytest.raises(InUse, match="mapping orders runs"):
            await call(lambda: control_client.forget(tmp_path, "orders", only_look=True))


async def test_what_a_file_would_change_comes_over_the_socket_or_all_its_mistakes(tmp_path):
    file = tmp_path / "headrace.yaml"
    async with controlled(tmp_path):
        with pytest.raises(ConfigError, match=r"1: a\nheadrace\.yaml:2: b"):
            await call(control_client.preview, tmp_path, file)
        file.touch()
        assert await call(control_client.preview, tmp_path, file) == {"file": "headrace.yaml"}


# --- failure records


async def records_replayed(state_dir, place="file:/failed", frames=None, **wanted):
    def run():
        return list(control_client.replay_records(state_dir, place, "orders", 0.5, frames=frames, **wanted))

    return await call(run)


async def test_records_of_a_file_go_one_way_while_what_comes_of_them_comes_the_other(tmp_path):
    texts = [ReadText(f"failed:{number}", b"x" * 3000) for number in range(3 * UNHEARD_LIMIT)]
    async with controlled(tmp_path) as daemon:
        ends = await records_replayed(tmp_path, frames=write(texts), again=True)
        assert daemon.replayer.records.sent == texts
        assert daemon.replayer.records.asked.get_nowait() == RecordsAt("file:/failed", "orders", False, True, 0.5)
    assert [end["where"] for end in ends] == [each.where for each in texts]
    assert ends[0]["id"] == "record:1"


async def test_a_place_is_read_by_the_daemon(tmp_path):
    async with controlled(tmp_path) as daemon:
        records = daemon.replayer.records
        await records.ends.tell(RecordEnd("record:1", "replayed", where="sqs:m1"))
        await records.ends.tell(JobOver("the queue is away"))
        with pytest.raises(
            SourceUnavailable, match="the queue is away; replay again: what is settled is not run twice"
        ):
            await records_replayed(tmp_path, "sqs:failed", only_look=True)
        assert records.asked.get_nowait() == RecordsAt("sqs:failed", "orders", True, False, 0.5)
        assert records.sent == []
        assert await call(control_client.count_records, tmp_path, "s3://b/p", None) == 7
        assert records.asked.get_nowait() == RecordsAt("s3://b/p", None)


async def test_what_is_wrong_with_the_place_is_raised_by_both(tmp_path):
    async with controlled(tmp_path) as daemon:
        for trouble in (NotFound("there is no mapping"), SourceUnavailable("the bucket is away")):
            daemon.replayer.records.trouble = trouble
            with pytest.raises(type(trouble), match=str(trouble)):
                await call(control_client.count_records, tmp_path, "s3://b/p", "orders")
            with pytest.raises(type(trouble), match=str(trouble)):
                await records_replayed(tmp_path, frames=write([ReadText("a", b"x" * 10_000_000)]))


async def test_a_narrower_kind_of_error_is_told_as_what_it_is_one_of(tmp_path):
    async with controlled(tmp_path) as daemon:
        daemon.replayer.records.trouble = Throttled("the queue is asked too often")
        with pytest.raises(SourceUnavailable, match="the queue is asked too often"):
            await call(control_client.count_records, tmp_path, "sqs:failed", None)


async def test_a_file_that_breaks_off_ends_the_job_and_is_told(tmp_path):
    def broken():
        yield from write([ReadText("failed:1", b"{}")])
        assert daemon.replayer.records.began.wait(10)
        raise ConfigError("--from: failed cannot be read")

    async with controlled(tmp_path) as daemon:
        with pytest.raises(ConfigError, match="cannot be read"):
            await records_replayed(tmp_path, frames=broken())
        await daemon.replayer.records.cut_off.wait()
        assert [each.where for each in daemon.replayer.records.sent] == ["failed:1"]


async def test_a_daemon_that_ends_before_the_last_record_is_told(tmp_path):
    async with controlled(tmp_path) as daemon:
        daemon.replayer.records.ends.stop()
        with pytest.raises(NotRunning, match="before the last record; start it and replay again"):
            await records_replayed(tmp_path, "sqs:failed")
    with pytest.raises(NotRunning, match="start it with"):
        await records_replayed(tmp_path, frames=iter(()))
