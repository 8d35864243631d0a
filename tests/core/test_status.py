"""What status and readiness say of given facts."""

from dataclasses import replace

import pytest

from router.commands.tables import show_status
from router.core.describe import ShardStatus
from router.daemon import EventsInfo, FunctionInfo
from router.failures.deliveries import OutboxFacts
from router.failures.record import iso_ms
from router.failures.shown import shown_position
from router.life import MappingHealth
from router.ports import Tally
from router.status import MappingFacts, Rate, ShardFacts, ready_document, status_document, stored_document, summary

NOW_S = 1767225700.0


def shard(checkpoint=41, lag=8, *, name="orders-0", **changes):
    values = {
        "phase": "open",
        "in_flight": 0,
        "attempts": 0,
        "refusals": 0,
        "next_try_s": None,
        "last_error": None,
        "oldest_ms": None,
    }
    return ShardFacts(
        ShardStatus(shard=name, checkpoint=checkpoint, **{**values, **changes}), lag, shown_position(checkpoint)
    )


def mapping(*shards, name="orders", state="running", reason=None, known=True):
    return MappingFacts(name, "worker", "kafka:orders", MappingHealth(state, reason), known, "OK", 12.5, shards)


def described(*mappings, functions=()):
    return status_document("1.2.3", mappings, functions, NOW_S)


def test_a_running_mapping_has_every_member_of_the_contract():
    busy = shard(in_flight=5, attempts=2, next_try_s=NOW_S + 1.5, oldest_ms=int((NOW_S - 2.5) * 1000))
    document = described(
        mapping(busy, state="retrying", reason=("FunctionFailing", "no total")),
        functions=[
            FunctionInfo("worker", "orders.handler", 4, 1, 2, None, EventsInfo(7, 1.5, "they wait for room")),
            FunctionInfo("threads", "app.handler", 1, 0, 0, ("refused", ("thread t of app",))),
        ],
    )
    assert document == {
        "version": "1.2.3",
        "state": "running",
        "mappings": [
            {
                "name": "orders",
                "made_by": "file",
                "function": "worker",
                "source": "kafka:orders",
                "state": "retrying",
                "reason": {"code": "FunctionFailing", "message": "no total"},
                "lag_records": 8,
                "lag_seconds": 2.5,
                "in_flight": 5,
                "records_per_second": 12.5,
                "last_result": "OK",
                "shards": [
                    {
                        "shard": "orders-0",
                        "position": 41,
                        "lag_records": 8,
                        "lag_seconds": 2.5,
                        "in_flight": 5,
                        "attempts": 2,
                        "next_try": "2026-01-01T00:01:41.500Z",
                    }
                ],
                "waiting": [],
                "outbox": None,
            }
        ],
        "functions": [
            {
                "name": "worker",
                "handler": "orders.handler",
                "workers": 4,
                "busy": 1,
                "waiting": 2,
                "snap_start": None,
                "events": {"waiting": 7, "overdue_seconds": 1.5, "reason": "they wait for room"},
            },
            {
                "name": "threads",
                "handler": "app.handler",
                "workers": 1,
                "busy": 0,
                "waiting": 0,
                "snap_start": {"state": "refused", "found": ["thread t of app"]},
                "events": None,
            },
        ],
        "event_targets": [],
        "config": None,
    }


def test_lag_adds_up_over_shards_and_its_age_is_that_of_the_oldest():
    old = shard(0, 10, oldest_ms=int((NOW_S - 60) * 1000))
    young = shard(7, 1, name="orders-1", oldest_ms=int((NOW_S - 1) * 1000))
    facts = mapping(old, young)
    assert (facts.lag_records, facts.lag_s(NOW_S)) == (11, 60.0)


@pytest.mark.parametrize(
    ("facts", "lag_records", "lag_s"),
    [
        (shard(49, 0), 0, 0.0),
        (shard(49, 0, oldest_ms=1), 0, 0.0),
        (shard(-1, 10), 10, None),
        (shard(5, None), None, None),
        (shard(1, 8, oldest_ms=int((NOW_S + 5) * 1000)), 8, 0.0),
    ],
    ids=[
        "none",
        "only replays",
        "nothing read",
        "end unknown",
        "clocks",
    ],
)
def test_lag_of_one_shard(facts, lag_records, lag_s):
    assert (facts.lag_records, facts.lag_s(NOW_S)) == (lag_records, lag_s)


