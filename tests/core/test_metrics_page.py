"""The page of metrics: how often it is made."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, Counter

from router.metrics_page import MetricsPage

SERIES = 1000


@pytest.fixture(scope="module")
def registry():
    made = CollectorRegistry()
    counter = Counter("records", "Records.", ("mapping",), registry=made)
    for number in range(SERIES):
        counter.labels(f"{number:06}, a mapping with a name of 300 letters".ljust(300, "x")).inc()
    return made


class Gauges:
    def __init__(self):
        self.set_count = 0

    async def set(self):
        self.set_count += 1


async def test_a_page_is_made_once_for_all_who_ask_at_a_time(registry):
    gauges = Gauges()
    page = MetricsPage(registry, gauges.set)
    pages = await asyncio.gather(*(page.page() for _ in range(8)))
    assert gauges.set_count == 1
    assert pages[0].count(b"\nrecords_total{") == SERIES
    assert all(each is pages[0] for each in pages)


async def test_who_goes_keeps_the_page_from_nobody(registry):
    gauges = Gauges()
    page = MetricsPage(registry, gauges.set)
    goes, stays = asyncio.create_task(page.page()), asyncio.create_task(page.page())
    await asyncio.sleep(0)
    goes.cancel()
    assert (await stays).count(b"\nrecords_total{") == SERIES
