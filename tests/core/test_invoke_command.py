"""`headrace invoke`: real workers through the command, and scripted ones where a worker cannot be made to do it."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli import main
from router.commands.invoke import Invoked, LiveLog, invoke, show
from router.core.model import Failed, FailureKind, FunctionError, Refused, Returned
from router.errors import HandlerUnavailable
from tests.fakes.invoker import MemoryInvoker

FILE = """\
state: ./state
functions:
  orders: {handler: app.handle, code: ., timeout: 20}
  quiet: {handler: app.handle, code: ., timeout: 20, logs: off}
  quick: {handler: app.handle, code: ., timeout: 1}
  several: {handler: app.several, code: ., timeout: 20, concurrency_per_worker: 8}
  broken: {handler: app.nothing, code: .}
event_source_mappings:
  orders: {function: orders, source: {sqs: {queue: orders}}}
"""
APP = """\
import asyncio, decimal, os, sys, time

print("loading")

def handle(event, context):
    print("got", type(event).__name__)
    return globals()[event["do"]]() if "do" in event else event

def fail(): raise ValueError("no total")
def leave(): os._exit(3)
def sleep(): print("pid", os.getpid(), flush=True); time.sleep(60)
def numbers(): return {"exact": decimal.Decimal("1.10"), "big": 2**70, "text": "caf\\u00e9"}
def nan(): return {"a": float("nan")}
def huge(): return "x" * 7_000_000
def flood(): print("y" * 2_000_000)
def bare(): sys.stdout.write("no end of line")
def binary(): os.write(1, b"\\xff\\xfe\\n")

async def several(event, context):
    print("one of several")
    await asyncio.sleep(0.01)
    return "done"
