"""What every Places does, where positions are known without reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest

from router.core.facts import Progress
from router.core.seek import AtTime, Direction, Edge, Extent, Move, plan
from router.errors import InUse
from router.ports import Places
from router.seeking import opened


class PlacesBench(Protocol):
    """A stream of two shards, and a group that has committed nothing yet."""

    shards: tuple[str, str]

    def places(self) -> Places: ...

    async def append(self, shard: str, *times_ms: int) -> None:
        """Write a record for each of these arrival times."""
        ...

    async def trim(self, shard: str, before: int) -> None: ...

    async def join(self) -> None:
        """Let a member read as the group."""
        ...

    async def leave(self) -> None: ...


def ends(extents: Sequence[Extent]) -> list[tuple[str, Progress | None, int | None, int | None]]:
    return [(each.shard, each.place, each.first, each.end) for each in extents]


class PlacesConformance:
    """Subclasses give the bench; a test that is `live` needs its server."""

    async def test_where_nothing_is_committed_there_is_no_place(self, bench: PlacesBench) -> None:
        first, second = bench.shards
        await bench.append(first, 1000, 2000, 3000)
        await bench.trim(first, 1)
        async with opened(bench.places()) as places:
            assert places.stream
            assert places.incarnation
            assert ends(await places.extents()) == [(first, None, 1, 3), (second, None, 0, 0)]

    async def test_what_is_written_is_where_all_are_from_then_on(self, bench: PlacesBench) -> None:
        first, second = bench.shards
        await bench.append(first, 1000, 2000, 3000)
        written = {first: Progress(1, '{"v":1}'), second: Progress(-1, "")}
        async with opened(bench.places()) as places:
            await places.write(written)
            assert {each.shard: each.place for each in await places.extents()} == written
            await places.write({first: Progress(0, "")})
        async with opened(bench.places()) as places:
            assert [each.place for each in await places.extents()] == [Progress(0, ""), Progress(-1, "")]

    async def test_a_time_is_at_the_first_record_that_came_then_or_later(self, bench: PlacesBench) -> None:
        first, second = bench.shards
        await bench.append(first, 1000, 2000, 3000)
        async with opened(bench.places()) as places:
            for time_ms, since in ((0, 0), (1000, 0), (1001, 1), (3000, 2), (3001, None)):
                extents = await places.extents(AtTime(time_ms), None)
                assert [each.since for each in extents] == [since, None]
            moves = plan(await places.extents(Edge.LATEST), Edge.LATEST, None, 0)
            assert moves == [Move(first, None, Progress(2, "")), Move(second, None, Progress(-1, ""))]

    async def test_what_lies_between_two_places_is_counted(self, bench: PlacesBench) -> None:
        first, second = bench.shards
        await bench.append(first, 1000, 2000, 3000)
        moves = [
            (Progress(2, ""), Progress(-1, ""), Direction.BACK, 3),
            (Progress(-1, ""), Progress(1, ""), Direction.FORWARD, 2),
            (Progress(1, ""), Progress(1, ""), Direction.STAY, 0),
            (None, Progress(1, ""), Direction.BEGIN, 0),
        ]
        async with opened(bench.places()) as places:
            for before, after, way, count in moves:
                [span, other] = await places.measure(
                    [Move(first, before, after), Move(second, Progress(-1, ""), Progress(-1, ""))]
                )
                assert (span.direction, span.records, span.is_exact) == (way, count, True)
                assert other.direction is Direction.STAY

    async def test_places_are_not_changed_under_who_reads_from_them(self, bench: PlacesBench) -> None:
        first, _ = bench.shards
        await bench.append(first, 1000)
        async with opened(bench.places()) as places:
            await bench.join()
            before = await places.extents()
            with pytest.raises(InUse):
                await places.write({first: Progress(0, "")})
            assert await places.extents() == before
            await bench.leave()
            await places.write({first: Progress(0, "")})

    async def test_what_is_shown_is_read_back(self, bench: PlacesBench) -> None:
        async with opened(bench.places()) as places:
            for checkpoint in (-1, 0, 41, 2**40):
                assert places.checkpoint(places.show(Progress(checkpoint, ""))) == checkpoint
            assert places.position("42") == 42
            for wrong in ("", "x", "1.5"):
                with pytest.raises(ValueError, match=r"."):
                    places.position(wrong)