def test_the_lag_of_a_mapping_is_not_known_while_that_of_a_shard_is_not():
    assert mapping(shard(), shard(lag=None)).lag_records is None
    assert mapping(state="starting").lag_records is None
    assert mapping(state="idle").lag_records == 0


@pytest.mark.parametrize(("checkpoint", "shown"), [(0, 0), (2**53, 2**53), (2**53 + 1, "9007199254740993")])
def test_positions_that_json_readers_would_round_are_texts(checkpoint, shown):
    [shown_shard] = described(mapping(shard(checkpoint)))["mappings"][0]["shards"]
    assert shown_shard["position"] == shown


@pytest.mark.parametrize(
    ("states", "overall"),
    [
        (("idle", "stopped"), "idle"),
        (("idle", "retrying"), "running"),
        (("draining", "stopped"), "draining"),
        (("failed",), "running"),
    ],
)
def test_the_daemon_is_as_its_mappings_are(states, overall):
    assert described(*(mapping(state=state) for state in states))["state"] == overall


def test_the_daemon_starts_until_every_mapping_is_known():
    assert described(mapping(), mapping(state="starting", known=False))["state"] == "starting"


def test_it_is_ready_once_every_mapping_opened_its_source_or_said_why_it_cannot():
    away = mapping(name="away", state="starting", reason=("SourceUnavailable", "no broker"))
    ready, document = ready_document([mapping(), away])
    assert ready
    assert document == {
        "ready": True,
        "mappings": [
            {"name": "orders", "state": "running", "reason": None},
            {"name": "away", "state": "starting", "reason": {"code": "SourceUnavailable", "message": "no broker"}},
        ],
    }
    ready, document = ready_document([mapping(), mapping(state="starting", known=False)])
    assert not ready
    assert document["ready"] is False


def test_without_a_daemon_the_failures_of_each_mapping_are_counted():
    tallies = [Tally("orders", "dropped", 1, 0), Tally("orders", "stored", 2, 1), Tally("other", "stored", 1, 0)]
    document = stored_document("1.2.3", tallies, {"orders": "worker", "other": "f"})
    assert document["state"] == "stopped"
    assert [(each["name"], each["function"], each["failures"]) for each in document["mappings"]] == [
        ("orders", "worker", {"dropped": 1, "stored": 2}),
        ("other", "f", {"stored": 1}),
    ]
    assert [each["outbox"]["undelivered"] for each in document["mappings"]] == [1, 0]
    running = described(mapping())["mappings"][0]
    assert set(document["mappings"][0]) == {*running, "failures"}


def test_what_waits_for_a_destination_is_told():
    outbox = OutboxFacts("sqs:dlq", 3, NOW_S - 60, "queue away", NOW_S + 5)
    [described_one] = described(replace(mapping(), outbox=outbox))["mappings"]
    assert described_one["outbox"] == {
        "destination": "sqs:dlq",
        "undelivered": 3,
        "oldest": iso_ms(NOW_S - 60),
        "last_error": "queue away",
        "next_try": iso_ms(NOW_S + 5),
    }
    [described_one] = described(replace(mapping(), outbox=OutboxFacts("sqs:dlq", 0)))["mappings"]
    assert described_one["outbox"]["oldest"] is None


def test_rates_are_taken_over_ten_seconds():
    rate = Rate()
    assert rate.per_second == 0.0
    for second in range(31):
        rate.add(float(second), 100 * min(second, 25))
    assert rate.per_second == 50.0


def test_a_total_that_begins_again_counts_on():
    rate = Rate()
    rate.add(0.0, 1000)
    rate.add(1.0, 50)
    assert rate.per_second == 50.0


def test_the_summary_is_one_line_that_counts_states_and_names_what_does_not_move():
    away = ("SourceUnavailable", "broker:9092: refused")
    assert summary([]) == "mappings: none"
    assert summary([mapping(), mapping(state="idle"), mapping(state="idle")]) == "mappings: 2 idle, 1 running"
    assert (
        summary(
            [
                mapping(),
                mapping(name="old", state="stopped", reason=("Disabled", "in the file")),
                mapping(name="in", state="starting", reason=away),
                mapping(name="out", state="starting", reason=away),
            ]
        )
        == "mappings: 1 running, 2 starting, 1 stopped (in: SourceUnavailable and 1 more)"
    )


def test_a_mapping_of_the_api_is_shown_with_its_function(capsys):
    made = replace(mapping(name="a3d8"), is_made=True)
    document = described(made)
    assert document["mappings"][0]["made_by"] == "api"
    show_status(document)
    assert "a3d8 (api, worker)" in capsys.readouterr().out
