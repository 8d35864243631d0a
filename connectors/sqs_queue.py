"""Finding a queue: its URL, its ARN and its settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import urlsplit

from connectors.aws import are_credentials_refused, aws_errors
from connectors.aws_access import Access, forget, sqs_access
from connectors.settings import SqsSettings, queue_name
from connectors.sqs_client import SqsClient, find_url
from router.errors import SourceUnavailable

#: Region in the host of a queue's URL, at AWS and at stand-ins that follow it.
_HOST_REGION: Final = re.compile(r"(?:^|\.)sqs(?:-fips)?\.([a-z0-9-]+)\.")
_AWS_HOST: Final = re.compile(r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws|amazonwebservices\.com\.cn)$")


@dataclass(frozen=True, slots=True)
class QueueState:
    """What changes while a queue is read."""

    #: Attributes that it is made of.
    NAMES: ClassVar = ("VisibilityTimeout", "ApproximateNumberOfMessages")

    visibility_s: int
    #: Messages that may be received, about.
    waiting: int

    @classmethod
    def of(cls, attributes: Mapping[str, str], what: str) -> QueueState:
        """Read attributes of the queue that errors name `what`.

        Raises:
            SourceUnavailable: they are not those of a queue.
        """
        with _sqs_attributes(what):
            return cls(*(int(attributes[name]) for name in cls.NAMES))


@dataclass(frozen=True, slots=True)
class FoundQueue:
    """A queue that was reached."""

    url: str
    arn: str
    #: All attributes of the queue as the service names them.
    attributes: Mapping[str, str]
    state: QueueState
    access: Access

    @property
    def region(self) -> str:
        """The one in its ARN."""
        return self.arn.split(":")[3]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a queue is, as far as its name says it."""

    endpoint_url: str | None
    region: str | None
    name: str
    url: str | None = None
    owner: str | None = None


def describe(settings: SqsSettings) -> str:
    """Name the queue in errors."""
    return f"SQS queue {settings.queue}"


async def find_queue(settings: SqsSettings, *, call_s: float = 10.0) -> FoundQueue:
    """Reach a queue without receiving anything; `call_s` is the longest time that each of two calls may take.

    Raises:
        SourceUnavailable: not reachable, refused, or missing; the message says what to do.
    """
    what = describe(settings)
    place = place_of(settings)
    with aws_errors(SourceUnavailable, what):
        reached = await sqs_access(place.endpoint_url, place.region)
    try:
        url = place.url or await find_url(reached, place.name, place.owner, what, call_s=call_s)
        attributes = await _attributes(SqsClient(reached, url, what, call_s=call_s))
    except SourceUnavailable as error:
        # The latter two: what the environment says of authorities or proxies cannot be used.
        if are_credentials_refused(error) or isinstance(error.__cause__, OSError | ValueError):
            forget(reached)
        raise
    state = QueueState.of(attributes, what)
    with _sqs_attributes(what):
        return FoundQueue(url, attributes["QueueArn"], attributes, state, reached)


async def _attributes(client: SqsClient) -> Mapping[str, str]:
    try:
        return await client.attributes("All")
    finally:
        await client.close()


@contextmanager
def _sqs_attributes(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError) as error:
        raise SourceUnavailable(f"{what}: what answers is not SQS ({error!r}); check endpoint_url") from error


def place_of(settings: SqsSettings) -> Place:
    """Read the name of a queue, which may be its ARN or its URL."""
    queue = settings.queue
    if queue.startswith("arn:"):
        _, _, _, region, owner, name = queue.split(":")
        return Place(settings.endpoint_url, region, name, owner=owner)
    if not queue.startswith(("http://", "https://")):
        return Place(settings.endpoint_url, settings.region, queue)
    parts = urlsplit(queue)
    found = _HOST_REGION.search(parts.hostname or "")
    endpoint_url = settings.endpoint_url
    if endpoint_url is None and not _AWS_HOST.search(parts.hostname or ""):
        endpoint_url = f"{parts.scheme}://{parts.netloc}"
    return Place(endpoint_url, found[1] if found else settings.region, queue_name(queue), url=queue)
