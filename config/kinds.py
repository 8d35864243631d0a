"""The kinds of single values: texts, choices, numbers, durations, sizes, points in time, filter patterns."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Final

from config.document import Node
from config.mistakes import Unfit
from config.reading import REFERRING, Found, Reader, Schema, schema_of_text
from connectors.settings import Secret
from connectors.webhook_signature import SECRET_BYTES, SECRET_PREFIX, key_of
from router.core.filter import KAFKA, compile_filters


@dataclass(frozen=True, slots=True)
class Text:
    """A text, of a form."""

    allowed: str = "text"
    #: What the whole text must look like.
    form: re.Pattern[str] = re.compile(r"[\s\S]+")

    @property
    def schema(self) -> Schema:
        return schema_of_text(self.form.pattern)

    def read(self, found: Found) -> str:
        if not isinstance(found.value, str) or not self.form.fullmatch(found.value):
            raise found.mismatch(self.allowed)
        return found.value


@dataclass(frozen=True, slots=True)
class Digits:
    """A text of digits, which may stand there as a number, too."""

    allowed: str
    #: What the whole text must look like.
    form: re.Pattern[str]

    @property
    def schema(self) -> Schema:
        return {"anyOf": [schema_of_text(self.form.pattern), {"type": "integer"}]}

    def read(self, found: Found) -> str:
        is_number = isinstance(found.value, int) and not isinstance(found.value, bool)
        text = found.node.text if is_number else found.value
        if not isinstance(text, str) or not self.form.fullmatch(text):
            raise found.mismatch(self.allowed)
        return text


@dataclass(frozen=True, slots=True)
class SecretText:
    """A text that is never shown, wherever it comes from."""

    allowed: str = "text, best as ${env:NAME} or ${file:PATH}"

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def read(self, found: Found) -> Secret:
        if not isinstance(found.value, str):
            shown = "nothing" if found.value is None else "a value that is no text (not shown)"
            raise Unfit(f"found {shown}, allowed {self.allowed}")
        return Secret(found.value)


@dataclass(frozen=True, slots=True)
class HeaderText:
    """The value of an HTTP header: one line. Never shown, as it is often a credential."""

    allowed: str = "one line of text, best as ${env:NAME} or ${file:PATH}"

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def read(self, found: Found) -> Secret:
        secret = SecretText(self.allowed).read(found)
        if not secret.reveal().isprintable():
            raise Unfit(f"found a text with line breaks or control characters (not shown), allowed {self.allowed}")
        return secret


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """What an endpoint is told who we are by; never shown."""

    allowed: str = (
        f"{SECRET_PREFIX} and the Base64 of {SECRET_BYTES} bytes or more, or text of {SECRET_BYTES} bytes or more, "
        "best as ${env:NAME} or ${file:PATH}"
    )

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def read(self, found: Found) -> Secret:
        secret = SecretText(self.allowed).read(found)
        try:
            key_of(secret.reveal())
        except ValueError:
            raise Unfit(f"found another text (not shown), allowed {self.allowed}") from None
        return secret


@dataclass(frozen=True, slots=True)
class VariableText:
    """The value of an environment variable: any scalar, as it is written. Never shown, as it is often a credential."""

    allowed: str = "text, a number, true or false"

    @property
    def schema(self) -> Schema:
        return {"type": ["string", "number", "boolean"]}

    def read(self, found: Found) -> Secret:
        if found.value is None or isinstance(found.value, (tuple, dict)):
            raise found.mismatch(self.allowed)
        return Secret(found.value if isinstance(found.value, str) else found.node.text)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    allowed: str = "true or false"

    @property
    def schema(self) -> Schema:
        return {"type": "boolean"}

    def read(self, found: Found) -> bool:
        if not isinstance(found.value, bool):
            raise found.mismatch(self.allowed)
        return found.value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        *rest, last = self.words
        return f"{', '.join(rest)} or {last}" if rest else last

    @property
    def schema(self) -> Schema:
        return {"anyOf": [{"enum": list(self.words)}, {"type": "string", "pattern": REFERRING}]}

    def read(self, found: Found) -> str:
        if found.value not in self.words or not isinstance(found.value, str):
            raise found.mismatch(self.allowed)
        return found.value


#: Amazon S3 user guide, "Supported event types for SQS, SNS, and Lambda".
EVENT_TYPES: Final = (
    "s3:ObjectCreated:*",
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectRemoved:*",
    "s3:ObjectRemoved:Delete",
    "s3:ObjectRemoved:DeleteMarkerCreated",
    "s3:ObjectRestore:*",
    "s3:ObjectRestore:Post",
    "s3:ObjectRestore:Completed",
    "s3:ObjectRestore:Delete",
    "s3:ReducedRedundancyLostObject",
    "s3:Replication:*",
    "s3:Replication:OperationFailedReplication",
    "s3:Replication:OperationMissedThreshold",
    "s3:Replication:OperationReplicatedAfterThreshold",
    "s3:Replication:OperationNotTracked",
    "s3:ObjectTagging:*",
    "s3:ObjectTagging:Put",
    "s3:ObjectTagging:Delete",
    "s3:ObjectAcl:Put",
    "s3:LifecycleExpiration:*",
    "s3:LifecycleExpiration:Delete",
    "s3:LifecycleExpiration:DeleteMarkerCreated",
    "s3:LifecycleTransition",
    "s3:IntelligentTiering",
)


@dataclass(frozen=True, slots=True)
class EventType:
    """What can happen to an object."""

    words: tuple[str, ...] = EVENT_TYPES
    allowed: str = "an event type of S3 such as s3:ObjectCreated:*"

    @property
    def schema(self) -> Schema:
        return {"anyOf": [{"enum": list(self.words)}, {"type": "string", "pattern": REFERRING}]}

    def read(self, found: Found) -> str:
        value = found.value
        if isinstance(value, str) and value in self.words:
            return value
        close = get_close_matches(found.node.text[:64], self.words, n=1, cutoff=0.7)
        raise found.mismatch(f"{self.allowed}; did you mean {close[0]}?" if close else self.allowed)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, or -1 where that has a meaning; whole unless fractions are allowed."""

    low: int
    high: int
    #: -1 is allowed too.
    unlimited: bool = False
    fractions: bool = False

    @property
    def allowed(self) -> str:
        return f"{'-1 or ' if self.unlimited else ''}{self.low} to {self.high}"

    @property
    def schema(self) -> Schema:
        kind = "number" if self.fractions else "integer"
        bounds: Schema = {"type": kind, "minimum": self.low, "maximum": self.high}
        return {"anyOf": [{"const": -1}, bounds]} if self.unlimited else bounds

    def read(self, found: Found) -> float:
        value = found.value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise found.mismatch(f"a number, {self.allowed}")
        if not self.fractions and not isinstance(value, int):
            raise found.mismatch(f"a whole number, {self.allowed}")
        if not (self.low <= value <= self.high or (self.unlimited and value == -1)):
            raise found.mismatch(self.allowed)
        return value


