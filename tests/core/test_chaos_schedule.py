"""What goes wrong follows from the seed, and leaves enough alone."""

import pytest

from bench.chaos_schedule import KINDS, REPLICAS, schedule

SOURCES = ("kafka", "sqs", "fifo", "kinesis", "dynamodb")


def planned(seed=5, count=320, sources=SOURCES):
    return schedule(seed, count, lease_s=6.0, sources=sources)


def test_a_seed_gives_the_same_events_again():
    assert planned() == planned()
    assert planned() != planned(seed=6)


def test_all_kinds_come_and_they_fit_into_a_quarter_of_an_hour():
    events = planned()
    assert {event.kind for event in events} == KINDS.keys()
    assert events[-1].at_s < 900
    assert [event.number for event in events] == list(range(1, 321))


def test_only_what_concerns_the_sources_comes():
    kinds = {event.kind for event in planned(sources=("kafka",))}
    assert "kill broker" in kinds
    assert not kinds & {"freeze AWS", "cut from AWS", "split", "merge"}
    assert "kill broker" not in {event.kind for event in planned(sources=("sqs",))}


@pytest.mark.parametrize("seed", range(20))
def test_two_events_never_hit_the_same_part_at_a_time(seed):
    free_s = {}
    for event in planned(seed):
        part = "broker" if event.kind == "kill broker" else event.part
        assert event.at_s >= free_s.get(part, 0.0)
        free_s[part] = event.at_s + event.lasts_s


@pytest.mark.parametrize("seed", range(20))
def test_one_replica_is_always_left_alone(seed):
    away = [event for event in planned(seed) if KINDS[event.kind].is_away]
    for event in away:
        gone = {other.target for other in away if other.at_s <= event.at_s < other.at_s + other.lasts_s}
        assert len(gone) < len(REPLICAS)


def test_the_guest_comes_before_it_goes():
    moves = [event.kind for event in planned() if event.part == "guest"]
    assert set(moves[::2]) == {"join"}
    assert set(moves[1::2]) == {"leave", "vanish"}
