"""A mapping whose function fails for some values, and the commands that replay its failure records."""

from __future__ import annotations

import json
from typing import Any

from tests.live.daemon import Daemon

#: Notes the value of every record that it is given, and fails for those that begin with poison, whatever the source.
BROKEN = """
import base64

def values(event):
    records = event.get("Records")
    if records is None:
        records = [record for each in event["records"].values() for record in each]
    for record in records:
        if "kinesis" in record:
            yield base64.b64decode(record["kinesis"]["data"]).decode()
        elif "dynamodb" in record:
            yield record["dynamodb"]["NewImage"]["value"]["S"]
        else:
            yield base64.b64decode(record["value"]).decode()

def handle(event, context):
    found = list(values(event))
    if any(value.startswith("poison") for value in found):
        raise ValueError("no total")
    with open({done!r}, "a") as done:
        done.writelines(value + "\\n" for value in found)
"""
FIXED = BROKEN.replace('raise ValueError("no total")', "pass")


class Rehydrating:
    """A daemon with the function `orders`."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.done = daemon.folder / "done"
        self.done.touch()
        self.function(BROKEN)

    def function(self, source: str) -> None:
        self.daemon.function("orders", source.replace("{done!r}", repr(str(self.done))))

    async def mend(self) -> None:
        """Start the daemon anew with a function that fails for nothing, and forget what was done so far."""
        assert await self.daemon.terminate() == 0
        self.function(FIXED)
        self.done.write_text("")
        await self.daemon.start()

    def values(self) -> list[str]:
        """Give what the function has succeeded with."""
        return self.done.read_text().split()

    async def replay(self, place: str, *options: str) -> tuple[int, list[dict[str, Any]], dict[str, Any], str]:
        """Replay failure records; gives the exit status, what was told of each, the summary, and standard error."""
        done = await self.daemon.command("failures", "replay", "--from", place, "--json", "--yes", *options)
        lines = [json.loads(line) for line in done.out.splitlines()]
        return done.status, lines[:-1], lines[-1]["summary"] if lines else {}, done.err
