"""What becomes of an asynchronous event: before a try, and after one. Pure.

Source of the rules: AWS Lambda developer guide, "How Lambda handles errors and retries with asynchronous invocation",
and recordings of what AWS does at the edges: the age limit looks ahead to the next try; a target that is gone spends
tries although nothing runs; an event that succeeds at last reports one invocation. Initialising counts as a try, as on
AWS. What is no fault of the function's (a throttle, an outage of ours) spends none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final

from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Owe, Settled
from router.core.lane import backoff_s
from router.core.model import Backoff

if TYPE_CHECKING:
    from random import Random

#: Wait before the second try, seconds; before the third twice that.
RETRY_WAIT_S: Final = 60.0
#: AWS: after refusals the wait doubles from 1 s up to 5 min.
FIRST_REFUSAL_WAIT_S: Final = 1.0
LONGEST_REFUSAL_WAIT_S: Final = 300.0
#: Ours: AWS tells a target once, we until it accepts. After each of an event's targets was tried, 1 s up to 5 min.
DELIVERY_BACKOFF: Final = Backoff(base_s=1.0, cap_s=300.0, jitter=0.2)
#: No row waits longer than that between two turns; what seems to was written by a clock that was set back since.
LONGEST_WAIT_S: Final = 600.0
#: AWS: MaximumRetryAttempts and MaximumEventAgeInSeconds where nothing is said.
MAXIMUM_RETRIES: Final = 2
MAXIMUM_AGE_S: Final = 21_600.0

SUCCEEDED: Final = 200
NOT_FOUND: Final = 404
THROTTLED: Final = 429
UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class Standing:
    """How a function takes events now, as it is invoked: by version, alias or neither."""

    #: What would run: `$LATEST` or a number; None = there is no such function, version or alias.
    version: str | None
    maximum_retries: int = MAXIMUM_RETRIES
    maximum_age_s: float = MAXIMUM_AGE_S
    #: Is its reserved concurrency 0?
    is_shut: bool = False
    #: Is it known whether there is such a function?
    is_known: bool = True


def before(event: AsyncEvent, standing: Standing, now_s: float) -> Settled | AsyncEvent | None:
    """Say what becomes of an event whose turn it is without running anything; None = it is to be run."""
    if not standing.is_known:
        # Nor are its limits, and who is to be told: whatever its age, it is not done with before they are.
        return after(event, LastAnswer(UNAVAILABLE), replace(standing, maximum_age_s=inf), now_s)
    if standing.is_shut:
        # Never invoked, it has no answer; a throttle that it met before is none of the function's.
        shut = event if event.tries else replace(event, last=None)
        return Settled(shut, Condition.ZERO_RESERVED_CONCURRENCY, shut.tries, now_s)
    if now_s > event.accepted_s + standing.maximum_age_s:
        return _too_old(event, now_s)
    if standing.version is None:
        return after(event, LastAnswer(NOT_FOUND), standing, now_s)
    return None


def after(event: AsyncEvent, answer: LastAnswer, standing: Standing, now_s: float) -> Settled | AsyncEvent:
    """Say what becomes of an event that was tried: it is done with, or as it is put off."""
    if is_refusal(answer):
        wait_s = refusal_wait_s(event.refusals)
        return _again(replace(event, refusals=event.refusals + 1, last=answer), wait_s, standing, now_s)
    if answer.status == SUCCEEDED and answer.function_error is None:
        return Settled(_tried(event, answer), Condition.SUCCESS, 1, now_s)
    failed = _tried(event, answer)
    if failed.tries > standing.maximum_retries:
        return Settled(failed, Condition.RETRIES_EXHAUSTED, failed.tries, now_s)
    return _again(failed, RETRY_WAIT_S * failed.tries, standing, now_s)


def _tried(event: AsyncEvent, answer: LastAnswer) -> AsyncEvent:
    """Count a try; by hand, for `replace` takes six times as long, and each event is tried."""
    return AsyncEvent(
        event.id,
        event.function,
        event.qualifier,
        event.accepted_s,
        event.due_s,
        event.payload_bytes,
        event.tries + 1,
        0,
        answer,
        event.client_context,
        event.trace_id,
        event.replays,
    )


def is_refusal(answer: LastAnswer) -> bool:
    """Was the function not to blame, as it never ran? A function that is not there is, as on AWS."""
    return answer.status not in (SUCCEEDED, NOT_FOUND)


def refusal_wait_s(refusals: int) -> float:
    """Give the wait after so many refusals in a row before this one."""
    return min(LONGEST_REFUSAL_WAIT_S, FIRST_REFUSAL_WAIT_S * 2.0 ** min(refusals, 60))


def accepted(owe: Owe, now_s: float) -> Owe | None:
    """Say what is still owed once the target whose turn it was has accepted."""
    left = owe.targets[1:]
    return Owe(owe.settled, left, now_s) if left else None


def refused(owe: Owe, now_s: float, rng: Random) -> Owe:
    """Say what is owed after a target has not accepted: the others come first, and each in its turn for ever."""
    rounds = owe.deliveries + 1 - len(owe.targets)
    wait_s = backoff_s(DELIVERY_BACKOFF, rounds, rng) if rounds >= 0 else 0.0
    return Owe(owe.settled, passed_on(owe.targets), now_s + wait_s, owe.deliveries + 1)


def passed_on(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Let the target whose turn it is be the last."""
    return (*targets[1:], targets[0])


def _again(event: AsyncEvent, wait_s: float, standing: Standing, now_s: float) -> Settled | AsyncEvent:
    due_s = now_s + wait_s
    if due_s > event.accepted_s + standing.maximum_age_s:
        return _too_old(event, now_s)
    return replace(event, due_s=due_s)


def _too_old(event: AsyncEvent, now_s: float) -> Settled:
    # To wait for room until it is too late is to be throttled, whoever does not have the room.
    waited = event if event.last else replace(event, last=LastAnswer(THROTTLED))
    return Settled(waited, Condition.EVENT_AGE_EXCEEDED, waited.tries, now_s)
