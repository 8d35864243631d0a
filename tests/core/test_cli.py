"""The command without any server: arguments, files, the store of a stopped daemon, errors and exit statuses."""

import argparse
import asyncio
import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.store.lock import DirectoryLock
from connectors.store.sqlite import SqliteStore
from router.cli import here, main
from router.ports import KeepFailure, SetStatus
from tests.fakes.failures import EVENT, entry

FILE = """\
state: ./state
functions:
  worker: {handler: orders.handler, code: ., environment: {KEY: "${env:HEADRACE_TEST_UNSET}"}}
event_source_mappings:
  orders:
    function: worker
    source: {kafka: {bootstrap_servers: [127.0.0.1:1], topic: orders}}
    starting_position: LATEST
"""
VALID = FILE.replace('"${env:HEADRACE_TEST_UNSET}"', "plain")
#: What Ctrl-C types.
INTERRUPT = b"\x03"
MEMBERS = [
    "id",
    "mapping",
    "function",
    "shard",
    "reason",
    "first_position",
    "last_position",
    "batch_size",
    "attempts",
    "error_type",
    "error_message",
    "failed_at",
    "status",
    "destination",
    "parent",
    "delivery",
]


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder with a valid file, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADRACE_CONFIG", raising=False)
    (tmp_path / "headrace.yaml").write_text(VALID)
    return tmp_path


@pytest.fixture
def stored(project):
    """Failures of a daemon that has stopped: two open ones, one replayed, one dropped."""

    async def fill():
        store = await SqliteStore.open(project / "state")
        for number, failure_id in enumerate(["f1", "f2", "f3", "f4"]):
            made = entry(
                failure_id,
                keys=(f"k{number}".encode(),),
                mapping="orders" if number != 1 else "clicks",
                failed_at_s=1767225670.0 + number,
            )
            await store.apply([KeepFailure(made, EVENT)])
        await store.apply([SetStatus("f3", "replayed"), SetStatus("f4", "dropped")])
        await store.close()

    asyncio.run(fill())


@pytest.fixture
def headrace(capsys):
    """Run the command in this process; gives exit status, standard output and standard error."""

    def run(*arguments):
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def is_one_line(text):
    return text.startswith("headrace: ") and text.count("\n") == 1


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=30, check=False, **options
    )


COMMAND = "import sys; from router.cli import main; sys.exit(main())"


# --- arguments


def test_version(headrace):
    status, out, _ = headrace("--version")
    assert status == 0
    assert out.startswith("headrace ")


def test_without_a_command_the_help_is_shown(headrace):
    status, out, _ = headrace()
    assert status == 2
    for command in ("run", "check", "demo", "invoke", "event", "status", "failures", "state"):
        assert command in out


@pytest.mark.parametrize("arguments", [["frobnicate"], ["status", "--wat"], ["failures", "show"], ["failures", "frob"]])
def test_wrong_usage_is_one_line_and_exit_status_2(headrace, arguments):
    status, out, err = headrace(*arguments)
    assert (status, out) == (2, "")
    assert is_one_line(err)


@pytest.mark.parametrize("command", ["mapping", "test", "import"])
def test_what_does_not_exist_yet_is_refused(headrace, command):
    assert headrace(command)[0] == 2


def test_the_command_itself_loads_nothing_that_it_does_not_need_yet():
    done = python("-c", "import sys, router.cli; print(*sys.modules)")
    loaded = set(done.stdout.split())
    assert "router.cli" in loaded
    assert not loaded & {
        "asyncio",
        "rich",
        "typer",
        "aiohttp",
        "structlog",
        "aiokafka",
        "sqlite3",
        "ruamel.yaml",
        "uvloop",
    }


# --- the file


def test_a_file_that_is_not_there(headrace):
    status, _, err = headrace("run", "nowhere.yaml")
    assert status == 2
    assert is_one_line(err)
    assert "nowhere.yaml" in err


