"""Random exchanges of three replicas: Redis and the table in memory give the same answers, and fences hold."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from random import Random

import pytest

from connectors.redis.lease_table import RedisLeaseTable
from connectors.redis.link import RedisLink
from connectors.redis.store import RedisStore
from connectors.settings import RedisSettings
from router.core.fleet import Bury, Give, Heard, Lease, LeaseKey, Mark, Replica, Said, Take
from router.errors import LeaseLost
from router.ports import Holds, PutState
from tests.fakes.lease_table import MemoryTable

NAMES = ("a", "b", "c")
KEYS = [LeaseKey("orders", f"shard-{number}") for number in range(4)]
STEPS = 120


@contextlib.asynccontextmanager
async def open_store(settings: RedisSettings, fleet: str) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(settings, fleet, replica="a", folder=None)
    try:
        yield store
    finally:
        await store.close()


class Pairs:
    """Which number or name of the one table is which of the other: each of one."""

    def __init__(self) -> None:
        self.real: dict[object, object] = {0: 0}
        self.fake: dict[object, object] = {0: 0}

    def check(self, fake: object, real: object) -> None:
        assert self.real.setdefault(fake, real) == real
        assert self.fake.setdefault(real, fake) == fake


class Twins:
    """One replica in both tables, and what it knows of the one in memory."""

    def __init__(self, name: str, fake: MemoryTable, link: RedisLink) -> None:
        self.name = name
        self.fake = fake.of(name)
        self.real = RedisLeaseTable(link, name, name, 30.0)
        self.beat = 0
        self.known = (0, 0)
        self.leases: dict[LeaseKey, Lease] = {}
        self.beats: dict[str, int] = {}

    async def join(self) -> None:
        await self.fake.join()
        await self.real.join()
        self.beat = 0
        self.known = (0, 0)


class World:
    def __init__(self, random: Random, store: RedisStore) -> None:
        self.random = random
        self.store = store
        self.fake = MemoryTable()
        self.twins = {name: Twins(name, self.fake, store.link) for name in NAMES}
        self.tokens, self.incarnations = Pairs(), Pairs()
        #: All tokens that a key was taken with, of the table in memory.
        self.taken: dict[LeaseKey, list[int]] = {key: [] for key in KEYS}
        #: Replicas that were not in the table when they spoke last: Redis hears what they run when they speak next.
        self.returned: set[str] = set()

    async def start(self) -> None:
        for twins in self.twins.values():
            await twins.join()

    async def step(self) -> None:
        twins = self.twins[self.random.choice(NAMES)]
        match self.random.randrange(12):
            case 0:
                await twins.join()
            case 1:
                await twins.fake.leave()
                await twins.real.leave()
            case 2:
                twins.known = (0, 0)
        said = self.invent(twins)
        await self.exchange(twins, said)
        for key in self.random.sample(KEYS, 1):
            await self.check_fences(key)

    def some(self) -> Sequence[LeaseKey]:
        return self.random.sample(KEYS, self.random.choice([0, 0, 1, 1, 2, len(KEYS)]))

    def token(self, twins: Twins, key: LeaseKey) -> int:
        """A token that is in the table, or was, or none."""
        now = twins.leases[key].token if key in twins.leases else 0
        return now if self.random.random() < 0.8 else self.random.choice([0, *self.taken[key]])

    def invent(self, twins: Twins) -> Said:
        random = self.random
        twins.beat += random.choice([0, 1, 1, 2])
        runs = random.choice([None, None, frozenset({"orders"}), frozenset({"orders", "clicks"}), frozenset[str]()])
        owners = {name: random.choice([beat, beat, beat - 1]) for name, beat in twins.beats.items()}
        return Said(
            beat=twins.beat,
            load=random.random(),
            draining=random.random() < 0.2,
            runs=runs,
            known=twins.known[0],
            takes=[Take(key, self.token(twins, key), random.choice([None, *owners.values()])) for key in self.some()],
            gives=[
                Give(
                    key,
                    self.token(twins, key),
                    random.choice(["", "b", "gone"]),
                    random.random(),
                    random.random() < 0.2,
                )
                for key in self.some()
            ],
            marks=[Mark(key, self.token(twins, key), random.choice(["", "c"]), random.random()) for key in self.some()],
            buries=[Bury(name, beat) for name, beat in owners.items() if random.random() < 0.1],
            forgets=self.some() if random.random() < 0.2 else [],
        )

    def translated(self, said: Said, known: int) -> Said:
        """The same for Redis, with its tokens."""

        def real(each: Take | Give | Mark) -> Take | Give | Mark:
            return each._replace(token=self.tokens.real[each.token])

        return replace(
            said,
            known=known,
            takes=[real(each) for each in said.takes],
            gives=[real(each) for each in said.gives],
            marks=[real(each) for each in said.marks],
        )

    async def exchange(self, twins: Twins, said: Said) -> None:
        (self.returned.discard if twins.name in self.fake.rows else self.returned.add)(twins.name)
        real = await twins.real.exchange(self.translated(said, twins.known[1]))
        fake = await twins.fake.exchange(said)
        self.compare(fake, real)
        if fake.replaced:
            return
        twins.known = (fake.version, real.version)
        twins.leases = {} if fake.whole else twins.leases
        for key, lease in fake.leases.items():
            twins.leases.pop(key, None)
            if lease is not None:
                twins.leases[key] = lease
        twins.beats = {name: other.beat for name, other in fake.replicas.items()}
        for key, taken in fake.taken.items():
            self.taken[key].append(taken.token)

    def compare(self, fake: Heard, real: Heard) -> None:
        assert (fake.replaced, fake.steered, fake.whole) == (real.replaced, real.steered, real.whole)
        assert set(fake.taken) == set(real.taken)
        for key, taken in fake.taken.items():
            self.tokens.check(taken.token, real.taken[key].token)
        assert set(fake.leases) == set(real.leases)
        for key, lease in fake.leases.items():
            self.compare_leases(lease, real.leases[key])
        assert set(fake.replicas) == set(real.replicas)
        for name, other in fake.replicas.items():
            self.compare_replicas(other, real.replicas[name])

    def compare_leases(self, fake: Lease | None, real: Lease | None) -> None:
        assert (fake is None) == (real is None)
        if fake is not None and real is not None:
            self.tokens.check(fake.token, real.token)
            assert real._replace(token=0, since_ms=0) == fake._replace(token=0, since_ms=0)

    def compare_replicas(self, fake: Replica, real: Replica) -> None:
        self.incarnations.check(fake.incarnation, real.incarnation)
        assert real.runs == fake.runs or (not real.runs and fake.name in self.returned)
        assert replace(real, incarnation=fake.incarnation, runs=fake.runs) == fake

    async def check_fences(self, key: LeaseKey) -> None:
        """Only the newest token that a key was taken with may be accepted; Redis and memory agree on that."""
        accepted = []
        for token in self.taken[key][-3:]:
            real = self.tokens.real[token]
            assert isinstance(real, int)
            with contextlib.suppress(LeaseLost):
                await self.store.apply([Holds(*key, real), PutState(key.mapping, "x", str(token))])
                accepted.append(token)
        assert accepted == [token for token in self.taken[key][-3:] if self.fake.is_held(Holds(*key, token))]
        assert accepted in ([], self.taken[key][-1:])


@pytest.mark.parametrize("seed", range(6))
async def test_the_tables_answer_alike_and_no_two_owners_are_accepted(
    redis_settings: RedisSettings, fleet_name: str, seed: int
) -> None:
    async with open_store(redis_settings, fleet_name) as store:
        world = World(Random(seed), store)
        await world.start()
        for _ in range(STEPS):
            await world.step()
        assert sum(map(len, world.taken.values())) > STEPS / 4
