"""Counters of functions, labels that go, and the levels of logs."""

import structlog
from structlog.testing import capture_logs

from router.core.model import Cancelled, Failed, FailureKind, FunctionError, Refused, Returned, TooLarge
from router.telemetry import Log, Metrics

ERROR = FunctionError("ValueError", "no")


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_what_ran_is_told_from_what_was_not_taken():
    metrics = Metrics()
    function = metrics.of_function("orders")
    for outcome in (
        Returned({}, 250.0),
        Failed(FailureKind.RAISED, ERROR, 500.0),
        Failed(FailureKind.TIMED_OUT, ERROR, 3000.0),
        Refused(ERROR),
        Cancelled(),
        TooLarge(7_000_000),
    ):
        function.ended(outcome)
    found = {
        name: value(metrics, f"headrace_function_{name}", function="orders")
        for name in ("invocations_total", "errors_total", "throttles_total", "duration_seconds_sum")
    }
    assert found == {"invocations_total": 3, "errors_total": 2, "throttles_total": 1, "duration_seconds_sum": 3.75}


def test_what_is_gone_has_no_series():
    metrics = Metrics()
    for mapping, function in (("orders", "one"), ("clicks", "two")):
        metrics.of(mapping).discarded.labels(mapping, "RecordAgeExceeded").inc()
        metrics.of_function(function)
        metrics.stuck.labels(mapping, "Disabled").set(1)
    metrics.forget("orders")
    metrics.forget_function("one")
    labels = {
        value for family in metrics.registry.collect() for each in family.samples for value in each.labels.values()
    }
    assert not {"orders", "one"} & labels
    assert {"clicks", "two"} <= labels


def levels_of(log):
    with capture_logs() as lines:
        log.write("daemon.started")
        log.write("batch.failed")
        log.write("failure.not_stored")
    return [line["log_level"] for line in lines]


def test_a_log_writes_from_its_level_on():
    structlog.reset_defaults()
    assert levels_of(Log("info")) == ["info", "warning", "error"]
    assert levels_of(Log("warning", mapping="orders")) == ["warning", "error"]
    assert levels_of(Log("error").bind(mapping="orders")) == ["error"]


def test_a_log_may_say_more_or_less_than_the_one_it_is_of():
    structlog.reset_defaults()
    whole = Log("warning", mapping="orders")
    assert levels_of(whole.at("info")) == ["info", "warning", "error"]
    assert levels_of(whole.at("error")) == ["error"]
    assert levels_of(whole.at(None)) == ["warning", "error"]
    with capture_logs() as lines:
        whole.at("info").write("daemon.started", shard="")
    assert lines == [{"event": "daemon.started", "log_level": "info", "mapping": "orders"}]
