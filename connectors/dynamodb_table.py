"""Finding a table and its streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from connectors.dynamodb_client import DynamoDbClient, Stream, is_not_found
from connectors.settings import DynamoDbSettings
from router.errors import SourceUnavailable


class Place(NamedTuple):
    """What the settings name."""

    table: str
    #: Of the stream; None = all of the table.
    stream_arn: str | None
    #: Where it is, as far as is said.
    region: str | None


def place_of(settings: DynamoDbSettings) -> Place:
    """Read the name of a table, or the ARN of one of its streams."""
    if not settings.table.startswith("arn:"):
        return Place(settings.table, None, settings.region)
    _, _, _, region, _, resource = settings.table.split(":", 5)
    return Place(resource.split("/")[1], settings.table, settings.region or region)


def describe(settings: DynamoDbSettings) -> str:
    """Name the table in errors."""
    return f"DynamoDB table {settings.table}"


async def find_table(client: DynamoDbClient, name: str, what: str) -> str:
    """Give the ARN of a table that has a stream, or had one that is kept.

    Raises:
        SourceUnavailable: it has none, is missing, or cannot be asked about; the message says what to do.
    """
    try:
        table = await client.table(name)
    except SourceUnavailable as error:
        if is_not_found(error):
            raise SourceUnavailable(
                f"{what}: the table does not exist there; create it, or correct table, region or account"
            ) from error
        raise
    if not table.latest_stream_arn:
        raise _no_stream(what, name)
    return table.table_arn


async def find_streams(client: DynamoDbClient, place: Place, what: str) -> Sequence[Stream]:
    """Look at the stream, or at all streams of the table, the oldest first.

    Raises:
        SourceUnavailable: none is there, or what there is cannot be asked about.
    """
    if place.stream_arn:
        try:
            return [await client.stream(place.stream_arn)]
        except SourceUnavailable as error:
            if is_not_found(error):
                raise SourceUnavailable(
                    f"{what}: the stream does not exist there (any more); name the table, or correct its ARN"
                ) from error
            raise
    found = []
    for arn in await client.streams(place.table):
        try:
            found.append(await client.stream(arn))
        except SourceUnavailable as error:
            if not is_not_found(error):
                raise
            # Its 24 hours ended since it was listed.
    if not found:
        raise _no_stream(what, place.table)
    return found


def _no_stream(what: str, table: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"{what}: the table has no stream; enable one: aws dynamodb update-table --table-name {table} "
        "--stream-specification StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES"
    )
