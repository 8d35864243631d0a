"""Outcome and response in, verdict out: every row that the documentation or a recording on AWS gives."""

from __future__ import annotations

import pytest

from router.core.model import (
    KAFKA_RULES,
    NOT_JSON,
    NOT_READ,
    QUEUE_RULES,
    STREAM_RULES,
    Batch,
    Cancelled,
    Reason,
    Refused,
    Returned,
    TooLarge,
    WindowCall,
)
from router.core.verdict import STOPPED, SUCCEEDED, FailedWhole, NotAccepted, PartlyFailed, Succeeded, judge
from tests.core.columns import BOOM, RAISED, batch_of, identify, mapping_of

WHOLE = "whole batch failure"
ALL = "whole batch success"


def text_identify(item: object, batch: Batch) -> int | None:
    """Find sequence numbers and message ids, which are texts."""
    known = {str(position): position for position in batch.positions()}
    return known.get(item) if isinstance(item, str) else None


def offset_identify(item: object, batch: Batch) -> int | None:
    """Find a Kafka offset of the one partition `t-0`."""
    if not isinstance(item, dict) or item.get("partition") != "t-0" or type(item.get("offset")) is not int:
        return None
    return item["offset"] if item["offset"] in batch.positions() else None


def report(*identifiers):
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


def offsets(*numbers):
    return report(*({"partition": "t-0", "offset": number} for number in numbers))


# The batch holds 9, 10, 11 and 100: as texts they sort otherwise.
STREAM_ROWS = [
    (None, ALL),
    ("", ALL),
    ([], ALL),
    ({}, ALL),
    ({"batchItemFailures": None}, ALL),
    ({"batchItemFailures": []}, ALL),
    ({"anything": "else"}, ALL),
    (report(""), WHOLE),
    (report(None), WHOLE),
    ({"batchItemFailures": [{"foo": "10"}]}, WHOLE),
    ({"batchItemFailures": [{}]}, WHOLE),
    (report("12"), WHOLE),
    (report(10), WHOLE),
    (report("10", "12"), WHOLE),
    ({"batchItemFailures": ["10"]}, WHOLE),
    ({"batchItemFailures": ["itemIdentifier"]}, WHOLE),
    ({"batchItemFailures": [["itemIdentifier"]]}, WHOLE),
    ({"batchItemFailures": [None]}, WHOLE),
    ({"batchItemFailures": [7]}, WHOLE),
    ({"batchItemFailures": "10"}, WHOLE),
    ({"batchItemFailures": {}}, WHOLE),
    ("text", WHOLE),
    (7, WHOLE),
    (False, WHOLE),
    ([1], WHOLE),
    (NOT_JSON, WHOLE),
    (report("10"), [10, 11, 100]),
    (report("100", "11"), [11, 100]),
    (report("100", "100"), [100]),
    (report("9"), WHOLE),
    (report("100", "9"), WHOLE),
]
KAFKA_ROWS = [
    (None, ALL),
    ({}, ALL),
    ([], ALL),
    ({"batchItemFailures": []}, ALL),
    ({"batchItemFailures": None}, ALL),
    ("", WHOLE),
    (report({"partition": "u-0", "offset": 10}), WHOLE),
    (offsets(12), WHOLE),
    (offsets("10"), WHOLE),
    (report({"partition": "t-0"}), WHOLE),
    (report({"offset": 10}), WHOLE),
    (report("10"), WHOLE),
    (report(None), WHOLE),
    ({"batchItemFailures": [{}]}, WHOLE),
    ({"batchItemFailures": 3}, WHOLE),
    (NOT_JSON, WHOLE),
    (offsets(10), [10]),
    (offsets(100, 9), [9, 100]),
    (offsets(9, 10, 11, 100), WHOLE),
]
QUEUE_ROWS = [
    ({}, ALL),
    (None, ALL),
    ("", ALL),
    ({"batchItemFailures": []}, ALL),
    ({"batchItemFailures": None}, ALL),
    (NOT_JSON, WHOLE),
    ("text", WHOLE),
    (5, WHOLE),
    ({"batchItemFailures": "10"}, WHOLE),
    ({"batchItemFailures": [{}]}, ALL),
    ({"batchItemFailures": [{}, {"itemIdentifier": "10"}]}, [10]),
    (report(""), WHOLE),
    (report(None), WHOLE),
    ({"batchItemFailures": [{"foo": "x"}]}, WHOLE),
    (report("12"), WHOLE),
    (report(10), WHOLE),
    (report("10", "10"), [10]),
    (report("10", "100"), [10, 100]),
    (report("9", "10", "11", "100"), WHOLE),
]


@pytest.mark.parametrize(
    ("rules", "find", "body", "expected"),
    [
        pytest.param(rules, find, *row, id=f"{name}: {row[0]}")
        for name, rules, find, rows in (
            ("stream", STREAM_RULES, text_identify, STREAM_ROWS),
            ("kafka", KAFKA_RULES, offset_identify, KAFKA_ROWS),
            ("queue", QUEUE_RULES, text_identify, QUEUE_ROWS),
        )
        for row in rows
    ],
)
def test_report_of_item_failures(rules, find, body, expected):
    batch = batch_of([9, 10, 11, 100])
    verdict = judge(Returned(body), batch, mapping_of(rules=rules, report_item_failures=True), find)
    match verdict:
        case PartlyFailed(again):
            assert [batch.positions()[ordinal] for ordinal in again] == expected
        case FailedWhole(function_error=function_error, responded=responded):
            assert expected == WHOLE
            assert (function_error, responded) == (None, True)
        case _:
            assert verdict is SUCCEEDED
            assert expected == ALL


