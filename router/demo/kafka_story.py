"""`headrace demo --kafka`: a poison record on a real Kafka, from its first failure to its replay, all of it checked.

Nothing is staged: the service is the real command in a process of its own, what it did is read back from Kafka, from
the handler's own output and from the failure store, and the story ends at once where one of them says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Final

from router.demo.acts import PATIENCE_S, Acts, order
from router.demo.show import Narrator, narrator
from router.demo.stage import DemoFailed, Project, Service
from router.demo.topics import Topics, kafka_server

ORDERS: Final = 2000
#: The order without a price, far enough in that the pipeline is seen running first.
POISON: Final = 1234
#: Orders come in portions of this size, with this pause, so that a person sees them flow.
PORTION: Final = 100
PAUSE_S: Final = 0.15

HANDLER: Final = "demo_orders.py"
FILE: Final = """\
state: ./.headrace
listen: 127.0.0.1:0

functions:
  orders:
    handler: demo_orders.handler
    code: ./functions
    environment: {{OUTPUT: {output}}}

event_source_mappings:
  orders:
    function: orders
    source:
      kafka: {{bootstrap_servers: ["{kafka}"], topic: {topic}, consumer_group: {topic}}}
    starting_position: TRIM_HORIZON
    batch_size: 100
    maximum_retry_attempts: 1
    bisect_batch_on_function_error: true
    destination_config: {{on_failure: {{kafka: {{topic: {dead_letters}}}}}}}
"""
#: What the handler writes, in the demo's folder.
PROCESSED: Final = "processed.txt"


async def tell(*, keep: bool, as_json: bool) -> None:
    """Tell the whole story and clean up.

    Raises:
        DemoFailed: at the first thing that did not truly happen.
    """
    with narrator({"orders sent": ORDERS, "orders processed": ORDERS}, as_json=as_json) as told:

        def progress(line: str) -> None:
            told.tell("kafka", f"  {line}")

        async with kafka_server(progress, keep=keep) as kafka, Topics.made(kafka, keep=keep) as topics:
            with Project.made(os.environ, keep=keep) as project:
                set_up(project, topics)
                told.tell("kafka", f"1. Kafka at {kafka}, topic {topics.orders}", kafka=kafka, topic=topics.orders)
                service = Service(project)
                try:
                    await Story(told, topics, project, service).play()
                finally:
                    await service.stop()
                _try_next(told, project, topics, keep=keep)


def set_up(project: Project, topics: Topics) -> None:
    """Fill the folder."""
    output = json.dumps(str(project.folder / PROCESSED))
    names = {"kafka": topics.kafka, "topic": topics.orders, "dead_letters": topics.dead_letters}
    project.set_up(FILE.format(output=output, **names), HANDLER)


class Story(Acts):
    """The acts, in order."""

    def __init__(
        self, told: Narrator, topics: Topics, project: Project, service: Service, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(told, project, service, patience_s)
        self._topics = topics
        self._sent = 0

    async def play(self) -> None:
        await self._service.start()
        self._told.tell(
            "service", f"2. The service runs: headrace run {self._project.file}", file=str(self._project.file)
        )
        self._told.tell("flow", f"3. {ORDERS} orders flow, one of them (number {POISON}) has no price")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            await self._processed()
        failure = await self._delivered()
        self._told.tell(
            "kept",
            f"4. It stands alone and is kept whole: failure {failure['id']}, {failure['shard']} at "
            f"{failure['first_position']}, {failure['error_type']}: {failure['error_message']}",
            failure=failure,
        )
        await self._dead_letter(failure)
        await self._fix(HANDLER)
        await self._replay(failure)
        self._account()

    async def _send(self) -> None:
        for first in range(0, ORDERS, PORTION):
            numbers = range(first, first + PORTION)
            await self._topics.send(order(number, priced=number != POISON) for number in numbers)
            self._sent = first + PORTION
            await asyncio.sleep(PAUSE_S)

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

    async def _replay(self, failure: dict[str, Any]) -> None:
        status, output = await self._project.run("failures", "replay", "--all", "--yes", "--json")
        ends = [json.loads(line) for line in output.splitlines()]
        if status != 0 or ends[-1]["summary"]["replayed"] != 1:
            raise DemoFailed(f"the replay ended with status {status}: {output}")
        after = await self._replayed(failure)
        self._told.tell(
            "replay", f"7. headrace failures replay --all: failure {after['id']} is replayed", failure=after
        )

    def _account(self) -> None:
        self._count()
        processed = self._orders()
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

    def _count(self) -> bool:
        processed = len(set(self._orders()))
        self._told.count({"orders sent": self._sent, "orders processed": processed})
        return processed >= ORDERS - 1

    def _orders(self) -> list[int]:
        """Give the orders that the handler wrote down, as often as it did."""
        return [int(line.split()[0]) for line in self._project.written(PROCESSED)]


def _try_next(told: Narrator, project: Project, topics: Topics, *, keep: bool) -> None:
    if not keep:
        told.tell(
            "next",
            "\nNow try it with your own topic: docs/getting-started.md.\n"
            "`headrace demo --kafka --keep` leaves everything in place to look around.",
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
