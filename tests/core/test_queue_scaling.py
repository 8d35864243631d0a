"""What shrinks the concurrency of a queue: errors, but not of a function that reports its failures itself."""

from __future__ import annotations

from random import Random

import pytest

from router.core import facts as f
from router.core.model import QUEUE_RULES, Chunk, EventSourceMapping, Instant, Outcome, Polling, Refused, Returned
from router.core.queues import QueueEngine
from tests.core.columns import RAISED

REPORTED = Returned({"batchItemFailures": [{"itemIdentifier": 1}]})
PLACES = 5


class Queue:
    """An engine and a queue that always has enough."""

    def __init__(self, *, reports: bool) -> None:
        mapping = EventSourceMapping(
            "mapping",
            "function",
            QUEUE_RULES,
            batch_size=1,
            report_item_failures=reports,
            polling=Polling(function_concurrency=100),
        )
        self.engine = QueueEngine(mapping, "queue", lambda _item, batch: batch.positions()[0], Random(1), {})
        self.running: list[str] = []
        self.polls: list[f.Receive] = []
        self.received = 0
        self.feed(f.QueueOpened())

    def feed(self, fact: f.QueueFact) -> None:
        for command in self.engine.feed(fact, Instant(0.0, 1_700_000_000.0)):
            if isinstance(command, f.Receive):
                self.polls.append(command)
            elif isinstance(command, f.Invoke):
                self.running.append(command.batch.id)

    def fill(self) -> int:
        """Answer all receives; gives how many batches are with the function then."""
        while self.polls:
            poll = self.polls.pop()
            positions = list(range(self.received, self.received + poll.limit))
            self.received += poll.limit
            zeros = [0] * poll.limit
            self.feed(f.Received(poll.poll, Chunk("queue", positions, zeros, zeros, (), positions, through=-1), 30.0))
        return len(self.running)

    def end(self, outcome: Outcome) -> None:
        self.feed(f.InvocationEnded(self.running.pop(0), outcome))


@pytest.mark.parametrize(
    ("reports", "outcome", "places"),
    [
        (False, Returned(None), PLACES),
        (False, RAISED, 2),
        (True, RAISED, PLACES),
        (True, REPORTED, PLACES),
        (True, Refused(RAISED.error), 1),  # of the two, one is kept for the batch that was refused
    ],
    ids=["success", "error", "error with reports", "all reported", "refused"],
)
def test_what_shrinks_it(*, reports: bool, outcome: Outcome, places: int) -> None:
    queue = Queue(reports=reports)
    assert queue.fill() == PLACES
    queue.end(outcome)
    while len(queue.running) > 1:
        queue.end(Returned(None))
    assert queue.fill() == places
