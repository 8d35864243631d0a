"""What handlers print, and the file it is kept in."""

from __future__ import annotations

import asyncio
import contextlib
import re
import stat
import time

import orjson
import pytest

from handlers.log_forms import now
from handlers.log_reader import LogReader
from handlers.logs import FILE_LIMIT_BYTES, RotatingFile, older
from handlers.output import LIMIT_BYTES as OUTPUT_LIMIT_BYTES
from tests.handlers.conftest import eventually


@pytest.fixture
def reading():
    """Make readers, and close them."""
    with contextlib.ExitStack() as opened:
        yield lambda path: opened.enter_context(contextlib.closing(LogReader(path)))


REPORT = re.compile(
    r"REPORT RequestId: (?P<id>\S+)\tDuration: (?P<ms>\d+\.\d\d) ms\tBilled Duration: (?P<billed>\d+) ms\t"
    r"Memory Size: 128 MB\tMax Memory Used: (?P<used>\d+) MB\t(?P<rest>.*)\n"
)


async def test_lines_of_a_request_are_those_of_lambda(shop):
    source = """
        import logging, os, sys
        print("at import")
        log = logging.getLogger()
        log.setLevel("INFO")
        def handle(event, context):
            log.info("info %s", event)
            print("to stdout", end="")
            print("to stderr", file=sys.stderr)
            os.system("echo from a child")
    """
    pool = shop.pool(source)
    await shop.invoke(pool, "é", "id-1")
    await shop.invoke(pool, "b", "id-2")
    (first_id, first), (second_id, second) = shop.log.texts
    assert (first_id, second_id) == ("id-1", "id-2")
    lines = first.splitlines(keepends=True)
    assert lines[0] == "at import\n"
    assert lines[1] == "START RequestId: id-1 Version: $LATEST\n"
    assert re.fullmatch(r"\[INFO\]\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\tid-1\tinfo é\n", lines[2])
    assert "".join(lines[3:-2]).count("from a child") == 1
    assert "to stdout" in first
    assert "to stderr" in first
    assert lines[-2] == "END RequestId: id-1\n"
    report = REPORT.fullmatch(lines[-1])
    assert report["id"] == "id-1"
    # The duration is rounded to hundredths, and what is billed is rounded up from the whole of it.
    assert float(report["ms"]) - 0.01 < int(report["billed"]) < float(report["ms"]) + 1.01
    assert 5 < int(report["used"]) < 100
    assert re.fullmatch(r"Init Duration: \d+\.\d\d ms\t", report["rest"])
    assert second.startswith("START RequestId: id-2 Version: $LATEST\n[INFO]")
    assert REPORT.fullmatch(second.splitlines(keepends=True)[-1])["rest"] == ""


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (None, ["warning", "error"]),
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
async def test_the_level_of_a_function_is_that_of_its_logging(shop, level, said):
    source = """
        import logging
        def handle(event, context):
            for name in ("debug", "info", "warning", "error"):
                getattr(logging, name)("said")
    """
    await shop.invoke(shop.pool(source, log_level=level))
    assert [each.lower() for each in re.findall(r"^\[(\w+)\].*said$", shop.log.texts[0][1], re.MULTILINE)] == said


async def test_an_exception_is_logged_with_its_trace(shop):
    await shop.run("def handle(event, context): raise KeyError('lost')")
    text = shop.log.texts[0][1]
    assert "[ERROR] KeyError: 'lost'\nTraceback (most recent call last):\n" in text
    assert "in handle" in text


async def test_a_trace_of_logging_names_files_as_on_aws(shop):
    source = """
        import logging
        def handle(event, context):
            try:
                event["price"]
            except KeyError:
                logging.exception("no price")
    """
    await shop.run(source, {})
    text = shop.log.texts[0][1]
    assert "\tno price\nTraceback (most recent call last):\n" in text
    assert '  File "/var/task/app.py", line 5, in handle\n' in text
    assert str(shop.code) not in text


