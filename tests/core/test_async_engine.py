"""Which asynchronous event runs next: lines that do not wait for each other, rests, bounded memory, stopping."""

from __future__ import annotations

from router.core.async_engine import (
    DELIVERIES_AT_ONCE,
    HELD_BYTES,
    LOOK_S,
    LOW_BYTES,
    LOW_ROWS,
    PAGE_ROWS,
    PROBE_ROWS,
    WRITTEN_AT_ONCE,
)
from router.core.async_rules import Standing
from router.core.asynchronous import AsyncEvent, Condition, LastAnswer, Owe, Settled, id_of
from tests.machines.async_world import FAILURE, OUTAGE, SUCCESS, THROTTLE, World

RUN = ("run", "f")


def waiting(world: World, count: int, function: str = "f", size: int = 10) -> None:
    """Have events on disk since before the start."""
    now_s = world.wall_s
    world.put(*(AsyncEvent(f"{function}{n:05}", function, None, now_s, now_s, size) for n in range(count)))


def owed(world: World, count: int, *targets: str) -> list[Owe]:
    rows = []
    for n in range(count):
        event = AsyncEvent(f"o{n:05}", "f", None, world.wall_s, world.wall_s, 10, last=FAILURE)
        rows.append(Owe(Settled(event, Condition.RETRIES_EXHAUSTED, 3, world.wall_s), targets, world.wall_s))
    world.put(*rows)
    return rows


def test_an_event_runs_as_soon_as_it_is_accepted_and_is_gone_once_it_has_succeeded() -> None:
    world = World()
    world.accept("e1")
    world.tried("e1", SUCCESS)
    assert world.inbox
    world.written("e1")
    assert (world.inbox, world.payloads, world.lines()) == ({}, set(), {})
    [end] = world.ended["e1"]
    assert (end.condition, end.invoke_count) == (Condition.SUCCESS, 1)


def test_no_more_run_at_once_than_there_is_room_for_and_a_million_that_wait_are_not_in_memory() -> None:
    world = World(rooms={"f": 3})
    waiting(world, 2000)
    world.find()
    world.loaded(world.loads[0])
    assert len(world.running) == 3
    most = 0
    while world.inbox:
        world.step()
        most = max(most, len(world.payloads))
    assert most <= 2 * PAGE_ROWS
    assert len(world.ended) == 2000


def test_what_has_ended_is_not_waited_for_but_no_more_runs_than_can_be_noted_soon() -> None:
    world = World(rooms={"f": 2})
    waiting(world, 2 * WRITTEN_AT_ONCE)
    world.find()
    while world.running or world.loads:
        if world.loads:
            world.loaded(world.loads[0])
        else:
            world.tried(next(iter(world.running)), SUCCESS)
    assert WRITTEN_AT_ONCE <= len(world.writes) <= WRITTEN_AT_ONCE + 2
    world.written(next(iter(world.writes)))
    world.written(next(iter(world.writes)))
    world.settle()
    assert set(world.started.values()) == {1}


def test_events_that_are_accepted_beside_a_backlog_wait_behind_it_on_disk() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 3 * PAGE_ROWS)
    world.find()
    world.accept("late")
    assert "late" not in world.payloads
    world.settle()
    assert list(world.ended)[-1] == "late"


def test_one_function_does_not_hold_up_another_nor_a_delivery() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 1000)
    owed(world, 1, "a")
    world.put(AsyncEvent("g1", "g", None, world.wall_s, world.wall_s + 5.0, 10))
    world.find()
    for loading in list(world.loads):
        world.loaded(loading)
    assert "f00000" in world.running
    assert "o00000" in world.telling
    world.pass_time(5.0)
    [loading] = world.loads
    world.loaded(loading)
    assert set(world.running) == {"f00000", "g1"}


def test_a_throttled_function_costs_one_try_a_rest_however_much_waits_for_it() -> None:
    world = World(rooms={"f": 5})
    waiting(world, 1000)
    world.find()
    world.loaded(world.loads[0])
    for event_id in list(world.running):
        world.tried(event_id, THROTTLE)
    assert not world.running
    assert world.payloads == set(world.writes), "the others are let go of"
    begun = sum(world.started.values())
    for _ in range(1000):
        world.step(THROTTLE)
        assert len(world.running) <= 1
        if world.mono_s > 60.0:
            break
    assert sum(world.started.values()) - begun <= 25
    world.settle()
    assert all(end.condition is Condition.SUCCESS for [end] in world.ended.values())


