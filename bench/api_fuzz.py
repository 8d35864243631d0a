"""Asks the Lambda API of a daemon what no client should ask, and holds what it answers against AWS's model.

A request that can be answered must be, within some seconds; no answer may be a bug's (5xx); refusals must have the
shape of AWS's; what is given must be what AWS's clients know. Requests come from several connections at once, each with
a seed of its own; a finding is printed with what is needed to see it again.

    .venv/bin/python -m bench.api_fuzz [--minutes 5] [--connections 8] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.api_requests import Asked, Requests
from router.api.dispatch import find
from tests.fakes.lambda_model import unknown_members
from tests.fakes.wire import Got, read_answer

ANSWER_S = 20.0
#: What they answer is the function's, or none of the model's.
_NO_DOCUMENTS = ("Invoke", "InvokeAsync", "GetCode")
FINDINGS = 20
#: What a 503 may say: AWS is not there for the daemon of this program, and a function may go while it is invoked.
_NOT_NOW = (b"there are no credentials; set AWS_ACCESS_KEY_ID", b"Runtime.StartError: function ")
_START_S = 60
_FILE = """\
state: ./state
listen: 127.0.0.1:0
aws: {endpoint_url: "http://127.0.0.1:1", region: us-east-1}
"""


@dataclass(slots=True)
class Found:
    """What was seen so far."""

    by_status: Counter[int] = field(default_factory=Counter)
    by_operation: Counter[str] = field(default_factory=Counter)
    ended: int = 0
    slowest_s: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.by_status.values()) + self.ended


def judge(asked: Asked, got: Got | None) -> list[str]:
    """Say what is wrong with an answer; None = the connection has ended without one."""
    if got is None:
        return ["there was no answer"] if asked.is_sound else []
    if got.status >= 500:
        is_known = got.status == 503 and any(text in got.body for text in _NOT_NOW)
        return [] if is_known else [f"status {got.status}"]
    if asked.method == "HEAD" or not asked.is_sound or got.status in (408, 411, 431):
        return []
    if got.status >= 400:
        return _refusal(got)
    return _answer(asked, got) if got.body else []


def _answer(asked: Asked, got: Got) -> list[str]:
    found = find(asked.method, asked.target.partition("?")[0])
    if found is None or found[0].name in _NO_DOCUMENTS:
        return []
    # AWS answers with words that its model does not have, too.
    return [name for name in unknown_members(found[0].name, json.loads(got.body)) if "=" not in name]


def _refusal(got: Got) -> list[str]:
    document = json.loads(got.body)
    texts = {"message", "Message"} & document.keys()
    wrong = [] if len(texts) == 1 else [f"a refusal without one text: {document}"]
    if got.status != 400 or "x-amzn-errortype" in got.headers:
        wrong += [f"no {name}" for name in ("x-amzn-errortype", "x-amzn-requestid") if name not in got.headers]
    return wrong


async def ask_all(port: int, seed: int, until: Any, found: Found) -> None:
    """Ask from one client until it is enough."""
    requests = Requests(seed)
    writer: asyncio.StreamWriter | None = None
    reader = asyncio.StreamReader()
    while not until(found):
        asked = requests.next()
        if writer is None or writer.is_closing():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun_s = time.perf_counter()
        got = await _ask(reader, writer, asked, port)
        found.slowest_s = max(found.slowest_s, time.perf_counter() - begun_s)
        _note(asked, got, seed, found)
        if got is not None and got.body and got.status < 400:
            with suppress(ValueError):
                requests.learn(json.loads(got.body))
        if got is None or got.headers.get("connection") == "close" or asked.method == "HEAD":
            writer.transport.abort()
            writer = None
    if writer:
        writer.transport.abort()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked, port: int) -> Got | None:
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(ANSWER_S):
            writer.write(asked.sent(f"127.0.0.1:{port}"))
            return await read_answer(reader, is_bare=asked.method == "HEAD")
    return None


def _note(asked: Asked, got: Got | None, seed: int, found: Found) -> None:
    found.by_operation[asked.operation] += 1
    if got is None:
        found.ended += 1
    else:
        found.by_status[got.status] += 1
    for wrong in judge(asked, got):
        sent = f"{asked.method} {asked.target[:500]} {dict(asked.headers)}\n  {asked.body[:1500]!r}"
        answered = f"\n  {got.body[:500]!r}" if got else ""
        found.findings.append(f"seed {seed}: {asked.operation}: {wrong}\n  {sent}{answered}")


# --- a daemon


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a daemon without functions or mappings of a file, and give its port."""
    (folder / "headrace.yaml").write_text(_FILE)
    command = [sys.executable, "-m", "router.cli", "run", str(folder / "headrace.yaml")]
    log = (folder / "log").open("wb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true"}
    process = subprocess.Popen(command, stderr=log, cwd=Path(__file__).parents[1], env=environment)
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s and process.poll() is None:
        for line in (folder / "log").read_text().splitlines():
            if '"daemon.started"' in line:
                return process, int(json.loads(line)["listen"].rpartition(":")[2])
        time.sleep(0.1)
    raise SystemExit(f"the daemon did not start: {(folder / 'log').read_text()[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        process, port = start(Path(name))
        end_s = time.monotonic() + given.minutes * 60
        try:
            asyncio.run(_run(port, given.seed, given.connections, end_s, found))
        finally:
            process.terminate()
            process.wait(60)
        log = (Path(name) / "log").read_text()
    _show(found, log)


async def _run(port: int, seed: int, connections: int, end_s: float, found: Found) -> None:
    def until(found: Found) -> bool:
        return time.monotonic() > end_s or len(found.findings) >= FINDINGS

    async with asyncio.TaskGroup() as tasks:
        for number in range(connections):
            tasks.create_task(ask_all(port, seed + number, until, found))


def _show(found: Found, log: str) -> None:
    for finding in found.findings:
        print(finding)
    bugs = [line for line in log.splitlines() if '"level":"error"' in line or "Traceback" in line]
    print(f"{found.count} requests, slowest {found.slowest_s:.1f} s, {found.ended} ended without an answer")
    print("by status:", dict(sorted(found.by_status.items())))
    print("least asked:", found.by_operation.most_common()[-3:])
    print(f"{len(found.findings)} findings, {len(bugs)} errors in the daemon's log")
    for line in bugs[:FINDINGS]:
        print(line[:3000])
    sys.exit(bool(found.findings or bugs))


if __name__ == "__main__":
    main()
