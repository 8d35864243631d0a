"""Puts the Lambda API of a daemon together: what its operations are carried out with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from config.made import made_mapping
from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings
from config.shown import shown_mappings
from connectors import CODE_OBJECTS, SOURCE_LOOKUP, load
from connectors.settings import AwsSettings
from connectors.store.archives import ARCHIVES
from handlers.archive import check, hash_of, sweep
from router.api.function_code import used
from router.api.mapping_departures import Departures, alone_with
from router.api.mapping_parts import MappingParts
from router.api.parts import Parts
from router.catalogue import records
from router.catalogue.catalogue import Catalogue
from router.catalogue.of_file import mapping_records
from router.effective import reference_of
from router.errors import StoreUnavailable
from router.event_ports import Accepts, CodeStore, FoundSource, NoSource
from router.mapping_lives import MappingLives
from router.ports import Store
from router.telemetry import Log

if TYPE_CHECKING:
    from router.service import Service


async def load_catalogue(catalogue: Catalogue, code: CodeStore, log: Log) -> None:
    """Read what was made through the API; without it, what the file says runs, and the API refuses everything.

    Code that a crash has left without a function goes.
    """
    try:
        await catalogue.load()
    except StoreUnavailable as error:
        log.write("catalogue.unknown", error=str(error))
        return
    with contextlib.suppress(StoreUnavailable):  # it is tried again at the next start
        await code.keep_only(used(catalogue.made[0].values()))


def forget_unpacked(configuration: Configuration) -> None:
    """Delete what was unpacked of code that no function has any more; before anything runs."""
    hashes = {path.stem for path in (configuration.state_dir / ARCHIVES).glob("*.zip")}
    for function in configuration.functions.values():
        if isinstance(function, FunctionSettings) and function.code.is_file():
            with contextlib.suppress(OSError):
                hashes.add(hash_of(function.code))
    sweep(configuration.state_dir, hashes)


def make_made_mapping(mapping: records.Mapping, function: AnyFunction | None, file: Configuration) -> MappingSettings:
    """Make the settings of a mapping that was made through the API. Raises ConfigError."""
    servers = _servers(mapping.properties.get("EventSourceArn", ""), file)
    return made_mapping(mapping.name, reference_of(mapping), mapping.properties, function, file, servers)


def file_mappings(file: Configuration) -> dict[str, records.Mapping]:
    """Give the mappings of the file as the API shows them, by their UUIDs."""
    return dict(mapping_records(shown_mappings(file), time.time()))


def make_parts(
    served: Service, code: CodeStore, store: Store, accepts: Accepts, file: Path, log: Log
) -> tuple[Parts, Departures]:
    """Make what the operations are carried out with, and what sees off mappings that are deleted."""
    catalogue, running = served.catalogue, MappingLives(served.supervisor, served.why_unfit)
    alone = served.together.alone_for_good if served.together else alone_with(store)
    departures = Departures(catalogue, running, alone, log)
    asked = _Asked(lambda: served.file.aws)
    parts = Parts(
        catalogue=catalogue,
        functions=served.running,
        code=code,
        objects=asked,
        check_archive=check,
        mappings=MappingParts(
            asked,
            running,
            servers=lambda arn: _servers(arn, served.file),
            try_out=served.try_out,
            leaves=departures.begin,
        ),
        where=lambda: served.here,
        is_strict=lambda: served.file.api.strict,
        file=str(file),
        wall=time.time,
        new_id=lambda: str(uuid4()),
        log=log,
        accepts=accepts,
    )
    return parts, departures


class _Asked:
    """What of AWS is asked while functions and mappings are made; loaded when it is, for its clients take memory."""

    def __init__(self, aws: Callable[[], AwsSettings]) -> None:
        """Make it; `aws` gives what holds now."""
        self._aws = aws

    async def find(self, arn: str) -> FoundSource | NoSource:
        found: FoundSource | NoSource = await load(SOURCE_LOOKUP)(self._aws).find(arn)
        return found

    async def fetch(self, bucket: str, key: str, version: str | None, limit_bytes: int) -> bytes:
        aws = self._aws()
        content: bytes = await load(CODE_OBJECTS)(aws.endpoint_url, aws.region).fetch(bucket, key, version, limit_bytes)
        return content


def _servers(arn: str, file: Configuration) -> Sequence[str]:
    """Give the servers of a cluster of Amazon MSK that the file names; none = it names none."""
    return file.api.msk_clusters.get(arn, ())
