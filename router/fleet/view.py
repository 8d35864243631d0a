"""The fleet as one replica sees it: what `status` shows, and whether all replicas run the same.

Each replica describes itself beside the table: what cannot be seen in leases. Others are asked how they are when
somebody wants to know, for a bounded time; one that does not answer is shown as such.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from router.board import Board
from router.core.fleet import LeaseKey
from router.errors import StoreUnavailable
from router.failures.record import iso_ms
from router.fleet.document import Seen, differences, event_targets, fleet_document, functions, merged
from router.fleet.fleet import Fleet
from router.fleet.together import Together
from router.telemetry import FleetMetrics, Log

#: What replicas ask each other.
STATUS: Final = "status"
#: Longest wait for the answers of others.
STATUS_S: Final = 2.0
#: Between two looks at whether what we say of ourselves is still so.
LOOK_S: Final = 1.0


class FleetView:
    """Describes us to the others, and them to people."""

    def __init__(
        self,
        name: str,
        fleet: Fleet,
        together: Together,
        board: Board,
        *,
        version: str,
        state_dir: str,
        digests: Callable[[], tuple[str, Mapping[str, str]]],
        assigned: Callable[[], Mapping[str, Sequence[str]]],
        findings: Callable[[], Sequence[str]],
        metrics: FleetMetrics,
        log: Log,
    ) -> None:
        """Make it.

        Args:
            name: the fleet's.
            fleet: what we know of it.
            together: asks the others.
            board: says how we are.
            version: of this program.
            state_dir: our own folder.
            digests: give what the file is, and each of its mappings.
            assigned: gives what sources have assigned to us, by mapping: shards that no lease says we have.
            findings: say what of the shared store should be mended.
            metrics: are kept up.
            log: told when replicas do not run the same.
        """
        self._name = name
        self._fleet = fleet
        self._together = together
        self._board = board
        self._version = version
        self._state_dir = state_dir
        self._digests = digests
        self._assigned = assigned
        self._findings = findings
        self._metrics = metrics
        self._log = log
        self._started = iso_ms(time.time())
        self._abouts: dict[str, dict[str, Any]] = {}
        self._told: dict[str, dict[str, str]] = {}
        #: Is there something that was not compared yet?
        self._is_stale = True
        fleet.on_heard.append(self._count)
        fleet.on_steered.append(self._look_again)
        together.serve(STATUS, self._status_here)

    async def run(self) -> None:
        """Keep what we say of ourselves up to date, and see what others say, until cancelled."""
        await self._fleet.known.wait()
        said: dict[str, Any] = {}
        members: Mapping[str, str] = {}
        while True:
            about, now = self._about(), self._members()
            try:
                if about != said:
                    await self._fleet.table.describe(json.dumps(about))
                    if said and said["file"] != about["file"]:
                        await self._together.tell()  # for the others to compare
                    said = about
                if (
                    self._is_stale
                    or now != members
                    or self._abouts.get(self._fleet.name) != about
                    or not now.keys() <= self._abouts.keys()
                ):
                    self._is_stale = False  # what changes while it is read is looked at next time
                    self._abouts = await self._read_abouts()
                    members = now
                    self._compare()
            except StoreUnavailable:
                self._is_stale = True  # what matters of that is told by the fleet
            await asyncio.sleep(LOOK_S)

    async def document(self) -> dict[str, Any]:
        """Give the document of `status --json`, of all replicas together."""
        ours = self._board.status()
        error = None
        answers: Mapping[str, Any] = {}
        leases = self._fleet.all_leases()
        try:
            answers = await self._together.ask(STATUS, {}, STATUS_S)
            self._abouts = await self._read_abouts()
            # What we last heard may be a renewal old: the others have said that they work on what they took since.
            leases = {key: lease for key, lease in (await self._fleet.table.look()).leases.items() if lease}
        except StoreUnavailable as unavailable:
            error = str(unavailable)
        silent = (
            frozenset(self._together.others) if error else frozenset(n for n, each in answers.items() if each is None)
        )
        documents = {self._fleet.name: ours, **{name: each for name, each in sorted(answers.items()) if each}}
        mappings = merged(documents)
        fleet, us = self._fleet, self._fleet.us()
        for each in mappings:  # one replica may not know yet what another has begun
            each["waiting"] = [
                shard for shard in each["waiting"] if LeaseKey(each["name"], shard["shard"]) not in leases
            ]
        seen = Seen(
            self._name,
            fleet.name,
            {**fleet.living(), **fleet.dead(), **({fleet.name: us} if us else {})},
            frozenset(fleet.dead()),
            leases,
            self._abouts,
            fleet.lags_s(),
            frozenset(silent),
            time.time(),
        )
        return {
            **ours,
            "mappings": mappings,
            "functions": functions(documents),
            "event_targets": event_targets(documents),
            "fleet": {**fleet_document(seen, mappings), "error": error, "store": self._findings()},
        }

    async def _status_here(self, _: dict[str, Any]) -> dict[str, Any]:
        return self._board.status()

    async def _read_abouts(self) -> dict[str, dict[str, Any]]:
        found = {}
        for name, text in (await self._fleet.table.abouts()).items():
            if text:
                found[name] = json.loads(text)
        return found

    def _members(self) -> Mapping[str, str]:
        return {name: each.incarnation for name, each in self._fleet.living().items()}

    def _about(self) -> dict[str, Any]:
        file, mappings = self._digests()
        assigned = self._assigned()
        return {
            "version": self._version,
            "started": self._started,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "state_dir": self._state_dir,
            "file": file,
            "mappings": {
                name: {"digest": digest, "shards": sorted(assigned.get(name, ()))}
                for name, digest in sorted(mappings.items())
            },
        }

    def _compare(self) -> None:
        """Tell when replicas that live begin to differ, or do so no more."""
        found = differences(self._abouts, [*self._fleet.living(), self._fleet.name])
        self._metrics.mixed.set(bool(found))
        if found and found != self._told:
            self._log.write("fleet.mixed", differences=found)
        elif self._told and not found:
            self._log.write("fleet.alike")
        self._told = found

    def _look_again(self) -> None:
        self._is_stale = True

    def _count(self) -> None:
        self._metrics.replicas.labels("live").set(len(self._fleet.living()) + 1)
        self._metrics.replicas.labels("dead").set(len(self._fleet.dead()))
        self._metrics.owned.set(self._fleet.owned())
