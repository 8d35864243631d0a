"""What concerns a mapping on all replicas of a fleet: pausing, moving and deciding, from whichever is asked.

Paused is what the store says; who writes that tells the others to read it (`Steered`). What moves a mapping in its
stream holds its lease `MOVING`: nobody else does meanwhile, every replica that sees it held rests, also one that joins,
and what is written names it, so that a mover that was stopped and wakes late writes nothing. A mover that dies has its
lease no more, and all go on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from router.core.fleet import Lease, LeaseKey, Replica
from router.errors import DecisionNeeded, InUse, LeaseLost, PeerGone, StoreUnavailable
from router.fleet.fenced import Fenced
from router.fleet.peer_answers import packed, unpacked
from router.fleet.tenure import Granted, LeaseChange, Tenure
from router.life import CLOSE_S, DRAIN_GRACE_S, PAUSED, MappingLife
from router.ports import Holds, LeaseTable, Peers, Store

#: Pseudo-shard of a mapping whose owner puts it elsewhere in its stream.
MOVING: Final = "@moving"
#: What replicas ask each other.
REST: Final = "mapping.rest"
DRAINED: Final = "mapping.drained"
RUNS: Final = "mapping.runs"
#: How long we wait for the lease of a move that nobody has, and for the table to be known at first.
GRANT_S: Final = 15.0
#: How long we wait for the shards of a mapping that nobody runs to be taken from the dead.
ALONE_S: Final = 60.0
#: What an answer may take that waits for nothing.
ANSWER_S: Final = 5.0
#: Wait before the store is read again that could not be.
AGAIN_S: Final = 2.0

#: Answers what another replica, which is named, asks of us.
Answer: TypeAlias = Callable[[str, bytes], Awaitable[bytes]]


class Known(Protocol):
    """What of a fleet is known to one replica of it."""

    name: str
    table: LeaseTable
    peers: Peers
    on_steered: list[Callable[[], None]]
    on_heard: list[Callable[[], None]]
    #: Set once the table was heard.
    known: asyncio.Event

    def serve(self, what: str, handler: Answer) -> None: ...

    def tenure(self, mapping: str) -> Tenure: ...

    def lease(self, key: LeaseKey) -> Lease | None:
        """Give a lease as the table was last heard to have it; None = it has none."""
        ...

    def leases(self, mapping: str) -> Mapping[str, Lease]:
        """Give all leases of a mapping, by shard."""
        ...

    def living(self) -> Mapping[str, Replica]:
        """Give the other replicas that live, as far as we know."""
        ...


class Together:
    """All replicas of a fleet, as a command that one of them carries out sees them."""

    def __init__(self, fleet: Known, store: Store, lives: Mapping[str, MappingLife]) -> None:
        self._fleet = fleet
        self._store = store
        self._lives = lives
        self._is_steered = asyncio.Event()
        self._runs = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        #: Mappings of ours that rest because another replica moves them.
        self._resting: set[str] = set()
        self._is_heard = asyncio.Event()
        fleet.on_steered.append(self._is_steered.set)
        fleet.on_heard.append(self._is_heard.set)
        fleet.serve(REST, self._rest_asked)
        self.serve(RUNS, self._runs_here)

    async def run(self) -> None:
        """Follow what is steered elsewhere, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._runs.set()
            while True:
                await self._is_steered.wait()
                self._is_steered.clear()
                lives = list(self._lives.values())
                for life in lives:  # before anything is waited for: what is moved must not begin to be read
                    self._follow_move(life)
                try:
                    for life in lives:
                        await self._follow(life)
                except StoreUnavailable:
                    self._is_steered.set()
                    await asyncio.sleep(AGAIN_S)

    async def _follow(self, life: MappingLife) -> None:
        """Let a mapping of ours be paused and decided as the fleet is told to have it. Raises StoreUnavailable."""
        with suppress(DecisionNeeded):  # what was kept of it is gone: it finds that out by itself, and waits
            since = (await self._store.states(life.name)).get(PAUSED)
            if since:
                life.pause(float(since))
            else:
                life.resume()
        if life.is_undecided:
            life.decide()

    async def begin(self, life: MappingLife) -> None:
        """Wait until it is known whether a mapping is being moved, before it runs first. Raises StoreUnavailable."""
        await self._until_known()
        self._follow_move(life)

    async def _until_known(self) -> None:
        try:
            async with asyncio.timeout(GRANT_S):
                await self._fleet.known.wait()
                await self._runs.wait()
        except TimeoutError:
            raise StoreUnavailable("the fleet has not been joined yet, so nothing is begun") from None

    async def may_inherit(self, former: str) -> None:
        """Make sure that no replica runs a mapping of this name any more, and keep nothing of its leases.

        Raises:
            InUse: one does, or may.
            StoreUnavailable
        """
        await self._until_known()
        for replica, answer in (await self.ask(RUNS, {"mapping": former}, ANSWER_S)).items():
            if answer is None or answer["runs"]:
                raise InUse(
                    f"replica {replica} runs the mapping under its former name {former}: give it the same file; then "
                    "what is kept is taken over by itself"
                )
        self.forget_leases(former)

    # --- what is asked of others

    async def tell(self) -> None:
        """Have all replicas look at what was changed. Raises StoreUnavailable."""
        await self._fleet.table.steered()

    @property
    def name(self) -> str:
        """Our name."""
        return self._fleet.name

    @property
    def others(self) -> Sequence[str]:
        """The other replicas that live."""
        return sorted(self._fleet.living())

    def serve(self, what: str, answer: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> None:
        """Answer what another replica asks, in JSON."""

        async def handler(_: str, body: bytes) -> bytes:
            return packed(await answer(json.loads(body)))

        self._fleet.serve(what, handler)

    async def ask(self, what: str, body: Mapping[str, Any], within_s: float) -> dict[str, dict[str, Any] | None]:
        """Ask all others at once; None = it lives and has not answered, and who has died is not among them.

        One that does not know what it is asked, as it is of another version, has not answered.

        Raises:
            StoreUnavailable
        """
        names = self.others
        answers = await asyncio.gather(*(self._ask(name, what, body, within_s) for name in names))
        return {name: found[0] for name, found in zip(names, answers, strict=True) if found}

    async def _ask(
        self, replica: str, what: str, body: Mapping[str, Any], within_s: float
    ) -> list[dict[str, Any] | None]:
        """Give the answer of one; nothing if it is gone."""
        try:
            answer = await self._fleet.peers.ask(replica, what, json.dumps(body).encode(), within_s)
        except PeerGone:
            return []
        except TimeoutError:
            return [None]
        return [unpacked(answer) if answer else None]

    # --- moving

    def still(self, life: MappingLife, store: Fenced) -> AbstractAsyncContextManager[None]:
        """Keep a mapping at rest on all replicas, while where it goes on is written to this store.

        Raises:
            InUse: it is being moved already, or does not come to rest.
            StoreUnavailable
        """
        return self._still(life, store)

    @asynccontextmanager
    async def _still(self, life: MappingLife, store: Fenced) -> AsyncIterator[None]:
        name = life.name
        async with self._moving(name) as tenure, life.still():
            await self.tell()
            await self._others_rest(name, rest_within_s(life))
            await self._nobody_owns(tenure, rest_within_s(life))
            store.fences = partial(_fences, tenure)
            yield

    @asynccontextmanager
    async def alone(self, mapping: str) -> AsyncIterator[Store]:
        """Give the store to change what is kept of a mapping that no replica runs.

        Raises:
            InUse: one runs it, or may.
            StoreUnavailable
        """
        answers = await self.ask(RUNS, {"mapping": mapping}, ANSWER_S)
        for replica, answer in answers.items():
            if answer is None:
                raise InUse(
                    f"replica {replica} does not say whether it runs mapping {mapping}: look at `headrace status`"
                )
            if answer["runs"]:
                raise InUse(
                    f"mapping {mapping} runs on replica {replica}: give all replicas the same file, with the mapping "
                    "taken out or `enabled: false`, before what it keeps is changed"
                )
        async with self._moving(mapping) as tenure:
            await self._nobody_owns(tenure, ALONE_S)
            fenced = Fenced(self._store)
            fenced.fences = partial(_fences, tenure)
            yield fenced.port

    @asynccontextmanager
    async def alone_for_good(self, mapping: str) -> AsyncIterator[Store]:
        """Give the store as `alone` does, for a mapping that never runs again. Raises as `alone`."""
        async with self.alone(mapping) as store:
            yield store
        self.forget_leases(mapping)

    def forget_leases(self, mapping: str) -> None:
        """Have the fleet keep nothing of a mapping's leases any more."""
        tenure = self._fleet.tenure(mapping)
        tenure.forget(self._fleet.leases(mapping))
        tenure.leave()

    async def _runs_here(self, body: dict[str, Any]) -> dict[str, Any]:
        life = self._lives.get(body["mapping"])
        return {"runs": life is not None and not life.is_down}

    @asynccontextmanager
    async def _moving(self, name: str) -> AsyncIterator[Tenure]:
        """Have the lease to change where a mapping goes on."""
        mover = self._mover(name)
        if mover:
            raise InUse(f"where mapping {name} goes on is being changed by replica {mover}: wait for that")
        tenure = self._fleet.tenure(name)
        try:
            await self._granted(tenure)
            yield tenure
        except LeaseLost as error:
            raise InUse(
                f"this replica was out of the fleet meanwhile, and mapping {name} is where it was: do it again"
            ) from error
        finally:
            tenure.leave()
            tenure.forget([MOVING])
            with suppress(StoreUnavailable):
                await self.tell()

    async def _granted(self, tenure: Tenure) -> None:
        granted = asyncio.Event()

        def learn(change: LeaseChange) -> None:
            if isinstance(change, Granted):
                granted.set()

        tenure.attend(learn)
        tenure.wish(MOVING)
        try:
            async with asyncio.timeout(GRANT_S):
                await granted.wait()
        except TimeoutError:
            raise InUse(
                f"where mapping {tenure.mapping} goes on is being changed by another replica, or this one does not "
                "reach the fleet: look at `headrace status`, then do it again"
            ) from None

    async def _others_rest(self, name: str, within_s: float) -> None:
        """Wait until no other replica runs a mapping. Raises InUse and StoreUnavailable."""
        answers = await self.ask(REST, {"mapping": name}, within_s + ANSWER_S)
        for replica, answer in answers.items():
            if answer is None or not answer["resting"]:
                raise InUse(
                    f"mapping {name} did not come to rest on replica {replica} within {within_s:.0f} s and is where "
                    f"it was; `headrace mapping drain {name}` says what runs"
                )

    async def _nobody_owns(self, tenure: Tenure, within_s: float) -> None:
        """Wait until no other replica has a shard of a mapping. Raises InUse.

        A dead one may wake, and must write nothing then: what it had is taken from it.
        """
        mapping = tenure.mapping

        def is_nobodys() -> bool:
            owners = self._owners(mapping)
            for shard, owner in owners.items():
                if owner not in self._fleet.living():
                    tenure.wish(shard)
            return not owners

        try:
            async with asyncio.timeout(within_s):
                await self._until(is_nobodys)
        except TimeoutError:
            owners = ", ".join(sorted(set(self._owners(mapping).values())))
            raise InUse(
                f"replica {owners} still has shards of mapping {mapping}, which is where it was: do it again when "
                "`headrace status` shows them as nobody's"
            ) from None

    def _owners(self, mapping: str) -> dict[str, str]:
        """Name the other replicas that have shards of a mapping, by shard."""
        return {
            shard: lease.owner
            for shard, lease in self._fleet.leases(mapping).items()
            if lease.owner not in ("", self._fleet.name) and not lease.finished and not shard.startswith("@")
        }

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the table."""
        while not holds():
            await self._next_heard()

    async def _next_heard(self) -> None:
        """Wait until the table is heard again."""
        self._is_heard.clear()
        await self._is_heard.wait()

    def _mover(self, mapping: str) -> str:
        """Name the replica that moves a mapping; empty = nobody, or we."""
        lease = self._fleet.lease(LeaseKey(mapping, MOVING))
        return lease.owner if lease and lease.owner != self._fleet.name else ""

    def _follow_move(self, life: MappingLife) -> None:
        if self._mover(life.name) and life.name not in self._resting and self._tasks:
            self._resting.add(life.name)
            self._tasks.create_task(self._rest(life))

    async def _rest(self, life: MappingLife) -> None:
        """Keep a mapping of ours at rest while another replica moves it."""
        try:
            while self._mover(life.name):
                try:
                    async with life.still():
                        await self._moved(life.name)
                except InUse:
                    if life.untouched.is_set():  # what runs does not end in time: who moves it is told, and gives up
                        await self._next_heard()
                    else:  # a move of our own, cut off from the fleet; nothing may run between its end and our next try
                        await life.untouched.wait()
        finally:
            self._resting.discard(life.name)

    async def _moved(self, mapping: str) -> None:
        """Wait until nobody moves a mapping any more; from one that has died, the right to is taken first."""
        await self._until(lambda: self._mover(mapping) not in self._fleet.living())
        lease = self._fleet.lease(LeaseKey(mapping, MOVING))
        if lease and self._mover(mapping):
            tenure = self._fleet.tenure(mapping)
            tenure.wish(MOVING)
            try:
                await self._until(lambda: self._fleet.lease(LeaseKey(mapping, MOVING)) != lease)
            finally:
                tenure.leave()

    async def _rest_asked(self, replica: str, body: bytes) -> bytes:
        """Answer once a mapping rests here, or does not within its own bounds."""
        life = self._lives.get(json.loads(body)["mapping"])
        if life is None:
            return b'{"resting": true}'
        # What is asked may be here before what the table says: the lease is granted already, and comes to be known.
        async with asyncio.timeout(GRANT_S):
            await self._until(lambda: self._mover(life.name) == replica)
        self._follow_move(life)
        with suppress(TimeoutError):
            async with asyncio.timeout(rest_within_s(life)):
                await life.resting.wait()
        return json.dumps({"resting": life.resting.is_set() and life.name in self._resting}).encode()


def _fences(tenure: Tenure) -> list[Holds]:
    """Give what shows that a mapping is ours to move. Raises LeaseLost."""
    tenure.look()
    return tenure.fences([MOVING])


def rest_within_s(life: MappingLife) -> float:
    """Say within what time a mapping comes to rest, whatever its function does."""
    return life.parts.mapping.drain_s + DRAIN_GRACE_S + CLOSE_S
