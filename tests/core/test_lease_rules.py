"""The two fakes of the table do the same, whatever is said to them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from router.core.fleet import Bury, Give, LeaseKey, Mark, Said, Take
from tests.fakes.lease_rules import LeaseRules
from tests.fakes.lease_table import MemoryTable

NAMES = ("a", "b", "c")
keys = st.sampled_from([LeaseKey("m", "1"), LeaseKey("m", "2")])
#: Tokens are small numbers here, so that many are right.
tokens = st.integers(0, 12)
heirs = st.sampled_from(("", *NAMES))
beats = st.one_of(st.none(), st.integers(0, 8))
saids = st.builds(
    Said,
    beat=st.just(0),
    load=st.just(1.0),
    draining=st.booleans(),
    runs=st.one_of(st.none(), st.just(frozenset({"m"}))),
    known=st.integers(0, 12),
    takes=st.lists(st.builds(Take, keys, tokens, beats), max_size=2),
    gives=st.lists(st.builds(Give, keys, tokens, heirs, st.just(0.5), st.booleans()), max_size=2),
    marks=st.lists(st.builds(Mark, keys, tokens, heirs, st.just(0.25)), max_size=1),
    buries=st.lists(st.builds(Bury, st.sampled_from(NAMES), st.integers(0, 8)), max_size=1),
    forgets=st.lists(keys, max_size=1),
)
steps = st.one_of(st.tuples(st.sampled_from(NAMES), saids), st.tuples(st.sampled_from(NAMES), st.just("leave")))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(script=st.lists(steps, max_size=15))
def test_the_rules_without_a_loop_are_those_of_the_table_in_memory(script):
    async def both():
        rules, memory = LeaseRules(), MemoryTable()
        tables = {name: memory.of(name) for name in NAMES}
        incarnations = {}
        for name in NAMES:
            incarnations[name] = rules.join(name, tables[name].lease_s)
            await tables[name].join()
        for beat, (name, said) in enumerate(script, 1):
            if said == "leave":
                rules.leave(name, incarnations[name])
                await tables[name].leave()
            else:
                spoken = replace(said, beat=beat)
                ours = rules.exchange(name, incarnations[name], spoken)
                theirs = await tables[name].exchange(spoken)
                assert replace(ours, leases={}) == replace(theirs, leases={})
                assert {key: plain(lease) for key, lease in ours.leases.items()} == {
                    key: plain(lease) for key, lease in theirs.leases.items()
                }

    asyncio.run(both())


def plain(lease):
    return None if lease is None else lease._replace(since_ms=0)
