"""Event source mappings through the API: made, listed, looked at, changed and deleted.

A request meets, as on AWS, the modelled constraints, the rules between members, the function, the source, and then
what there is already. What passed is written to the catalogue, which what runs follows; answers say how far that is.
Mappings of the file are shown, and changed there only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from router.api import mapping_sources
from router.api.call import Answer, Call, Carry
from router.api.constraints import check
from router.api.errors import ApiError, conflict, in_use, invalid, not_found
from router.api.mapping_kinds import KAFKAS, Kind
from router.api.mapping_members import CREATE, UPDATE
from router.api.mapping_pages import PAGE_COUNT, Wanted, is_of, page
from router.api.mapping_rules import refuse_members, refuse_strange, refuse_timeout
from router.api.mapping_running import SETTLED, Stage, state
from router.api.mapping_shape import shown, state_at_once
from router.api.mapping_twins import find_twin
from router.api.mapping_values import changed, cleared, completed, given
from router.api.names import Reference, Resolved, parse, resolve
from router.api.pages import page_size
from router.api.parts import Parts
from router.api.tagging import refuse_tags
from router.catalogue import records
from router.catalogue.records import LATEST
from router.errors import ConfigError

#: A mapping that begins at the end of its source is answered for once that place is settled, or after so long.
_PIN_S: Final = 5.0
#: Held while a mapping is written that must not be the same as another one.
_MAKING: Final = "$mappings"


class MappingApi:
    """The operations on event source mappings."""

    def __init__(self, parts: Parts) -> None:
        """Make it over a catalogue that is loaded."""
        self._parts = parts
        self._more = parts.mappings
        self._catalogue = parts.catalogue
        #: By UUID, the state that the last change of a mapping began, until it is seen to have come to an end.
        self._passing: dict[str, str] = {}
        #: Those that are being written: what runs is not asked about them, for it has not heard yet.
        self._writing: set[str] = set()

    @property
    def operations(self) -> Mapping[str, Carry]:
        """What carries each operation out."""
        return {
            "CreateEventSourceMapping": self._create,
            "ListEventSourceMappings": self._list,
            "GetEventSourceMapping": self._get,
            "UpdateEventSourceMapping": self._update,
            "DeleteEventSourceMapping": self._delete,
        }

    # --- looking

    async def _get(self, call: Call) -> Answer:
        record = self._found(call)
        return Answer(200, self._shown(record, self._state(record)))

    async def _list(self, call: Call) -> Answer:
        count = page_size(call, PAGE_COUNT)
        name = call.one("FunctionName")
        wanted = Wanted(call.one("EventSourceArn") or None, self._reference(name) if name else None)
        found, marker = page(self._catalogue.mappings.values(), wanted, call.one("Marker"), count)
        listed = [self._shown(each, self._state(each), is_listed=True) for each in found]
        return Answer(200, {"EventSourceMappings": listed, **({"NextMarker": marker} if marker else {})})

    def _found(self, call: Call) -> records.Mapping:
        record = self._catalogue.mapping(call.path["UUID"])
        if record is None:
            raise not_found("The resource you requested does not exist.")
        return record

    def _state(self, record: records.Mapping) -> str:
        if record.uuid in self._writing:
            return self._passing[record.uuid]
        now = state(record, self._passing.get(record.uuid), self._more.running.stage(record.name))
        if now in SETTLED:
            self._passing.pop(record.uuid, None)
        return now

    def _shown(self, record: records.Mapping, now: str, *, is_listed: bool = False) -> dict[str, Any]:
        last_result = self._more.running.last_result(record.name)
        return shown(record, self._parts.here, now, last_result, is_listed=is_listed)

    # --- making

    async def _create(self, call: Call) -> Answer:
        document = call.document
        check(CREATE, document)
        named = self._reference(document["FunctionName"])
        members = given(CREATE, document)
        kind = self._judge(members)
        refuse_tags(document.get("Tags") or {})
        await self._meet(kind, members, self._function(named))
        now_s, uuid = self._parts.wall(), self._parts.new_id()
        record = records.Mapping(
            uuid=uuid,
            function=named.name,
            qualifier=named.qualifier,
            properties=completed(cleared(members), kind, uuid),
            enabled=document.get("Enabled") is not False,
            tags=dict(document.get("Tags") or {}),
            created_s=now_s,
            modified_s=now_s,
            name=uuid,
        )
        async with self._catalogue.changing(uuid):
            answer = await self._put_unlike(record, state_at_once(record, "Create", was_enabled=False))
            await self._begun(record)
        return answer

    async def _begun(self, record: records.Mapping) -> None:
        """Wait until it is settled where a mapping begins that is to begin at the end of its source."""
        if record.enabled and record.properties.get("StartingPosition") == "LATEST":
            await self._more.running.opened(record.name, _PIN_S)

    def _judge(self, members: Mapping[str, Any], *, is_lifted: bool = False) -> Kind:
        is_strict = self._parts.is_strict() and not is_lifted
        return refuse_members(members, is_strict=is_strict, now_s=self._parts.wall())

    def _is_lifted(self, members: Mapping[str, Any]) -> bool:
        """Were members taken while the API was not strict? Then a change of others must not fail for them."""
        try:
            self._judge(members)
        except ApiError:
            return True
        return False

    def _reference(self, text: str) -> Reference:
        """Read the name of a function. The whole ARN of `$LATEST` is shown without that, as on AWS."""
        named = parse(text, self._parts.here)
        return Reference(named.name) if named.is_arn and named.qualifier == LATEST else named

    def _function(self, named: Reference) -> Resolved:
        try:
            return resolve(self._catalogue, named, self._parts.here)
        except ApiError:
            raise invalid("Function does not exist") from None

    async def _meet(self, kind: Kind, members: Mapping[str, Any], function: Resolved) -> None:
        """Refuse a source that is not there, or a function that does not fit it."""
        visibility_s = None
        if kind is Kind.MSK and not self._more.servers(members["EventSourceArn"]):
            raise mapping_sources.no_cluster(members["EventSourceArn"])
        if kind not in KAFKAS:
            visibility_s = (
                await mapping_sources.find(self._more.sources, kind, members["EventSourceArn"])
            ).visibility_s
        versions = map(function.function.version, function.versions)
        refuse_timeout(kind, max(version.timeout_s for version in versions if version), visibility_s)

    async def _put_unlike(self, record: records.Mapping, passing: str) -> Answer:
        """Write a mapping, unless it cannot be run or another one is the same."""
        named, before = Reference(record.function, record.qualifier), self._catalogue.mapping(record.uuid)
        try:
            if record.enabled or not (before and before.enabled):  # what cannot be run any more can be switched off
                self._more.try_out(record)
        except ConfigError as error:
            raise invalid(f"It cannot be run here: {error}") from error
        if before is not None and is_of(before, named):  # it stays what it is, though the file may have a twin by now
            return await self._put(record, passing, self._catalogue.put_mapping(record))
        async with self._catalogue.changing(_MAKING):
            refuse = partial(self._refuse_twin, record, named)
            refuse(self._catalogue.mappings.values())
            return await self._put(record, passing, self._catalogue.put_unlike(record, refuse))

    def _refuse_twin(self, record: records.Mapping, named: Reference, all_there_are: Iterable[records.Mapping]) -> None:
        """Refuse one that would be the same as another."""
        others = (each for each in all_there_are if each.uuid != record.uuid)
        twin = find_twin(record.properties, named, others, self._parts.here)
        if twin:
            raise twin

    async def _put(self, record: records.Mapping, passing: str, write: Awaitable[None]) -> Answer:
        before = self._passing.get(record.uuid)
        self._passing[record.uuid] = passing
        self._writing.add(record.uuid)
        try:
            await write
        finally:
            self._writing.discard(record.uuid)
            if self._catalogue.mapping(record.uuid) is not record:
                self._went_back(record.uuid, before)
        return Answer(202, self._shown(record, passing))

    def _went_back(self, uuid: str, before: str | None) -> None:
        if before is None:
            del self._passing[uuid]
        else:
            self._passing[uuid] = before

    # --- changing

    async def _update(self, call: Call) -> Answer:
        document = call.document
        check(UPDATE, document)
        name = document.get("FunctionName")
        named = None if name is None else self._reference(name)
        async with self._catalogue.changing(call.path["UUID"]):
            record = self._found(call)
            self._refuse_change(record, "update")
            changes = given(UPDATE, document)
            refuse_strange(changes, record.properties)
            members = changed(record.properties, changes)
            kind = self._judge(members, is_lifted=self._is_lifted(record.properties))
            if named:
                await self._meet(kind, members, self._function(named))
            enabled = document.get("Enabled")
            after = msgspec.structs.replace(
                record,
                function=named.name if named else record.function,
                qualifier=named.qualifier if named else record.qualifier,
                properties=completed(members, kind, record.uuid),
                enabled=record.enabled if enabled is None else enabled,
                modified_s=self._parts.wall(),
            )
            answer = await self._put_unlike(after, state_at_once(after, "Update", was_enabled=record.enabled))
            if not record.enabled:
                await self._begun(after)
            return answer

    async def _delete(self, call: Call) -> Answer:
        async with self._catalogue.changing(call.path["UUID"]):
            record = self._found(call)
            self._refuse_change(record, "delete")
            leaving = msgspec.structs.replace(record, is_leaving=True, modified_s=self._parts.wall())
            answer = await self._put(
                leaving,
                state_at_once(leaving, "Delete", was_enabled=record.enabled),
                self._catalogue.put_mapping(leaving),
            )
        self._passing.pop(record.uuid, None)
        self._more.leaves()
        return answer

    def _refuse_change(self, record: records.Mapping, verb: str) -> None:
        """Refuse to change what is the file's, or what is still on its way to where the last change wants it."""
        if record.is_of_file:
            raise of_file(record, self._parts.file)
        is_moving = self._more.running.stage(record.name) in (Stage.OPENING, Stage.LEAVING)
        if record.is_leaving or (is_moving and self._state(record) not in SETTLED):
            raise in_use(f"Cannot {verb} the event source mapping because it is in use.")


def of_file(record: records.Mapping, file: str) -> ApiError:
    """Refuse to change a mapping of the file."""
    return conflict(f"Event source mapping {record.name} is defined in {file}: change it there")
