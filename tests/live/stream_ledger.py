"""What a function over a stream was given, through kills: written down by the function itself, and judged at the end.

Records are written with a key and a number that counts the records of that key.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.daemon import whole_lines

#: Writes down when each batch begins and ends; every sixth fails, wherever in its records. `RECORD` takes one apart.
LEDGER = """
import base64, json, os, random, time

def note(line):
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (json.dumps(line) + "\\n").encode())
    os.close(file)

def kinesis(record):
    key, number = json.loads(base64.b64decode(record["kinesis"]["data"]))
    return [record["eventID"].partition(":")[0], record["kinesis"]["sequenceNumber"], key, number]

def dynamodb(record):
    image = record["dynamodb"]["NewImage"]
    return ["", record["dynamodb"]["SequenceNumber"], image["pk"]["S"], int(image["number"]["N"])]

def handle(event, context):
    take = {"aws:kinesis": kinesis, "aws:dynamodb": dynamodb}[event["Records"][0]["eventSource"]]
    records = [take(record) for record in event["Records"]]
    run = int(os.environ["RUN"])
    note({"run": run, "request": context.aws_request_id, "begins": records})
    time.sleep(random.random() / 50)
    if random.random() < 1 / 6:
        note({"run": run, "request": context.aws_request_id, "fails": True})
        raise ValueError("out of luck")
    note({"run": run, "request": context.aws_request_id, "ends": records})
"""


@dataclass
class Ledger:
    """The file, and the checkpoints that were there after each kill."""

    file: Path
    #: By run, what the store had when it was over: shard, position and whether it is finished.
    committed: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in whole_lines(self.file)]

    def finished(self) -> set[tuple[str, int]]:
        """Give key and number of the records that the function has succeeded with."""
        return {(key, number) for line in self.lines() for _, _, key, number in line.get("ends", ())}

    def judge(self, written: Mapping[str, int]) -> list[str]:
        """Say what promise was broken; `written` counts the records of each key."""
        lines = self.lines()
        done = self.finished()
        lost = [(key, number) for key, count in written.items() for number in range(count) if (key, number) not in done]
        return [*(f"lost: {each}" for each in lost), *_order(lines), *_overlaps(lines), *self._repeats(lines)]

    def _repeats(self, lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """Name records that ran again although they were behind a checkpoint."""
        for line in lines:
            for shard, position, key, number in line.get("begins", ()):
                for run in range(line["run"]):
                    saved = self.committed[run]
                    for each in saved:
                        # A table's records do not name their shard.
                        is_its_own = shard == each["shard"] or (not shard and len(saved) == 1)
                        if is_its_own and _passes(each, position):
                            yield f"{key} {number} ran in run {line['run']} and was behind {each} after run {run}"


def _passes(saved: Mapping[str, Any], position: str) -> bool:
    """Say whether a checkpoint is behind a record of its shard."""
    return saved["ended"] or (saved["position"].isdecimal() and int(position) <= int(saved["position"]))


def _order(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name records that began before an earlier one of their key had ended well."""
    done: dict[str, set[int]] = defaultdict(set)
    for line in lines:
        beside: set[tuple[str, int]] = set()
        for _, _, key, number in line.get("begins", ()):
            missing = [each for each in range(number) if each not in done[key] and (key, each) not in beside]
            if missing:
                yield f"{key} {number} began before {missing}"
            beside.add((key, number))
        for _, _, key, number in line.get("ends", ()):
            done[key].add(number)


def _overlaps(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Name keys that were with the function twice at one time; what a kill has cut off ends with its run."""
    running: dict[str, tuple[int, str]] = {}
    for line in lines:
        me = (line["run"], line["request"])
        for key in {key for _, _, key, _ in line.get("begins", ())}:
            other = running.get(key)
            if other and other[0] == me[0]:
                yield f"{key} began in {me} while it ran in {other}"
            running[key] = me
        if "begins" not in line:
            running = {key: each for key, each in running.items() if each != me}