"""
COMMAND = "import sys; from router.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with a function and its file, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    (tmp_path / "headrace.yaml").write_text(FILE)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def headrace(capsysbinary):
    """Run the command in this process; gives exit status, standard output and standard error."""

    def run(*arguments):
        status = main(arguments)
        printed = capsysbinary.readouterr()
        return status, printed.out.decode(), printed.err.decode(errors="replace")

    return run


@pytest.fixture
def doing(headrace, project):
    """Invoke `orders` and let it do something."""

    def run(what, *arguments, function="orders"):
        (project / "event.json").write_text(json.dumps({"do": what}))
        return headrace("invoke", function, "--event", "event.json", *arguments)

    return run


def process(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, timeout=60, check=False, **options
    )


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# --- what comes out


def test_the_result_is_on_standard_output_and_the_log_on_standard_error(headrace):
    status, out, err = headrace("invoke", "orders")
    assert (status, out) == (0, "{}\n")
    first, start, got, end, report = err.splitlines()
    request_id = start.removeprefix("START RequestId: ").removesuffix(" Version: $LATEST")
    assert (first, got, end) == ("loading", "got dict", f"END RequestId: {request_id}")
    assert report.startswith(f"REPORT RequestId: {request_id}\tDuration: ")
    assert not Path("state").exists()


def test_machines_get_one_document(headrace):
    status, out, err = headrace("invoke", "orders", "--json")
    assert (status, err, out.count("\n")) == (0, "", 1)
    document = json.loads(out)
    assert list(document) == ["status_code", "function_error", "payload", "log", "duration_ms"]
    assert (document["status_code"], document["function_error"], document["payload"]) == (200, None, {})
    assert [line.split()[0] for line in document["log"].splitlines()] == ["loading", "START", "got", "END", "REPORT"]
    assert document["duration_ms"] > 0


def test_what_a_function_raises_is_told_once_with_its_trace(doing):
    status, out, err = doing("fail")
    assert (status, out) == (1, "")
    assert err.endswith("headrace: the function failed: ValueError: no total\n")
    assert err.count("in fail") == 1
    status, out, err = doing("fail", "--json")
    assert (status, err) == (1, "")
    document = json.loads(out)
    assert (document["status_code"], document["function_error"]) == (200, "Unhandled")
    assert list(document["payload"]) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert f"START RequestId: {document['payload']['requestId']}" in document["log"]
    assert "in fail" in document["payload"]["stackTrace"][-1]


def test_a_function_that_cannot_be_loaded(headrace):
    status, out, err = headrace("invoke", "broken")
    assert (status, out) == (1, "")
    assert "INIT_REPORT" in err
    assert "headrace: the function failed: Runtime.HandlerNotFound: Handler 'nothing' missing" in err
    document = json.loads(headrace("invoke", "broken", "--json")[1])
    assert document["payload"]["requestId"] == ""
    assert document["duration_ms"] == 0.0


@pytest.mark.parametrize(
    ("what", "function", "error_type"),
    [
        ("leave", "orders", "Runtime.ExitError"),
        ("sleep", "quick", "Sandbox.Timedout"),
        ("huge", "orders", "Function.ResponseSizeTooLarge"),
    ],
)
def test_what_befalls_a_function_has_no_trace(doing, what, function, error_type):
    status, out, _ = doing(what, "--json", function=function)
    assert status == 1
    payload = json.loads(out)["payload"]
    assert sorted(payload) == ["errorMessage", "errorType"]
    assert payload["errorType"] == error_type


def test_numbers_and_texts_are_given_as_the_function_wrote_them(doing):
    status, out, _ = doing("numbers")
    assert status == 0
    assert out.splitlines()[1:3] == ['  "exact": 1.10,', '  "big": 1180591620717411303424,']
    _, out, _ = doing("numbers", "--json")
    assert '"exact": 1.10, "big": 1180591620717411303424' in out
    assert out.isascii()


def test_a_result_that_is_not_json_is_shown_and_told(doing):
    status, out, err = doing("nan")
    assert (status, out) == (0, '{"a": NaN}\n')
    assert "not valid JSON" in err
    status, out, _ = doing("nan", "--json")
    assert status == 0
    assert json.loads(out)["payload"] == '{"a": NaN}'


def test_a_flood_of_output_is_shown_whole_and_kept_up_to_the_limit(doing):
    status, _, err = doing("flood")
    assert status == 0
    assert "y" * 2_000_000 in err
    log = json.loads(doing("flood", "--json")[1])["log"]
    assert log.count("y") < 1_100_000
    assert "more bytes of output were not kept" in log


def test_output_that_ends_in_the_middle_of_a_line_or_is_no_text(doing):
    assert "no end of line\nEND " in doing("bare")[2]
    assert "\ufffd\ufffd\nEND " in doing("binary")[2]
    assert json.loads(doing("binary", "--json")[1])["log"]


def test_a_function_without_logs_shows_them_here(headrace):
    assert "got dict" in headrace("invoke", "quiet")[2]
    assert "got dict" in json.loads(headrace("invoke", "quiet", "--json")[1])["log"]


def test_a_function_with_several_invocations_in_a_worker(headrace):
    status, out, err = headrace("invoke", "several")
    assert (status, out) == (0, '"done"\n')
    assert "one of several" in err
    assert "one of several" in json.loads(headrace("invoke", "several", "--json")[1])["log"]


def test_a_log_comes_while_the_function_runs_and_an_interrupt_ends_both(project):
    (project / "event.json").write_text('{"do": "sleep"}')
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "invoke", "orders", "--event", "event.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in command.stderr:
        if line.startswith("pid "):
            break
    worker = int(line.split()[1])
    assert not gone(worker)
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out, err) == (130, "", "")
    assert gone(worker)


def test_a_reader_of_the_log_that_has_seen_enough_ends_it(project):
    (project / "event.json").write_text('{"do": "flood"}')
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "invoke", "orders", "--event", "event.json"],
            stdout=subprocess.PIPE,
            stderr=writing,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_terminal_that_shows_no_more_than_ascii_gets_json_all_the_same(project):
    (project / "event.json").write_text('{"do": "numbers", "text": "\u00e9"}')
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("invoke", "orders", "--event", "event.json", env=environment)
    assert done.returncode == 0
    assert json.loads(done.stdout)["text"] == "caf\u00e9"


# --- what goes in


@pytest.mark.parametrize("text", [b'{"a": [1.0, "\xc3\xa9"]}', b'\xef\xbb\xbf{"a": [1.0, "\xc3\xa9"]}'])
def test_the_event_comes_from_a_file_or_standard_input(headrace, project, text):
    (project / "event.json").write_bytes(text)
    assert json.loads(headrace("invoke", "orders", "--event", "event.json")[1]) == {"a": [1.0, "\u00e9"]}
    done = process("invoke", "orders", "--event", "-", input=text)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"a": [1.0, "\u00e9"]})


def test_a_sample_event_goes_right_in(headrace):
    sample = process("event", "sqs").stdout
    done = process("invoke", "orders", "--event", "-", input=sample)
    assert (done.returncode, json.loads(done.stdout)) == (0, json.loads(sample))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "nothing in it"),
        (b" \n", "nothing in it"),
        (b"[1,\n2,]", "line 2 column 3"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8 at byte 0"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 100_000, "not JSON"),
        (b'"' + b"x" * 6_291_455 + b'"', "larger than"),
    ],
)
def test_an_event_that_is_none(headrace, project, content, complaint):
    (project / "event.json").write_bytes(content)
    status, out, err = headrace("invoke", "orders", "--event", "event.json")
    assert (status, out) == (2, "")
    assert err.startswith("headrace: the event in event.json")
    assert (err.count("\n"), complaint in err) == (1, True)


def test_an_event_of_the_largest_size_and_of_the_longest_number(headrace, project):
    (project / "event.json").write_bytes(b'"' + b"x" * 6_291_454 + b'"')
    assert headrace("invoke", "several", "--event", "event.json")[0] == 0
    (project / "event.json").write_bytes(b"1" * 5000)
    status, _, err = headrace("invoke", "several", "--event", "event.json")
    assert status == 1
    assert "Runtime.UnmarshalError" in err  # the function's own interpreter decides


@pytest.mark.parametrize("source", ["nowhere.json", "."])
def test_an_event_that_cannot_be_read(headrace, source):
    status, out, err = headrace("invoke", "orders", "--event", source)
    assert (status, out) == (2, "")
    assert err.startswith(f"headrace: the event cannot be read: {source}: ")


def test_an_unknown_function_is_told_with_those_there_are(headrace):
    status, out, err = headrace("invoke", "nobody")
    assert (status, out) == (2, "")
    assert err.startswith("headrace: there is no function 'nobody'; there are broken, orders, quick, quiet, several; ")


# --- scripted workers


def scripted(outcome, live=None):
    async def run():
        invoker = MemoryInvoker(lambda *_: (0.0, outcome))
        return await invoke(lambda sink, heard: invoker, b"{}", live)

    return asyncio.run(run())


def test_no_worker_at_all_is_one_line_and_no_function_error():
    with pytest.raises(HandlerUnavailable, match=r"^cannot start a worker$"):
        scripted(Refused(FunctionError("Runtime.StartError", "cannot start a worker")))


def test_a_trace_that_the_log_does_not_show_is_printed(capsys):
    error = FunctionError("ValueError", "no total", ('  File "app.py", line 3, in handle\n    raise x\n',))
    assert show(Invoked("r", Failed(FailureKind.RAISED, error), "START\nEND\n"), as_json=False) == 1
    assert capsys.readouterr().err == (
        '  File "app.py", line 3, in handle\n    raise x\nheadrace: the function failed: ValueError: no total\n'
    )


def test_half_a_character_in_a_result_is_shown_as_it_came(capsys):
    assert show(Invoked("r", Returned(b'"\\ud800"'), ""), as_json=False) == 0
    printed = capsys.readouterr()
    assert printed.out == '"\\ud800"\n'
    assert "not valid JSON" in printed.err


def test_the_live_log_is_written_at_once_and_byte_for_byte():
    to = io.BytesIO()
    log = LiveLog(to)
    log.heard(b"init\n")
    log.began("r")
    log.heard(b"\xff half")
    log.ended("init\nSTART RequestId: r Version: $LATEST\n? half\nEND RequestId: r\nREPORT RequestId: r\tx\t\n")
    assert to.getvalue() == (
        b"init\nSTART RequestId: r Version: $LATEST\n\xff half\nEND RequestId: r\nREPORT RequestId: r\tx\t\n"
    )
