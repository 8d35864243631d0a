"""A stream that is deleted and made again under its name while a daemon reads it, on virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.test_seeking_shards import MACHINES, NAMES, Machine
from tests.sim.virtual_time import in_virtual_time


@MACHINES
@pytest.mark.parametrize("shard_count", [1, 3])
@in_virtual_time
async def test_it_is_read_whole_whatever_was_finished_under_the_same_names(
    make_machine: Callable[[], Machine], shard_count: int
) -> None:
    machine = make_machine()
    async with machine.running():
        machine.put(3)
        await machine.until(lambda: set(machine.seen) >= set(machine.written))
        machine.stream.split(NAMES[0])
        machine.put(3, b"a", b"b")
        await machine.until(lambda: set(machine.seen) >= set(machine.written))
        machine.stream.recreate(shard_count)
        machine.written.clear()
        machine.seen.clear()
        machine.put(3, b"x", b"y", b"z")
        await machine.until(lambda: set(machine.seen) >= set(machine.written))
