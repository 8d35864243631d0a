"""`headrace demo`: a poison record on a real Kafka, from its first failure to its replay, checked at every step.

Nothing is staged: the service is the real command in a process of its own, what it did is read back from Kafka, from
the handler's own output and from the failure store, and the story ends at once where one of them says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from router.demo_show import Narrator, narrator
from router.demo_stage import DemoFailed, Project, Service, Topics, kafka_server, run_command

ORDERS: Final = 2000
#: The order without a price, far enough in that the pipeline is seen running first.
POISON: Final = 1234
#: Orders come in portions of this size, with this pause, so that a person sees them flow.
PORTION: Final = 100
PAUSE_S: Final = 0.15
#: Longest time one act may take.
PATIENCE_S: Final = 60.0
LOOK_S: Final = 0.1
#: Exit status after Ctrl-C.
INTERRUPTED: Final = 130

BUG: Final = 'item["price"]'
REPAIR: Final = 'item.get("price", 0)'


async def tell(*, keep: bool, as_json: bool) -> int:
    """Tell the whole story and clean up; 0 only if all of it truly happened, 130 when interrupted.

    Raises:
        DemoFailed: at the first thing that did not.
    """
    me = asyncio.current_task()
    assert me is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    try:
        with narrator(ORDERS, as_json=as_json) as told:
            await _tell(told, keep=keep)
    except asyncio.CancelledError:
        return INTERRUPTED
    return 0


async def _tell(told: Narrator, *, keep: bool) -> None:
    def progress(line: str) -> None:
        told.tell("kafka", f"  {line}")

    async with (
        kafka_server(progress, keep=keep) as kafka,
        Topics.made(kafka, keep=keep) as topics,
        Project.made(topics, keep=keep) as project,
    ):
        told.tell("kafka", f"1. Kafka at {kafka}, topic {topics.orders}", kafka=kafka, topic=topics.orders)
        service = Service(project)
        try:
            await Story(told, topics, project, service).play()
        finally:
            await service.stop()
        _try_next(told, project, topics, keep=keep)


class Story:
    """The acts, in order."""

    def __init__(
        self, told: Narrator, topics: Topics, project: Project, service: Service, patience_s: float = PATIENCE_S
    ) -> None:
        self._told = told
        self._topics = topics
        self._project = project
        self._service = service
        self._patience_s = patience_s
        self._sent = 0

    async def play(self) -> None:
        await self._service.start()
        self._told.tell(
            "service", f"2. The service runs: headrace run {self._project.file}", file=str(self._project.file)
        )
        await self._flow()
        failure = await self._failure_kept()
        await self._dead_letter(failure)
        await self._fix()
        await self._replay(failure)
        self._account()

    async def _flow(self) -> None:
        """Send all orders; wait until all but the poisoned one are processed, and tell how that was found."""
        self._told.tell("flow", f"3. {ORDERS} orders flow, one of them (number {POISON}) has no price")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            await self._wait(lambda: any(self._events("batch.discarded")), "the poison record is given up")
            self._tell_bisect()
            await self._wait(lambda: True, "all other orders are processed", processed=ORDERS - 1)

    def _tell_bisect(self) -> None:
        splits = list(self._events("batch.split"))
        if not splits:
            raise DemoFailed("the failed batch was not split")
        sizes = [str(split["records"]) for split in splits]
        self._told.tell(
            "bisect",
            f"   A batch fails: {splits[0]['error_type']}: {splits[0]['error_message']}\n"
            f"   It is halved until the poison record stands alone: {' > '.join([*sizes, '1'])} records",
            sizes=[split["records"] for split in splits],
        )

    def _events(self, name: str) -> Iterator[dict[str, Any]]:
        return (event for event in self._project.events() if event["event"] == name)

    async def _send(self) -> None:
        for first in range(0, ORDERS, PORTION):
            await self._topics.send(map(order, range(first, first + PORTION)))
            self._sent = first + PORTION
            await asyncio.sleep(PAUSE_S)

    async def _failure_kept(self) -> dict[str, Any]:
        """Wait until the failure is stored and its record accepted by the dead-letter topic."""
        failure: dict[str, Any] = {}
        async with self._within("the dead-letter topic accepts the failure record"):
            while failure.get("status") != "delivered":
                self._service.require_running()
                failure = next(iter(await self._failures()), {})
                await asyncio.sleep(LOOK_S)
        if failure["batch_size"] != 1:
            raise DemoFailed(f"the poison record does not stand alone: {failure}")
        self._told.tell(
            "kept",
            f"4. It stands alone and is kept whole: failure {failure['id']}, {failure['shard']} at "
            f"{failure['first_position']}, {failure['error_type']}: {failure['error_message']}",
            failure=failure,
        )
        return failure

    async def _dead_letter(self, failure: dict[str, Any]) -> None:
        record = await self._topics.dead_letter()
        offset = record["KafkaBatchInfo"]["recordInfo"]["offset"]
        if offset != str(failure["first_position"]):
            raise DemoFailed(f"the dead letter is about offset {offset}, not {failure['first_position']}")
        condition = record["requestContext"]["condition"]
        self._told.tell(
            "dead_letter",
            f"5. Its failure record is in the topic {self._topics.dead_letters}: {condition}, offset {offset}",
            condition=condition,
        )

    async def _fix(self) -> None:
        status = await self._service.stop()
        if status != 0:
            raise DemoFailed(f"the service ended with status {status} when asked to drain")
        self._project.fix(BUG, REPAIR)
        self._told.tell(
            "fix",
            f"6. The service drains and stops. The handler is fixed:\n     - {BUG}\n     + {REPAIR}",
            exit_status=status,
        )
        await self._service.start()
        self._told.tell("restart", "   The service runs again, and knows where it was.")

    async def _replay(self, failure: dict[str, Any]) -> None:
        """Replay everything with the real command, once the service is up."""
        await self._wait(lambda: len(list(self._events("mapping.started"))) == 2, "the mapping runs again")
        status, output = await run_command(
            "failures", "replay", "--all", "--yes", "--json", "-c", str(self._project.file)
        )
        ends = [json.loads(line) for line in output.splitlines()]
        if status != 0 or ends[-1]["summary"]["replayed"] != 1:
            raise DemoFailed(f"the replay ended with status {status}: {output}")
        [after] = await self._failures()
        if (after["id"], after["status"]) != (failure["id"], "replayed"):
            raise DemoFailed(f"the failure is not replayed: {after}")
        self._told.tell(
            "replay", f"7. headrace failures replay --all: failure {after['id']} is replayed", failure=after
        )

    def _account(self) -> None:
        processed = self._project.processed()
        self._count()
        missing = set(range(ORDERS)) - set(processed)
        if missing:
            raise DemoFailed(f"orders were not processed: {sorted(missing)[:10]}")
        again = len(processed) - len(set(processed))
        how = "each of them once" if not again else f"{again} of them twice (delivery is at least once)"
        self._told.tell(
            "done",
            f"8. All {ORDERS} orders are processed, {how}, order {POISON} too.",
            orders=ORDERS,
            processed_again=again,
        )

    async def _failures(self) -> list[dict[str, Any]]:
        listing = ("failures", "list", "--status", "all", "--json", "-c", str(self._project.file))
        status, output = await run_command(*listing)
        if status != 0:
            raise DemoFailed(f"the failures cannot be listed (status {status})")
        failures: list[dict[str, Any]] = json.loads(output)
        return failures

    async def _wait(self, happened: Callable[[], bool], what: str, *, processed: int = 0) -> None:
        """Wait for a fact, and until so many orders are processed."""
        async with self._within(what):
            while self._count() < processed or not happened():
                self._service.require_running()
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def _within(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                yield
        except TimeoutError:
            raise DemoFailed(f"within {self._patience_s:.0f} s it did not come to this: {what}") from None

    def _count(self) -> int:
        processed = len(set(self._project.processed()))
        self._told.count(self._sent, processed)
        return processed


def order(number: int) -> dict[str, Any]:
    """Make an order; the poisoned one lacks a price."""
    item: dict[str, Any] = {"sku": f"sku-{number % 17}", "quantity": 1 + number % 3}
    if number != POISON:
        item["price"] = 5 + number % 40
    return {"order": number, "customer": f"customer-{number % 50}", "items": [item]}


def _try_next(told: Narrator, project: Project, topics: Topics, *, keep: bool) -> None:
    if not keep:
        told.tell(
            "next",
            "\nNow try it with your own topic: docs/getting-started.md.\n"
            "`headrace demo --keep` leaves everything in place to look around.",
        )
        return
    told.tell(
        "next",
        f"\nEverything is still in {project.folder}, and the topics in Kafka at {topics.kafka}. Look around:\n"
        f"  export HEADRACE_CONFIG={project.file}\n"
        "  headrace run &\n"
        "  headrace status\n"
        "  headrace failures list --status all\n"
        "Change functions/demo_orders.py or headrace.yaml there, and start the service again.",
        folder=str(project.folder),
    )
