"""The schema as JSON Schema (draft 2020-12), for editors: printed by `headrace schema`.

It is made of the declarations that the file is read by: types, ranges, words, defaults, meanings, every spelling and
form; `conditions` adds which keys need and exclude each other. It takes all that is taken when the file is read. The
reverse it cannot promise: what a reference brings, which files exist and what mappings have in common is beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from config.aws_forms import NETWORK, AccessConfigurations, Deferred, Inside, Several, Single
from config.blocks import EMPTY, REQUIRED, Block, BlockOf, Key, ListOf, MapOf, TextOrBlock
from config.conditions import conditions, may_be_empty, reached
from config.reading import Kind, Scalar, Schema
from config.schema import Root
from config.spelling import named, names_of


def json_schema() -> Schema:
    """Give the schema of the whole file."""
    writer = _Writer(frozenset(_reached_anywhere(Root)))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "headrace.yaml",
        **writer.value(BlockOf(Root)),
        "$defs": dict(sorted(writer.blocks.items())),
    }


@dataclass
class _Writer:
    """Writes every block as a definition, once."""

    #: Blocks into which a form of an outer block may bring keys: that block demands what they need.
    lifted: frozenset[type[Block]]
    blocks: dict[str, Schema] = field(default_factory=dict)

    def value(self, kind: Kind[Any]) -> Schema:
        """Give the schema of what a kind takes."""
        match kind:
            case BlockOf():
                return self._block(kind.block)
            case Inside() | Several():
                return self._block(kind.block.block)
            case TextOrBlock():
                return {"anyOf": [kind.text.schema, self._block(kind.block.block)]}
            case Deferred():
                return self.value(kind.kind)
            case MapOf() | ListOf() | Single() | AccessConfigurations():
                return self._several(kind)
            case _:
                assert isinstance(kind, Scalar)
                return kind.schema

    def _several(self, kind: MapOf[Any] | ListOf[Any] | Single | AccessConfigurations) -> Schema:
        match kind:
            case MapOf():
                names: Schema = {"pattern": f"^(?:{kind.names.form.pattern})$"}
                if kind.names.refused:
                    names["not"] = {"enum": list(kind.names.refused)}
                return {
                    "type": "object" if kind.low else ["object", "null"],
                    "minProperties": kind.low,
                    "propertyNames": names,
                    "additionalProperties": self.value(kind.kind),
                }
            case ListOf():
                items = {"type": "array", "minItems": kind.low, "maxItems": kind.high, "items": self.value(kind.kind)}
                return {"anyOf": [items, {"type": "string"}]} if kind.commas else items
            case Single():
                return {"type": "array", "minItems": 1, "maxItems": 1, "items": self.value(kind.kind)}
            case AccessConfigurations():
                networks = {"properties": {key: {"enum": list(NETWORK)} for key in ("Type", "type")}}
                return {"allOf": [self.value(kind.items), {"items": networks}]}

    def _block(self, block: type[Block]) -> Schema:
        name = block.__name__
        if name not in self.blocks:
            self.blocks[name] = {}  # taken, before the blocks within ask for theirs
            lifted = block in self.lifted
            needs = list(conditions(block, lifted=lifted))
            self.blocks[name] = {
                "description": block.__doc__,
                "type": ["object", "null"] if lifted or may_be_empty(block) else "object",
                "properties": self._properties(block),
                "additionalProperties": False,
                **({"allOf": needs} if needs else {}),
            }
        return {"$ref": f"#/$defs/{name}"}

    def _properties(self, block: type[Block]) -> Schema:
        properties: Schema = {}
        for name, key in block.declared().items():
            properties[name] = {**self.value(key.kind), **_described(key)}
            same = {"$ref": f"#/$defs/{block.__name__}/properties/{name}"}
            properties |= dict.fromkeys(names_of(name, key.aws), same)
        for spelling, name in named(block.FORMS).items():
            form = block.FORMS[name]
            properties.setdefault(spelling, {**self.value(form.kind), "description": form.meaning})
        for spelling, name in named(block.IDLE).items():
            properties[spelling] = {"description": f"{block.IDLE[name].capitalize()}."}
        return properties


def _described(key: Key) -> Schema:
    described: Schema = {"description": f"{key.meaning} Takes {key.kind.allowed}."}
    default = _default(key)
    return described if default is None else {**described, "default": default}


def _default(key: Key) -> object:
    """Give a default as it would be written; None where it depends or there is none."""
    if key.default in (None, EMPTY, REQUIRED):
        return None
    if isinstance(key.kind, ListOf | MapOf):
        return list(key.default) if isinstance(key.default, tuple) else key.default
    return key.shown or key.default


def _reached_anywhere(block: type[Block]) -> Iterator[type[Block]]:
    yield from reached(block).values()
    for key in block.declared().values():
        kind = key.kind
        while isinstance(kind, MapOf | ListOf):
            kind = kind.kind
        if isinstance(kind, TextOrBlock):
            kind = kind.block
        if isinstance(kind, BlockOf):
            yield from _reached_anywhere(kind.block)