async def test_a_timeout_is_logged_with_what_was_printed_before(shop):
    await shop.run("import time\ndef handle(event, context):\n print('begun')\n time.sleep(99)", timeout_s=2)
    text = shop.log.texts[0][1]
    said = r"begun\n\S+Z request-1 Task timed out after \d+\.\d\d seconds\n\nEND RequestId: request-1\n"
    assert re.search(said, text)
    assert text.endswith("\tStatus: timeout\t\n")


async def test_a_crash_is_logged_with_its_status(shop):
    await shop.run("import os\ndef handle(event, context):\n print('last words')\n os._exit(1)")
    assert "last words\nEND" in shop.log.texts[0][1]
    assert shop.log.texts[0][1].endswith("Status: error\tError Type: Runtime.ExitError\t\n")


async def test_a_flood_of_output_is_cut_and_the_loop_stays_responsive(shop):
    pool = shop.pool("def handle(event, context):\n for _ in range(1600): print('x' * 65535)", timeout_s=60)
    flood = shop.start(pool)
    # Counted in turns of the loop, and in the time that its thread works, which pauses of the machine are no part of.
    turns, longest_s, before_s = 0, 0.0, time.thread_time()
    while not flood.done():
        await asyncio.sleep(0)
        turns += 1
        longest_s, before_s = max(longest_s, time.thread_time() - before_s), time.thread_time()
    assert (await flood).body is None
    assert turns > 1000
    assert longest_s < 1
    text = shop.log.texts[0][1]
    assert OUTPUT_LIMIT_BYTES < len(text) < OUTPUT_LIMIT_BYTES + 1000
    dropped = int(re.search(r"\[(\d+) more bytes of output were not kept\]\n", text)[1])
    assert dropped == 1600 * 65536 - OUTPUT_LIMIT_BYTES


async def test_children_that_print_on_do_not_disturb_later_requests(shop):
    source = """
        import subprocess, sys
        def handle(event, context):
            if event:
                subprocess.Popen(["yes"])
            return "fine"
    """
    pool = shop.pool(source)
    for event in (True, False, False):
        assert (await shop.invoke(pool, event)).body == "fine"
    turns = 0
    async with asyncio.timeout(10):
        while turns < 20:  # idle now: the flood is not read for ever
            used_s = time.process_time()
            await asyncio.sleep(0.01)
            turns = turns + 1 if time.process_time() - used_s < 0.002 else 0
    assert (await shop.invoke(pool, False)).body == "fine"


async def test_closed_or_replaced_output_is_no_failure(shop):
    source = """
        import sys
        def handle(event, context):
            sys.stdout.close()
            sys.stderr = None
            if event:
                raise ValueError("said")
            return "fine"
    """
    pool = shop.pool(source)
    assert (await shop.invoke(pool)).body == "fine"
    assert (await shop.invoke(pool, True)).error.message == "said"


async def test_logs_off_keeps_nothing(shop):
    outcome = await shop.run("def handle(event, context):\n print('secret')\n return 'fine'", logs=False)
    assert outcome.body == "fine"
    assert shop.log.texts == []


async def test_the_file_is_private_and_rotates(tmp_path, reading):
    path = tmp_path / "logs" / "orders.log"
    sink = RotatingFile(path)
    line = "x" * 99_999 + "\n"
    for _ in range(250):
        sink.write("id", line)
    sink.write("id", "the end\n")
    sink.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(reading(path).read())[-1].message == "the end\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["orders.log", "orders.log.1"]
    assert all(file.stat().st_size <= FILE_LIMIT_BYTES for file in path.parent.iterdir())


async def test_a_disk_that_takes_nothing_loses_lines_and_says_so_later(tmp_path, reading):
    folder = tmp_path / "logs"
    folder.write_text("a file where the folder should be")
    sink = RotatingFile(folder / "orders.log")
    sink.write("id", "lost\n")
    sink.flush()
    folder.unlink()
    sink.write("id", "kept\n")
    sink.flush()
    lost, kept = reading(folder / "orders.log").read()
    assert (lost.request_id, kept.request_id, kept.message) == (None, "id", "kept\n")
    assert re.fullmatch(r"\[\d+ bytes of log were lost: they could not be written\]\n", lost.message)