def test_the_file_is_the_argument_else_the_option_else_the_variable_else_headrace_yaml(headrace, project, monkeypatch):
    for name in ("argument", "option", "variable"):
        (project / f"{name}.yaml").write_text(VALID)
    assert "headrace.yaml: valid" in headrace("check")[1]
    monkeypatch.setenv("HEADRACE_CONFIG", "variable.yaml")
    assert "variable.yaml: valid" in headrace("check")[1]
    assert "option.yaml: valid" in headrace("check", "-c", "option.yaml")[1]
    assert "option.yaml: valid" in headrace("-c", "option.yaml", "check")[1]
    assert "option.yaml: valid" in headrace("-c", "argument.yaml", "check", "-c", "option.yaml")[1]
    assert "argument.yaml: valid" in headrace("check", "argument.yaml", "-c", "option.yaml")[1]


def test_check_tells_every_mistake_and_exits_with_2(headrace, project):
    (project / "headrace.yaml").write_text(FILE.replace("LATEST", "SOMEWHERE"))
    status, out, err = headrace("check")
    assert (status, out) == (2, "")
    assert "headrace.yaml:3: functions.worker.environment.KEY" in err
    assert "headrace.yaml:8: event_source_mappings.orders.starting_position" in err
    status, out, _ = headrace("check", "--json")
    assert status == 2
    document = json.loads(out)
    assert document["valid"] is False
    assert len(document["mistakes"]) == 2


def test_check_of_a_valid_file_for_machines(headrace):
    status, out, err = headrace("check", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"valid": True, "mistakes": [], "notices": [], "checks": []}


def test_check_has_no_table_where_there_is_nothing_to_reach(headrace, project):
    (project / "headrace.yaml").write_text("state: ./.headrace\n")
    status, out, err = headrace("check", "--connect")
    assert (status, err) == (0, "")
    assert "headrace.yaml: valid" in out
    assert "RESULT" not in out


def test_check_also_loads_the_functions_that_no_mapping_uses(headrace, project):
    (project / "orders.py").write_text("def handler(event, context): ...\n")
    (project / "headrace.yaml").write_text(
        "functions:\n  fine: {handler: orders.handler, code: .}\n  gone: {handler: orders.handle, code: .}\n"
    )
    status, out, err = headrace("check", "--connect", "--json")
    assert (status, err) == (1, "")
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert {name: check["ok"] for name, check in checks.items()} == {"functions.fine": True, "functions.gone": False}
    assert "Handler 'handle' missing on module 'orders'" in checks["functions.gone"]["detail"]


def test_an_operator_without_the_secrets_of_the_service_can_look_at_its_failures(headrace, project, stored):
    (project / "headrace.yaml").write_text(FILE)
    assert headrace("check")[0] == 2
    status, out, _ = headrace("failures", "list", "--json")
    assert status == 0
    assert len(json.loads(out)) == 2


def test_a_state_that_cannot_be_read_out_of_the_file_is_told(headrace, project):
    (project / "headrace.yaml").write_text("state: ${env:HEADRACE_TEST_UNSET}\n")
    status, _, err = headrace("failures", "list")
    assert status == 2
    assert "HEADRACE_TEST_UNSET" in err


# --- failures


def test_without_any_state_there_is_one_line_about_it(headrace, project):
    for arguments in (["failures", "list"], ["failures", "show", "f1"], ["state", "backup", "copy.db"]):
        status, _, err = headrace(*arguments)
        assert status == 1
        assert is_one_line(err)
    assert not (project / "state").exists()


def test_list_shows_what_is_open_oldest_first_with_the_members_of_the_contract(headrace, stored):
    status, out, _ = headrace("failures", "list", "--json")
    failures = json.loads(out)
    assert status == 0
    assert [each["id"] for each in failures] == ["f1", "f2"]
    assert list(failures[0]) == MEMBERS
    assert failures[0]["failed_at"] == "2026-01-01T00:01:10.000Z"


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        (["--status", "all"], ["f1", "f2", "f3", "f4"]),
        (["--status", "replayed,dropped"], ["f3", "f4"]),
        (["--mapping", "clicks"], ["f2"]),
        (["--shard", "orders-9"], []),
        (["--key", "k0"], ["f1"]),
        (["--error", "NO TOTAL", "--status", "stored"], ["f1", "f2"]),
        (["--error", "nothing like it"], []),
        (["--since", "2026-01-01T00:01:11Z"], ["f2"]),
        (["--until", "2026-01-01T01:01:11+01:00"], ["f1"]),
        (["--since", "2h"], []),
        (["--until", "1.5d"], ["f1", "f2"]),
        (["f3"], ["f3"]),
    ],
)
def test_failures_are_selected(headrace, stored, selector, ids):
    status, out, _ = headrace("failures", "list", "--json", *selector)
    assert status == 0
    assert [each["id"] for each in json.loads(out)] == ids


