"""How the store keeps where a mapping is in a stream that keeps no checkpoints itself. Pure.

Under `stream` is which stream it is and where its shards begin; under `shard:<name>` is one shard: checkpoint, retry
state and whether it is finished, in one text, so that they are written in one step. Positions are written as the
stream's own tools know them, because people read these texts (`headrace checkpoints export`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from router.core.facts import Progress
from router.core.lineage import finished_at_latest
from router.core.model import TRIM_HORIZON, ShardInfo, at_time, time_of
from router.ports import PutState, ShardCodec

#: Keys of the store.
STREAM: Final = "stream"
SHARD: Final = "shard:"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_AT_TIMESTAMP: Final = re.compile(r"AT_TIMESTAMP (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z")


@dataclass(frozen=True, slots=True)
class StreamBegun:
    """Which stream a mapping has begun to read."""

    #: ShardSource.incarnation.
    incarnation: str
    #: Checkpoint of a shard that has none.
    start: int


def write_checkpoint(checkpoint: int, codec: ShardCodec) -> str:
    """Write a checkpoint: `TRIM_HORIZON`, `AT_TIMESTAMP 2026-01-01T00:00:00.000Z`, or a position of the stream's."""
    if checkpoint == TRIM_HORIZON:
        return "TRIM_HORIZON"
    time_ms = time_of(checkpoint)
    if time_ms is None:
        return codec.write_position(checkpoint)
    moment = _EPOCH + timedelta(milliseconds=time_ms)
    return f"AT_TIMESTAMP {moment.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


def read_checkpoint(text: str, codec: ShardCodec) -> int:
    """Read what `write_checkpoint` wrote.

    Raises:
        ValueError: it is none.
    """
    if text == "TRIM_HORIZON":
        return TRIM_HORIZON
    if match := _AT_TIMESTAMP.fullmatch(text):
        time_ms = (datetime.fromisoformat(f"{match[1]}+00:00") - _EPOCH) // timedelta(milliseconds=1)
        if time_ms >= 0:
            return at_time(time_ms)
    return codec.read_position(text)


def write_shard(progress: Progress, codec: ShardCodec, *, of: str = "") -> str:
    """Write where a shard is; and `of` which stream, where replicas may read two that had one name."""
    document: dict[str, Any] = {"checkpoint": write_checkpoint(progress.checkpoint, codec)}
    if progress.retry_state:
        document["retry_state"] = progress.retry_state
    if progress.ended:
        document["finished"] = True
    if of:
        document["of"] = of
    return json.dumps(document, separators=(",", ":"))


def read_shard(text: str, codec: ShardCodec) -> Progress:
    """Read what `write_shard` wrote.

    Raises:
        ValueError: it is none.
    """
    document = _document(text)
    checkpoint, retry_state = document.get("checkpoint"), document.get("retry_state", "")
    if not isinstance(checkpoint, str) or not isinstance(retry_state, str):
        raise ValueError("it has no checkpoint")  # noqa: TRY004 - a wrong text, not a wrong program
    return Progress(read_checkpoint(checkpoint, codec), retry_state, ended=document.get("finished") is True)


def is_of(text: str, incarnation: str) -> bool:
    """Say whether what `write_shard` wrote may be of this stream; what cannot be read may be, too."""
    try:
        return bool(_document(text).get("of", incarnation) == incarnation)
    except ValueError:
        return True


def write_stream(begun: StreamBegun, codec: ShardCodec) -> str:
    """Write which stream a mapping has begun to read."""
    document = {"incarnation": begun.incarnation, "start": write_checkpoint(begun.start, codec)}
    return json.dumps(document, separators=(",", ":"))


def read_stream(text: str, codec: ShardCodec) -> StreamBegun:
    """Read what `write_stream` wrote.

    Raises:
        ValueError: it is none.
    """
    document = _document(text)
    incarnation, start = document.get("incarnation"), document.get("start")
    if not isinstance(incarnation, str) or not isinstance(start, str):
        raise ValueError("it does not name a stream")  # noqa: TRY004 - a wrong text, not a wrong program
    return StreamBegun(incarnation, read_checkpoint(start, codec))


def beginning(
    mapping: str,
    begun: StreamBegun,
    shards: Sequence[ShardInfo],
    states: Mapping[str, str],
    codec: ShardCodec,
    *,
    latest: bool,
) -> list[PutState]:
    """Say what is written before the first shard is read; what is kept of another stream of this name is void.

    Args:
        mapping: its name.
        begun: which stream, and where it begins.
        shards: all that it has now.
        states: what the store has under the mapping.
        codec: of its records.
        latest: does it begin with what comes from now on? What was closed before has nothing for it.
    """
    texts = {key: "" for key in states if key.startswith(SHARD)}
    for name in finished_at_latest(shards) if latest else ():
        texts[f"{SHARD}{name}"] = write_shard(Progress(begun.start, "", ended=True), codec)
    texts[STREAM] = write_stream(begun, codec)
    return [PutState(mapping, key, text) for key, text in texts.items()]


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - a wrong text, not a wrong program
    return document
