"""`headrace logs`: what it prints, of which lines, and how it follows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.logs import FILE_LIMIT_BYTES, log_file, older
from router.cli import main

FILE = """\
state: ./state
functions:
  orders: {handler: app.handle, code: .}
  silent: {handler: app.handle, code: .}
  quiet: {handler: app.handle, code: ., logs: off}
event_source_mappings:
  orders: {function: orders, source: {sqs: {queue: orders}}}
"""
COMMAND = "import sys; from router.cli import main; sys.exit(main())"
PATIENCE_S = 30.0


def write(name: str, *entries: tuple[str | None, str]) -> None:
    """Write entries as a daemon does, after those that are there."""
    path = log_file(Path("state"), name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for request_id, message in entries:
            at = "2026-05-01T06:00:00.123Z"
            print(json.dumps({"timestamp": at, "request_id": request_id, "message": message}), file=file)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headrace.yaml").write_text(FILE)


@pytest.fixture
def headrace(capsys):
    def run(*arguments):
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


ENTRIES = [
    ("r-1", "START RequestId: r-1\none\nEND RequestId: r-1\n"),
    (None, "[ERROR] at import\n"),
    ("r-2", "START RequestId: aws-id\né \u2028 two\n\nEND RequestId: aws-id\n"),
]


def test_all_is_printed_as_the_function_printed_it(headrace):
    write("orders", *ENTRIES)
    assert headrace("logs", "orders") == (0, "".join(message for _, message in ENTRIES), "")


def test_for_machines_each_line_is_an_object(headrace):
    write("orders", *ENTRIES)
    status, out, err = headrace("logs", "orders", "--json")
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["message"] for line in lines] == "".join(message for _, message in ENTRIES).split("\n")[:-1]
    assert [line["request_id"] for line in lines] == ["r-1"] * 3 + [None] + ["r-2"] * 4
    assert {tuple(line) for line in lines} == {("timestamp", "request_id", "message")}
    assert {line["timestamp"] for line in lines} == {"2026-05-01T06:00:00.123Z"}


@pytest.mark.parametrize(
    ("lines", "printed"), [("2", "\nEND RequestId: aws-id\n"), ("999", "".join(text for _, text in ENTRIES))]
)
@pytest.mark.parametrize("option", ["-n", "--lines"])
def test_the_last_lines_only(headrace, option, lines, printed):
    write("orders", *ENTRIES)
    assert headrace("logs", "orders", option, lines)[1] == printed


def test_one_request_by_our_id_or_by_that_of_lambda(headrace):
    write("orders", *ENTRIES)
    assert headrace("logs", "orders", "--request", "r-1")[1] == ENTRIES[0][1]
    assert headrace("logs", "orders", "--request", "r-2")[1] == ENTRIES[2][1]
    assert headrace("logs", "orders", "--request", "aws-id")[1] == ENTRIES[2][1]
    assert headrace("logs", "orders", "--request", "aws-id", "-n", "1", "--json")[1].count("\n") == 1
    status, out, err = headrace("logs", "orders", "--request", "r-3")
    assert (status, out) == (1, "")
    assert err.startswith("headrace: the log of orders has no request r-3: ")


def test_the_older_part_comes_first(headrace):
    write("orders", ENTRIES[0])
    path = log_file(Path("state"), "orders")
    path.replace(older(path))
    write("orders", ENTRIES[2])
    assert headrace("logs", "orders")[1] == ENTRIES[0][1] + ENTRIES[2][1]


def test_a_function_that_there_is_not_is_told_with_those_that_there_are(headrace):
    write("gone", ENTRIES[0])
    assert headrace("logs", "gone")[:2] == (0, ENTRIES[0][1]), "what it printed before it was taken out of the file"
    for name in ("order", "../orders", ""):
        status, out, err = headrace("logs", name)
        assert (status, out) == (2, "")
        assert err == f"headrace: there is no function {name!r}; there are gone, orders, quiet, silent\n"


def test_a_function_that_has_printed_nothing_is_told(headrace):
    assert headrace("logs", "silent") == (0, "", "headrace: function silent has printed nothing yet\n")
    assert headrace("logs", "silent", "--json")[:2] == (0, "")


def test_logs_that_are_off_are_told(headrace):
    off = "headrace: function quiet has logs: off, so nothing that it prints is kept\n"
    assert headrace("logs", "quiet") == (1, "", off)
    assert headrace("logs", "quiet", "--follow") == (1, "", off)
    write("quiet", ENTRIES[0])
    status, out, err = headrace("logs", "quiet")
    assert (status, out) == (0, ENTRIES[0][1])
    assert err == "headrace: function quiet has logs: off by now, so this is what it printed before\n"


def test_logs_that_go_to_cloudwatch_are_told_with_how_to_read_them(headrace, tmp_path):
    aws = "aws: {endpoint_url: 'http://127.0.0.1:4566'}\n"
    (tmp_path / "headrace.yaml").write_text(FILE.replace("functions:", f"logs: cloudwatch\n{aws}functions:", 1))
    read = "read it with `aws logs tail /aws/lambda/{} --follow --endpoint-url http://127.0.0.1:4566`\n"
    told = "headrace: function silent has logs: cloudwatch: "
    assert headrace("logs", "silent") == (1, "", told + read.format("silent"))
    made = "headrace: there is no function 'made' in the file, and those made through the API have logs: cloudwatch: "
    assert headrace("logs", "made") == (1, "", made + read.format("made"))
    write("silent", ENTRIES[0])
    status, out, err = headrace("logs", "silent")
    assert (status, out) == (0, ENTRIES[0][1])
    assert err == (
        "headrace: function silent has logs: cloudwatch (group /aws/lambda/silent) by now, "
        "so this is what it printed before\n"
    )


def test_a_file_that_is_just_being_edited_is_no_hindrance(headrace):
    write("orders", ENTRIES[0])
    Path("headrace.yaml").write_text(FILE.replace("code: .}", "code: ./gone}", 1))
    assert headrace("logs", "orders")[:2] == (0, ENTRIES[0][1])
    assert headrace("logs", "order")[0] == 2


@pytest.mark.parametrize("lines", ["-1", "0", "x", "1.5"])
def test_a_number_of_lines_is_one(headrace, lines):
    assert headrace("logs", "orders", f"--lines={lines}")[0] == 2


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "logs", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def until_interrupted(follower):
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=PATIENCE_S)
    return follower.returncode, out, err


def test_following_goes_on_across_files_and_ends_with_130():
    write("orders", ("r-0", "before\n"))
    follower = started("orders", "--follow", "-n", "1")
    try:
        assert follower.stdout.readline() == "before\n"
        path = log_file(Path("state"), "orders")
        for number in range(1, 4):
            write("orders", (f"r-{number}", f"line {number}\n"))
            assert follower.stdout.readline() == f"line {number}\n"
            path.replace(older(path))
            write("orders", (f"r-{number}", f"after {number}\n"))
            assert follower.stdout.readline() == f"after {number}\n"
        assert until_interrupted(follower) == (130, "", "")
    finally:
        follower.kill()
        follower.communicate()


def test_following_waits_for_a_function_that_has_printed_nothing():
    follower = started("silent", "-f", "--json", "--request", "r-2")
    try:
        assert follower.stderr.readline() == "headrace: function silent has printed nothing yet\n"
        write("silent", ("r-1", "another\n"), ("r-2", "this\n"))
        assert json.loads(follower.stdout.readline())["message"] == "this"
        assert until_interrupted(follower)[:2] == (130, "")
    finally:
        follower.kill()
        follower.communicate()


def test_who_has_read_enough_ends_it():
    write("orders", *[(f"r-{number}", "x" * 1000 + "\n") for number in range(2000)])
    follower = started("orders")
    try:
        assert follower.stdout.readline() == "x" * 1000 + "\n"
        follower.stdout.close()
        assert follower.wait(PATIENCE_S) == 1
        assert follower.stderr.read() == ""
    finally:
        follower.kill()
        follower.stderr.close()
        follower.wait()


def test_the_end_of_a_full_log_is_found(headrace):
    line = "x" * 990 + "\n"
    write("orders", *[("r", line * 100)] * (FILE_LIMIT_BYTES // 100_000), ("r", "the end\n"))
    assert headrace("logs", "orders", "-n", "3") == (0, f"{line * 2}the end\n", "")
