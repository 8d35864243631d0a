"""The screen of `status --watch`, in terminals of every size."""

import io

import pytest
from rich.console import Console

from router.commands.watch import Screen


def shard(name, **changes):
    return {
        "shard": name,
        "position": 41,
        "lag_records": 3,
        "lag_seconds": 1.5,
        "in_flight": 2,
        "attempts": 0,
        "next_try": None,
        **changes,
    }


def mapping(name, state="running", reason=None, shards=(), **changes):
    return {
        "name": name,
        "state": state,
        "reason": reason,
        "records_per_second": 12.5,
        "lag_records": 3,
        "lag_seconds": 1.5,
        "in_flight": 2,
        "last_result": "OK",
        "shards": list(shards),
        **changes,
    }


def document(*mappings):
    functions = [{"name": "worker", "busy": 1, "workers": 2}]
    return {"version": "1.2.3", "state": "running", "mappings": list(mappings), "functions": functions}


def drawn(screen, width=160, height=20):
    """Give the lines of a terminal of this size."""
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=False)
    console.print(screen, height=height)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def seen(*mappings, shards=False):
    screen = Screen(2.0, shards=shards)
    screen.see(document(*mappings), "")
    return screen


STUCK = {"code": "FunctionFailing", "message": "orders-0: attempt 3 failed: no price"}


def test_it_tells_how_every_mapping_is_and_why_it_does_not_move():
    lines = drawn(seen(mapping("orders"), mapping("billing", "retrying", STUCK)))
    assert lines[0].startswith("headrace 1.2.3 running   2 mappings, 1 of 2 workers busy")
    assert lines[1].split()[:2] == ["MAPPING", "STATE"]
    assert lines[2].split() == ["orders", "running", "3", "1.5", "s", "12.5", "2", "OK"]
    assert lines[3].startswith("billing")
    assert lines[3].endswith("FunctionFailing: orders-0: attempt 3 failed: no price")


def test_shards_stand_under_their_mapping_when_they_are_asked_for():
    orders = mapping("orders", shards=[shard("orders-0"), shard("orders-1", attempts=2, position=None)])
    assert len(drawn(seen(orders))) == 3
    lines = drawn(seen(orders, shards=True))
    assert lines[3].startswith("  orders-0")
    assert "at 41" in lines[3]
    assert lines[4].endswith("attempt 2 failed, next now")


def test_where_not_all_has_room_what_does_not_move_comes_first():
    calm = [mapping(f"calm-{number}") for number in range(30)]
    lines = drawn(seen(*calm, mapping("billing", "retrying", STUCK), mapping("broken", "failed", STUCK)), height=8)
    assert [line.split()[0] for line in lines[2:5]] == ["broken", "billing", "calm-0"]
    assert lines[-1] == "and 27 more"
    assert len(lines) <= 8


def test_where_it_is_narrow_names_and_states_stay():
    lines = drawn(seen(mapping("a-mapping-with-a-long-name", "retrying", STUCK)), width=45)
    assert lines[1].split() == ["MAPPING", "STATE"]
    assert lines[2].split() == ["a-mapping-with-a-long-name", "retrying"]
    assert "LAG TIME" not in drawn(seen(mapping("orders")), width=70)[1]


@pytest.mark.parametrize("shards", [False, True])
def test_no_line_is_wider_than_the_terminal(shards):
    orders = mapping("orders", "retrying", STUCK, [shard("a-shard-with-quite-a-long-name-0", attempts=5)])
    screen = seen(orders, mapping("[bold]clicks[/]", last_result="two\nlines"), shards=shards)
    for width in (*range(1, 20), *range(20, 130, 7)):
        for height in (1, 3, 40):
            lines = drawn(screen, width, height)
            assert max(map(len, lines), default=0) <= width
            assert len(lines) <= max(height, 4)


def test_while_the_daemon_is_away_it_says_so_and_keeps_what_it_saw():
    screen = seen(mapping("orders"))
    screen.see(None, "no headrace runs on the state directory .headrace")
    lines = drawn(screen)
    assert lines[1] == "away: no headrace runs on the state directory .headrace"
    assert lines[3].startswith("orders")
    screen.see(document(mapping("clicks")), "")
    assert drawn(screen)[2].startswith("clicks")


def test_a_daemon_that_was_never_there_is_waited_for():
    screen = Screen(2.0, shards=True)
    screen.see(None, "no headrace runs")
    assert drawn(screen)[1] == "away: no headrace runs"
