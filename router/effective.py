"""What runs now: the file, and what was made through the API, as settings.

Settings are made of a record once, and kept as long as it stays as it is; so a change costs a look at each record, and
work for that one alone. A mapping's settings are made of what its function is when it begins, which bounds its drain:
what becomes of the function later changes nothing about them.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from operator import eq
from pathlib import Path
from typing import Final, Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec import structs

from config.assemble import most_at_once
from config.aws_forms import APPLICATION_LEVELS, LOG_FORMATS
from config.overlay import function_settings, overlay
from config.settings import AnyFunction, Configuration, EventInvokeSettings, FunctionSettings, MappingSettings
from connectors.settings import LambdaFunction
from router.api.function_documents import MASK
from router.api.names import Here
from router.asynchronous.targets import arn_of
from router.catalogue import records
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import LATEST, Code, Function, InvokeConfig, Version
from router.errors import ConfigError, NotFound, StoreUnavailable
from router.event_ports import CodeStore
from router.functions import key_of
from router.telemetry import Log

R = TypeVar("R", Version, records.Mapping)
S = TypeVar("S")
#: What the API says of a function that has none of these.
ELSEWHERE: Final = "elsewhere"

#: Makes the settings of a mapping out of its record, its function where there is one, and the file.
MakeMapping = Callable[[records.Mapping, AnyFunction | None, Configuration], MappingSettings]


class _Kept(Generic[R, S]):
    """Settings by name, each with the record that it was made of; `is_same`: are another record's the same?"""

    def __init__(self, is_same: Callable[[R, R], bool] = eq) -> None:
        self._is_same: Callable[[R, R], bool] = is_same
        self._kept: dict[str, tuple[R, object, S]] = {}

    def find(self, name: str, record: R, more: object) -> S | None:
        """Give those of a record, and of what else they are made of; None = there are none yet."""
        kept = self._kept.get(name)
        if kept is not None and (kept[0] is record or self._is_same(kept[0], record)) and kept[1] == more:
            return kept[2]
        return None

    def keep(self, name: str, record: R, more: object, settings: S) -> S:
        self._kept[name] = record, more, settings
        return settings

    def keep_only(self, names: Mapping[str, object]) -> None:
        for name in self._kept.keys() - names.keys():
            del self._kept[name]


class Effective:
    """Gives what runs."""

    def __init__(self, catalogue: Catalogue, code: CodeStore, make_mapping: MakeMapping, log: Log) -> None:
        self._catalogue = catalogue
        self._code = code
        self._make_mapping = make_mapping
        self._log = log
        self._functions: _Kept[Version, FunctionSettings] = _Kept()
        self._mappings: _Kept[records.Mapping, MappingSettings] = _Kept(_is_run_alike)
        #: By UUID, what the functions of queues had reserved when they were there last.
        self._rooms: dict[str, int] = {}
        #: Functions and mappings that could not be made, by name and UUID, and why, as it was told last.
        self._missing: dict[str, str] = {}
        self._unfit: dict[str, str] = {}

    async def over(self, file: Configuration) -> Configuration:
        """Give what runs where the file says this."""
        made, mappings = self._catalogue.made
        # Others may make some while code is fetched; they ask for what runs when they have.
        functions = await self._make_functions(dict(made), file.logs)
        known = {**functions, **file.functions}
        enabled = {
            uuid: each
            for uuid, each in mappings.items()
            if each.enabled and not each.is_leaving and not each.is_of_file
        }
        self._mappings.keep_only(enabled)
        self._rooms = {uuid: room for uuid, room in self._rooms.items() if uuid in enabled}
        self._unfit = {uuid: why for uuid, why in self._unfit.items() if uuid in enabled}
        settings = [self._mapping(each, known, file) for each in enabled.values()]
        return overlay(file, functions, [each for each in settings if each])

    async def _make_functions(self, made: Mapping[str, Function], logs: str) -> dict[str, AnyFunction]:
        found: dict[str, AnyFunction] = {}
        for key, function, version in _versions(made):
            around = function.reserved_concurrency, logs
            settings = self._functions.find(key, version, around) or await self._function(key, version, around)
            if settings:
                found[key] = settings
        self._functions.keep_only(found)
        return found

    async def _function(self, key: str, version: Version, around: tuple[int | None, str]) -> FunctionSettings | None:
        reserved, logs = around
        folder = version.code.folder
        try:
            code = await self._code.path(version.code.sha256) if folder is None else Path(folder)
        except (StoreUnavailable, NotFound) as error:
            self._tell(self._missing, key, "function.code_missing", function=key, error=str(error))
            return None
        self._missing.pop(key, None)
        settings = function_settings(
            key,
            handler=version.handler,
            code=code,
            code_given=version.code.given,
            runtime=version.runtime,
            timeout_s=version.timeout_s,
            memory_mb=version.memory_mb,
            reserved_concurrency=reserved,
            environment=version.environment,
            logs=logs,
            logging=version.kept.get("LoggingConfig", {}),
        )
        return self._functions.keep(key, version, around, settings)

    def _mapping(
        self, mapping: records.Mapping, functions: Mapping[str, AnyFunction], file: Configuration
    ) -> MappingSettings | None:
        servers = file.api.msk_clusters.get(mapping.properties.get("EventSourceArn", ""))
        uuid, used = mapping.uuid, self._used(mapping, functions)
        around = (file.aws, file.fleet, servers, self._room(mapping, used))
        kept = self._mappings.find(uuid, mapping, around)
        if kept:
            return kept
        try:
            made = self._make_mapping(mapping, used, file)
        except ConfigError as error:
            self._tell(self._unfit, uuid, "mapping.unfit", mapping=mapping.name, error=str(error))
            return None
        self._unfit.pop(uuid, None)
        return self._mappings.keep(uuid, mapping, around, replace(made, is_made=True))

    def _room(self, mapping: records.Mapping, used: AnyFunction | None) -> int:
        """Give how many batches of a queue its function can be given at once; one that has gone is waited for."""
        if ":sqs:" not in mapping.properties.get("EventSourceArn", ""):
            return 0
        if used is not None:
            self._rooms[mapping.uuid] = most_at_once(used)
        return self._rooms.get(mapping.uuid, 0)

    def try_out(self, mapping: records.Mapping, now: Configuration, file: Configuration) -> None:
        """Make sure that a mapping can be run where this runs now. Raises ConfigError."""
        self._make_mapping(mapping, self._used(mapping, now.functions), file)

    def _used(self, mapping: records.Mapping, functions: Mapping[str, AnyFunction]) -> AnyFunction | None:
        """Give the function of a mapping as it is now: of an alias, that of its version."""
        version = mapping.qualifier or LATEST
        function = self._catalogue.function(mapping.function)
        alias = function.aliases.get(version) if function else None
        return functions.get(key_of(mapping.function, alias.version if alias else version))

    def why_unfit(self, uuid: str) -> str | None:
        """Say why a mapping that is enabled does not run; None = it does."""
        return self._unfit.get(uuid)

    def unfit(self) -> list[tuple[records.Mapping, str]]:
        """Give the mappings that are enabled and do not run, and why."""
        mappings = self._catalogue.made[1]
        return [(mappings[uuid], why) for uuid, why in self._unfit.items() if uuid in mappings]

    def _tell(self, troubles: dict[str, str], what: str, event: str, **fields: object) -> None:
        error = str(fields["error"])
        if troubles.get(what) != error:
            troubles[what] = error
            self._log.write(event, **fields)


