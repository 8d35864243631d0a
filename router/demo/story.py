"""`headrace demo`: a bucket, a queue and a poison record, from its first failure to its replay, checked at every step.

AWS is an emulator that runs beside it; nothing else is staged: the service is the real command in a process of its
own, what it did is read back from the queues, from the handlers' own output and from the failure store, and the story
ends at once where one of them says otherwise.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from textwrap import indent
from typing import Any, Final

from router.demo.acts import PATIENCE_S, Acts, order
from router.demo.aws import (
    BUCKET,
    DEAD_LETTERS,
    FAILURES,
    KEYS,
    ORDERS,
    REGION,
    UPLOAD_EVENTS,
    Aws,
    environment,
    require_emulator,
)
from router.demo.show import Narrator, narrator
from router.demo.stage import DemoFailed, Project, Service

#: Orders and uploads come in portions, with this pause, so that a person sees them flow.
PORTIONS: Final = 20
PAUSE_S: Final = 0.1
#: Of each portion: a few batches of orders, and uploads that are wanted.
ORDERS_EACH: Final = 20
UPLOADS_EACH: Final = 3
ORDER_COUNT: Final = PORTIONS * ORDERS_EACH
UPLOAD_COUNT: Final = PORTIONS * UPLOADS_EACH
#: The order without a price, far enough in that the pipeline is seen running first.
POISON: Final = 234

ORDERS_HANDLER: Final = "demo_queue.py"
UPLOADS_HANDLER: Final = "demo_uploads.py"
#: What the handlers write, in the demo's folder.
PROCESSED_ORDERS: Final = "orders.txt"
PROCESSED_UPLOADS: Final = "uploads.txt"

FILE: Final = """\
state: ./.headrace
listen: 127.0.0.1:0
aws: {{endpoint_url: "{url}"}}

functions:
  orders:
    handler: demo_queue.handler
    code: ./functions
    environment: {{OUTPUT: {orders}}}
  uploads:
    handler: demo_uploads.handler
    code: ./functions
    timeout: 10
    reserved_concurrency: 1
    environment: {{OUTPUT: {uploads}, AWS_CONFIG_FILE: {aws}, AWS_SHARED_CREDENTIALS_FILE: {aws}}}

"""
MAPPINGS: Final = """\
event_source_mappings:
  orders:
    function: orders
    source: {sqs: {queue: orders}}
    batch_size: 10
    bisect_batch_on_function_error: true
    maximum_retry_attempts: 2
    destination_config: {on_failure: {sqs: {queue: orders-failures}}}
  uploads:
    function: uploads
    source: {s3: {bucket: uploads, filter: {prefix: in/, suffix: .csv}, queue: upload-events}}
