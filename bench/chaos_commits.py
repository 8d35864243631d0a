"""Looks, while a fleet runs, how far it has committed: what was behind a checkpoint then must not run later.

The samples say more than the events do: what is committed is committed, whatever goes wrong afterwards.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from router.errors import RouterError

#: Between two looks.
_EVERY_S: Final = 0.5
#: Longest time of one look: what is in trouble is looked at again later.
_LOOK_S: Final = 3.0
#: Behind every position.
END: Final = 1 << 200
#: A table's records do not name their shard. Children are read when their parents are committed: the last one counts.
_TABLE: Final = "-"
_DIGITS: Final = re.compile(r"\d+")
_SHARD: Final = "shard:"


class Texts(Protocol):
    """Who gives the texts of a mapping."""

    async def states(self, mapping: str) -> Mapping[str, str]: ...


class Commits:
    """What was seen to be committed: by source and shard, times and positions, both rising."""

    def __init__(self, store: Texts, admin: AIOKafkaAdminClient | None, group: str, names: Sequence[str]) -> None:
        self._store = store
        self._admin = admin
        self._group = group
        self._names = names
        self.seen: dict[str, dict[str, list[tuple[int, int]]]] = {name: defaultdict(list) for name in names}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            for name in self._names:
                with suppress(RouterError, KafkaError, TimeoutError, OSError):
                    found = await asyncio.wait_for(self._kafka() if name == "kafka" else self._stored(name), _LOOK_S)
                    self._note(name, found, time.monotonic_ns())
            await asyncio.sleep(_EVERY_S)

    def _note(self, name: str, found: Mapping[str, int], at_ns: int) -> None:
        for shard, position in found.items():
            samples = self.seen[name][shard]
            if not samples or position > samples[-1][1]:
                insort(samples, (at_ns, position))

    async def _kafka(self) -> Mapping[str, int]:
        assert self._admin is not None
        offsets = await self._admin.list_consumer_group_offsets(self._group)
        return {str(each.partition): at.offset - 1 for each, at in offsets.items() if at.offset > 0}

    async def _stored(self, name: str) -> Mapping[str, int]:
        texts = {
            key.removeprefix(_SHARD): json.loads(text)
            for key, text in (await self._store.states(name)).items()
            if key.startswith(_SHARD)
        }
        positions = {
            shard: int(found[0])
            for shard, kept in texts.items()
            if (found := _DIGITS.match(kept["checkpoint"])) and not kept.get("finished")
        }
        if name == "dynamodb":
            return {_TABLE: max(positions.values())} if positions else {}
        return positions | {shard: END for shard, kept in texts.items() if kept.get("finished")}