@pytest.mark.parametrize(
    "selector", [["--since", "yesterday"], ["--until", ""], ["--status", "lost"], ["--status", ""]]
)
def test_a_selector_that_means_nothing_is_wrong_usage(headrace, stored, selector):
    status, out, err = headrace("failures", "list", *selector)
    assert (status, out) == (2, "")
    assert is_one_line(err)


@pytest.fixture
def many(project):
    """More failures than a page, and than a table shows; the first ones are settled."""

    async def keep():
        store = await SqliteStore.open(project / "state")
        kept = [entry(f"f{number:03}", failed_at_s=1e9 + number) for number in range(450)]
        await store.apply([KeepFailure(each, EVENT) for each in kept])
        await store.apply([SetStatus(f"f{number:03}", "replayed") for number in range(50)])
        await store.close()

    asyncio.run(keep())


def test_a_table_shows_the_first_ones_and_says_how_to_see_more(headrace, many):
    status, out, err = headrace("failures", "list")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 101)
    assert [lines[1].split()[0], lines[-1].split()[0]] == ["f050", "f149"]
    assert err == (
        "100 of 400 failures, oldest first; --limit N shows more, --json all, --since 2001-09-09T01:49:09.000Z "
        "those from the last one on\n"
    )
    since = err.split("--since ")[1].split()[0]
    assert headrace("failures", "list", "--since", since)[1].splitlines()[1].split()[0] == "f149"
    assert len(headrace("failures", "list", "--limit", "250")[1].splitlines()) == 251
    assert headrace("failures", "list", "--limit", "1000")[2] == ""


def test_machines_get_all_of_them_or_as_many_as_they_ask_for(headrace, many):
    everything = json.loads(headrace("failures", "list", "--json")[1])
    assert [each["id"] for each in everything] == [f"f{number:03}" for number in range(50, 450)]
    some = json.loads(headrace("failures", "list", "--json", "--limit", "3", "--status", "all")[1])
    assert [each["id"] for each in some] == ["f000", "f001", "f002"]


def test_very_many_are_dropped_page_by_page(headrace, many):
    status, out, _ = headrace("failures", "drop", "--all", "--yes", "--json")
    assert status == 0
    assert json.loads(out) == {"dropped": [f"f{number:03}" for number in range(50, 450)], "refused": []}
    assert headrace("failures", "drop", "--all", "--yes")[1] == "0 dropped\n"


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_a_limit_that_is_no_number_is_wrong_usage(headrace, limit):
    status, _, err = headrace("failures", "list", "--limit", limit)
    assert status == 2
    assert f"found '{limit}', allowed a number from 1" in err or "expected one argument" in err


def test_people_get_a_table(headrace, stored):
    status, out, _ = headrace("failures", "list")
    assert status == 0
    assert out.splitlines()[0].split()[:3] == ["ID", "STATUS", "MAPPING"]
    assert out.splitlines()[1].split()[:3] == ["f1", "stored", "orders"]
    assert "No failures" in headrace("failures", "list", "--mapping", "none")[1]


def test_show_gives_the_whole_failure(headrace, stored):
    whole = json.loads(headrace("failures", "show", "f1", "--json")[1])
    assert list(whole) == [*MEMBERS, "event", "tries"]
    assert whole["event"] == json.loads(EVENT)
    assert whole["tries"][0]["error"]["trace"] == ["  File a.py"]
    out = headrace("failures", "show", "f1")[1]
    assert "no total" in out
    assert "File a.py" in out
    assert "SelfManagedKafka" in out


