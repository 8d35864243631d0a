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

#: A queue by its name, its ARN or its URL.
_QUEUE: Final = re.compile(
    r"[A-Za-z0-9_-]{1,75}(?:[A-Za-z0-9_-]{0,5}|\.fifo)"
    r"|arn:[^:\s]+:sqs:[^:\s]+:[^:\s]+:[^:\s]+"
    r"|https?://[^/\s]+/[^\s]*[^/\s]"
)
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AGO: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")


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


def dead_letters(place: str, options: Options, *, every: bool) -> tuple[str, str]:
    """Give the mapping and the queue of `replay --from`.

    Raises:
        ConfigError: it is no queue, there is no mapping, or something else is selected that a queue cannot tell apart.
    """
    carrier, _, queue = place.partition(":")
    if carrier != "sqs" or not _QUEUE.fullmatch(queue):
        raise ConfigError(f"--from: found {place!r}, allowed sqs:QUEUE with the queue's name, URL or ARN")
    if options.mapping is None:
        raise ConfigError("--from needs --mapping NAME: the mapping that is to run the messages")
    if every or not replace(options, mapping=None).select_nothing:
        raise ConfigError("--from takes all messages of the queue: give no ID and no selector but --mapping")
    return options.mapping, queue


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
    wanted = tuple(options.status.split(","))
    if wanted == ("all",):
        return ()
    unknown = [each for each in wanted if each not in STATUSES]
    if unknown:
        raise ConfigError(f"--status: found {unknown[0]!r}, allowed all, {', '.join(STATUSES)}; several with commas")
    return wanted
