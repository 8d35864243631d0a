"""Which keys need and exclude each other, as JSON Schema: what is declared with the keys, and some contradictions.

A key that a form may bring from outside its block (`Topics` brings `source.kafka.topic`) is not demanded in that block
but by the one that has the form, which takes either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Final

from config.aws_forms import Reference
from config.blocks import REQUIRED, Block, BlockOf
from config.destinations import ToSns, ToSqs
from config.fleet import Redis, State
from config.names import CONSUMER
from config.reading import REFERRING, Schema, schema_of_text
from config.schema import KINDS, RECEIVED_COUNT, SHARED, EventSource, FilterCriteria, Function, Root
from config.sources import QUEUES, S3, Kinesis, Security
from config.spelling import named, names_of


def conditions(block: type[Block], *, lifted: bool) -> Iterator[Schema]:
    """Give what the keys of a block, and of the blocks into which its forms bring keys, say of each other.

    Args:
        block: the block.
        lifted: an outer block demands what this one needs.
    """
    forms = [name for name, form in block.FORMS.items() if form.always and form.paths]
    for name in (*block.declared(), *forms):
        for pair in combinations(_spellings(block, name), 2):
            yield _not({"type": "object", "required": list(pair)})
    for name in forms:
        for path in block.FORMS[name].paths:
            yield _not(_all_of([_brings(block, name, path, sure=True), _in_place(block, path)]))
    if not lifted:
        yield from _demands(block, "", block)
    for path, inner in reached(block).items():
        if demands := list(_demands(block, f"{path}.", inner)):
            yield {"if": _brought(block, path), "then": _all_of(demands)}
    yield from _belonging(block)
    yield from _CONTRADICTIONS.get(block, ())


def may_be_empty(block: type[Block]) -> bool:
    """Say whether a block without any key is right."""
    return not block.ONE and all(key.default is not REQUIRED for key in block.declared().values())


def reached(block: type[Block]) -> dict[str, type[Block]]:
    """Give the blocks into which the forms of a block bring keys, by their paths from it."""
    found: dict[str, type[Block]] = {}
    for form in block.FORMS.values():
        for path in form.paths:
            inner, way = block, ""
            for name in path.split(".")[:-1]:
                inner = _inner(inner, name)
                way = f"{way}.{name}".lstrip(".")
                found[way] = inner
    return found


def _demands(holder: type[Block], prefix: str, block: type[Block]) -> Iterator[Schema]:
    """What a block must have, whose keys have a prefix in the holder."""
    for name, key in block.declared().items():
        if key.default is REQUIRED:
            yield _brought(holder, f"{prefix}{name}")
    if block.ONE:
        each = [_brought(holder, f"{prefix}{name}") for name in block.declared()]
        yield _any_of(each)
        sure = [_brought(holder, f"{prefix}{name}", sure=True) for name in block.declared()]
        yield from (_not(_all_of(pair)) for pair in combinations(sure, 2))


def _belonging(block: type[Block]) -> Iterator[Schema]:
    """Keys that have a meaning with some sources, or other keys, only."""
    limited = {name: key.only for name, key in block.declared().items() if key.only}
    places = {f"{only.within}.{source}".lstrip("."): source for only in limited.values() for source in only.sources}
    for path, source in sorted(places.items()):
        foreign = [name for name, only in limited.items() if source not in only.sources]
        spellings = [each for name in foreign for each in _spellings(block, name)]
        yield {"if": _brought(block, path, sure=True), "then": {"properties": dict.fromkeys(spellings, False)}}


# --- what is there


def _spellings(block: type[Block], name: str) -> list[str]:
    keys = block.declared()
    if name in keys:
        return [name, *names_of(name, keys[name].aws)]
    return [each for each, form in named(block.FORMS).items() if form == name and each not in keys]


def _given(block: type[Block], name: str) -> Schema:
    """A key or form is there, in some spelling."""
    return _any_of({"required": [each]} for each in _spellings(block, name))


def _is(block: type[Block], name: str, schema: Schema) -> Schema:
    """A key is there, in some spelling, and is like that."""
    return _any_of({"required": [each], "properties": {each: schema}} for each in _spellings(block, name))


def _in_place(block: type[Block], path: str) -> Schema:
    """What a path leads to is there, written in its place."""
    name, _, rest = path.partition(".")
    if not rest:
        return _given(block, name)
    return _is(block, name, {"type": "object", **_in_place(_inner(block, name), rest)})


def _brought(block: type[Block], path: str, *, sure: bool = False) -> Schema:
    """What a path leads to is there, written in its place or brought by a form; `sure`: for certain."""
    forms = [
        name for name, form in block.FORMS.items() if form.always and any(_is_within(each, path) for each in form.paths)
    ]
    return _any_of([_in_place(block, path), *(_brings(block, name, path, sure=sure) for name in forms)])


def _brings(block: type[Block], name: str, path: str, *, sure: bool) -> Schema:
    """A form is there that brings what a path leads to; where its text says what it brings, such a text.

    `sure`: not one that refers to another text, which may say anything.
    """
    form = block.FORMS[name]
    if not isinstance(form.kind, Reference):
        return _given(block, name)
    texts = "|".join(text for text, way in form.kind.ways.items() if _is_within(way, path))
    return _is(block, name, {"type": "string", "pattern": f"^(?:{texts})$"} if sure else schema_of_text(texts))


def _is_within(path: str, outer: str) -> bool:
    return f"{path}.".startswith(f"{outer}.")


def _inner(block: type[Block], name: str) -> type[Block]:
    kind = block.declared()[name].kind
    assert isinstance(kind, BlockOf)
    inner: type[Block] = kind.block
    return inner


def _any_of(schemas: Iterable[Schema]) -> Schema:
    each = list(schemas)
    return each[0] if len(each) == 1 else {"anyOf": each}


def _all_of(schemas: Iterable[Schema]) -> Schema:
    each = list(schemas)
    return each[0] if len(each) == 1 else {"allOf": each}


def _not(schema: Schema) -> Schema:
    return {"not": schema}


# --- contradictions that a schema can say


def _queue_is(schema: Schema) -> Schema:
    """The queue that a mapping reads is like that."""
    queue = {"required": ["queue"], "properties": {"queue": schema}}
    at_source = _any_of({"required": [kind], "properties": {kind: queue}} for kind in QUEUES)
    arn = {"allOf": [{"type": "string", "pattern": "^arn:[a-z-]+:sqs:"}, schema]}
    return _any_of([_is(EventSource, "source", at_source), _is(EventSource, "EventSourceArn", arn)])


def _protocol(*protocols: str) -> Schema:
    """The protocol is one of these, of which the default is the first of all."""
    named_so = {"required": ["protocol"], "properties": {"protocol": {"enum": list(protocols)}}}
    return {"anyOf": [named_so, _not({"required": ["protocol"]})]} if protocols[0] == "PLAINTEXT" else named_so


_FIFO: Final[Schema] = {"type": "string", "pattern": r"\.fifo$"}
_STANDARD: Final[Schema] = {"type": "string", "not": {"pattern": rf"\.fifo$|{REFERRING}"}}
_REFERENCE: Final[Schema] = {"type": "string", "pattern": REFERRING}
_ABOVE_RECEIVED: Final[Schema] = {"type": "number", "exclusiveMinimum": RECEIVED_COUNT}
_ABOVE_ZERO: Final[Schema] = {"type": "number", "exclusiveMinimum": 0}

_CONSUMER: Final[Schema] = {"type": "string", "pattern": f"^arn:.*{CONSUMER}"}
_WINDOW: Final = _is(EventSource, "maximum_batching_window_in_seconds", _ABOVE_ZERO)
_LARGE_BATCH: Final = _is(EventSource, "batch_size", _ABOVE_RECEIVED)
_TUMBLING: Final = _is(EventSource, "tumbling_window_in_seconds", _ABOVE_ZERO)
_LANES: Final = _is(EventSource, "parallelization_factor", {"type": "number", "exclusiveMinimum": 1})
_FILTERS: Final = _is(FilterCriteria, "filters", {"type": "array", "minItems": 1})
_AT_TIME: Final[Schema] = {"const": "AT_TIMESTAMP"}

_DIRECTORY: Final[Schema] = {"type": "string", "not": {"pattern": f"://|{REFERRING}"}}

_CONTRADICTIONS: Final[Mapping[type[Block], tuple[Schema, ...]]] = {
    Root: (
        {
            "if": {"anyOf": [_not({"required": ["state"]}), {"properties": {"state": _DIRECTORY}}]},
            "then": {"properties": dict.fromkeys(SHARED, False)},
        },
    ),
    State: ({"dependentRequired": {"payloads_over": ["payloads"]}},),
    Redis: ({"dependentRequired": {"certificate": ["key"], "key": ["certificate"]}},),
    EventSource: (
        {
            "if": _is(EventSource, "starting_position", _AT_TIME),
            "then": _given(EventSource, "starting_position_timestamp"),
        },
        {
            "if": _given(EventSource, "starting_position_timestamp"),
            "then": _is(EventSource, "starting_position", {"anyOf": [_AT_TIME, _REFERENCE]}),
        },
        {
            "if": _TUMBLING,
            "then": _not(_any_of([_LANES, _is(EventSource, "filter_criteria", {"type": "object", **_FILTERS})])),
        },
        {"if": _queue_is(_FIFO), "then": _not(_any_of([_WINDOW, _LARGE_BATCH]))},
        {"if": _all_of([_queue_is(_STANDARD), _LARGE_BATCH]), "then": _WINDOW},
    ),
    Function: (
        _any_of(_given(Function, name) for name in KINDS),
        *(_not(_all_of([_given(Function, one), _given(Function, other)])) for one, other in combinations(KINDS, 2)),
        {"if": _given(Function, "handler"), "then": _given(Function, "code")},
    ),
    Kinesis: (_not(_all_of([_is(Kinesis, "stream", _CONSUMER), _given(Kinesis, "poll_interval")])),),
    S3: (_not(_is(S3, "queue", _FIFO)),),
    ToSqs: (_not(_is(ToSqs, "queue", _FIFO)),),
    ToSns: (_not(_is(ToSns, "topic", _FIFO)),),
    Security: (
        {"if": _protocol("SASL_PLAINTEXT", "SASL_SSL"), "then": {"required": ["mechanism", "username", "password"]}},
        {
            "if": _protocol("PLAINTEXT", "SSL"),
            "then": {"properties": dict.fromkeys(("mechanism", "username", "password"), False)},
        },
        {
            "if": _protocol("PLAINTEXT", "SASL_PLAINTEXT"),
            "then": {"properties": dict.fromkeys(("ca", "certificate", "key", "key_password"), False)},
        },
        {"dependentRequired": {"certificate": ["key"], "key": ["certificate"], "key_password": ["key"]}},
    ),
}