@pytest.mark.parametrize("rules", [STREAM_RULES, KAFKA_RULES, QUEUE_RULES])
@pytest.mark.parametrize("body", [NOT_READ, NOT_JSON, {"batchItemFailures": [{"itemIdentifier": 1}]}, "text"])
def test_without_the_setting_the_response_is_ignored(rules, body):
    assert judge(Returned(body), batch_of([1, 2]), mapping_of(rules=rules), identify) is SUCCEEDED


@pytest.mark.parametrize("report_item_failures", [True, False])
def test_an_exception_fails_the_whole_batch_whatever_the_setting(report_item_failures):
    mapping = mapping_of(report_item_failures=report_item_failures)
    assert judge(RAISED, batch_of([1, 2]), mapping, identify) == FailedWhole(BOOM, "Unhandled")


@pytest.mark.parametrize(
    ("initialising", "counts", "verdict"),
    [
        (False, False, NotAccepted(BOOM)),
        (False, True, NotAccepted(BOOM)),
        (True, False, NotAccepted(BOOM)),
        (True, True, FailedWhole(BOOM, "Unhandled")),
    ],
)
def test_a_function_that_did_not_start_spends_no_attempt_unless_it_counts(initialising, counts, verdict):
    outcome = Refused(BOOM, initialising)
    assert judge(outcome, batch_of([1, 2]), mapping_of(init_errors_count=counts), identify) == verdict


def test_an_event_too_large_is_split_and_a_single_record_never_responded():
    several = judge(TooLarge(7_000_000), batch_of([1, 2]), mapping_of(), identify)
    assert isinstance(several, FailedWhole)
    assert several.must_split
    stream = judge(TooLarge(7_000_000), batch_of([1]), mapping_of(rules=STREAM_RULES), identify)
    kafka = judge(TooLarge(7_000_000), batch_of([1]), mapping_of(rules=KAFKA_RULES), identify)
    assert isinstance(stream, FailedWhole)
    assert isinstance(kafka, FailedWhole)
    assert (stream.final, kafka.final) == (None, Reason.SIZE)
    assert (stream.responded, stream.must_split) == (False, False)
    assert "7000000" in stream.error.message


def test_what_we_stopped_was_not_tried():
    assert judge(Cancelled(), batch_of([1]), mapping_of(), identify) is STOPPED


# --- tumbling windows

NESTED: dict[str, object] = {}
for _ in range(5000):
    NESTED = {"in": NESTED}


def windowed(*positions, final=False):
    batch = batch_of(positions)
    batch.window = WindowCall(0, 10, b"{}", final=final)
    return batch


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ({}, b"{}"),
        ({"n": 1, "by": {"a": [1.5, None, True]}}, b'{"n":1,"by":{"a":[1.5,null,true]}}'),
        ({"ü": "→"}, '{"ü":"→"}'.encode()),
    ],
)
def test_in_a_window_the_returned_state_is_taken(state, kept):
    mapping = mapping_of(tumbling_window_s=10)
    assert judge(Returned({"state": state, "batchItemFailures": 7}), windowed(1), mapping, identify) == Succeeded(kept)


@pytest.mark.parametrize(
    "body",
    [
        None,
        "",
        [],
        {},
        "text",
        NOT_JSON,
        NOT_READ,
        {"state": None},
        {"state": "{}"},
        {"state": []},
        {"State": {}},
        {"batchItemFailures": []},
        {"state": {"n": float("nan")}},
        {"state": {"n": float("inf")}},
        {"state": {"half": "\ud800"}},
        {"state": NESTED},
    ],
)
@pytest.mark.parametrize("reports", [True, False])
def test_in_a_window_a_result_without_a_state_is_a_failure(body, reports):
    mapping = mapping_of(tumbling_window_s=10, report_item_failures=reports)
    verdict = judge(Returned(body), windowed(1, 2), mapping, identify)
    assert isinstance(verdict, FailedWhole)
    assert (verdict.error.error_type, verdict.function_error, verdict.responded) == (
        "Headrace.BadWindowState",
        None,
        True,
    )


def test_in_a_window_the_state_is_taken_with_the_progress():
    mapping = mapping_of(tumbling_window_s=10, report_item_failures=True)
    reply = {"state": {"n": 1}, **report(2)}
    assert judge(Returned(reply), windowed(1, 2, 3), mapping, identify) == PartlyFailed(range(1, 3), b'{"n":1}')
    assert isinstance(judge(Returned(reply), windowed(2, 3), mapping, identify), FailedWhole)


@pytest.mark.parametrize("body", [None, "text", NOT_READ, NOT_JSON, {"state": 7}, report(1)], ids=str)
def test_a_final_call_may_return_anything(body):
    mapping = mapping_of(tumbling_window_s=10, report_item_failures=True)
    assert judge(Returned(body), windowed(final=True), mapping, identify) is SUCCEEDED


def test_a_final_call_may_fail():
    assert isinstance(judge(RAISED, windowed(final=True), mapping_of(tumbling_window_s=10), identify), FailedWhole)
