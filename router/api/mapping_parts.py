"""What the operations on event source mappings need beyond what all have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from router.api.mapping_running import Running
from router.catalogue import records
from router.event_ports import Sources


@dataclass(frozen=True, slots=True)
class MappingParts:
    """What of a daemon the operations on mappings use."""

    sources: Sources
    running: Running
    #: Gives the servers of an MSK cluster by its ARN; none = nobody has said them.
    servers: Callable[[str], Sequence[str]]
    #: Makes sure that a mapping can be run as it is wanted. Raises ConfigError.
    try_out: Callable[[records.Mapping], object]
    #: Hears that a mapping was told to leave.
    leaves: Callable[[], None]