async def test_what_a_disk_did_not_take_is_said_at_the_end_where_nothing_was_printed_since(tmp_path, reading):
    folder = tmp_path / "logs"
    folder.write_text("a file where the folder should be")
    sink = RotatingFile(folder / "orders.log")
    sink.write("id", "lost\n")
    sink.flush()
    sink.flush()
    folder.unlink()
    sink.close()
    (said,) = reading(folder / "orders.log").read()
    line_bytes = len(orjson.dumps({"timestamp": now(), "request_id": "id", "message": "lost\n"}) + b"\n")
    assert said.message == f"[{line_bytes} bytes of log were lost: they could not be written]\n"


async def test_lines_are_written_without_waiting_for_the_end(tmp_path, reading):
    sink = RotatingFile(tmp_path / "orders.log")
    sink.write("id", "soon\n")
    reader = reading(tmp_path / "orders.log")
    written = []
    await eventually(lambda: written.extend(reader.read()) or written, "it is written")
    assert [(entry.request_id, entry.message) for entry in written] == [("id", "soon\n")]


# --- what is read again


def messages(reader: LogReader) -> list[str]:
    return [entry.message for entry in reader.read()]


async def test_what_was_written_is_read_as_it_was_whatever_it_looks_like(tmp_path, reading):
    path = tmp_path / "orders.log"
    texts = ["plain\n", '{"timestamp": "x", "request_id": "forged", "message": "m"}\n', "\x00\u2028é\ud800\r\n", ""]
    sink = RotatingFile(path)
    for number, text in enumerate(texts):
        sink.write(f"id-{number}", text)
    sink.write("", "of no request\n")
    sink.close()
    *entries, last = reading(path).read()
    assert [entry.request_id for entry in entries] == ["id-0", "id-1", "id-2", "id-3"]
    assert [entry.message for entry in entries] == [text.replace("\ud800", "?") for text in texts]
    assert (last.request_id, last.message) == (None, "of no request\n")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.timestamp) for entry in entries)


async def test_a_reader_goes_on_where_it_stopped_across_files(tmp_path, reading):
    path = tmp_path / "orders.log"
    reader, sink = reading(path), RotatingFile(path)
    assert messages(reader) == []

    def write(*texts):
        for text in texts:
            sink.write("id", text)
        sink.flush()

    write("a\n")
    assert messages(reader) == ["a\n"]
    write("b\n")
    path.replace(older(path))
    write("c\n")
    assert messages(reader) == ["b\n", "c\n"], "written before it was moved aside, and after"
    for text in ("d\n", "e\n"):
        path.replace(older(path))
        write(text)
    assert messages(reader) == ["d\n", "e\n"], "moved aside twice between two looks"
    assert messages(reader) == []
    assert messages(reading(path)) == ["d\n", "e\n"]


async def test_lines_that_a_crash_has_torn_hold_up_no_others(tmp_path, reading):
    path = tmp_path / "orders.log"
    sink = RotatingFile(path)
    sink.write("id", "whole\n")
    sink.flush()
    reader = reading(path)
    with path.open("ab") as file:
        file.write(b'{"timestamp": "2026')
    assert messages(reader) == ["whole\n"]
    sink.write("id", "after\n")
    sink.flush()
    torn, after = reader.read()
    assert (torn.timestamp, torn.request_id, torn.message) == (None, None, '{"timestamp": "2026')
    assert after.message == "after\n"


async def test_what_could_not_be_written_whole_is_taken_back(tmp_path, reading):
    path = tmp_path / "orders.log"
    sink = RotatingFile(path)
    sink.write("id", "whole\n")
    sink.flush()
    whole = path.read_bytes()
    reader = reading(path)
    with path.open("ab") as file:
        file.write(b"half a li")
    assert messages(reader) == ["whole\n"]
    path.write_bytes(whole)
    sink.write("id", "next\n")
    sink.flush()
    assert messages(reader) == ["next\n"]


async def test_lines_of_an_older_form_are_given_as_they_are(tmp_path, reading):
    path = tmp_path / "orders.log"
    path.write_text("START RequestId: r Version: $LATEST\n[]\n5\n")
    assert messages(reading(path)) == ["START RequestId: r Version: $LATEST", "[]", "5"]
