"""Functions are made and deleted, and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from router.api.call import Answer, Call, Carry
from router.api.code_links import CodeLinks
from router.api.constraints import Structure, Text, check
from router.api.errors import conflict, invalid
from router.api.finding import find, find_ours, named, refuse_of_file
from router.api.function_code import codes, forget_unused, kept, take
from router.api.function_documents import PENDING, configuration, listed
from router.api.function_requests import CREATE
from router.api.function_rules import CODE_KEY, made, refuse_new
from router.api.names import Reference, is_version, missing, parse
from router.api.pages import FUNCTIONS_COUNT, page, version_key
from router.api.parts import Parts
from router.api.tagging import refuse_tags
from router.api.versions import published
from router.catalogue.records import LATEST, Code, Function, Version

_LIST = Structure({"FunctionVersion": Text(words=("ALL",))})


class Functions:
    """CreateFunction, DeleteFunction, GetFunction, GetFunctionConfiguration, ListFunctions."""

    def __init__(self, parts: Parts, links: CodeLinks) -> None:
        self._parts = parts
        self._links = links
        self.operations: Mapping[str, Carry] = {
            "CreateFunction": self._create,
            "DeleteFunction": self._delete,
            "GetFunction": self._get,
            "GetFunctionConfiguration": self._get_configuration,
            "ListFunctions": self._list,
        }

    async def _create(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        check(CREATE, document)
        refuse_new(document)
        name = parse(document["FunctionName"], parts.here, is_new=True).name
        refuse_tags(document.get("Tags") or {})
        async with parts.catalogue.changing(name):
            there = parts.catalogue.function(name)
            if there:
                refuse_of_file(parts, there)
                raise conflict(f"Function already exist: {name}")
            taken = await take(parts, document["Code"])
            now_s = parts.wall()
            given = {**document, CODE_KEY: document["Code"].get(CODE_KEY)}
            latest = made(given, taken.code, at_s=now_s, revision=parts.new_id())
            function = Function(name=name, latest=latest, tags=dict(document.get("Tags") or {}), created_s=now_s)
            shown = latest
            if document.get("Publish"):
                function, shown = published(function, None, new_id=parts.new_id, at_s=now_s)
            async with kept(parts, taken):
                await parts.catalogue.put_function(function)
        return Answer(201, configuration(function, shown, parts.here, state=PENDING))

    async def _delete(self, call: Call) -> Answer:
        parts = self._parts
        reference = named(parts, call)
        _refuse_part(reference)
        async with parts.catalogue.changing(reference.name):
            function = find_ours(parts, reference.name)
            if reference.qualifier is None:
                await parts.catalogue.drop_function(function.name)
                gone = codes(function)
            else:
                gone = await self._delete_version(function, reference.qualifier)
            await forget_unused(parts, gone)
        return Answer(204)

    async def _delete_version(self, function: Function, number: str) -> list[Code]:
        """Delete one version, which need not be there; gives the code that it had."""
        version = function.versions.get(number)
        if version is None:
            return []
        aliases = [each.name for each in function.aliases.values() if number in (each.version, *each.weights)]
        if aliases:
            raise conflict(
                f"Unable to delete version because the following aliases reference it: [{', '.join(aliases)}]"
            )
        await self._parts.catalogue.put_function(without(function, number))
        return [version.code]

    async def _get(self, call: Call) -> Answer:
        parts = self._parts
        reference = named(parts, call, is_read=True)
        function, version = self._version(reference)
        document: dict[str, Any] = {
            "Configuration": configuration(function, version, parts.here, reference.qualifier),
            "Code": {"RepositoryType": "S3", **self._links.location(version.code, call), **_key(version)},
        }
        if function.reserved_concurrency is not None:
            document["Concurrency"] = {"ReservedConcurrentExecutions": function.reserved_concurrency}
        if function.tags:
            document["Tags"] = function.tags
        return Answer(200, document)

    async def _get_configuration(self, call: Call) -> Answer:
        reference = named(self._parts, call, is_read=True)
        function, version = self._version(reference)
        return Answer(200, configuration(function, version, self._parts.here, reference.qualifier))

    def _version(self, reference: Reference) -> tuple[Function, Version]:
        """Give the version that is read: of an alias, the one that it is for first of all."""
        qualifier = reference.qualifier
        function = find(self._parts, reference.name, qualifier)
        alias = function.aliases.get(qualifier or "")
        version = function.version(alias.version if alias else qualifier or LATEST)
        if version is None:
            raise missing(self._parts.here.function(reference.name, qualifier))
        return function, version

    async def _list(self, call: Call) -> Answer:
        check(_LIST, {"FunctionVersion": call.one("FunctionVersion")})
        has_all = call.one("FunctionVersion") is not None
        items = {
            f"{function.name}:{version_key(version.number)}": (function, version)
            for function in self._parts.catalogue.functions.values()
            for version in (function.latest, *(function.versions.values() if has_all else ()))
        }
        shown, more = page(call, items, FUNCTIONS_COUNT)
        here = self._parts.here
        found = [listed(function, version, here, version.number if has_all else None) for function, version in shown]
        return Answer(200, {"Functions": found, **more})


def _key(version: Version) -> dict[str, str]:
    """Give what the code came encrypted with, as it was told."""
    key = version.kept.get(CODE_KEY)
    return {CODE_KEY: key} if key else {}


def _refuse_part(reference: Reference) -> None:
    """Refuse to delete what is no version of its own."""
    if reference.qualifier == LATEST:
        raise invalid("$LATEST version cannot be deleted without deleting the function.")
    if reference.qualifier is not None and not is_version(reference.qualifier):
        raise invalid("Deletion of aliases is not currently supported.")


def without(function: Function, qualifier: str) -> Function:
    """Take a version or alias out of a function, with all that was said of it."""
    fields = ("versions", "aliases", "invoke_configs", "policies", "policy_revisions")
    left: dict[str, Any] = {
        field: {key: value for key, value in getattr(function, field).items() if key != qualifier} for field in fields
    }
    return replace(function, **left)
