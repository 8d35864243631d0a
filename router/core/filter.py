"""Filter criteria: does a record go to the function?

The rule: a pattern sees the record as its metadata and, under a key of the source's own, its data: parsed if it is
JSON, else as text. A record passes if it fits one of the patterns. When a pattern asks for fields of JSON and the
data is text, or asks for text and the data is a JSON object or list, or the data is not UTF-8, the source decides:
the record does not fit (Kinesis, DynamoDB, SQS), or only the metadata part of the pattern counts (Kafka), which a
pattern without such a part always passes. A pattern that does not ask for the data is decided by metadata alone.
Filtering never alters what is delivered.

Theory: how a pattern behaves depends on the record only through the form of its data, and there are four forms. So
all patterns together are compiled once for each form, mismatches already resolved; a record costs one reading of its
data and one match, and without a pattern on the data not even the reading.

Decisions. A record without data, such as a Kafka tombstone, is no mismatch: its data is absent, which only `exists:
false` accepts, so a filter on fields of the value drops tombstones. A JSON number, string, true, false or null on its
own counts as text for the rule above and is compared as what it was parsed to. Branches of `$or` are judged one by
one.

Source: AWS Lambda developer guide, "Control which events Lambda sends to your function", its table of incoming data
and filter pattern formats and the pages on filtering with each source. Quotas: 10 patterns (5 by default), 4096
characters each.

Weak spot: to the engine an object does not `exist`, only the fields in it do. On Kafka `{"value": [{"exists":
true}]}` lets everything but tombstones pass, but `{"value": [{"exists": false}]}` takes JSON objects along with
tombstones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from router.core.literal import parse_event
from router.core.pattern import InvalidPattern, Pattern, Rule, compile_rules

#: Patterns of one mapping.
MAX_PATTERNS = 10


class Mismatch(Enum):
    """What becomes of a record whose data is not of the form a pattern asks for."""

    DROP = "drop"
    METADATA_ONLY = "metadata only"


@dataclass(frozen=True, slots=True)
class DataFormat:
    """How patterns see the data of one kind of source."""

    #: Key under which patterns find the data.
    data_key: str
    mismatch: Mismatch
    #: May a pattern treat the data as text? If not, such a pattern is invalid.
    takes_text_patterns: bool = True
    #: Metadata that is bytes and is decoded as the data is: UTF-8, parsed if it is JSON.
    encoded_keys: tuple[str, ...] = ()


#: Metadata: topic, partition, offset, timestamp, timestampType, key.
KAFKA = DataFormat("value", Mismatch.METADATA_ONLY, encoded_keys=("key",))
#: Metadata: partitionKey, sequenceNumber, approximateArrivalTimestamp and the other record fields, at top level.
KINESIS = DataFormat("data", Mismatch.DROP, takes_text_patterns=False)
#: Metadata: messageId, attributes, messageAttributes and the other message fields.
SQS = DataFormat("body", Mismatch.DROP)
#: Metadata: eventID, eventName and the other record fields.
DYNAMODB = DataFormat("dynamodb", Mismatch.DROP, takes_text_patterns=False)
#: Metadata: eventName, awsRegion and the other fields of a notification's record. Ours: AWS filters these by prefix
#: and suffix alone.
S3 = DataFormat("s3", Mismatch.DROP, takes_text_patterns=False)


class _Form(Enum):
    """What the data of a record turns out to be."""

    ABSENT = "absent"
    #: Not UTF-8.
    UNREADABLE = "unreadable"
    #: Not JSON, or a JSON scalar.
    TEXT = "text"
    #: An object or a list.
    JSON = "JSON"


class RecordFilter:
    """All patterns of a mapping."""

    __slots__ = ("_data_key", "_encoded_keys", "_patterns", "_reads_data")

    def __init__(self, rules: Sequence[Rule], data: DataFormat) -> None:
        """Prepare the rules of all patterns; see `compile_filters`."""
        paths = {path for rule in rules for path in rule}
        self._data_key = data.data_key
        self._reads_data = any(_is_within(path, data.data_key) for path in paths)
        self._encoded_keys = [key for key in data.encoded_keys if any(_is_within(path, key) for path in paths)]
        self._patterns = {form: Pattern(_resolve(rules, form, data)) for form in _Form}

    def matches(self, metadata: Mapping[str, object], data: bytes | None) -> bool:
        """Tell whether a record passes; never raises, whatever the bytes are.

        Args:
            metadata: JSON values as `parse_event` returns them; bytes or None under keys that the source encodes.
            data: None for a record without data.
        """
        view = dict(metadata)
        for key in self._encoded_keys:
            encoded = view.pop(key, None)
            _show(view, key, encoded if isinstance(encoded, bytes) else None)
        form = _show(view, self._data_key, data) if self._reads_data else _Form.ABSENT
        return self._patterns[form].matches(view)


def compile_filters(patterns: Sequence[str], data: DataFormat) -> RecordFilter:
    """Compile the patterns of a mapping; without any, every record passes.

    Raises:
        InvalidPattern: a pattern is wrong, or there are too many.
    """
    if len(patterns) > MAX_PATTERNS:
        raise InvalidPattern(f"filters: at most {MAX_PATTERNS} patterns, found {len(patterns)}")
    rules: list[Rule] = []
    for index, text in enumerate(patterns):
        try:
            rules += _compile_for(text, data)
        except InvalidPattern as error:
            raise InvalidPattern(f"filters[{index}].pattern: {error}") from error
    return RecordFilter(rules or [{}], data)


def _compile_for(text: str, data: DataFormat) -> list[Rule]:
    rules = compile_rules(text)
    if not data.takes_text_patterns and any(data.data_key in rule for rule in rules):
        raise InvalidPattern(f"{data.data_key}: needs an object of fields; this source's data is filtered as JSON only")
    return rules


def _resolve(rules: Iterable[Rule], form: _Form, data: DataFormat) -> list[Rule]:
    """Settle the mismatches of rules with one form of data."""
    resolved = []
    for rule in rules:
        if form is _Form.ABSENT or _forms_asked_for(rule, data.data_key) <= {form}:
            resolved.append(rule)
        elif data.mismatch is Mismatch.METADATA_ONLY:
            resolved.append({path: leaf for path, leaf in rule.items() if not _is_within(path, data.data_key)})
    return resolved


def _forms_asked_for(rule: Rule, data_key: str) -> set[_Form]:
    return {_Form.TEXT if path == data_key else _Form.JSON for path in rule if _is_within(path, data_key)}


def _is_within(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def _show(view: dict[str, Any], key: str, encoded: bytes | None) -> _Form:
    """Put decoded bytes into the view, if there is anything to see."""
    if encoded is None:
        return _Form.ABSENT
    try:
        text = str(encoded, "utf-8")
    except UnicodeDecodeError:
        return _Form.UNREADABLE
    try:
        view[key] = parse_event(text)
    except ValueError:
        view[key] = text
    return _Form.JSON if isinstance(view[key], (dict, list)) else _Form.TEXT