def reference_of(mapping: records.Mapping) -> str:
    """Give a mapping's function as it names it: `orders`, `orders:3`, `orders:live`."""
    return mapping.function if mapping.qualifier is None else f"{mapping.function}:{mapping.qualifier}"


def _is_run_alike(one: records.Mapping, other: records.Mapping) -> bool:
    """Say whether two records of a mapping that is enabled run the same: tags and times change nothing."""
    return reference_of(one) == reference_of(other) and one.properties == other.properties


def _versions(made: Mapping[str, Function]) -> Iterator[tuple[str, Function, Version]]:
    for name, function in made.items():
        yield name, function, function.latest
        for number, version in function.versions.items():
            yield key_of(name, number), function, version


def shown_functions(file: Configuration, here: Here) -> dict[str, Function]:
    """Give the functions of the file as the API shows them, without secrets."""
    return {
        name: _revised(_with_events(_shown(settings, here), file.event_invoke.get(name), here))
        for name, settings in file.functions.items()
    }


def _revised(function: Function) -> Function:
    """Give it a revision that follows from what it is."""
    digest = hashlib.sha256(msgspec.json.encode(function.latest, order="sorted")).digest()
    latest = structs.replace(function.latest, revision=str(UUID(bytes=digest[:16])))
    return structs.replace(function, latest=latest)


def _shown(settings: AnyFunction, here: Here) -> Function:
    runtime = "python{}.{}".format(*sys.version_info[:2])
    if isinstance(settings, FunctionSettings):
        version = Version(
            runtime=runtime,
            handler=settings.handler,
            role=_role(here),
            code=Code(folder=str(settings.code)),
            timeout_s=math.ceil(settings.timeout_s),
            memory_mb=settings.memory_bytes // (1024 * 1024),
            environment=dict.fromkeys(settings.environment, MASK),
            kept={"LoggingConfig": _logging(settings)},
        )
        return Function(
            name=settings.name, latest=version, reserved_concurrency=settings.reserved_concurrency, is_of_file=True
        )
    where = settings.invoked_arn if isinstance(settings, LambdaFunction) else "a URL"
    version = Version(
        runtime=runtime,
        handler=ELSEWHERE,
        role=_role(here),
        code=Code(),
        description=f"runs elsewhere: {where}",
        timeout_s=math.ceil(settings.timeout_s),
    )
    return Function(name=settings.name, latest=version, is_of_file=True)


def _logging(settings: FunctionSettings) -> dict[str, str]:
    words = {
        ours: theirs
        for theirs, ours in (*APPLICATION_LEVELS.items(), *LOG_FORMATS.items())
        if theirs not in ("TRACE", "FATAL")
    }
    level = {} if settings.log_level is None else {"ApplicationLogLevel": words[settings.log_level]}
    return {"LogFormat": words[settings.log_format], "LogGroup": settings.group, **level}


def _with_events(function: Function, said: EventInvokeSettings | None, here: Here) -> Function:
    """Add what the file says of events that are invoked asynchronously."""
    if said is None:
        return function
    config = InvokeConfig(
        maximum_retry_attempts=said.maximum_retry_attempts,
        maximum_event_age_s=said.maximum_event_age_s,
        on_success=said.on_success and arn_of(said.on_success, here),
        on_failure=said.on_failure and arn_of(said.on_failure, here),
    )
    configs = {} if config == InvokeConfig() else {LATEST: config}
    latest = structs.replace(function.latest, dead_letter_arn=said.dead_letter)
    return structs.replace(function, latest=latest, invoke_configs=configs)


def _role(here: Here) -> str:
    """Name a role: every function of Lambda has one."""
    return f"arn:{here.partition}:iam::{here.account_id}:role/headrace"