def test_a_function_that_answers_again_has_all_its_room_again() -> None:
    world = World(rooms={"f": 3})
    waiting(world, 50)
    world.find()
    world.loaded(world.loads[0])
    for event_id in list(world.running):
        world.tried(event_id, OUTAGE)
    world.pass_time(1.0)
    while not world.running:
        world.step()
    assert all(len(each.asked.known) <= PROBE_ROWS for each in world.loads)
    world.tried(next(iter(world.running)), SUCCESS)
    while len(world.running) < 3:
        world.loaded(world.loads[0]) if world.loads else world.written(next(iter(world.writes)))


def test_large_payloads_are_held_in_bounded_memory_and_each_line_goes_on_all_the_same() -> None:
    world = World()
    names = [f"f{n}" for n in range(30)]
    for name in names:
        waiting(world, 10, name, 1_000_000)
    world.find()
    sizes = [each.asked.limit for each in world.loads]
    assert PAGE_ROWS in sizes
    assert sizes.count(PAGE_ROWS) * 4 * 1024 * 1024 <= HELD_BYTES
    assert 1 in sizes
    for loading in list(world.loads):
        world.loaded(loading)
    assert len(world.loads) <= 30
    assert {each.event.function for each in world.running.values()} == set(names)
    world.settle()


def test_a_large_event_beside_full_hands_waits_on_disk() -> None:
    world = World(rooms={"f": 1})
    for n in range(60):
        world.accept(f"e{n}", "f", 1_000_000)
    assert len(world.payloads) * 1_000_000 <= HELD_BYTES
    world.settle()
    assert len(world.ended) == 60


def test_large_answers_that_cannot_be_written_yet_are_held_in_bounded_memory() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 100)
    world.find()
    world.loaded(world.loads[0])
    answer = LastAnswer(200, "1", None, bytes(6_000_000))
    while world.running:
        world.tried(next(iter(world.running)), answer)
    assert 8 <= len(world.writes) <= 10
    world.settle()
    assert world.started.total() == 100


def test_a_cancelled_try_is_made_again_at_once() -> None:
    world = World()
    world.accept("e1")
    world.tried("e1", None)
    assert world.running["e1"].event.tries == 0
    assert not world.writes


def test_a_function_that_is_not_there_is_not_run_but_its_tries_count() -> None:
    world = World(standings={"f": Standing(None, maximum_retries=1)})
    world.accept("e1")
    world.settle()
    [end] = world.ended["e1"]
    assert (end.condition, end.invoke_count, end.event.last) == (
        Condition.RETRIES_EXHAUSTED,
        2,
        LastAnswer(404),
    )
    assert world.mono_s == 60.0
    assert not world.started


def test_a_function_that_is_not_known_yet_costs_one_row_a_rest_however_much_waits_for_it() -> None:
    world = World(standings={"f": Standing(None, is_known=False)})
    waiting(world, 1000)
    world.find()
    written = 0
    while world.mono_s < 60.0:
        written += bool(not world.loads and world.writes)
        world.step()
    assert written <= 25
    world.standings["f"] = Standing("1")
    world.settle()
    assert all(end.condition is Condition.SUCCESS for [end] in world.ended.values())


def test_what_is_changed_between_tries_holds_from_the_next_on() -> None:
    world = World()
    world.accept("e1")
    world.tried("e1", FAILURE)
    world.written("e1")
    world.standings["f"] = Standing("7", is_shut=False)
    world.pass_time(60.0)
    world.loaded(world.loads[0])
    assert world.running["e1"].version == "7"
    assert world.running["e1"].event.tries == 1


def test_what_is_accepted_while_a_page_is_read_runs_once() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 2)
    world.find()
    [loading] = world.loads
    world.accept("later")
    world.read(loading)
    world.accept("last")
    world.loaded(loading)
    world.settle()
    assert world.started == dict.fromkeys(["f00000", "f00001", "later", "last"], 1)


def test_what_is_put_off_while_a_page_is_read_comes_at_its_own_time() -> None:
    world = World(rooms={"f": 1})
    waiting(world, PAGE_ROWS + 10)
    world.find()
    world.loaded(world.loads[0])
    while not world.loads:
        world.step()
    [loading] = world.loads
    running = next(iter(world.running))
    world.read(loading)
    world.tried(running, FAILURE)
    world.written(running)
    world.loaded(loading)
    assert running not in world.running
    world.settle()
    assert world.started[running] == 2


def test_a_page_that_cannot_be_loaded_is_asked_for_again() -> None:
    world = World()
    waiting(world, 1)
    world.find()
    world.load_failed(world.loads[0])
    assert not world.loads
    world.pass_time(1.0)
    world.loaded(world.loads[0])
    assert "f00000" in world.running


def test_a_clock_that_was_set_back_stalls_nothing() -> None:
    world = World()
    waiting(world, 3)
    world.step_clock(-86_400.0)
    world.find()
    world.settle()
    assert world.mono_s < 60.0


