"""The worker's own file, run by itself: it ends with its channel, and with its parent."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from handlers import bootstrap

PLAIN = {"hooks": False, "forks": False}
VARIABLES = {
    "AWS_LAMBDA_FUNCTION_NAME": "f",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
    "AWS_LAMBDA_LOG_GROUP_NAME": "group",
    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
}


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair()
    ours.settimeout(15)
    with ours, theirs:
        yield ours, theirs


def start(theirs: socket.socket, parent: int, folder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", bootstrap.__file__, str(theirs.fileno()), "-1", str(parent)]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=VARIABLES, cwd=folder, start_new_session=True)
    theirs.close()
    return process


def test_the_end_of_the_channel_ends_the_worker_and_its_children(channel, tmp_path):
    ours, theirs = channel
    (tmp_path / "app.py").write_text(
        "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\ndef handle(*_): pass"
    )
    process = start(theirs, os.getpid(), tmp_path)
    setup = {"handler": "app.handle", "root": str(tmp_path), "arn": "arn", "concurrency": 1, "logs": True, **PLAIN}
    ours.sendall(bootstrap.pack(bootstrap.SETUP, json.dumps(setup).encode()))
    assert bootstrap.HEADER.unpack(ours.recv(64)) == (bootstrap.READY, 0, 0, 0, 0)
    ours.close()
    assert process.wait(15) == -signal.SIGKILL, "it kills its whole group"


def test_a_worker_whose_parent_is_gone_does_not_start(channel, tmp_path):
    ours, theirs = channel
    process = start(theirs, 1, tmp_path)
    assert process.wait(15) == -signal.SIGKILL
    assert ours.recv(64) == b""


def test_frames_that_come_in_pieces_are_put_together(channel, tmp_path):
    ours, theirs = channel
    (tmp_path / "app.py").write_text("def handle(event, context): return [event, context.aws_request_id]")
    process = start(theirs, os.getpid(), tmp_path)
    setup = {"handler": "app.handle", "root": str(tmp_path), "arn": "arn", "concurrency": 1, "logs": True, **PLAIN}
    frames = bootstrap.pack(bootstrap.SETUP, json.dumps(setup).encode())
    for byte in frames:
        ours.send(bytes([byte]))
    ours.recv(64)
    for byte in bootstrap.pack(bootstrap.INVOKE, b'{"a": 1}', 3000, "é".encode()):
        ours.send(bytes([byte]))
    answer = ours.recv(1024)
    assert answer[0] == bootstrap.RETURNED
    assert json.loads(answer[bootstrap.HEADER.size :]) == [{"a": 1}, "é"]
    ours.close()
    process.wait(15)
