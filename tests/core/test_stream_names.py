"""Which mapping a failure record is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.assembly import stream_names
from router.failures.reading import FailureRecord, Kind
from router.stream_names import StreamName, choose, differs
from tests.core.configured import configuration

CLICKS = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
ORDERS = "arn:aws:dynamodb:us-east-1:000000000000:table/orders/stream/2026-01-01T00:00:00.000"


def record(kind: Kind, stream: str, *servers: str) -> FailureRecord:
    more: dict[str, Any] = {"ranges": (), "count": None, "payload": None}
    return FailureRecord("record:1", kind, stream, servers, **more)


@pytest.mark.parametrize(
    ("stream", "name"),
    [
        (CLICKS, StreamName("kinesis", "clicks")),
        (CLICKS, StreamName("kinesis", CLICKS)),
        (f"{CLICKS}/consumer/ours:1", StreamName("kinesis", "clicks")),
        (f"{CLICKS}/consumer/ours:1", StreamName("kinesis", CLICKS)),
        (CLICKS, StreamName("kinesis", f"{CLICKS}/consumer/ours:1")),
        (ORDERS, StreamName("dynamodb", "orders")),
        (ORDERS, StreamName("dynamodb", ORDERS)),
        ("orders", StreamName("kafka", "orders", ("b:1", "a:1"))),
    ],
)
def test_a_stream_is_the_one_that_is_configured(stream: str, name: StreamName) -> None:
    assert differs(record(name.kind, stream, *(("a:1", "c:1") if name.kind == "kafka" else ())), name) is None


@pytest.mark.parametrize(
    ("found", "name", "said"),
    [
        (record("kinesis", CLICKS), StreamName("dynamodb", "clicks"), f"it is of kinesis:{CLICKS}"),
        (record("kinesis", CLICKS), StreamName("kinesis", "click"), f"it is of {CLICKS}"),
        (record("kinesis", CLICKS), StreamName("kinesis", CLICKS.replace("us-", "eu-")), f"it is of {CLICKS}"),
        (record("dynamodb", ORDERS), StreamName("dynamodb", ORDERS.replace("2026", "2025")), f"it is of {ORDERS}"),
        (record("kinesis", "nonsense"), StreamName("kinesis", "nonsense"), "it is of nonsense"),
        (record("kafka", "orders"), StreamName("kafka", "invoices"), "it is of topic orders"),
        (record("kafka", "orders", "c:1"), StreamName("kafka", "orders", ("a:1",)), "it is of topic orders at c:1"),
    ],
)
def test_another_stream_is_named(found: FailureRecord, name: StreamName, said: str) -> None:
    assert differs(found, name) == said


def test_the_only_mapping_that_fits_is_chosen() -> None:
    streams = {"a": StreamName("kinesis", "clicks"), "b": StreamName("kinesis", "views")}
    assert choose(record("kinesis", CLICKS), streams, None) == "a"
    assert choose(record("kinesis", CLICKS), streams, "a") == "a"
    with pytest.raises(ValueError, match=r"and mapping b reads kinesis:views"):
        choose(record("kinesis", CLICKS), streams, "b")
    with pytest.raises(ValueError, match="no mapping reads dynamodb:"):
        choose(record("dynamodb", ORDERS), streams, None)
    with pytest.raises(ValueError, match="mappings a, c read"):
        choose(record("kinesis", CLICKS), {**streams, "c": StreamName("kinesis", CLICKS)}, None)


def test_a_configuration_names_the_streams_that_its_mappings_read(tmp_path: Path) -> None:
    consumer = f"{CLICKS}/consumer/ours:1"
    text = "functions: {f: {handler: a.b, code: .}}\nevent_source_mappings:\n"
    sources = {
        "orders": "kafka: {bootstrap_servers: 'h:1', topic: orders}",
        "clicks": f"kinesis: {{stream: '{consumer}'}}",
        "items": "dynamodb: {table: items}",
        "mails": "sqs: {queue: mails}",
    }
    for name, source in sources.items():
        text += f"  {name}: {{function: f, source: {{{source}}}}}\n"
    assert stream_names(configuration(tmp_path, text)) == {
        "orders": StreamName("kafka", "orders", ("h:1",)),
        "clicks": StreamName("kinesis", consumer),
        "items": StreamName("dynamodb", "items"),
    }