def test_a_dropped_failure_is_shown_without_its_event(headrace, stored):
    assert json.loads(headrace("failures", "show", "f4", "--json")[1])["event"] is None
    assert "dropped" in headrace("failures", "show", "f4")[1]


@pytest.mark.parametrize("arguments", [["show", "f9"], ["list", "f1", "f9"], ["drop", "f9", "--yes"]])
def test_a_failure_that_is_not_there(headrace, stored, arguments):
    status, _, err = headrace("failures", *arguments)
    assert status == 1
    assert is_one_line(err)
    assert "f9" in err


@pytest.mark.parametrize("command", [["replay"], ["deliver"], ["drop", "--yes"]])
def test_what_changes_failures_needs_a_selection(headrace, stored, command):
    status, _, err = headrace("failures", *command)
    assert status == 2
    assert "--all" in err


def test_what_waits_for_its_destination_is_listed_and_shown(headrace, stored):
    first, second = json.loads(headrace("failures", "list", "--json")[1])
    assert first["delivery"] == {"state": "waiting", "tries": 0, "last_error": None, "next_try": None}
    assert second["delivery"] == first["delivery"]
    assert "delivery        waiting\n" in headrace("failures", "show", "f1")[1]
    assert headrace("failures", "list")[1].splitlines()[0].endswith("DELIVERY")
    chosen = json.loads(headrace("failures", "deliver", "--all", "--dry-run", "--json")[1])
    assert [each["id"] for each in chosen] == ["f1", "f2"]


def test_delivering_needs_a_daemon(headrace, stored):
    status, out, err = headrace("failures", "deliver", "--all")
    assert (status, out) == (3, "")
    assert is_one_line(err)
    assert "headrace run" in err


def test_replay_needs_a_daemon(headrace, stored):
    status, out, err = headrace("failures", "replay", "--all")
    assert (status, out) == (3, "")
    assert is_one_line(err)
    assert "headrace run" in err


@pytest.mark.parametrize(
    ("queue", "more"),
    [
        ("orders-dlq", []),
        ("orders_dlq.fifo", []),
        ("x" * 80, []),
        ("arn:aws:sqs:us-east-1:000000000000:orders-dlq", []),
        ("https://sqs.us-east-1.amazonaws.com/000000000000/orders-dlq", []),
        ("orders-dlq", ["--dry-run"]),
    ],
)
def test_replaying_a_queue_needs_a_daemon(headrace, project, queue, more):
    status, out, err = headrace("failures", "replay", "--from", f"sqs:{queue}", "--mapping", "orders", *more)
    assert (status, out) == (3, "")
    assert is_one_line(err)
    assert "headrace run" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--from", "s3://", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "s3://Bucket/failed"], "s3://BUCKET/PREFIX"),
        (["--from", "sqs:orders-failed", "--again"], "--again is for"),
        (["--all", "--again"], "--again is for"),
        (["--from", "orders-dlq", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "sqs:", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "sqs:arn:aws:sns:us-east-1:000000000000:x", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "sqs:arn:aws:sqs:orders", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "sqs:http://localhost", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "sqs:two words", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", f"sqs:{'x' * 81}", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["--from", "kafka:orders", "--mapping", "orders"], "allowed sqs:QUEUE"),
        (["f1", "--from", "sqs:orders-dlq", "--mapping", "orders"], "no ID"),
        (["--from", "sqs:orders-dlq", "--mapping", "orders", "--all"], "no ID"),
        (["--from", "sqs:orders-dlq", "--mapping", "orders", "--key", "k"], "no selector"),
    ],
)
def test_a_queue_is_replayed_whole_through_one_mapping(headrace, project, arguments, complaint):
    status, out, err = headrace("failures", "replay", *arguments)
    assert (status, out) == (2, "")
    assert is_one_line(err)
    assert complaint in err


def test_a_dry_run_lists_what_would_be_replayed(headrace, stored):
    status, out, _ = headrace("failures", "replay", "--all", "--dry-run", "--json")
    assert status == 0
    assert [each["id"] for each in json.loads(out)] == ["f1", "f2"]


