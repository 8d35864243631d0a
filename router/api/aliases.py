"""Aliases: names for a version, or for two by weight (AWS Lambda API reference; texts as recorded)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from router.api.call import Answer, Call, Carry
from router.api.constraints import check
from router.api.errors import conflict, invalid, not_found
from router.api.finding import find, find_ours, named_whole, refuse_changed
from router.api.function_requests import CREATE_ALIAS, LIST_ALIASES, UPDATE_ALIAS
from router.api.functions import without
from router.api.names import Here, missing
from router.api.pages import FUNCTIONS_COUNT, page
from router.api.parts import Parts
from router.catalogue.records import LATEST, Alias, Function


class Aliases:
    """CreateAlias, GetAlias, UpdateAlias, DeleteAlias, ListAliases."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "CreateAlias": self._create,
            "GetAlias": self._get,
            "UpdateAlias": self._update,
            "DeleteAlias": self._delete,
            "ListAliases": self._list,
        }

    async def _create(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        check(CREATE_ALIAS, document)
        name = named_whole(parts, call)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name, document["FunctionVersion"])
            alias = Alias(
                name=document["Name"],
                version=document["FunctionVersion"],
                description=document.get("Description") or "",
                weights=_weights(document) or {},
                revision=parts.new_id(),
            )
            self._refuse_unusable(function, alias)
            if alias.name in function.aliases:
                raise conflict(f"Alias already exists: {parts.here.function(name, alias.name)}")
            await self._put(function, alias)
        return Answer(201, _document(function, alias, parts.here))

    async def _update(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        check(UPDATE_ALIAS, {**document, "Name": call.path["Name"]})
        name = named_whole(parts, call)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            before = function.aliases.get(call.path["Name"])
            if before is None:
                raise not_found(f"Alias not found: {parts.here.function(name, call.path['Name'])}")
            refuse_changed(document.get("RevisionId"), before.revision)
            weights = _weights(document)
            alias = Alias(
                name=before.name,
                version=document.get("FunctionVersion") or before.version,
                description=before.description if document.get("Description") is None else document["Description"],
                weights=before.weights if weights is None else weights,
                revision=parts.new_id(),
            )
            self._refuse_unusable(function, alias)
            await self._put(function, alias)
        return Answer(200, _document(function, alias, parts.here))

    async def _put(self, function: Function, alias: Alias) -> None:
        await self._parts.catalogue.put_function(
            replace(function, aliases={**function.aliases, alias.name: alias}),
        )

    async def _delete(self, call: Call) -> Answer:
        parts = self._parts
        name = named_whole(parts, call)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            if call.path["Name"] in function.aliases:
                await parts.catalogue.put_function(without(function, call.path["Name"]))
        return Answer(204)

    async def _get(self, call: Call) -> Answer:
        parts = self._parts
        function = find(parts, named_whole(parts, call))
        alias = function.aliases.get(call.path["Name"])
        if alias is None:
            raise not_found(f"Cannot find alias arn: {parts.here.function(function.name, call.path['Name'])}")
        return Answer(200, _document(function, alias, parts.here))

    async def _list(self, call: Call) -> Answer:
        parts, version = self._parts, call.one("FunctionVersion")
        check(LIST_ALIASES, {"FunctionVersion": version})
        function = find(parts, named_whole(parts, call))
        aliases = function.aliases.values()
        items = {each.name: each for each in aliases if version in (None, each.version, *each.weights)}
        shown, more = page(call, items, FUNCTIONS_COUNT)
        return Answer(200, {"Aliases": [_document(function, each, parts.here) for each in shown], **more})

    def _refuse_unusable(self, function: Function, alias: Alias) -> None:
        if len(alias.weights) > 1:
            raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
        if alias.version in alias.weights:
            raise invalid(
                f"Invalid function version {alias.version}. "
                f"Function version {alias.version} is already included in routing configuration."
            )
        if alias.weights and alias.version == LATEST:
            raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
        for number in (alias.version, *alias.weights):
            if function.version(number) is None:
                raise missing(self._parts.here.function(function.name, number))


def _weights(document: Mapping[str, Any]) -> dict[str, float] | None:
    """Give the weights that a request sets; empty = it takes them away, None = it does not say."""
    routing = document.get("RoutingConfig")
    return None if routing is None else dict(routing.get("AdditionalVersionWeights") or {})


def _document(function: Function, alias: Alias, here: Here) -> dict[str, Any]:
    return {
        "AliasArn": here.function(function.name, alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        **({"RoutingConfig": {"AdditionalVersionWeights": alias.weights}} if alias.weights else {}),
        "RevisionId": alias.revision,
    }
