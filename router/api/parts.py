"""What the operations are carried out with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from router.api.mapping_parts import MappingParts
from router.api.names import Here
from router.catalogue.catalogue import Catalogue
from router.event_ports import Accepts, CheckArchive, CodeObjects, CodeStore, Functions
from router.ports import WallClock
from router.telemetry import Log


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a daemon the operations use."""

    catalogue: Catalogue
    functions: Functions
    code: CodeStore
    #: Where code is fetched from that is named by bucket and key, and what looks at code that came.
    objects: CodeObjects
    check_archive: CheckArchive
    mappings: MappingParts
    #: Gives what the ARNs that we make are made of. May change with the file.
    where: Callable[[], Here]
    #: Does the API refuse what only AWS's product cannot do? May change with the file.
    is_strict: Callable[[], bool]
    #: The file of the configuration, as messages name it.
    file: str
    wall: WallClock
    #: Gives another random UUID each time.
    new_id: Callable[[], str]
    log: Log
    #: Takes in what is invoked asynchronously.
    accepts: Accepts

    @property
    def here(self) -> Here:
        """Say what ARNs are made of."""
        return self.where()
