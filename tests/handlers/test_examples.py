"""The example handlers run as they are."""

from __future__ import annotations

import base64
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "handlers" / "examples"


def kafka_event(*values: bytes) -> dict[str, object]:
    records = [
        {"topic": "orders", "partition": 0, "offset": offset, "value": base64.b64encode(value).decode()}
        for offset, value in enumerate(values)
    ]
    return {"eventSource": "SelfManagedKafka", "records": {"orders-0": records}}


async def test_echo(shop):
    pool = shop.pool(code=EXAMPLES, handler="echo.handle")
    assert (await shop.invoke(pool, {"a": [1, None]})).body == {"a": [1, None]}
    assert "ms left" in shop.log.texts[0][1]


async def test_orders(shop):
    pool = shop.pool(code=EXAMPLES, handler="orders.handle")
    event = kafka_event(b'{"amount": 2}', b"not json", b'{"amount": 3}', b"{}")
    failed = [item["itemIdentifier"] for item in (await shop.invoke(pool, event)).body["batchItemFailures"]]
    assert failed == [{"partition": "orders-0", "offset": 1}, {"partition": "orders-0", "offset": 3}]
    assert "orders worth 5" in shop.log.texts[0][1]


async def test_fetch(shop):
    pool = shop.pool(code=EXAMPLES, handler="fetch.handle")
    assert (await shop.invoke(pool, kafka_event(b"a", b"b"))).body == {"offsets": [0, 1]}