def test_a_clock_that_was_set_forward_is_noticed_within_a_minute() -> None:
    world = World()
    world.put(AsyncEvent("e1", "f", None, world.wall_s, world.wall_s + 300.0, 10))
    world.find()
    world.step_clock(300.0)
    world.pass_time(LOOK_S)
    [loading] = world.loads
    world.loaded(loading)
    assert "e1" in world.running


# --- deliveries


def test_each_target_is_told_once_and_then_the_event_is_gone() -> None:
    world = World()
    owed(world, 20, "a", "b")
    world.find()
    world.loaded(world.loads[0])
    assert len(world.telling) == DELIVERIES_AT_ONCE
    world.settle()
    assert set(world.told.values()) == {1}
    assert len(world.told) == 40


def test_a_target_that_is_away_holds_up_none_that_is_there_and_is_told_in_the_end() -> None:
    world = World()
    rows = owed(world, 20, "a", "b")
    world.find()
    for _ in range(2000):
        telling = next(iter(world.telling), None)
        if telling:
            world.delivered(telling, accepted=world.telling[telling].owe.targets[0] == "b")
        else:
            world.step()
        if len(world.told) == 20:
            break
    assert {target for _, target in world.told} == {"b"}
    assert world.mono_s < 60.0
    world.settle()
    assert world.told == dict.fromkeys([(id_of(row), target) for row in rows for target in ("a", "b")], 1)


def test_a_delivery_that_is_refused_for_ever_does_not_keep_others_of_its_target() -> None:
    world = World()
    owed(world, 30, "a")
    world.find()
    while len(world.told) < 29:
        telling = next(iter(world.telling), None)
        if telling:
            world.delivered(telling, accepted=telling != "o00000")
        else:
            world.step()
    assert world.mono_s < 60.0
    for written in list(world.writes):
        world.written(written)
    assert list(world.inbox) == ["o00000"]


def test_what_a_page_shows_before_it_is_known_to_be_written_is_told_once() -> None:
    world = World(targets=("a",))
    owed(world, 1, "a")
    world.accept("e1")
    world.tried("e1", SUCCESS)
    world.find()
    [loading] = [each for each in world.loads if each.asked.line == ("tell", "a")]
    world.commit("e1")
    world.loaded(loading)
    assert set(world.telling) == {"o00000"}
    world.settle()
    assert world.told == {("o00000", "a"): 1, ("e1", "a"): 1}


# --- stopping


def test_stopping_starts_nothing_new_and_ends_with_what_runs() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 500)
    owed(world, 1, "a")
    world.find()
    for loading in list(world.loads):
        world.loaded(loading)
    [running] = world.running
    world.drain()
    assert not world.is_finished
    world.delivered("o00000")
    world.written("o00000")
    world.accept("late")
    world.tried(running, FAILURE)
    world.written(running)
    assert world.is_finished
    assert not world.payloads | world.running.keys() | world.telling.keys()
    assert len(world.inbox) == 501


def test_what_is_cancelled_or_loaded_while_it_stops_stays_in_the_inbox_as_it_was() -> None:
    world = World(rooms={"f": 1})
    waiting(world, 500)
    world.find()
    world.loaded(world.loads[0])
    world.accept("g1", "g")
    while not world.loads:
        world.step()
    before = dict(world.inbox)
    world.drain()
    world.loaded(world.loads[0])
    for event_id in list(world.running):
        world.tried(event_id, None)
    while world.writes:
        world.written(next(iter(world.writes)))
    assert world.is_finished
    assert not world.payloads
    assert all(before[each] == row for each, row in world.inbox.items())


def test_a_stop_with_nothing_to_do_is_over_at_once() -> None:
    world = World()
    world.drain()
    assert world.is_finished


def test_what_is_in_hand_on_its_way_into_a_line_is_not_loaded_over_and_over() -> None:
    count = 2 * PAGE_ROWS
    world = World(rooms={"f": count}, targets=("a",))
    waiting(world, count)
    world.find()
    while len(world.writes) < count:
        world.loaded(world.loads[0]) if world.loads else world.tried(next(iter(world.running)), SUCCESS)
    for row_id in list(world.writes):
        world.commit(row_id)
    world.find()
    for loading in list(world.loads):
        world.loaded(loading)
    assert not world.loads
    world.settle()
    assert len(world.told) == count


def test_the_next_page_is_loaded_while_the_function_has_enough_unless_it_is_large() -> None:
    for size, in_hand in ((1000, LOW_ROWS + 1), (1_000_000, LOW_BYTES // 1_000_000)):
        world = World(rooms={"f": 1})
        waiting(world, 2 * PAGE_ROWS, size=size)
        world.find()
        world.loaded(world.loads[0])
        while not world.loads:
            world.tried(next(iter(world.running)), SUCCESS)
            world.written(next(iter(world.writes)))
        assert len(world.payloads) == in_hand
