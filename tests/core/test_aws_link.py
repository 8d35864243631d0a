"""The way to a destination at AWS, which several deliveries share: what one meets is not to cut off another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from botocore.exceptions import ClientError

from connectors.aws_link import Link
from connectors.fitting import TooLarge
from router.errors import DestinationUnavailable


@dataclass
class Client:
    is_closed: bool = False


class Service:
    """Clients of a service, in the order they were opened."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        #: Set while clients that close do so at once.
        self.closes = asyncio.Event()
        self.closes.set()
        self.link: Link[Client] = Link("SQS queue dlq", self._client, self._find)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        client = Client()
        self.clients.append(client)
        yield client
        await self.closes.wait()
        client.is_closed = True

    async def _find(self, client: Client) -> str:
        assert not client.is_closed
        return "url"

    async def send(self, *, until: asyncio.Event | None = None, error: Exception | None = None) -> None:
        async with self.link.use() as (client, _):
            if until:
                await until.wait()
            if error:
                raise error
            assert not client.is_closed


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessage")  # type: ignore[typeddict-item]


async def test_a_message_that_is_too_large_cuts_no_other_off() -> None:
    service, answered = Service(), asyncio.Event()
    other = asyncio.create_task(service.send(until=answered))
    await asyncio.sleep(0)
    with pytest.raises(TooLarge):
        await service.send(error=refusal("InvalidParameterValue", 413))
    answered.set()
    await other
    assert len(service.clients) == 1


async def test_whoever_was_refused_by_a_client_closes_no_other() -> None:
    service, answered = Service(), asyncio.Event()
    gone = refusal("AWS.SimpleQueueService.NonExistentQueue", 400)
    late = asyncio.create_task(service.send(until=answered, error=gone))
    await asyncio.sleep(0)
    with pytest.raises(DestinationUnavailable):
        await service.send(error=gone)
    await service.send()
    answered.set()
    with pytest.raises(DestinationUnavailable):
        await late
    assert [client.is_closed for client in service.clients] == [True, False]
    await service.link.close()
    assert all(client.is_closed for client in service.clients)


async def test_a_client_that_is_opened_while_a_former_one_closes_stays_open() -> None:
    service = Service()
    await service.send()
    service.closes.clear()
    closing = asyncio.create_task(service.link.close())
    await asyncio.sleep(0)
    await service.send()
    service.closes.set()
    await closing
    assert [client.is_closed for client in service.clients] == [True, False]
    await service.link.close()