def test_drop_without_a_terminal_demands_yes(headrace, stored):
    status, _, err = headrace("failures", "drop", "--all")
    assert status == 2
    assert "--yes" in err
    assert len(json.loads(headrace("failures", "list", "--json")[1])) == 2


def test_drop_works_on_the_store_of_a_stopped_daemon(headrace, stored):
    assert headrace("failures", "drop", "--all", "--dry-run")[0] == 0
    status, out, _ = headrace("failures", "drop", "--mapping", "orders", "--yes", "--json")
    assert status == 0
    assert json.loads(out) == {"dropped": ["f1"], "refused": []}
    assert [each["id"] for each in json.loads(headrace("failures", "list", "--json")[1])] == ["f2"]


def test_drop_does_not_go_past_a_daemon_that_does_not_answer(headrace, stored, project):
    async def attempt():
        store = await SqliteStore.open(project / "state")
        try:
            return await asyncio.to_thread(headrace, "failures", "drop", "f1", "--yes")
        finally:
            await store.close()

    status, _, err = asyncio.run(attempt())
    assert status == 1
    assert "in use" in err


# --- status and state


def test_status_without_a_daemon_says_what_the_store_knows(headrace, stored):
    status, out, err = headrace("status", "--json")
    assert status == 3
    assert is_one_line(err)
    assert {each["name"]: each["failures"] for each in json.loads(out)["mappings"]} == {
        "clicks": {"stored": 1},
        "orders": {"dropped": 1, "replayed": 1, "stored": 1},
    }
    assert "1 dropped, 1 replayed, 1 stored" in headrace("status")[1]


def test_status_without_any_state(headrace):
    status, out, _ = headrace("status", "--json")
    assert status == 3
    assert json.loads(out)["mappings"] == []


def test_a_backup_is_the_same_state_elsewhere(headrace, stored, project):
    status, out, _ = headrace("state", "backup", "copy.db", "--json")
    assert status == 0
    assert json.loads(out) == {"backup": "copy.db", "bytes": (project / "copy.db").stat().st_size}
    (project / "elsewhere").mkdir()
    (project / "copy.db").rename(project / "elsewhere" / "headrace.db")
    (project / "headrace.yaml").write_text(VALID.replace("./state", "./elsewhere"))
    assert len(json.loads(headrace("failures", "list", "--status", "all", "--json")[1])) == 4


def test_a_backup_replaces_nothing(headrace, stored, project):
    (project / "copy.db").write_text("precious")
    status, _, err = headrace("state", "backup", "copy.db")
    assert status == 1
    assert is_one_line(err)
    assert (project / "copy.db").read_text() == "precious"


# --- the process


def test_a_foreign_package_in_place_of_a_room_is_named(project):
    (project / "intruder" / "config").mkdir(parents=True)
    (project / "intruder" / "config" / "__init__.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(project / "intruder")}
    done = python("-c", COMMAND, env=environment)
    assert done.returncode == 2
    assert is_one_line(done.stderr)
    assert str(project / "intruder" / "config") in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(stored):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "failures", "show", "f1"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_text_that_the_locale_cannot_show_is_no_error(stored, project):
    async def add():
        store = await SqliteStore.open(project / "state")
        made = entry("f5", event=b'{"name":"\xc3\xa9"}', failed_at_s=1767225690.0)
        await store.apply([KeepFailure(made, b'{"name":"\xc3\xa9"}')])
        await store.close()

    asyncio.run(add())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = python("-c", COMMAND, "failures", "show", "f5", env=environment)
    assert (done.returncode, done.stderr) == (0, "")


# --- at a terminal


@pytest.fixture
def at_terminal():
    """Run the command with a terminal; types `answer` once it is asked. Gives exit status and what was shown."""

    # The first terminal that the leader of a session opens is the one whose Ctrl-C interrupts it; who started the tests
    # in the background of a shell has told them, and so their children, to ignore it.
    command = (
        "import os, signal; os.open(os.ttyname(0), os.O_RDWR); "
        "signal.signal(signal.SIGINT, signal.default_int_handler); " + COMMAND
    )

    def run(*arguments, answer=b""):
        terminal, inner = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", command, *arguments], stdin=inner, stdout=inner, stderr=inner, start_new_session=True
        )
        os.close(inner)
        shown = b""
        asked = False
        try:
            while True:
                # An interrupt between the question and the reading of the answer is lost, as at any terminal.
                if asked and answer == INTERRUPT and not select.select([terminal], [], [], 0.5)[0]:
                    os.write(terminal, answer)
                shown += os.read(terminal, 4096)
                if answer and not asked and b"[y/N]" in shown:
                    asked = True
                    os.write(terminal, answer)
        except OSError:
            pass  # how Linux tells that the other end has gone
        status = process.wait(timeout=30)
        os.close(terminal)
        return status, shown.decode()

    return run


