"""The configuration and the code of a function are changed. Published versions stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from router.api.call import Answer, Call, Carry
from router.api.constraints import check
from router.api.finding import find_ours, named_whole, refuse_changed
from router.api.function_code import forget_unused, kept, take
from router.api.function_documents import UPDATING, configuration
from router.api.function_requests import UPDATE_CODE, UPDATE_CONFIGURATION
from router.api.function_rules import CODE_KEY, changed, refuse_settings
from router.api.parts import Parts
from router.api.versions import published
from router.catalogue.records import Code, Function


class Updates:
    """UpdateFunctionConfiguration, UpdateFunctionCode."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "UpdateFunctionConfiguration": self._configuration,
            "UpdateFunctionCode": self._code,
        }

    async def _configuration(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        name = named_whole(parts, call)
        check(UPDATE_CONFIGURATION, document)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            refuse_settings(document)
            refuse_changed(document.get("RevisionId"), function.latest.revision)
            latest = changed(function.latest, document, at_s=parts.wall(), revision=parts.new_id())
            function = replace(function, latest=latest)
            await parts.catalogue.put_function(function)
        return Answer(200, configuration(function, latest, parts.here, state=UPDATING))

    async def _code(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        name = named_whole(parts, call)
        check(UPDATE_CODE, document)
        async with parts.catalogue.changing(name):
            before = find_ours(parts, name)
            refuse_changed(document.get("RevisionId"), before.latest.revision)
            taken = await take(parts, document)
            after = self._with_code(before, taken.code, document)
            shown, qualifier = after.latest, None
            if document.get("Publish"):
                after, shown = published(after, None, new_id=parts.new_id, at_s=after.latest.modified_s)
                qualifier = shown.number
            if not document.get("DryRun"):
                async with kept(parts, taken):
                    await parts.catalogue.put_function(after)
                await forget_unused(parts, [before.latest.code])
        return Answer(200, configuration(after, shown, parts.here, qualifier, UPDATING))

    def _with_code(self, function: Function, code: Code, document: Mapping[str, Any]) -> Function:
        given = {name: document[name] for name in ("Architectures", CODE_KEY) if document.get(name)}
        settings = {**function.latest.kept, **given}
        revision, now_s = self._parts.new_id(), self._parts.wall()
        return replace(
            function, latest=replace(function.latest, code=code, kept=settings, revision=revision, modified_s=now_s)
        )
