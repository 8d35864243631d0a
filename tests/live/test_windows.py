"""A daemon over tumbling windows of a real stream: counts survive crashes, failing final calls and splits."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.live.daemon import whole_lines
from tests.live.stream_rig import Stream, Streams
from tests.live.test_kinesis import StreamDaemon, shards, split

#: Gathers what came in a window, and notes it at its end; the first end fails unless the file `mended` is there.
GATHERING = """
import base64, json, os, pathlib

HERE = pathlib.Path(os.environ["NOTES"])

def handle(event, context):
    seen = event["state"].get("seen", [])
    seen += [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
    if event["isFinalInvokeForWindow"]:
        if not (HERE / "mended").exists():
            raise ValueError("the end cannot be written")
        note = {"shard": event["shardId"], "start": event["window"]["start"], "seen": seen}
        with (HERE / "ends").open("a") as notes:
            notes.write(json.dumps(note) + "\\n")
    else:
        (HERE / "seen").touch()
    return {"state": {"seen": seen}}
"""


class WindowDaemon(StreamDaemon):
    """A daemon with one mapping, `clicks`, over a stream in windows of a second."""

    def __init__(self, folder: Path, streams: Streams, stream: Stream, **mapping: Any) -> None:
        super().__init__(
            folder, streams, {"stream": stream.name}, tumbling_window_in_seconds=1, batch_size=3, **mapping
        )
        self.function("clicks", GATHERING, environment={"NOTES": str(self.notes)})

    def mend(self) -> None:
        (self.notes / "mended").touch()

    def ends(self) -> Iterator[dict[str, Any]]:
        """Give the ends of windows; one that was repeated after a crash is the same, and counts once."""
        return map(json.loads, dict.fromkeys(whole_lines(self.notes / "ends")))

    def counts(self) -> Counter[str]:
        return Counter(each for end in self.ends() for each in end["seen"] if each != "later")


async def go_on(stream: Stream) -> None:
    """Let records come to all shards, so that windows end."""
    while True:
        await stream.put(*[(f"key-{number}", "later") for number in range(8)])
        await asyncio.sleep(0.2)


async def gather(daemon: WindowDaemon, stream: Stream, count: int) -> None:
    """Wait until so many records are in windows that have ended."""
    going_on = asyncio.create_task(go_on(stream))
    try:
        await daemon.until(lambda: len(daemon.counts()) >= count, f"{count} records in windows that have ended")
    finally:
        going_on.cancel()


async def test_each_record_is_in_the_end_of_one_window_through_crashes_and_a_split(
    streams: Streams, tmp_path: Path
) -> None:
    stream = await streams.make()
    numbers = iter(range(1000))

    async def put() -> None:
        await stream.put(*[(f"key-{number % 8}", f"{number}") for number in (next(numbers) for _ in range(12))])

    async with WindowDaemon(tmp_path, streams, stream) as daemon:
        daemon.mend()
        await put()
        await daemon.start()
        await daemon.until((daemon.notes / "seen").exists, "a record")
        await daemon.kill()
        await daemon.start()
        await put()
        await split(stream, next(iter(await shards(stream))))
        await daemon.kill()
        await put()
        await daemon.start()
        await put()
        await gather(daemon, stream, 48)
        ends = list(daemon.ends())
        assert await daemon.terminate() == 0
    counts = daemon.counts()
    assert counts == {f"{number}": 1 for number in range(48)}
    for shard in {end["shard"] for end in ends}:
        starts = [end["start"] for end in ends if end["shard"] == shard]
        assert starts == sorted(starts)


async def test_an_end_that_fails_for_good_is_kept_with_its_state_and_can_be_replayed(
    streams: Streams, tmp_path: Path
) -> None:
    stream = await streams.make()
    await stream.put(*[("key", f"{number}") for number in range(3)])
    async with WindowDaemon(tmp_path, streams, stream, maximum_retry_attempts=1) as daemon:
        await daemon.start()
        going_on = asyncio.create_task(go_on(stream))
        await daemon.line("batch.discarded", records=0)
        daemon.mend()
        going_on.cancel()
        failure, *_ = await daemon.failures()
        assert (failure["batch_size"], failure["attempts"], failure["first_position"]) == (0, 2, None)
        replayed = await daemon.command("failures", "replay", "--all", "--yes")
        assert replayed.status == 0, replayed.err
        await gather(daemon, stream, 3)
    assert daemon.counts() == {"0": 1, "1": 1, "2": 1}
