"""What status says of a fleet, from what its table and its replicas say."""

from pathlib import Path

import pytest

from config.digest import digests
from config.load import load
from router.core.fleet import Lease, LeaseKey, Replica
from router.fleet.document import Seen, differences, fleet_document, functions, merged, why_idle
from tests.core.configured import NOW_S, RIGHT, written

FIRST = LeaseKey("orders", "s-0")


def replica(name, *runs):
    return Replica(name, f"{name}-1", 1, 0.25, draining=False, runs=frozenset(runs))


def about(version="1.0", file="f", **mappings):
    return {
        "version": version,
        "file": file,
        "started": "2026-01-01T00:00:00Z",
        "host": "here",
        "state_dir": "/x",
        "mappings": {name: {"digest": each, "shards": []} for name, each in mappings.items()},
    }


def lease(owner="", heir="", *, finished=False):
    return Lease(5, owner, heir, 0.5, 1_700_000_000_000, finished)


def seen(leases, replicas, *, dead=(), silent=(), abouts=None):
    return Seen(
        "clicks", "a", {each.name: each for each in replicas}, frozenset(dead), leases, abouts or {}, {"a": 0.04},
        frozenset(silent), 0.0,
    )  # fmt: skip


BOTH = (replica("a", "orders"), replica("b", "orders"))


@pytest.mark.parametrize(
    ("row", "more", "dead", "states", "code"),
    [
        (lease("b"), {}, (), {}, None),
        (lease("b"), {}, ("b",), {}, "OwnerDead"),
        (lease("gone"), {}, (), {}, "OwnerDead"),
        (lease(), {}, (), {}, "Free"),
        (lease(heir="b"), {}, (), {}, "HandedOver"),
        (lease(heir="b"), {}, ("b",), {}, "Free"),
        (lease(), {}, ("a", "b"), {}, "NobodyRuns"),
        (lease(), {}, (), {"orders": "paused"}, "Paused"),
        (lease(), {LeaseKey("orders", "@moving"): lease("b")}, (), {"orders": "paused"}, "Moving"),
    ],
)
def test_what_nobody_works_on_is_told_why(row, more, dead, states, code):
    found = why_idle(FIRST, row, seen({FIRST: row, **more}, BOTH, dead=dead), states)
    assert (found and found[0]) == code


def test_replicas_are_shown_as_they_are():
    leases = {
        FIRST: lease("a"),
        LeaseKey("orders", "s-1"): lease(finished=True),
        LeaseKey("orders", "@outbox"): lease("a"),
    }
    drains = Replica("c", "c-1", 1, 0.0, draining=True, runs=frozenset())
    told = fleet_document(
        seen(leases, (*BOTH, drains), silent=("b",), abouts={"a": about(), "buried": about()}),
        [{"name": "orders", "state": "idle"}],
    )
    assert {each["name"]: each["state"] for each in told["replicas"]} == {
        "a": "live", "b": "silent", "buried": "dead", "c": "draining",
    }  # fmt: skip
    first = told["replicas"][0]
    assert (first["shards"], first["load"], first["last_heard_seconds"], first["version"]) == (1, 0.25, 0.0, "1.0")
    assert [each["shard"] for each in told["leases"]] == ["@outbox", "s-0"]


def test_replicas_that_are_not_the_same_are_told_in_what():
    abouts = {"a": about(orders="1"), "b": about("1.1", "g", orders="2", more="3"), "dead": about("0.9")}
    assert differences(abouts, ["a", "b", "unheard"]) == {
        "version": {"a": "1.0", "b": "1.1"},
        "file": {"a": "f", "b": "g"},
        "mapping orders": {"a": "1", "b": "2"},
        "mapping more": {"a": "none", "b": "3"},
    }
    assert differences({"a": about(orders="1"), "b": about(orders="1")}, ["a", "b"]) == {}


# --- mappings of all replicas


def mapping(state="running", source="kinesis:s", lag=3, **more):
    return {
        "name": "orders", "state": state, "source": source, "reason": None, "lag_records": lag, "lag_seconds": 1.0,
        "in_flight": 2, "records_per_second": 1.5, "shards": [{"shard": "s-0"}], "waiting": [], "outbox": None, **more,
    }  # fmt: skip


def all_of(**replicas):
    [told] = merged({name: {"mappings": [each]} for name, each in replicas.items()})
    return told


def test_numbers_of_shards_are_added_up():
    told = all_of(a=mapping(), b=mapping("idle", lag=4, lag_seconds=None, shards=[{"shard": "s-1"}]))
    assert (told["lag_records"], told["lag_seconds"], told["in_flight"], told["records_per_second"]) == (7, 1.0, 4, 3.0)
    assert told["shards"] == [{"shard": "s-0", "replica": "a"}, {"shard": "s-1", "replica": "b"}]
    assert (told["state"], told["states"]) == ("running", {"a": "running", "b": "idle"})


def test_a_lag_that_one_does_not_know_is_not_known():
    assert all_of(a=mapping(), b=mapping(lag=None))["lag_records"] is None
    assert all_of(a=mapping(), b=mapping("starting", lag=None))["lag_records"] == 3
    assert all_of(a=mapping("paused", lag=None))["lag_records"] is None


def test_a_queue_is_the_same_for_all():
    assert all_of(a=mapping(source="sqs:q", lag=9), b=mapping(source="sqs:q", lag=8))["lag_records"] == 9


def test_what_does_not_move_somewhere_is_told_with_where():
    reason = {"code": "FunctionFailing", "message": "it fails"}
    told = all_of(a=mapping(), b=mapping("retrying", reason=reason))
    assert (told["state"], told["reason"]["message"]) == ("retrying", "on replica b: it fails")
    assert all_of(a=mapping("retrying", reason=reason), b=mapping("retrying", reason=reason))["reason"] == reason


def test_the_backlog_is_told_by_who_knows_most_of_it():
    none, some = {"undelivered": 0}, {"undelivered": 4}
    assert all_of(a=mapping(outbox=none), b=mapping(outbox=some))["outbox"] == some


def test_workers_are_added_up():
    one = {"name": "f", "handler": "app.h", "workers": 2, "busy": 1, "waiting": 0}
    told = functions({"a": {"functions": [one]}, "b": {"functions": [one, {**one, "name": "g"}]}})
    assert [(each["name"], each["workers"], each["busy"]) for each in told] == [("f", 4, 2), ("g", 2, 1)]


# --- what a configuration is


def test_the_same_file_is_the_same_in_another_folder_and_at_another_address(tmp_path):
    found = []
    for name, more in (("one", "listen: 127.0.0.1:1\n"), ("two", "listen: 127.0.0.1:2\nlocal: x\n")):
        folder: Path = tmp_path / name
        folder.mkdir()
        text = f"{RIGHT}state: redis://:word@db\n{more}"
        found.append(digests(load(written(folder, text), {"HEADRACE_REPLICA": name}, NOW_S)))
    assert found[0] == found[1]


def test_another_file_is_another(tmp_path):
    file = written(tmp_path, RIGHT)
    before = digests(load(file, {}, NOW_S))
    file.write_text(f"{RIGHT}    batch_size: 5\n")
    after = digests(load(file, {}, NOW_S))
    assert (before[0] != after[0], before[1]["m"] != after[1]["m"]) == (True, True)