#: Seconds by unit.
_TIMES: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)(ms|[smhd])")


@dataclass(frozen=True, slots=True)
class Duration:
    """A number of seconds, or a text with a unit."""

    low_s: float
    high_s: float

    @property
    def allowed(self) -> str:
        return f"{show_duration(self.low_s)} to {show_duration(self.high_s)}"

    @property
    def schema(self) -> Schema:
        seconds = {"type": "number", "minimum": self.low_s, "maximum": self.high_s}
        return {"anyOf": [seconds, schema_of_text(_DURATION.pattern)]}

    def read(self, found: Found) -> float:
        value = found.value
        if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            value = float(match[1]) * _TIMES[match[2]]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise found.mismatch(f"seconds as a number, or 500ms, 30s, 5m, 2h, 30d: {self.allowed}")
        if not self.low_s <= value <= self.high_s:
            raise found.mismatch(self.allowed)
        return float(value)


def show_duration(seconds: float) -> str:
    """Write a duration in the largest unit that needs no fraction."""
    unit = next((unit for unit, size in _TIMES.items() if seconds >= size and seconds % size == 0), None)
    unit = unit or ("ms" if seconds else "s")
    return f"{seconds / _TIMES[unit]:g}{unit}"


#: Bytes by unit.
_SIZES: Final = {
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", start=1)},
    "B": 1,
}
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([KMGT]?i?B)")


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes, or a text with a unit."""

    low_bytes: int
    allowed: str

    @property
    def schema(self) -> Schema:
        count = {"type": "integer", "minimum": self.low_bytes}
        return {"anyOf": [count, schema_of_text(_SIZE.pattern)]}

    def read(self, found: Found) -> int:
        value = found.value
        if isinstance(value, str) and (match := _SIZE.fullmatch(value)) and match[2] in _SIZES:
            value = int(float(match[1]) * _SIZES[match[2]])
        if isinstance(value, bool) or not isinstance(value, int) or not self.low_bytes <= value < 2**60:
            raise found.mismatch(self.allowed)
        return value


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, in epoch seconds."""

    allowed: str = "ISO 8601 with a zone (2024-05-01T00:00:00Z) or epoch seconds, not in the future"

    @property
    def schema(self) -> Schema:
        return {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}

    def read(self, found: Found) -> float:
        value = found.value
        if isinstance(value, str):
            value = self._parse(found, value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= found.reader.now_s:
            raise found.mismatch(self.allowed)
        return float(value)

    def _parse(self, found: Found, text: str) -> float:
        try:
            moment = datetime.fromisoformat(text)
            return moment.timestamp() if moment.tzinfo else -1.0
        except (ValueError, OverflowError):
            raise found.mismatch(self.allowed) from None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A filter pattern, as a block or as JSON text; gives JSON text."""

    allowed: str = "a pattern, as a block or JSON text"

    @property
    def schema(self) -> Schema:
        return {"type": ["string", "object"]}

    def read(self, found: Found) -> str:
        if not isinstance(found.value, (str, dict)):
            raise found.mismatch(self.allowed)
        value = _plain(found.node, found.reader)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        try:
            compile_filters([text], KAFKA)
        except ValueError as error:
            raise Unfit(f"not a filter pattern: {str(error).removeprefix('filters[0].pattern: ')}") from None
        return text


def _plain(node: Node, reader: Reader) -> object:
    """Give what a node holds as JSON would have it; patterns are shown in messages, so no secret may be in them."""
    node = reader.resolve(node)
    if node.secret:
        raise Unfit("found a reference, allowed patterns without ${env:} and ${file:}")
    match node.value:
        case dict():
            return {name: _plain(entry.node, reader) for name, entry in node.value.items()}
        case tuple():
            return [_plain(item, reader) for item in node.value]
        case _:
            return node.value
