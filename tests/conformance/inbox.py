"""What every Inbox does, whatever it is made of. Subclasses give the `inbox` fixture."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from random import Random
from uuid import UUID

import pytest

from router.core.asynchronous import (
    AsyncEvent,
    Became,
    Condition,
    ForgetEvent,
    LastAnswer,
    Line,
    Owe,
    PutOff,
    Settled,
    id_of,
)
from router.event_ports import AcceptEvent, Inbox, InboxPage, Waiting
from tests.fakes.inbox import MemoryInbox

ORDERS: Line = ("run", "orders")
QUEUE: Line = ("tell", "on_failure arn:aws:sqs:eu-west-1:000000000000:dlq")
PAYLOAD = b'{"order": 17}'
LARGE = 4 * 1024 * 1024


def event(number: int = 1, function: str = "orders", due_s: float = 1000.0) -> AsyncEvent:
    return AsyncEvent(str(UUID(int=number)), function, None, 1000.0, due_s, len(PAYLOAD))


def owe(of: AsyncEvent, *targets: str, due_s: float = 1000.0) -> Owe:
    return Owe(Settled(of, Condition.RETRIES_EXHAUSTED, 3, 1183.0), targets or (QUEUE[1],), due_s)


async def accept(inbox: Inbox, *events: AsyncEvent, payload: bytes = PAYLOAD) -> None:
    await inbox.apply([AcceptEvent(each, payload) for each in events])


def forgotten(row: AsyncEvent | Owe) -> Became:
    return Became(ForgetEvent(id_of(row)), row)


async def page(
    inbox: Inbox,
    line: Line = ORDERS,
    until_s: float = 2000.0,
    limit: int = 100,
    limit_bytes: int = LARGE,
    known: Collection[str] = (),
) -> InboxPage:
    return await inbox.page(line, until_s, limit, limit_bytes, known)


async def ids(inbox: Inbox, line: Line = ORDERS) -> list[str]:
    return [id_of(row) for row, _ in (await page(inbox, line, until_s=1e12)).rows]


class InboxConformance:
    async def test_an_event_comes_back_whole(self, inbox: Inbox) -> None:
        last = LastAnswer(200, "3", "Unhandled", b'{"errorMessage":"\xc3\xa4"}', "\u00e4")
        kept = replace(
            event(due_s=1000.25),
            qualifier="live",
            tries=1,
            refusals=2,
            last=last,
            client_context="{}",
            trace_id="Root=1",
            replays="f1",
        )
        await accept(inbox, kept)
        assert await page(inbox) == InboxPage([(kept, PAYLOAD)], None)

    @pytest.mark.parametrize("payload", [b"", b"{}", b'{"a":"' + b"x" * 1_000_000 + b'"}', bytes(range(256))])
    async def test_a_payload_comes_back_byte_for_byte(self, inbox: Inbox, payload: bytes) -> None:
        await accept(inbox, event(), payload=payload)
        [(_, found)] = (await page(inbox)).rows
        assert found == payload

    async def test_a_line_is_read_in_the_order_of_due_time_and_id(self, inbox: Inbox) -> None:
        events = [event(1, due_s=1002.0), event(2, due_s=1001.0), event(4, due_s=1001.5), event(3, due_s=1001.5)]
        await accept(inbox, *events, event(5, "invoices"))
        assert await ids(inbox) == [events[n].id for n in (1, 3, 2, 0)]
        assert await ids(inbox, ("run", "nobody")) == []

    async def test_a_page_ends_with_what_is_due_and_says_when_the_next_is(self, inbox: Inbox) -> None:
        first, second, third = events = [event(n, due_s=1000.0 + n) for n in range(3)]
        await accept(inbox, *events)
        assert await page(inbox, until_s=1001.0) == InboxPage([(first, PAYLOAD), (second, PAYLOAD)], 1002.0)
        assert await page(inbox, until_s=999.0) == InboxPage([], 1000.0)
        assert await page(inbox, limit=1) == InboxPage([(first, PAYLOAD)], 1001.0)
        assert await page(inbox, known=[first.id, second.id]) == InboxPage([(third, PAYLOAD)], None)
        assert await page(inbox, limit=1, known=[first.id]) == InboxPage([(second, PAYLOAD)], 1002.0)
        assert await page(inbox, known=[each.id for each in events]) == InboxPage([], None)

    async def test_a_page_is_bounded_in_bytes_but_has_one_row(self, inbox: Inbox) -> None:
        large = Random(1).randbytes(300_000)
        await accept(inbox, *(event(n) for n in range(5)), payload=large)
        assert len((await page(inbox, limit_bytes=1)).rows) == 1
        assert len((await page(inbox, limit_bytes=700_000)).rows) == 2

    async def test_what_is_put_off_waits_for_its_time_with_its_payload(self, inbox: Inbox) -> None:
        await accept(inbox, event(1), event(2))
        later = replace(event(1), due_s=1060.0, tries=1, last=LastAnswer(429))
        await inbox.apply([Became(PutOff(later), event(1))])
        assert await page(inbox, until_s=1060.0) == InboxPage([(event(2), PAYLOAD), (later, PAYLOAD)], None)

    async def test_what_is_owed_waits_in_the_line_of_its_first_target(self, inbox: Inbox) -> None:
        await accept(inbox, event(1), event(2))
        first = owe(replace(event(1), last=LastAnswer(404)), QUEUE[1], "dead_letter arn:aws:sns:b")
        await inbox.apply([Became(first, event(1))])
        assert await page(inbox, QUEUE) == InboxPage([(first, PAYLOAD)], None)
        assert await ids(inbox) == [event(2).id]
        second = replace(first, targets=first.targets[1:], due_s=1500.0, deliveries=2)
        await inbox.apply([Became(second, first)])
        assert await ids(inbox, QUEUE) == []
        assert await page(inbox, ("tell", "dead_letter arn:aws:sns:b")) == InboxPage([(second, PAYLOAD)], None)

    async def test_what_is_done_with_is_gone(self, inbox: Inbox) -> None:
        await accept(inbox, event(1), event(2))
        await inbox.apply([forgotten(event(1)), Became(owe(event(2)), event(2))])
        await inbox.apply([forgotten(owe(event(2)))])
        assert (await inbox.lines(), await ids(inbox), await ids(inbox, QUEUE)) == ({}, [], [])

    async def test_changes_of_what_is_not_there_change_nothing(self, inbox: Inbox) -> None:
        nothing = [Became(PutOff(event(2)), event(2)), Became(owe(event(3)), event(3))]
        await inbox.apply([forgotten(event(1)), *nothing])
        assert await inbox.lines() == {}

    async def test_an_event_that_may_have_been_accepted_before_is_the_one_that_it_was(self, inbox: Inbox) -> None:
        again = AcceptEvent(event(), PAYLOAD, is_new=False)
        await inbox.apply([again])
        await inbox.apply([Became(PutOff(replace(event(), tries=1)), event())])
        await inbox.apply([again])
        assert await page(inbox) == InboxPage([(replace(event(), tries=1), PAYLOAD)], None)
        assert (await inbox.lines())[ORDERS].rows == 1

    async def test_lines_are_counted_with_what_is_due_first_in_them(self, inbox: Inbox) -> None:
        await accept(inbox, *(event(n, due_s=1010.0 - n) for n in range(5)), event(7, "in:voices", 5.0), event(8))
        await inbox.apply([Became(owe(event(8), due_s=3.0), event(8))])
        assert await inbox.lines() == {
            ORDERS: Waiting(5, 1006.0),
            ("run", "in:voices"): Waiting(1, 5.0),
            QUEUE: Waiting(1, 3.0),
        }

    async def test_nothing_is_left_of_somebody_who_was_never_there(self, inbox: Inbox) -> None:
        await accept(inbox, event())
        assert not await inbox.adopt("r9")
        assert await ids(inbox) == [event().id]

    @pytest.mark.parametrize("seed", range(3))
    async def test_whatever_is_done_it_holds_what_the_model_does(self, inbox: Inbox, seed: int) -> None:
        chance, model = Random(seed), MemoryInbox()
        for _ in range(100):
            number = chance.randrange(12)
            some = event(number, chance.choice(["orders", "invoices"]), float(chance.randrange(1000, 1010)))
            was = model.rows[some.id][1] if some.id in model.rows else some
            become = [
                PutOff(some),
                owe(some, *chance.sample(["a", "b"], chance.randint(1, 2)), due_s=some.due_s),
                ForgetEvent(some.id),
            ]
            accepted = AcceptEvent(some, PAYLOAD, is_new=False)
            changes = [accepted, accepted, *(Became(each, was) for each in become)]
            change = chance.choice(changes)
            await inbox.apply([change])
            await model.apply([change])
        assert await inbox.lines() == await model.lines()
        for line in await model.lines():
            known = [str(UUID(int=chance.randrange(12)))]
            for until_s in (1004.0, 2000.0):
                assert await page(inbox, line, until_s, 3, known=known) == await page(
                    model, line, until_s, 3, known=known
                )


class InboxSharing:
    """What the inboxes of replicas that share a store do. Subclasses give `mine` and `other`, which is of "r2"."""

    async def test_each_has_what_it_has_accepted(self, mine: Inbox, other: Inbox) -> None:
        await accept(mine, event(1))
        await accept(other, event(2), event(3))
        assert (await ids(mine), await ids(other)) == ([event(1).id], [event(2).id, event(3).id])
        assert await mine.lines() == {ORDERS: Waiting(1, 1000.0)}

    async def test_it_is_known_who_has_something(self, mine: Inbox, other: Inbox) -> None:
        assert list(await mine.owners()) == []
        await accept(other, event(1), event(2))
        assert list(await mine.owners()) == ["r2"]
        await accept(mine, event(3))
        assert sorted(await other.owners()) == ["r1", "r2"]
        while await mine.adopt("r2"):
            pass
        assert list(await mine.owners()) == ["r1"]

    async def test_what_a_dead_replica_has_left_is_adopted_whole(self, mine: Inbox, other: Inbox) -> None:
        await accept(mine, event(1))
        await accept(other, *(event(n, due_s=990.0 + n) for n in range(2, 1300)), event(2000, "invoices"))
        left = owe(event(2000))
        await other.apply([Became(left, event(2000, "invoices"))])
        while await mine.adopt("r2"):
            pass
        assert await other.lines() == {}
        assert await mine.lines() == {ORDERS: Waiting(1299, 992.0), QUEUE: Waiting(1, 1000.0)}
        assert await page(mine, QUEUE) == InboxPage([(left, PAYLOAD)], None)
        assert not await mine.adopt("r2")

    async def test_who_was_taken_for_dead_changes_nothing_of_what_was_adopted(self, mine: Inbox, other: Inbox) -> None:
        await accept(other, event(1), event(2))
        while await mine.adopt("r2"):
            pass
        await other.apply([forgotten(event(1)), Became(PutOff(replace(event(2), tries=1)), event(2))])
        assert await page(mine) == InboxPage([(event(1), PAYLOAD), (event(2), PAYLOAD)], None)
        await mine.apply([forgotten(event(1)), forgotten(event(2))])
        assert (await mine.lines(), await other.lines()) == ({}, {})
