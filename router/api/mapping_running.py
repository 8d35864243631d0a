"""What runs of a mapping, as the API asks for it, and the state that it shows for it: AWS's words, and no earlier.

Pure but for the port. A state that passes (Creating, Enabling, Updating, Disabling) is told until what runs has come
to what was asked for: it has opened its source or said why it cannot, or nothing of it runs any more.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Protocol

from router.catalogue.records import Mapping

ENABLED: Final = "Enabled"
DISABLED: Final = "Disabled"
#: States in which a mapping can be changed.
SETTLED: Final = frozenset((ENABLED, DISABLED))
#: What is told of one that has read nothing yet.
NO_RECORDS: Final = "No records processed"


class Stage(Enum):
    """How far what runs of a mapping is."""

    #: Nothing of it runs.
    GONE = "gone"
    #: It has not come to know its source yet.
    OPENING = "opening"
    #: It reads its source, or has said why it cannot.
    OPEN = "open"
    #: What ran before ends; something may follow.
    LEAVING = "leaving"


class Running(Protocol):
    """What runs of the mappings of a daemon, by the name under which each runs."""

    def stage(self, name: str) -> Stage: ...

    def last_result(self, name: str) -> str:
        """Say how its processing goes, in AWS's words."""
        ...

    async def opened(self, name: str, within_s: float) -> None:
        """Wait until it reads its source, but no longer than this."""
        ...

    async def gone(self, name: str) -> bool:
        """Wait until nothing of it runs; False = the daemon ends before that."""
        ...


def state(record: Mapping, passing: str | None, stage: Stage) -> str:
    """Give the state of a mapping.

    Args:
        record: the mapping.
        passing: the state that its last change began; None = it has come to an end, or was before this daemon.
        stage: how far what runs is.
    """
    if record.is_leaving:
        return "Deleting"
    if record.enabled:
        return ENABLED if passing is None or stage is Stage.OPEN else passing
    return DISABLED if stage is Stage.GONE else passing or "Disabling"