"""


async def tell(*, keep: bool, as_json: bool) -> None:
    """Tell the whole story and clean up; with `keep`, only when it is interrupted, and the folder stays.

    Raises:
        ConfigError: the emulator is not installed.
        DemoFailed: at the first thing that did not truly happen.
    """
    require_emulator()
    totals = {"orders sent": ORDER_COUNT, "orders processed": ORDER_COUNT, "uploads processed": UPLOAD_COUNT}
    with narrator(totals, as_json=as_json) as told, Project.made({}, keep=keep) as project:
        async with Aws.running() as aws:
            set_up(project, aws.url)
            service = Service(project)
            try:
                await Story(told, aws, project, service).play()
                told.tell("next", _next(project, aws, keep=keep), folder=str(project.folder))
                if keep:
                    with suppress(asyncio.CancelledError):
                        await asyncio.Event().wait()
            finally:
                await service.stop()


def set_up(project: Project, url: str) -> None:
    """Fill the folder."""
    project.environment |= environment(project.folder / "aws", url)
    folder = project.folder
    paths = {"orders": folder / PROCESSED_ORDERS, "uploads": folder / PROCESSED_UPLOADS, "aws": folder / "aws"}
    quoted = {name: json.dumps(str(path)) for name, path in paths.items()}
    project.set_up(FILE.format(url=url, **quoted) + MAPPINGS, ORDERS_HANDLER, UPLOADS_HANDLER)


class Story(Acts):
    """The acts, in order."""

    def __init__(
        self, told: Narrator, aws: Aws, project: Project, service: Service, patience_s: float = PATIENCE_S
    ) -> None:
        super().__init__(told, project, service, patience_s)
        self._aws = aws
        self._sent = 0

    async def play(self) -> None:
        await self._begin()
        self._told.tell(
            "flow",
            f"3. {ORDER_COUNT} orders and {UPLOAD_COUNT} uploads flow; one order (number {POISON}) has no price",
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send())
            await self._processed()
        self._told.give_way()
        failure = await self._kept()
        await self._failure_record(failure)
        await self._fix(ORDERS_HANDLER)
        await self._replay(failure)
        await self._account()

    async def _begin(self) -> None:
        await self._aws.set_up()
        self._told.tell(
            "aws",
            f"1. An AWS of its own, the emulator ministack, at {self._aws.url}: a bucket {BUCKET}, a queue\n"
            f"   {ORDERS} with the dead-letter queue {DEAD_LETTERS}, a queue {FAILURES}. The rest is set up:",
            url=self._aws.url,
        )
        await self._show("setup", "check", "--connect", "--setup")
        await self._service.start()
        self._told.tell(
            "service",
            f"2. The service runs: headrace run {self._project.file}\n{indent(MAPPINGS, '     ').rstrip()}",
            file=str(self._project.file),
        )

    async def _send(self) -> None:
        for portion in range(PORTIONS):
            first = portion * ORDERS_EACH
            numbers = range(first, first + ORDERS_EACH)
            await self._aws.send(order(number, priced=number != POISON) for number in numbers)
            self._sent = first + ORDERS_EACH
            for key in (*wanted(portion), f"in/notes {portion}.txt", f"archive/report {portion}.csv"):
                await self._aws.upload(key, "sku,quantity\nsku-1,2\n")
            await asyncio.sleep(PAUSE_S)

    async def _kept(self) -> dict[str, Any]:
        failure = await self._delivered()
        self._told.tell("kept", "4. It stands alone, is tried again, and is kept whole.", failure=failure)
        await self._show("list", "failures", "list")
        await self._show("show", "failures", "show", failure["id"], lines=18)
        return failure

    async def _failure_record(self, failure: dict[str, Any]) -> None:
        record = await self._aws.failure_record()
        condition = record["requestContext"]["condition"]
        if record["requestContext"]["approximateInvokeCount"] != failure["attempts"]:
            raise DemoFailed(f"the failure record is about something else: {record}")
        self._told.tell(
            "failure_record",
            f"5. Its failure record is in the queue {FAILURES}: {condition} after {failure['attempts']} attempts",
            record=record,
        )

    async def _replay(self, failure: dict[str, Any]) -> None:
        self._told.tell("replaying", "7. What was kept is run again, by its mapping.")
        await self._show("replay", "failures", "replay", "--all", "--yes")
        await self._replayed(failure)

    async def _account(self) -> None:
        """Compare what was sent with what the handlers wrote down, and require that nothing is left."""
        left = dict.fromkeys((ORDERS, UPLOAD_EVENTS, DEAD_LETTERS), 1)
        async with self._within("the queues are empty"):
            while any(left.values()):
                left = {queue: await self._aws.messages(queue) for queue in left}
                await asyncio.sleep(0 if not any(left.values()) else PAUSE_S)
        again = _repeated("order", map(str, range(ORDER_COUNT)), self._orders())
        again += _repeated("upload", (key for each in range(PORTIONS) for key in wanted(each)), self._uploads())
        how = "each of them once" if not again else f"{again} of them twice (delivery is at least once)"
        self._told.tell(
            "done",
            f"8. All {ORDER_COUNT} orders and {UPLOAD_COUNT} uploads are processed, {how}, order {POISON} too.\n"
            f"   The queues are empty, {DEAD_LETTERS} as well.",
            orders=ORDER_COUNT,
            uploads=UPLOAD_COUNT,
            processed_again=again,
            left=left,
        )

    async def _show(self, step: str, *arguments: str, lines: int | None = None) -> None:
        """Run a command for all to see, at most so many lines of it. Raises DemoFailed when it fails."""
        line = f"headrace {' '.join(arguments)}"
        if self._told.as_json:
            status, output = await self._project.run(*arguments, "--json")
            self._told.tell(step, line, output=[json.loads(each) for each in output.splitlines()])
        else:
            self._told.tell(step, f"$ {line}")
            if lines is None:
                status = await self._project.run_shown(*arguments)
            else:
                status, output = await self._project.run(*arguments)
                self._told.tell(step, _first(lines, output))
            self._told.tell(step, "")
        if status != 0:
            raise DemoFailed(f"`{line}` ended with status {status}")

    def _count(self) -> bool:
        orders, uploads = len(set(self._orders())), len(set(self._uploads()))
        self._told.count({"orders sent": self._sent, "orders processed": orders, "uploads processed": uploads})
        return orders >= ORDER_COUNT - 1 and uploads >= UPLOAD_COUNT

    def _orders(self) -> list[str]:
        return [line.split()[0] for line in self._project.written(PROCESSED_ORDERS)]

    def _uploads(self) -> list[str]:
        return [line.partition(" ")[2] for line in self._project.written(PROCESSED_UPLOADS)]


def wanted(portion: int) -> list[str]:
    """Give the keys of a portion that the mapping is for."""
    return [f"in/report {portion}+{number}.csv" for number in range(UPLOADS_EACH)]


def _repeated(what: str, sent: Iterable[str], processed: Iterable[str]) -> int:
    """Count what was processed more than once. Raises DemoFailed when it is not what was sent."""
    times = Counter(processed)
    wrong = set(sent) ^ set(times)
    if wrong:
        raise DemoFailed(f"lost, or never sent: {what} {', '.join(sorted(wrong)[:10])}")
    return sum(count > 1 for count in times.values())


def _first(count: int, output: str) -> str:
    lines = output.rstrip().splitlines()
    more = [f"... and {len(lines) - count} lines more: every try, and the event"] if len(lines) > count else []
    return "\n".join([*lines[:count], *more])


def _next(project: Project, aws: Aws, *, keep: bool) -> str:
    if not keep:
        return (
            "\nNext:\n"
            "  headrace demo --keep     leaves all of it running until Ctrl-C, to look around\n"
            "  headrace demo --kafka    the same on a real Kafka\n"
            "  docs/getting-started.md  a mapping of your own"
        )
    return (
        "\nAll of it still runs, until Ctrl-C. In another terminal:\n"
        f"  export HEADRACE_CONFIG={project.file}\n"
        f"  export AWS_ENDPOINT_URL={aws.url} AWS_DEFAULT_REGION={REGION} {' '.join(map('='.join, KEYS.items()))}\n"
        "  headrace status\n"
        "  headrace failures list --status all\n"
        f"  aws s3 cp my.csv s3://{BUCKET}/in/my.csv\n"
        f"  cat {project.folder / PROCESSED_UPLOADS}\n"
        "The folder stays: change headrace.yaml or functions/ there."
    )
