"""The file that `headrace checkpoints` writes and reads: where mappings are in their streams. Pure.

It is JSON for people: positions are written as the stream's own tools know them. A digest tells a file that was cut
off or changed from one that is whole; other places than those that were exported are what `mapping seek` is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import msgspec

from router.errors import ConfigError

FORMAT: Final = "headrace checkpoints"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SavedShard:
    """Where one shard was."""

    shard: str
    #: As the stream's tools know it.
    position: str
    #: Was all of it finished?
    ended: bool = False
    #: What was begun behind it: attempts, halves, windows; empty = nothing.
    retry_state: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """Where one mapping was."""

    mapping: str
    #: What was read, and which of the streams that ever had this name.
    stream: str
    incarnation: str
    shards: Sequence[SavedShard]


def to_document(mappings: Sequence[Saved], exported_at: str) -> dict[str, Any]:
    """Give the content of a file."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": exported_at,
        "mappings": [asdict(each) for each in mappings],
    }
    return {**document, "sha256": _digest(document)}


def from_text(name: str, content: bytes) -> list[Saved]:
    """Read a file that is whole and as it was exported.

    Raises:
        ConfigError: it is not.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError(f"{name} is no JSON: cut off or damaged; export it again, or use another copy") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ConfigError(f"{name} is no file of checkpoints: `headrace checkpoints export` writes one")
    if document.get("version") != VERSION:
        raise ConfigError(
            f"{name} has version {document.get('version')} of the format, and this headrace reads version {VERSION}: "
            "import it with a headrace of the version that exported it"
        )
    try:
        if document.pop("sha256", None) == _digest(document):
            return msgspec.convert(document["mappings"], list[Saved])
    except (KeyError, msgspec.ValidationError):
        pass
    raise ConfigError(
        f"{name} is not as it was exported, but damaged or changed by hand: use another copy, "
        "and `headrace mapping seek` for other places"
    )


def chosen(name: str, saved: Sequence[Saved], mapping: str | None) -> list[Saved]:
    """Give what is to be imported: all, or what is for one mapping, also where it had another name alone in its file.

    Raises:
        ConfigError: the file has nothing for the mapping.
    """
    if mapping is None:
        return list(saved)
    found = [each for each in saved if each.mapping == mapping]
    if found or len(saved) == 1:
        return [replace(each, mapping=mapping) for each in found or saved]
    raise ConfigError(
        f"{name} has several mappings and none is {mapping}: {', '.join(each.mapping for each in saved)}; "
        "to give a mapping the place of another, export that one alone with --mapping"
    )


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
