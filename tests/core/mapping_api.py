"""The operations on event source mappings over a catalogue in memory, with a world that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from router.api.call import Call
from router.api.errors import ApiError
from router.api.mapping_parts import MappingParts
from router.api.mapping_running import Stage
from router.api.mappings import MappingApi
from router.api.names import Here
from router.api.parts import Parts
from router.catalogue.catalogue import Catalogue
from router.catalogue.records import Alias, Code, Function, Version
from router.catalogue.records import Mapping as Record
from router.errors import ConfigError, SourceUnavailable
from router.event_ports import FoundSource, NoSource
from tests.fakes.store import MemoryStore

ACCOUNT = "000000000000"
FUNCTION_ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:orders"
NOW_S = 1_800_000_000.123456


def version(number: str = "$LATEST", timeout_s: int = 3) -> Version:
    return Version(number=number, runtime="python3.12", handler="a.b", role="r", code=Code(), timeout_s=timeout_s)


def function(name: str, *, timeout_s: int = 3) -> Function:
    return Function(
        name=name,
        latest=version(timeout_s=timeout_s),
        versions={"1": version("1"), "2": version("2", 60)},
        aliases={
            "live": Alias(name="live", version="1"),
            "split": Alias(name="split", version="1", weights={"2": 0.1}),
        },
    )


class World:
    """Sources, and what runs."""

    def __init__(self) -> None:
        #: What is found by ARN; everything else is a queue or stream that is fine.
        self.found: dict[str, FoundSource | NoSource | str] = {}
        self.asked: list[str] = []
        self.stages: dict[str, Stage] = {}
        #: The stage of a mapping that was just written, if it is enabled and when not.
        self.next_stage = Stage.OPENING
        self.results: dict[str, str] = {}
        self.waited: list[str] = []
        #: How often it was said that a mapping is to leave.
        self.left = 0
        self.clusters: dict[str, list[str]] = {}
        #: Why nothing can be run.
        self.unfit = ""

    async def find(self, arn: str) -> FoundSource | NoSource:
        await asyncio.sleep(0)
        self.asked.append(arn)
        found = self.found.get(arn, FoundSource(30 if ":sqs:" in arn else None))
        if isinstance(found, str):
            raise SourceUnavailable(found)
        return found

    def try_out(self, record: Record) -> None:
        if self.unfit:
            raise ConfigError(self.unfit)

    def leave(self) -> None:
        self.left += 1

    def stage(self, name: str) -> Stage:
        return self.stages.get(name, Stage.GONE)

    def last_result(self, name: str) -> str:
        return self.results.get(name, "No records processed")

    async def opened(self, name: str, within_s: float) -> None:
        del within_s
        self.waited.append(name)

    async def gone(self, name: str) -> bool:
        return self.stage(name) is Stage.GONE


class Api:
    """Calls the operations as the server does; those of one replica where it is given a store that others have, too."""

    def __init__(self, shared: MemoryStore | None = None, *, first_id: int = 1) -> None:
        self.store = shared or MemoryStore()
        self.catalogue = Catalogue(self.store, is_shared=shared is not None)
        self.catalogue.follow = self._follow
        self.world = World()
        self.is_strict = True
        self.now_s = NOW_S
        self._ids = count(first_id)
        unused: Any = None
        self.parts = Parts(
            catalogue=self.catalogue,
            functions=unused,
            code=unused,
            objects=unused,
            check_archive=unused,
            mappings=MappingParts(
                sources=self.world,
                running=self.world,
                servers=lambda arn: self.world.clusters.get(arn, []),
                try_out=self.world.try_out,
                leaves=self.world.leave,
            ),
            where=lambda: Here("us-east-1", ACCOUNT),
            is_strict=lambda: self.is_strict,
            file="headrace.yaml",
            wall=lambda: self.now_s,
            new_id=lambda: f"{next(self._ids):08d}-2222-4333-8444-555555555555",
            log=unused,
            accepts=unused,
        )
        self.operations = MappingApi(self.parts).operations

    async def _follow(self) -> None:
        """Run what is enabled, as the daemon does: what changed is begun anew."""
        for record in self.catalogue.made[1].values():
            stage = self.world.stages.get(record.name)
            if record.enabled and not record.is_leaving:
                self.world.stages[record.name] = self.world.next_stage
            elif stage is not None and stage is not Stage.GONE:
                self.world.stages[record.name] = Stage.LEAVING

    def settle(self) -> None:
        """Let everything come to what was asked for."""
        for name, stage in self.world.stages.items():
            self.world.stages[name] = Stage.GONE if stage is Stage.LEAVING else Stage.OPEN

    async def start(self) -> Api:
        for name in ("orders", "bills"):
            await self.catalogue.put_function(function(name))
        return self

    async def call(
        self, verb: str, uuid: str = "", document: Mapping[str, Any] | None = None, **query: str
    ) -> dict[str, Any]:
        call = Call("request", {"UUID": uuid}, {name: [text] for name, text in query.items()}, {}, document or {})
        noun = "EventSourceMappings" if verb == "List" else "EventSourceMapping"
        answer = await self.operations[f"{verb}{noun}"](call)
        assert answer.status == (200 if verb in ("List", "Get") else 202)
        return dict(answer.document or {})

    async def make(self, **members: Any) -> dict[str, Any]:
        return await self.call("Create", document={"FunctionName": "orders", **members})

    async def refused(
        self, verb: str, uuid: str = "", document: Mapping[str, Any] | None = None, **query: str
    ) -> ApiError:
        with pytest.raises(ApiError) as error:
            await self.call(verb, uuid, document, **query)
        return error.value
