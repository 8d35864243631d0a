"""Mappings of the file as records beside those of the API: with an identity that is the same in every start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol
from uuid import UUID, uuid5

from router.catalogue import records

#: Of all names of mappings in files.
_NAMESPACE: Final = UUID("8f1e4b58-0c5d-5e3b-9b36-2d7f5c7f6f0a")


class Shown(Protocol):
    """A mapping of a file in AWS's names."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> str: ...

    @property
    def enabled(self) -> bool: ...

    @property
    def members(self) -> dict[str, Any]: ...


def uuid_of(name: str) -> str:
    """Give the UUID of a mapping of a file."""
    return str(uuid5(_NAMESPACE, name))


def mapping_records(shown: Iterable[Shown], loaded_s: float) -> Mapping[str, records.Mapping]:
    """Give mappings of a file by their UUIDs; `loaded_s` is when it was read, wall time, seconds."""
    return {uuid_of(each.name): _record(each, loaded_s) for each in shown}


def _record(shown: Shown, loaded_s: float) -> records.Mapping:
    return records.Mapping(
        uuid=uuid_of(shown.name),
        function=shown.function,
        properties=shown.members,
        enabled=shown.enabled,
        created_s=loaded_s,
        modified_s=loaded_s,
        name=shown.name,
        is_of_file=True,
    )