def test_what_changes_failures_asks_first(at_terminal, headrace, stored):
    status, shown = at_terminal("failures", "drop", "--all", answer=b"n\r")
    assert status == 1
    assert "Drop 2 failed batches for good" in shown
    assert len(json.loads(headrace("failures", "list", "--json")[1])) == 2
    status, shown = at_terminal("failures", "drop", "--all", answer=b"y\r")
    assert (status, "2 dropped" in shown) == (0, True)
    assert json.loads(headrace("failures", "list", "--json")[1]) == []


def test_an_interrupt_is_exit_status_130_without_a_trace(at_terminal, headrace, stored):
    status, shown = at_terminal("failures", "drop", "--all", answer=INTERRUPT)
    assert status == 130
    assert "Traceback" not in shown
    assert len(json.loads(headrace("failures", "list", "--json")[1])) == 2


def test_a_table_at_a_terminal_keeps_the_ids_whole(at_terminal, stored):
    status, shown = at_terminal("failures", "list", "--status", "all")
    assert status == 0
    for failure_id in ("f1", "f2", "f3", "f4"):
        assert failure_id in shown
    assert "\x1b[" in shown


# --- seeking and checkpoints


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("yesterday", "--to: found 'yesterday', allowed TRIM_HORIZON, LATEST, a time"),
        ("latest", "--to: found 'latest'"),
        ("-5", "--to: found '-5'"),
        ("1.2.3", "--to: found '1.2.3'"),
        ("9999-01-01T00:00:00Z", "is before 1970 or still to come"),
        ("1969-12-31T23:59:59Z", "is before 1970 or still to come"),
        ("900000000d", "is before 1970 or still to come"),
    ],
)
def test_a_place_that_means_nothing_is_refused(headrace, place, said):
    status, out, err = headrace("mapping", "seek", "orders", "--to", place)
    assert (status, out) == (2, "")
    assert said in err
    assert is_one_line(err)


@pytest.mark.parametrize("place", ["TRIM_HORIZON", "LATEST", "2026-01-01", "2h", "17", "496000000000000000000.3"])
def test_seeking_needs_a_daemon(headrace, place):
    status, _, err = headrace("mapping", "seek", "orders", "--to", place)
    assert status == 3
    assert is_one_line(err)


def test_what_moves_a_mapping_wants_a_yes(headrace):
    for arguments in (("mapping", "seek", "orders", "--to", "LATEST", "--apply"), ("checkpoints", "import", "file")):
        status, _, err = headrace(*arguments)
        assert status == 2
        assert "without a terminal to ask at, --yes is needed" in err


def test_a_file_of_checkpoints_that_is_none_changes_nothing(headrace, project):
    assert "cannot read file: No such file or directory" in headrace("checkpoints", "import", "file", "--yes")[2]
    (project / "file").write_text("{}")
    status, _, err = headrace("checkpoints", "import", "file", "--yes")
    assert (status, err) == (2, "headrace: file is no file of checkpoints: `headrace checkpoints export` writes one\n")
    assert not (project / "state").exists()


