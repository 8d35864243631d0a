"""docs/getting-started.md, followed on real servers: its files as they stand but for names and addresses."""

from __future__ import annotations

import asyncio
import re
import sys
import uuid
from pathlib import Path

from tests.live.daemon import Daemon, cluster
from tests.live.queue_rig import Queues

PAGE = (Path(__file__).parents[2] / "docs/getting-started.md").read_text()
#: The repair that the page shows.
BROKEN, RIGHT = 'order["price"]', 'order.get("price", 0)'


class Reader(Daemon):
    """A folder with the files of one part of the page."""

    def __init__(self, folder: Path, heading: str, changes: dict[str, str], environment: dict[str, str]) -> None:
        super().__init__(folder, environment)
        part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        for old, new in changes.items():
            assert old in part, old
            part = part.replace(old, new)
        handler, sender = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
        [text] = re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)
        self.text = f"listen: 127.0.0.1:{self.port}\n{text}"
        self.handler = folder / "functions/orders.py"
        self.handler.parent.mkdir()
        self.handler.write_text(handler)
        self._sender = folder / "send.py"
        self._sender.write_text(sender)
        self.write()

    async def send(self) -> None:
        sender = await asyncio.create_subprocess_exec(sys.executable, self._sender, env=self._environment)
        assert await sender.wait() == 0

    async def follow(self) -> None:
        """Do what the page does."""
        before = await self.command("check", "--connect")
        assert before.status == 1
        assert "FAILED  event_source_mappings.orders.source" in before.out
        await self.send()
        after = await self.command("check", "--connect")
        assert after.status == 0, after.out
        await self.start()
        await self.line("batch.discarded", mapping="orders", attempts=2)
        listed = await self.command("failures", "list")
        assert "RetryAttemptsExhausted  KeyError: 'price'" in listed.out
        log = self.folder / ".headrace/logs/orders.log"
        # What handlers print is written at intervals, so the log may come after the failure.
        await self.until(
            lambda: log.exists() and "order 19 total 10" in log.read_text(), "the other orders are handled"
        )
        self.handler.write_text(self.handler.read_text().replace(BROKEN, RIGHT))
        assert await self.terminate() == 0
        await self.start()
        replayed = await self.command("failures", "replay", "--all", "--yes")
        assert replayed.out.endswith("replayed\n1 replayed, 0 failed again, 0 refused\n")
        assert await self.terminate() == 0
        assert "order 13 total 0" in log.read_text()


async def test_a_queue(tmp_path: Path, queues: Queues) -> None:
    queue = await queues.make()
    await queue.delete()
    changes, environment = {"getting-started": queue.name}, {"AWS_ENDPOINT_URL": queues.endpoint_url}
    async with Reader(tmp_path, "A queue, a handler, a file", changes, environment) as reader:
        await reader.follow()


async def test_a_topic(tmp_path: Path, kafka_bootstrap: str) -> None:
    name = f"headrace-test-{uuid.uuid4().hex[:12]}"
    changes = {"getting-started": name, "127.0.0.1:29092": kafka_bootstrap}
    try:
        async with Reader(tmp_path, "The same on Kafka", changes, {}) as reader:
            await reader.follow()
    finally:
        async with cluster(kafka_bootstrap) as admin:
            await admin.delete_topics([name])
