"""What every Invoker does, whatever runs the function. Subclasses give the `rig` fixture.

The function does what its event says: {"do": "echo"} gives the event back, "raise" fails, "nonsense" gives no JSON,
"large" gives "x" * `size`, and "wait" does not end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol

from router.core.model import (
    EVENT_LIMIT_BYTES,
    NOT_JSON,
    NOT_READ,
    Cancelled,
    Failed,
    FailureKind,
    Outcome,
    Refused,
    Returned,
    TooLarge,
)
from router.ports import Invocation, Invoker

PATIENCE_S = 30.0
#: Largest result, with its quotes.
RESULT_LIMIT_BYTES = 6291556


class Rig(Protocol):
    """A function, seen from its other end."""

    def invoker(self, *, concurrency: int = 1, timeout_s: float = 60.0) -> Invoker:
        """Make an invoker of it, which the fixture closes."""

    async def began(self, count: int) -> None:
        """Wait until so many invocations that wait have begun, in all."""

    def break_it(self) -> None:
        """Let nothing be accepted any more."""

    def mend(self) -> None:
        """Let everything be accepted again."""


class Started:
    """One invocation and its end."""

    def __init__(self, outcome: asyncio.Future[Outcome], request_id: str) -> None:
        self.request_id = request_id
        self.outcome = outcome

    async def end(self) -> Outcome:
        return await asyncio.wait_for(asyncio.shield(self.outcome), PATIENCE_S)


_numbers = iter(range(1, 1_000_000))


def start(invoker: Invoker, event: object = None, encode: Callable[[], bytes] | None = None, **wants: Any) -> Started:
    """Begin an invocation; its future fails when it ends twice."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    body = json.dumps(event).encode()
    request_id = f"request-{next(_numbers)}"
    wants = {"wants_body": True, **wants}
    invoker.invoke(Invocation(request_id, encode or (lambda: body), done=outcome.set_result, **wants))
    assert not outcome.done(), "done() came from inside invoke()"
    return Started(outcome, request_id)


async def ask(invoker: Invoker, event: object = None, **wants: Any) -> Outcome:
    return await start(invoker, event, **wants).end()


ECHO = {"do": "echo", "é": [1, None]}
WAIT = {"do": "wait"}


class LineConformance:
    """Who waits, who runs, and how that ends early."""

    async def test_there_are_no_more_at_once_than_allowed_and_the_rest_waits(self, rig: Rig) -> None:
        invoker = rig.invoker(concurrency=2)
        running = [start(invoker, WAIT) for _ in range(2)]
        await rig.began(2)
        waiting = [start(invoker, WAIT) for _ in range(2)]
        invoker.cancel(waiting[0].request_id, waiting_only=True)
        assert await waiting[0].end() == Cancelled()
        for each in running:
            invoker.cancel(each.request_id, waiting_only=True)
        assert not any(each.outcome.done() for each in running)
        invoker.cancel(running[0].request_id, waiting_only=False)
        assert await running[0].end() == Cancelled()
        await rig.began(3)
        assert not running[1].outcome.done()

    async def test_one_that_is_cancelled_makes_room_for_the_next(self, rig: Rig) -> None:
        invoker = rig.invoker()
        running = start(invoker, WAIT)
        await rig.began(1)
        behind = start(invoker, ECHO)
        invoker.cancel(running.request_id, waiting_only=False)
        invoker.cancel("nobody", waiting_only=False)
        assert await running.end() == Cancelled()
        assert isinstance(await behind.end(), Returned)

    async def test_all_that_runs_or_waits_ends_when_it_is_closed(self, rig: Rig) -> None:
        invoker = rig.invoker()
        running = start(invoker, WAIT)
        await rig.began(1)
        waiting = start(invoker, WAIT)
        await invoker.close()
        assert [await running.end(), await waiting.end()] == [Cancelled(), Cancelled()]
        assert await ask(invoker, ECHO) == Cancelled()
        await invoker.close()