def test_queues_have_no_checkpoints(headrace, project):
    sqs = VALID.replace("kafka: {bootstrap_servers: [127.0.0.1:1], topic: orders}", "sqs: {queue: orders}")
    (project / "headrace.yaml").write_text(sqs.replace("    starting_position: LATEST\n", ""))
    status, _, err = headrace("checkpoints", "export")
    assert (status, "no mapping reads a stream" in err) == (1, True)
    status, _, err = headrace("checkpoints", "export", "--mapping", "orders")
    assert (status, "mapping orders reads a queue" in err) == (1, True)
    status, _, err = headrace("checkpoints", "export", "--mapping", "clicks")
    assert (status, "there is no mapping 'clicks'; there are: orders" in err) == (1, True)


def test_a_broker_that_is_away_is_told(headrace):
    status, _, err = headrace("checkpoints", "export")
    assert status == 1
    assert "Cannot look at group orders on topic orders: 127.0.0.1:1: connection refused" in err
    assert is_one_line(err)


# --- replicas


def test_a_replica_is_named_only_where_there_are_some(headrace):
    for command in (("status",), ("run",), ("failures", "list")):
        status, _, err = headrace(*command, "--replica", "a")
        assert (status, "--replica names one of those that share state" in err) == (2, True)


def test_an_address_to_listen_on_is_one_as_in_the_file(headrace):
    status, _, err = headrace("run", "--listen", "9301")
    assert (status, '--listen: found "9301", allowed host:port' in err) == (2, True)
    status, _, err = headrace("run", "--listen", "0.0.0.0:9301")
    assert (status, "--listen: found a host that is not loopback" in err) == (2, True)
    assert "allowed with api.keys" in err


def test_a_second_replica_of_one_name_is_told_to_take_another(project):
    (project / "headrace.yaml").write_text(
        VALID.replace("state: ./state", "state: redis://127.0.0.1:1\nlocal: ./local")
    )
    (project / "local/a").mkdir(parents=True)
    with closing(DirectoryLock(project / "local/a")):
        done = python("-c", COMMAND, "run", "--replica", "a")
    assert done.returncode == 1
    assert is_one_line(done.stderr)
    assert f"{project}/local/a is in use by another headrace" in done.stderr
    assert "give this one a name and an address of its own: --replica NAME --listen HOST:PORT" in done.stderr


@contextmanager
def control_socket(folder, answer):
    """Answer with so many bytes whatever is asked on the control socket of a folder."""
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/control.sock")
        listener.listen()

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()


def test_a_replica_that_does_not_answer_is_passed_over_where_another_one_does(project):
    (project / "headrace.yaml").write_text(
        VALID.replace("state: ./state", "state: redis://127.0.0.1:1\nlocal: ./local")
    )
    kept = here.kept(argparse.Namespace(config=None, replica=None))
    kept = replace(kept, patience_s=60.0)
    local = Path("local")  # relative, as paths of sockets are short
    with control_socket(local / "a", b""):
        assert kept.daemon() == project / "local/a"
        with control_socket(local / "b", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"):
            assert kept.daemon() == project / "local/b"
            assert replace(kept, replica="a").daemon() == project / "local/a"
        with control_socket(local / "c", b""):
            assert kept.daemon() == project / "local/a"


def test_without_a_replica_on_this_machine_it_is_said_where_one_would_be(headrace, project):
    (project / "headrace.yaml").write_text(
        VALID.replace("state: ./state", "state: redis://127.0.0.1:1\nlocal: ./local")
    )
    (project / "local/b").mkdir(parents=True)
    status, _, err = headrace("mapping", "drain", "orders")
    assert (status, f"it would listen in {project}/local/*" in err) == (3, True)
    status, _, err = headrace("mapping", "drain", "orders", "--replica", "b")
    assert (status, "replica b of fleet headrace does not run on this machine" in err) == (3, True)
    status, _, err = headrace("mapping", "drain", "orders", "--replica", "../b")
    assert (status, '--replica: found "../b"' in err) == (2, True)
    status, _, err = headrace("failures", "list")
    assert (status, "redis://127.0.0.1:1/0, fleet headrace: it cannot be reached" in err) == (1, True)
