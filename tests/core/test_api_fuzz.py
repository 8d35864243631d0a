"""Whatever is asked of the API, there is an answer, and none is a bug's: a bounded run of bench/api_fuzz.py."""

import asyncio
from dataclasses import replace

import pytest

from bench.api_fuzz import Found, ask_all
from router.core.model import Returned
from router.event_ports import FoundSource
from tests.fakes.api import ApiSite as Operations
from tests.fakes.api import carried
from tests.fakes.wire import ApiSite, listening

REQUESTS = 1500


class World:
    """Functions that give back what they get, an inbox that takes all, and sources that are all there."""

    def throttle(self, function, version):
        return None

    def invoke(self, function, version, invocation):
        asyncio.get_running_loop().call_soon(invocation.done, Returned(invocation.event()))

    async def accept(self, *event, **more):
        """Take it in."""

    async def find(self, arn):
        return FoundSource(visibility_s=900)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_no_request_is_a_bug_or_stays_unanswered(seed):
    parts, world = Operations().parts, World()
    await parts.catalogue.load()
    mappings = replace(parts.mappings, sources=world)
    site = ApiSite(carried(replace(parts, functions=world, accepts=world, mappings=mappings)))
    found = Found()
    async with listening(site) as (_, port):
        site.access.port = port
        await ask_all(port, seed, lambda found: found.count >= REQUESTS, found)
    assert found.findings == []
    assert len(found.by_operation) > 30
    assert {200, 201, 204, 400, 404} <= found.by_status.keys()
