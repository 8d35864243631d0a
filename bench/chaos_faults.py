"""Carries out what `bench.chaos_schedule` decided, and says when each thing really began and was over."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from bench import chaos_servers
from bench.chaos_fleet import Replica, pick
from bench.chaos_judge import Trouble
from bench.chaos_proxy import Link
from bench.chaos_redis import Redis
from bench.chaos_schedule import GUEST, Event
from bench.chaos_servers import LocalStack
from bench.chaos_sources import Source

#: Longest time that a worker to kill is waited for.
_WORKER_S = 2.0
#: Redis has more than this in use from the start, so that all writes are refused.
_TOO_LITTLE = "1mb"


@dataclass(slots=True)
class Scene:
    """All that may be in trouble."""

    replicas: Mapping[str, Replica]
    redis: Redis
    redis_links: Mapping[str, Link]
    aws_links: Mapping[str, Link]
    localstack: LocalStack | None
    sources: Mapping[str, Source]
    #: What was carried out, with the events that it came from.
    troubles: list[tuple[Event, Trouble]] = field(default_factory=list)
    #: Events that found nothing to hit.
    skipped: list[Event] = field(default_factory=list)

    async def suffer(self, event: Event) -> None:
        """Carry out one event to its end."""
        from_ns = time.monotonic_ns()
        workers: tuple[int, ...] = ()
        if event.part.startswith("replica "):
            done = await self._hit_replica(event)
        elif event.kind == "kill worker":
            workers = await self._kill_worker(event)
            done = bool(workers)
        elif event.part == "guest":
            done = await self._hit_guest(event)
        elif " link " in event.part:
            done = await self._hit_link(event)
        elif event.part == "redis":
            done = await self._hit_redis(event)
        else:
            done = await self._hit_other(event)
        if not done:
            self.skipped.append(event)
            return
        replica = event.target if event.target in self.replicas else GUEST if event.part == "guest" else ""
        self.troubles.append((event, Trouble(event.kind, replica, from_ns, time.monotonic_ns(), workers)))

    async def _hit_replica(self, event: Event) -> bool:
        replica = self.replicas[event.target]
        if not replica.is_up:
            return False
        if event.kind.startswith("freeze"):
            replica.freeze()
            await asyncio.sleep(event.lasts_s)
            replica.thaw()
            return True
        await (replica.kill() if event.kind == "kill replica" else replica.terminate())
        await asyncio.sleep(event.lasts_s)
        await replica.start()
        return True

    async def _kill_worker(self, event: Event) -> tuple[int, ...]:
        replica = self.replicas[event.target]
        with suppress(TimeoutError):
            async with asyncio.timeout(_WORKER_S):
                while not (workers := replica.workers()):  # noqa: ASYNC110 - other processes have no event for it
                    await asyncio.sleep(0.02)
                victim = pick(workers, event.chance)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    return (victim,)
        return ()

    async def _hit_guest(self, event: Event) -> bool:
        guest = self.replicas[GUEST]
        if guest.is_up == (event.kind == "join"):
            return False
        await {"join": guest.start, "leave": guest.terminate, "vanish": guest.kill}[event.kind]()
        return True

    async def _hit_link(self, event: Event) -> bool:
        links = self.redis_links if event.part.startswith("redis") else self.aws_links
        link = links[event.target]
        if event.kind.startswith("cut"):
            await link.cut()
        elif event.kind.startswith("stall"):
            await link.stall()
        else:
            await link.delay(0.02 + 0.4 * event.chance)
        await asyncio.sleep(event.lasts_s)
        await link.mend()
        return True

    async def _hit_redis(self, event: Event) -> bool:
        if event.kind == "kill Redis":
            await self.redis.kill()
            await asyncio.sleep(event.lasts_s)
            await self.redis.start()
        elif event.kind == "freeze Redis":
            self.redis.freeze()
            await asyncio.sleep(event.lasts_s)
            self.redis.thaw()
        else:
            await self.redis.set("maxmemory", _TOO_LITTLE)
            await asyncio.sleep(event.lasts_s)
            await self.redis.set("maxmemory", "0")
        return True

    async def _hit_other(self, event: Event) -> bool:
        if event.kind == "full disk":
            self.replicas[event.target].fill_disk()
            await asyncio.sleep(event.lasts_s)
            self.replicas[event.target].free_disk()
        elif event.kind == "kill broker":
            await chaos_servers.broker("kill", event.target)
            await asyncio.sleep(event.lasts_s)
            await chaos_servers.broker("start", event.target)
        elif event.kind == "freeze AWS":
            assert self.localstack is not None
            self.localstack.freeze()
            await asyncio.sleep(event.lasts_s)
            self.localstack.thaw()
        else:
            reshard = self.sources["kinesis"].reshard
            assert reshard is not None
            return await reshard(event.kind, event.chance)
        return True
