"""Our histogram, against the client library's."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest

from router.durations import Durations

BOUNDS = (0.001, 0.5, 1, 30)


def test_it_shows_what_the_library_shows() -> None:
    disable_created_metrics()
    texts = []
    for kind in (Histogram, Durations):
        registry = CollectorRegistry()
        durations = kind("headrace_seconds", "How long.", ("mapping",), buckets=BOUNDS, registry=registry)
        orders = durations.labels("orders")
        durations.labels("idle")
        for value in (0.0, 0.001, 0.0011, 0.5, 0.75, 1, 29.0, 30, 31, 1000):
            orders.observe(value)
        durations.labels("gone").observe(1)
        durations.remove_by_labels({"mapping": "gone"})
        texts.append(generate_latest(registry).decode())
    assert texts[0] == texts[1]


def test_one_label_is_one_histogram_until_it_is_removed() -> None:
    durations = Durations("headrace_seconds", "", ("mapping",), buckets=BOUNDS, registry=CollectorRegistry())
    first = durations.labels("orders")
    assert durations.labels("orders") is first
    durations.remove_by_labels({"mapping": "orders"})
    durations.remove_by_labels({"mapping": "orders"})
    assert durations.labels("orders") is not first