class InvokerConformance(LineConformance):
    """What becomes of an event, and of what the function makes of it."""

    async def test_a_result_is_parsed_or_raw_or_not_read_as_it_is_wanted(self, rig: Rig) -> None:
        invoker = rig.invoker()
        outcome = await ask(invoker, ECHO)
        assert isinstance(outcome, Returned), outcome
        assert (outcome.body, outcome.duration_ms > 0) == (ECHO, True)
        raw = await ask(invoker, ECHO, wants_raw=True)
        assert isinstance(raw, Returned)
        assert json.loads(raw.body) == ECHO  # type: ignore[arg-type]
        outcome = await ask(invoker, ECHO, wants_body=False)
        assert isinstance(outcome, Returned), outcome
        assert outcome.body is NOT_READ

    async def test_a_result_that_is_no_json_is_told_from_one_that_is(self, rig: Rig) -> None:
        invoker = rig.invoker()
        outcome = await ask(invoker, {"do": "nonsense"})
        assert isinstance(outcome, Returned), outcome
        assert outcome.body is NOT_JSON
        assert isinstance(await ask(invoker, {"do": "nonsense"}, wants_body=False), Returned)

    async def test_an_error_of_the_function_keeps_its_type_message_and_trace(self, rig: Rig) -> None:
        outcome = await ask(rig.invoker(), {"do": "raise"})
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.error.error_type) == (FailureKind.RAISED, "KeyError")
        assert outcome.error.message == "'total'"
        assert any("handle" in line for line in outcome.error.trace)
        assert outcome.duration_ms > 0

    async def test_what_does_not_end_in_time_has_failed_and_the_next_runs(self, rig: Rig) -> None:
        invoker = rig.invoker(timeout_s=3.0)
        slow = start(invoker, WAIT)
        outcome = await slow.end()
        assert isinstance(outcome, Failed)
        assert (outcome.kind, outcome.error.error_type) == (FailureKind.TIMED_OUT, "Sandbox.Timedout")
        said = f"RequestId: {slow.request_id} Error: Task timed out after 3.00 seconds"
        assert outcome.error.message.startswith(said)
        assert isinstance(await ask(invoker, ECHO), Returned)

    async def test_a_result_over_the_limit_is_a_failure_and_the_next_runs(self, rig: Rig) -> None:
        invoker = rig.invoker()
        for size in (RESULT_LIMIT_BYTES - 1, 10_000_000):
            outcome = await ask(invoker, {"do": "large", "size": size})
            assert isinstance(outcome, Failed)
            assert (outcome.kind, outcome.error.error_type) == (
                FailureKind.BAD_RESPONSE,
                "Function.ResponseSizeTooLarge",
            )
            assert f"{RESULT_LIMIT_BYTES} bytes" in outcome.error.message
        outcome = await ask(invoker, {"do": "large", "size": RESULT_LIMIT_BYTES - 2})
        assert isinstance(outcome, Returned), outcome
        assert outcome.body == "x" * (RESULT_LIMIT_BYTES - 2)

    async def test_an_event_that_no_function_may_be_given_never_reaches_it(self, rig: Rig) -> None:
        invoker = rig.invoker()

        def break_off() -> bytes:
            raise ValueError("no event can be made of this")

        assert await start(invoker, encode=lambda: b" " * (EVENT_LIMIT_BYTES + 1)).end() == TooLarge(
            EVENT_LIMIT_BYTES + 1
        )
        assert await start(invoker, encode=break_off).end() == TooLarge(0)
        largest = json.dumps(ECHO).encode().ljust(EVENT_LIMIT_BYTES)
        outcome = await start(invoker, encode=lambda: largest).end()
        assert isinstance(outcome, Returned), outcome
        assert outcome.body == ECHO

    async def test_what_is_not_accepted_is_refused_and_is_taken_once_it_is_mended(self, rig: Rig) -> None:
        rig.break_it()
        invoker = rig.invoker(concurrency=3)
        refused = [start(invoker, ECHO) for _ in range(3)]
        outcome = await refused[0].end()
        assert isinstance(outcome, Refused)
        assert outcome.error.message
        rig.mend()
        # Those behind the first may have been refused as well, and whatever comes now is not.
        for each in refused[1:]:
            assert isinstance(await each.end(), Refused | Returned)
        assert isinstance(await ask(invoker, ECHO), Returned)
