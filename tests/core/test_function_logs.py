"""What is told of logs that go elsewhere: each loss is counted, and told now and then."""

from __future__ import annotations

from structlog.testing import capture_logs

from router.function_logs import TELL_EVERY_S, ShippingNews
from router.telemetry import Log


def test_losses_are_counted_each_and_told_together_once_a_minute_for_each_reason() -> None:
    counted: list[float] = []
    now_s = 1000.0
    with capture_logs() as lines:
        news = ShippingNews("orders", counted.append, Log(), lambda: now_s)
        news.lost(10, "full")
        news.lost(20, "full")
        news.lost(5, "late")
        now_s += TELL_EVERY_S
        news.lost(30, "full")
        news.refused("away")
        news.accepted()
    assert counted == [10, 20, 5, 30]
    told = [(line["event"], line.get("bytes"), line.get("reason", line.get("error"))) for line in lines]
    assert told == [
        ("logs.lost", 10, "full"),
        ("logs.lost", 5, "late"),
        ("logs.lost", 50, "full"),
        ("logs.refused", None, "away"),
        ("logs.accepted", None, None),
    ]
    assert {line["function"] for line in lines} == {"orders"}
