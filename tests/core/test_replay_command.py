"""What `headrace failures replay --from` prints and answers; the daemon is handed in."""

import json

import pytest

from router.commands.failures import replay, replay_queue, show_queue
from router.errors import NotRunning

FOUND = {
    "queue": "orders-dlq",
    "waiting": 2,
    "messages": [
        {
            "id": "sqs:m1",
            "sent_at": "2026-01-01T00:00:00.000Z",
            "size_bytes": 512,
            "preview": '{"order":\n1}',
            "why_not": None,
        },
        {"id": "sqs:m2", "sent_at": None, "size_bytes": 9, "preview": "x", "why_not": "the body is not JSON"},
    ],
}


def end(message_id, outcome, reason=None):
    return {"id": message_id, "outcome": outcome, "new_failures": [], "reason": reason}


GOOD, BAD = end("sqs:m1", "replayed"), end("sqs:m2", "failed_again", "ValueError: no total")


def yes(_):
    return True


def test_all_that_succeeded_is_exit_status_0(capsys):
    assert replay_queue(FOUND, "orders", lambda: [GOOD, GOOD], yes, as_json=False) == 0
    assert capsys.readouterr().out == ("sqs:m1  replayed\nsqs:m1  replayed\n2 replayed, 0 failed again, 0 refused\n")


def test_what_failed_is_exit_status_1_and_is_said_to_be_in_the_queue(capsys):
    assert replay_queue(FOUND, "orders", lambda: [GOOD, BAD], yes, as_json=False) == 1
    out = capsys.readouterr().out
    assert "sqs:m2  failed_again: ValueError: no total\n" in out
    assert out.endswith("1 replayed, 1 failed again, 0 refused\nwhat was not replayed is still in orders-dlq\n")


def test_machines_get_a_line_a_message_and_a_summary(capsys):
    assert replay_queue(FOUND, "orders", lambda: [GOOD, BAD], yes, as_json=True) == 1
    first, second, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {**GOOD, "new_failure": None}
    assert second == {**BAD, "new_failure": None}
    assert summary == {"summary": {"replayed": 1, "failed_again": 1, "refused": 0}}


def test_an_empty_queue_is_no_failure(capsys):
    assert replay_queue({**FOUND, "waiting": 0}, "orders", list, yes, as_json=False) == 0
    assert capsys.readouterr().out == "0 replayed, 0 failed again, 0 refused\n"


def test_it_asks_first_and_says_how_much_waits():
    asked = []

    def no(question):
        asked.append(question)
        return False

    def never():
        raise AssertionError("it was answered with no")

    assert replay_queue(FOUND, "orders", never, no, as_json=False) == 1
    assert replay_queue({**FOUND, "waiting": None}, "orders", never, no, as_json=False) == 1
    assert asked == [
        "Replay orders-dlq (about 2 messages) through mapping orders? The original order is past.",
        "Replay orders-dlq (an unknown number of messages) through mapping orders? The original order is past.",
    ]


def test_what_came_before_a_daemon_ended_is_summed_up(capsys):
    def cut_off():
        yield GOOD
        raise NotRunning("the daemon stopped")

    with pytest.raises(NotRunning):
        replay_queue(FOUND, "orders", cut_off, yes, as_json=False)
    assert capsys.readouterr().out.endswith("1 replayed, 0 failed again, 0 refused\n")


def test_an_interrupt_says_that_the_job_goes_on(capsys):
    def interrupted():
        yield GOOD
        raise KeyboardInterrupt

    for replaying in (
        lambda: replay_queue(FOUND, "orders", interrupted, yes, as_json=False),
        lambda: replay(1, interrupted, yes, as_json=False),
    ):
        with pytest.raises(KeyboardInterrupt):
            replaying()
        printed = capsys.readouterr()
        assert printed.err == "headrace: the daemon goes on with it; its log tells how each ends\n"
        assert "1 replayed" in printed.out


def test_a_dry_run_shows_some_of_what_waits(capsys):
    show_queue(FOUND, as_json=False)
    first, head, one, two = capsys.readouterr().out.splitlines()
    assert first == "orders-dlq: about 2 messages waiting"
    assert head.split() == ["ID", "SENT", "AT", "BYTES", "WOULD", "NOT", "RUN", "DATA"]
    assert one.split() == ["sqs:m1", "2026-01-01T00:00:00.000Z", "512", "-", '{"order":', "1}"]
    assert "the body is not JSON" in two
    show_queue(FOUND, as_json=True)
    assert json.loads(capsys.readouterr().out) == FOUND
    show_queue({**FOUND, "waiting": 1, "messages": []}, as_json=False)
    assert capsys.readouterr().out == "orders-dlq: about 1 message waiting\n"
    show_queue({**FOUND, "waiting": 0, "messages": []}, as_json=False)
    assert capsys.readouterr().out == "orders-dlq: about 0 messages waiting\n"
