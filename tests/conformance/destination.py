"""What every Destination does, whatever it is made of. Subclasses give the `place` fixture."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

import pytest

from router.errors import DestinationUnavailable
from router.failures.record import encode, failure_record, kafka_topic_records
from router.ports import Destination, FailureMessage, Sent
from tests.fakes.failures import entry

VECTORS = Path(__file__).parents[1] / "vectors" / "destinations"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:worker"
EVENT = json.loads((VECTORS / "kafka_on_failure_s3.json").read_text())["payload"].encode()

Received = list[tuple[bytes | None, dict[str, Any]]]


class Place(Protocol):
    """Somewhere failure records can go, seen from its other end. It does not exist yet."""

    destination: Destination
    #: Which records it is given for one failure.
    payload: str

    async def make(self) -> None:
        """Bring it into being."""

    async def remove(self) -> None:
        """Take it away, with what is in it."""

    async def received(self, count: int) -> Received:
        """Wait for so many records and give (key, record), in any order."""


def message(failure_id: str = "f1", event: bytes = EVENT, **changes: Any) -> FailureMessage:
    return FailureMessage(entry(failure_id, event=event, request_id=failure_id, **changes), event)


def expected(sent: FailureMessage, payload: str) -> Received:
    """What the destination must be given for a failure."""
    if payload == "record":
        made = list(kafka_topic_records(sent.entry, function_arn=ARN, event=sent.event))
    elif payload == "event":
        made = [(None, failure_record(sent.entry, function_arn=ARN, event=sent.event, payload="object"))]
    elif payload == "escaped":
        made = [(None, failure_record(sent.entry, function_arn=ARN, event=sent.event, payload="escaped"))]
    else:
        made = [(None, failure_record(sent.entry, function_arn=ARN))]
    return [(key, json.loads(encode(record))) for key, record in made]


def in_order(received: Received) -> list[str]:
    return sorted(f"{key!r} {json.dumps(record)}" for key, record in received)


class LimitedPlace(Place, Protocol):
    """One that takes no messages over a size."""

    async def limit(self, limit_bytes: int) -> None:
        """Let it take no larger ones from now on."""


def assert_claim_check(record: dict[str, Any], sent: FailureMessage) -> None:
    """See that a record tells where the whole failure is, in place of the payload."""
    failure_id = sent.entry.batch.id
    assert "payload" not in record
    assert record["claimCheck"] == {
        "failure": failure_id,
        "mapping": "orders",
        "eventBytes": len(sent.event),
        "fetch": f"headrace failures show {failure_id} --json",
    }


class LimitConformance:
    async def test_a_record_that_is_too_large_is_a_claim_check_and_later_ones_are_whole(
        self, place: LimitedPlace
    ) -> None:
        await place.make()
        await place.limit(1024)
        large = message("large", batch_info={"S3BatchInfo": {"firstObjectKey": "k" * 300_000}})
        small = message("small", b"{}", batch_info={"S3BatchInfo": {}})
        assert await place.destination.send(large) is Sent.CLAIM_CHECK
        assert await place.destination.send(small) is Sent.WHOLE
        received = [record for _, record in await place.received(2)]
        [checked] = [record for record in received if "claimCheck" in record]
        assert_claim_check(checked, large)
        assert set(checked) == {"version", "timestamp", "claimCheck"}
        [(_, whole)] = expected(small, place.payload)
        assert whole in received


class DestinationConformance:
    async def test_what_is_accepted_is_there_whole(self, place: Place) -> None:
        await place.make()
        assert await place.destination.send(message()) is Sent.WHOLE
        wanted = expected(message(), place.payload)
        assert in_order(await place.received(len(wanted))) == in_order(wanted)

    async def test_checking_sends_nothing(self, place: Place) -> None:
        await place.make()
        await place.destination.check()
        await place.destination.send(message("after"))
        wanted = expected(message("after"), place.payload)
        assert in_order(await place.received(len(wanted))) == in_order(wanted)

    async def test_many_at_once_all_arrive(self, place: Place) -> None:
        await place.make()
        messages = [message(f"f{number}") for number in range(20)]
        await asyncio.gather(*(place.destination.send(each) for each in messages))
        wanted = [record for each in messages for record in expected(each, place.payload)]
        assert in_order(await place.received(len(wanted))) == in_order(wanted)

    async def test_a_large_event_is_no_hindrance(self, place: Place) -> None:
        await place.make()
        record = {"topic": "t", "partition": 0, "offset": 1, "timestamp": 1000, "value": "A" * 600_000}
        large = message(event=json.dumps({"records": {"t-0": [record]}}).encode())
        assert await place.destination.send(large) is Sent.WHOLE
        assert in_order(await place.received(1)) == in_order(expected(large, place.payload))

    async def test_it_is_refused_where_there_is_nothing_and_accepted_once_there_is(self, place: Place) -> None:
        for attempt in (place.destination.check(), place.destination.send(message())):
            with pytest.raises(DestinationUnavailable, match=r"(make|create) it"):
                await attempt
        await place.make()
        await place.destination.check()
        await place.destination.send(message())
        wanted = expected(message(), place.payload)
        assert in_order(await place.received(len(wanted))) == in_order(wanted)

    async def test_one_that_is_taken_away_while_it_is_used_is_named_and_used_again_once_it_is_back(
        self, place: Place
    ) -> None:
        await place.make()
        await place.destination.send(message("before"))
        # What is still on its way when it is taken away would arrive once it is back.
        await place.received(len(expected(message("before"), place.payload)))
        await place.remove()
        with pytest.raises(DestinationUnavailable, match=r"(make|create) it"):
            await place.destination.send(message("meanwhile"))
        await place.make()
        await place.destination.send(message("after"))
        wanted = expected(message("after"), place.payload)
        assert in_order(await place.received(len(wanted))) == in_order(wanted)

    async def test_its_name_is_for_people(self, place: Place) -> None:
        kind, _, rest = place.destination.name.partition(":")
        assert kind in ("sqs", "sns", "s3", "kafka", "http", "file", "memory")
        assert rest

    async def test_it_may_be_closed_twice_and_unused(self, place: Place) -> None:
        await place.destination.close()
        await place.destination.close()
