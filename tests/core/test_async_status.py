"""What people are told of asynchronous events that wait."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from router.asynchronous.status import targets, with_events
from router.commands.tables import show_status
from router.core.async_engine import LineFacts
from router.core.async_rules import Standing
from router.core.asynchronous import Line
from router.daemon import EventsInfo, FunctionInfo, TargetInfo
from router.event_ports import Waiting
from router.fleet.document import event_targets, functions

NOW_S = 1000.0
NORMAL = Standing("$LATEST")
ORDERS = FunctionInfo("orders", "orders.handler", 1, 1, 0)
RUN: Line = ("run", "orders")


def told(
    waiting: Mapping[Line, Waiting], trouble: str | None = None, standing: Standing = NORMAL, busy: int = 1
) -> Mapping[str, EventsInfo | None]:
    lines = {RUN: LineFacts(busy, 0, None)}
    found = with_events([ORDERS], waiting, lines, lambda _: trouble, lambda _: standing, NOW_S)
    return {each.name: each.events for each in found}


def test_a_function_for_which_nothing_waits_is_as_it_was() -> None:
    assert told({("tell", "a"): Waiting(1, 0.0)}) == {"orders": None}


def test_it_is_said_how_many_wait_since_when_and_why() -> None:
    late = {RUN: Waiting(7, NOW_S - 30.0)}
    assert told(late) == {"orders": EventsInfo(7, 30.0, "1 are with the function, the others wait for room")}
    assert told(late, "no room: it is throttled") == {
        "orders": EventsInfo(7, 30.0, "it does not take them: no room: it is throttled")
    }
    assert told(late, standing=Standing(None)) == {"orders": EventsInfo(7, 30.0, "there is no such function")}
    unknown = told(late, standing=Standing(None, is_known=False))["orders"]
    assert unknown
    assert "not known yet" in unknown.reason
    later = {RUN: Waiting(7, NOW_S + 50.0)}
    assert told(later) == {"orders": EventsInfo(7, 0.0, "they have failed, and are tried again; the next in 50 s")}


def test_a_function_that_is_gone_is_told_of_too() -> None:
    found = with_events(
        [ORDERS], {("run", "gone"): Waiting(1, 0.0)}, {}, lambda _: None, lambda _: Standing(None), NOW_S
    )
    assert [(each.name, each.events and each.events.waiting) for each in found] == [("orders", None), ("gone", 1)]


def test_targets_that_are_still_to_be_told_are_listed_with_what_they_said() -> None:
    waiting = {
        RUN: Waiting(1, 0.0),
        ("tell", "on_failure b"): Waiting(2, 990.0),
        ("tell", "dead_letter a"): Waiting(1, 2000.0),
    }
    found = targets(waiting, lambda line: "away" if line[1] == "on_failure b" else None, NOW_S)  # type: ignore[arg-type]
    assert found == [TargetInfo("dead_letter a", 1, 0.0, None), TargetInfo("on_failure b", 2, 10.0, "away")]


def test_a_fleet_adds_up_what_waits_with_its_replicas() -> None:
    def replica(waiting: int, overdue_s: float, error: str | None) -> dict[str, object]:
        events = {"waiting": waiting, "overdue_seconds": overdue_s, "reason": f"because {overdue_s}"}
        target = {"target": "t", "waiting": waiting, "overdue_seconds": overdue_s, "error": error}
        function = {"name": "f", "workers": 1, "busy": 0, "waiting": 0, "events": events if waiting else None}
        return {"functions": [function], "event_targets": [target] if waiting else []}

    documents = {"a": replica(2, 5.0, None), "b": replica(3, 9.0, "away"), "c": replica(0, 0.0, None)}
    [function] = functions(documents)
    assert function["events"] == {"waiting": 5, "overdue_seconds": 9.0, "reason": "because 9.0"}
    assert event_targets(documents) == [{"target": "t", "waiting": 5, "overdue_seconds": 9.0, "error": "away"}]


@pytest.mark.parametrize(
    ("waiting", "wait", "told"),
    [
        (5, "5 asynchronous events wait", "5 asynchronous events"),
        (1, "1 asynchronous event waits", "1 asynchronous event"),
    ],
)
def test_a_person_reads_what_waits_below_the_table(capsys, waiting: int, wait: str, told: str) -> None:  # type: ignore[no-untyped-def]
    function = {"name": "f", "handler": "a.b", "workers": 1, "busy": 1, "waiting": 0, "snap_start": None}
    events = {"waiting": waiting, "overdue_seconds": 9.0, "reason": "it is throttled"}
    target = {"target": "on_failure q", "waiting": waiting, "overdue_seconds": 1.0, "error": "away"}
    document = {"version": "1", "state": "idle", "mappings": [], "config": None, "event_targets": [target]}
    show_status({**document, "functions": [{**function, "events": events}]})
    said = capsys.readouterr().out
    assert f"f: {wait}: it is throttled\n" in said
    assert f"on_failure q: is still to be told of {told}: away\n" in said
