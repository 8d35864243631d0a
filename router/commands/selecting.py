"""Which failures a command means: its options as a Selection. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from router.errors import ConfigError
from router.ports import Selection

#: What `list` shows unless asked otherwise: everything that is not settled for good.
OPEN: Final = ("stored", "delivered", "replaying", "failed_again")
#: What `replay` takes unless asked otherwise: records that no newer failure holds and nobody replays now.
REPLAYABLE: Final = ("stored", "delivered")
#: What `deliver` takes unless asked otherwise: what a destination may still have to be given.
DELIVERABLE: Final = ("stored", "replaying")
#: What `drop` takes unless asked otherwise.
DROPPABLE: Final = ("stored", "delivered", "failed_again")
STATUSES: Final = ("stored", "delivered", "replaying", "replayed", "failed_again", "dropped")

#: What the places of `replay --from` begin with that are no files.
QUEUE: Final = "sqs:"
OBJECTS: Final = "s3://"
#: A queue by its name, its ARN or its URL.
_QUEUE: Final = re.compile(
    r"[A-Za-z0-9_-]{1,75}(?:[A-Za-z0-9_-]{0,5}|\.fifo)"
    r"|arn:[^:\s]+:sqs:[^:\s]+:[^:\s]+:[^:\s]+"
    r"|https?://[^/\s]+/[^\s]*[^/\s]"
)
#: A bucket, and what the keys of the records begin with (Amazon S3 user guide, 'General purpose bucket naming rules').
_OBJECTS: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[^\x00-\x1f]{0,1024})?")
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")


#: A position as streams' tools write it; a de-aggregated record also has a number within what held it.
_POSITION: Final = re.compile(r"[0-9]{1,128}(\.[0-9]{1,8})?")
#: The ends of a stream.
_EDGES: Final = ("TRIM_HORIZON", "LATEST")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where in its stream a mapping is to go on: exactly one of these."""

    #: TRIM_HORIZON or LATEST.
    edge: str | None = None
    #: Epoch milliseconds.
    time_ms: int | None = None
    #: Of the record that is to come next, as the stream's tools know it.
    position: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Selecting options as they were typed."""

    ids: Sequence[str] = ()
    mapping: str | None = None
    shard: str | None = None
    key: str | None = None
    since: str | None = None
    until: str | None = None
    error: str | None = None
    status: str | None = None

    @property
    def select_nothing(self) -> bool:
        """Is there no ID and no selector?"""
        return replace(self, ids=tuple(self.ids)) == Options()


def selection(options: Options, statuses: Sequence[str], wall_s: float) -> Selection:
    """Give the failures that the options select; `statuses` when neither IDs nor a status narrow them.

    Raises:
        ConfigError: an option that means nothing.
    """
    return Selection(
        ids=tuple(options.ids),
        mapping=options.mapping,
        shard=options.shard,
        key=None if options.key is None else options.key.encode(),
        since_s=None if options.since is None else moment(options.since, "--since", wall_s),
        until_s=None if options.until is None else moment(options.until, "--until", wall_s),
        error=options.error,
        statuses=_statuses(options, statuses),
    )


def place_of(place: str, options: Options, *, every: bool) -> tuple[str, str | None]:
    """Give the place of `replay --from`, and the mapping that is to run what is there, if one is named.

    Raises:
        ConfigError: it is no place, or something is selected that is not told apart there.
    """
    if place.startswith(QUEUE):
        is_one = _QUEUE.fullmatch(place.removeprefix(QUEUE))
    else:
        is_one = _OBJECTS.fullmatch(place) if place.startswith(OBJECTS) else re.fullmatch(r"(?![a-z0-9]+:).+", place)
    if not is_one:
        raise ConfigError(
            f"--from: found {place!r}, allowed sqs:QUEUE with the queue's name, URL or ARN, s3://BUCKET/PREFIX, "
            "or a file (./NAME where it has a colon)"
        )
    if every or not replace(options, mapping=None).select_nothing:
        raise ConfigError("--from takes all that is there: give no ID and no selector but --mapping")
    return place, options.mapping


def is_file(place: str) -> bool:
    """Say whether a place is a file."""
    return not place.startswith((QUEUE, OBJECTS))


def wanted(text: str, wall_s: float) -> Wanted:
    """Read where to go on. Raises ConfigError."""
    if text in _EDGES:
        return Wanted(edge=text)
    if _POSITION.fullmatch(text):
        return Wanted(position=text)
    try:
        time_s = moment(text, "--to", wall_s)
    except ConfigError:
        raise ConfigError(
            f"--to: found {text!r}, allowed TRIM_HORIZON, LATEST, a time (2026-05-01T06:00:00Z), "
            "how long ago (2h), or the position of a record"
        ) from None
    if not 0 <= time_s <= wall_s:
        raise ConfigError(f"--to: {text} is before 1970 or still to come; LATEST is where the stream is now")
    return Wanted(time_ms=int(time_s * 1000))


def moment(text: str, option: str, wall_s: float) -> float:
    """Read a time: ISO 8601 (UTC unless it has a zone), or so long ago. Raises ConfigError."""
    if match := _AGO.fullmatch(text):
        return wall_s - float(match[1]) * _UNITS[match[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option}: found {text!r}, allowed a time (2026-05-01T06:00:00Z) or how long ago (2h)"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _statuses(options: Options, default: Sequence[str]) -> tuple[str, ...]:
    if options.status is None:
        return () if options.ids else tuple(default)
    named = tuple(options.status.split(","))
    if named == ("all",):
        return ()
    unknown = [each for each in named if each not in STATUSES]
    if unknown:
        raise ConfigError(f"--status: found {unknown[0]!r}, allowed all, {', '.join(STATUSES)}; several with commas")
    return named
