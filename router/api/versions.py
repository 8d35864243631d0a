"""Versions of functions are published and listed. What is published does not change any more.

A function whose code and configuration are still what they were is not published again: its last version is answered
(AWS Lambda developer guide, "Manage Lambda function versions").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from router.api.call import Answer, Call, Carry
from router.api.constraints import check
from router.api.errors import invalid
from router.api.finding import find, find_ours, named_whole, refuse_changed
from router.api.function_documents import configuration, listed, shown_hash
from router.api.function_requests import PUBLISH
from router.api.pages import FUNCTIONS_COUNT, page, version_key
from router.api.parts import Parts
from router.catalogue.records import Function, Version


class Versions:
    """PublishVersion, ListVersionsByFunction."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.operations: Mapping[str, Carry] = {
            "PublishVersion": self._publish,
            "ListVersionsByFunction": self._list,
        }

    async def _publish(self, call: Call) -> Answer:
        parts, document = self._parts, call.document
        name = named_whole(parts, call)
        check(PUBLISH, document)
        async with parts.catalogue.changing(name):
            function = find_ours(parts, name)
            refuse_changed(document.get("RevisionId"), function.latest.revision)
            _refuse_other_code(document.get("CodeSha256"), function.latest)
            after, version = published(
                function, document.get("Description"), new_id=parts.new_id, at_s=function.latest.modified_s
            )
            if after is not function:
                await parts.catalogue.put_function(after)
        return Answer(201, configuration(after, version, parts.here, version.number))

    async def _list(self, call: Call) -> Answer:
        parts = self._parts
        function = find(parts, named_whole(parts, call))
        items = {version_key(each.number): each for each in (function.latest, *function.versions.values())}
        shown, more = page(call, items, FUNCTIONS_COUNT)
        return Answer(200, {"Versions": [listed(function, each, parts.here, each.number) for each in shown], **more})


def _refuse_other_code(wanted: str | None, latest: Version) -> None:
    present = shown_hash(latest.code)
    if wanted and wanted != present:
        raise invalid(
            f"CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({present}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )


def published(
    function: Function, description: str | None, *, new_id: Callable[[], str], at_s: float
) -> tuple[Function, Version]:
    """Publish what a function is now, and give both; the same function as before where nothing has changed since.

    Args:
        function: the one.
        description: of the version; None = that of the function.
        new_id: gives revisions.
        at_s: the time of the version, wall time in seconds.
    """
    digest = _digest(function.latest)
    last = function.versions.get(str(function.next_version - 1))
    if last and function.published_digest == digest:
        return function, last
    number = str(function.next_version)
    said = function.latest.description if description is None else description
    version = replace(function.latest, number=number, description=said, revision=new_id(), modified_s=at_s)
    after = replace(
        function,
        latest=replace(function.latest, revision=new_id()),
        versions={**function.versions, number: version},
        next_version=function.next_version + 1,
        published_digest=digest,
    )
    return after, version


def _digest(version: Version) -> str:
    """Sum up what a version does."""
    bare = replace(version, modified_s=0.0, revision="")
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()
