"""What runs of each mapping, for the API: told by the lives that the supervisor has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from router.api.mapping_running import NO_RECORDS, Stage
from router.life import MappingLife

#: AWS's words for what keeps a mapping from reading Kafka, by a part of ours.
_KAFKA_PROBLEMS: Final = {
    "authentication failed for user": "SASL authentication failed",
    "the broker does not offer": "SASL authentication failed",
    "certificate is not trusted": "Server failed to authenticate Lambda or Lambda failed to authenticate server",
    "Cannot use security": "Provided certificate or private key is invalid",
}
_CONNECTION: Final = "Connection error. Please check your event source connection configuration."


class Lived(Protocol):
    """Has the mappings of a daemon."""

    @property
    def lives(self) -> Mapping[str, MappingLife]: ...

    @property
    def is_draining(self) -> bool: ...


class MappingLives:
    """Says how far what runs of a mapping is (`Running`)."""

    def __init__(self, lived: Lived, why_unfit: Callable[[str], str | None]) -> None:
        """Make it; `why_unfit` says why a mapping that is to run cannot be made to, None = it can."""
        self._lived = lived
        self._why_unfit = why_unfit

    def stage(self, name: str) -> Stage:
        life = self._lived.lives.get(name)
        if life is None and self._why_unfit(name):
            return Stage.OPEN  # it has said why it cannot
        if life is None or not life.parts.enabled:
            return Stage.GONE
        if life.leaving.is_set():
            return Stage.LEAVING
        return Stage.OPEN if life.known else Stage.OPENING

    def last_result(self, name: str) -> str:
        """Say how its processing goes, in AWS's words; what AWS has no word for is said in ours."""
        life = self._lived.lives.get(name)
        if life is None:
            why = self._why_unfit(name)
            return f"PROBLEM: It cannot be run here: {why}" if why else NO_RECORDS
        reason = life.health().reason
        if reason and reason[0] == "SourceUnavailable":
            return _problem(life.parts.source_name, reason[1])
        return life.runner.last_result if life.runner else NO_RECORDS

    async def opened(self, name: str, within_s: float) -> None:
        """Wait until it reads its source, but no longer than this."""
        life = self._lived.lives.get(name)
        if life is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await life.running.wait()

    async def gone(self, name: str) -> bool:
        """Wait until nothing of it runs; False = the daemon ends before that."""
        while life := self._lived.lives.get(name):
            await life.gone.wait()
            if self._lived.is_draining:
                return False
        return True


def _problem(source: str, why: str) -> str:
    if not source.startswith("kafka:"):
        return f"PROBLEM: {why}"
    words = next((words for part, words in _KAFKA_PROBLEMS.items() if part in why), _CONNECTION)
    return f"PROBLEM: {words} ({why})"
