"""A daemon of mappings over topics of their own, whose file changes while it works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.live.daemon import Daemon, plain, produce

#: Notes each record with the version of the function, and waits while there is a file HOLD.
NOTES = """
import base64, os, time
def handle(event, context):
    values = [base64.b64decode(r["value"]).decode() for records in event["records"].values() for r in records]
    with open(os.environ["LEDGER"], "a") as ledger:
        print(os.environ.get("VERSION", "1"), len(values), *values, file=ledger, flush=True)
    while os.path.exists(os.environ["HOLD"]):
        time.sleep(0.02)
    if "poison" in str(values):
        raise ValueError("poison")
"""


class Scene:
    """A daemon of mappings over topics of their own, and what their functions noted."""

    def __init__(self, daemon: Daemon, bootstrap: str, topics: Sequence[str]) -> None:
        self.daemon = daemon
        self.bootstrap = bootstrap
        self.topics = topics
        self.hold = daemon.folder / "hold"

    def ledger(self, name: str) -> Path:
        return self.daemon.folder / f"{name}.ledger"

    def add(self, name: str, topic: str, **parameters: object) -> None:
        environment = {"LEDGER": str(self.ledger(name)), "HOLD": str(self.hold)}
        self.daemon.function(name, NOTES, timeout=60, environment=environment)
        self.daemon.mapping(name, plain(self.bootstrap, topic), **parameters)

    def noted(self, name: str) -> list[str]:
        return self.ledger(name).read_text().splitlines() if self.ledger(name).exists() else []

    async def note(self, name: str, line: str) -> None:
        await self.daemon.until(lambda: line in self.noted(name), f"{name} notes {line!r}")

    async def put(self, topic: str, value: str) -> None:
        await produce(self.bootstrap, topic, [("a", value)])

    async def reloaded(self, *, after: int) -> None:
        await self.daemon.line("config.reloaded", after=after)

    async def rewrite(self) -> int:
        """Write the file; gives the number of log lines before."""
        before = len(self.daemon.lines)
        self.daemon.write()
        return before

    async def config(self) -> dict[str, object]:
        done = await self.daemon.command("status", "--json")
        config: dict[str, object] = done.json()["config"]
        return config

    async def metric(self, name: str) -> list[str]:
        url = f"http://127.0.0.1:{self.daemon.port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            return [line for line in (await answer.text()).splitlines() if line.startswith(name)]
