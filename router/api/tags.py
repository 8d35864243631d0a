"""Tags of functions and event source mappings, which are named by their ARNs.

Functions have tags as a whole, not in their versions (AWS Lambda developer guide, "Using tags"). Texts as recorded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from router.api.call import Answer, Call, Carry
from router.api.constraints import Listed, Structure, Text, broke, check, refuse
from router.api.errors import invalid, not_found
from router.api.finding import find, find_ours
from router.api.function_requests import TAGS
from router.api.mappings import of_file
from router.api.names import Here, parse
from router.api.parts import Parts
from router.api.tagging import refuse_tags
from router.catalogue import records

_UUID: Final = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ARN: Final = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|"
    rf"code-signing-config:csc-[a-z0-9]{{17}}|event-source-mapping:{_UUID}|capacity-provider:[a-zA-Z0-9-_]+)"
)
_TAG: Final = Structure({"Tags": TAGS}, required=("Tags",))
_UNTAG: Final = Structure({"TagKeys": Listed(Text(1, 128))}, required=("TagKeys",))

#: Makes other tags of those that there are.
Change = Callable[[Mapping[str, str]], dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Resource:
    """What has tags."""

    arn: str
    #: Of a function; None = it is a mapping.
    name: str | None = None
    uuid: str = ""


class Tags:
    """TagResource, UntagResource, ListTags."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTags": self._list,
        }

    async def _tag(self, call: Call) -> Answer:
        resource = _resource(call.path["Resource"], self._parts.here)
        check(_TAG, call.document)
        given = call.document["Tags"]
        if not given:
            raise invalid("An error occurred and the request cannot be processed.")
        await self._change(resource, lambda tags: {**tags, **given})
        return Answer(204)

    async def _untag(self, call: Call) -> Answer:
        resource = _resource(call.path["Resource"], self._parts.here)
        gone: Sequence[str] = call.query.get("tagKeys", ())
        check(_UNTAG, {"TagKeys": list(gone) or None})
        await self._change(resource, lambda tags: {key: value for key, value in tags.items() if key not in gone})
        return Answer(204)

    async def _list(self, call: Call) -> Answer:
        resource = _resource(call.path["Resource"], self._parts.here)
        if resource.name is not None:
            return Answer(200, {"Tags": find(self._parts, resource.name).tags})
        return Answer(200, {"Tags": self._mapping(resource).tags})

    def _mapping(self, resource: _Resource) -> records.Mapping:
        mapping = self._parts.catalogue.mapping(resource.uuid)
        if mapping is None or mapping.is_leaving or resource.arn != self._parts.here.mapping(resource.uuid):
            raise not_found(f"Event source mapping not found: {resource.arn}")
        return mapping

    async def _change(self, resource: _Resource, change: Change) -> None:
        if resource.name is not None:
            await self._change_function(resource.name, change)
        else:
            await self._change_mapping(resource, change)

    async def _change_function(self, name: str, change: Change) -> None:
        """Change a function, which then has another revision, as recorded."""
        parts = self._parts
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            tags = change(function.tags)
            refuse_tags(tags)
            latest = msgspec.structs.replace(function.latest, revision=parts.new_id())
            await parts.catalogue.put_function(msgspec.structs.replace(function, tags=tags, latest=latest))

    async def _change_mapping(self, resource: _Resource, change: Change) -> None:
        parts = self._parts
        async with parts.catalogue.changing(resource.uuid):
            mapping = self._mapping(resource)
            if mapping.is_of_file:
                raise of_file(mapping, parts.file)
            tags = change(mapping.tags)
            refuse_tags(tags)
            await parts.catalogue.put_mapping(msgspec.structs.replace(mapping, tags=tags))


def _resource(arn: str, here: Here) -> _Resource:
    """Read the ARN of what has tags. Raises ApiError."""
    # Regions of stand-ins need not be called as AWS's are.
    if not re.fullmatch(_ARN, arn.replace(f":{here.region}:", ":us-east-1:", 1)):
        refuse([broke(arn, "resource", f"Member must satisfy regular expression pattern: {_ARN}")])
    kind, _, rest = arn.split(":", 5)[5].partition(":")
    if kind == "event-source-mapping":
        return _Resource(arn, uuid=rest)
    if kind != "function":
        raise not_found("The resource you requested does not exist.")
    if ":" in rest:
        raise invalid("Tags on function aliases and versions are not supported. Please specify a function ARN.")
    return _Resource(arn, name=parse(arn, here).name)
