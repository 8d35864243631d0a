"""One worker process as the daemon sees it.

Nothing here waits. A worker tells its owner three things: it is ready, it ended an invocation, it is gone. What ends it
early (time, memory, a cancelled invocation) is noted as its fate and the whole process group is killed; the invocation
ends once the process has, so that nothing of it overlaps with what comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import orjson

from handlers import bootstrap, faults, limits, logs
from handlers.channel import Channel
from handlers.function import FunctionSpec
from handlers.output import Output
from handlers.predecessors import WorkerLock
from router.core.model import NOT_JSON, NOT_READ, Cancelled, Failed, FailureKind, FunctionError, Outcome, Returned
from router.ports import Invocation

#: Time to import the function's module (AWS Lambda developer guide, "Lambda execution environment lifecycle").
INIT_LIMIT_S: Final = 10.0
_FAILURES: Final = {bootstrap.RAISED: FailureKind.RAISED, bootstrap.BAD_RESULT: FailureKind.BAD_RESPONSE}


@dataclass(frozen=True, slots=True)
class Launch:
    """What all workers of one function are started with."""

    function: FunctionSpec
    #: Folder that holds the code.
    root: Path
    lock: WorkerLock | None
    sink: logs.LogSink | None
    cgroups: limits.CgroupHome | None


class Owner(Protocol):
    """Who has workers."""

    def ready(self, worker: Worker) -> None:
        """Learn that the function is loaded."""
        ...

    def ended(self, worker: Worker, invocation: Invocation, outcome: Outcome) -> None:
        """Learn that an invocation ended; the worker can take the next one."""
        ...

    def gone(self, worker: Worker, outcome: Outcome | None, init_error: FunctionError | None) -> None:
        """Learn that the process has ended: with this outcome of what it ran, or because it could not initialise."""
        ...


class Worker:
    """A live worker process. Raises OSError when it cannot be started."""

    def __init__(self, launch: Launch, owner: Owner) -> None:
        self._launch = launch
        self._owner = owner
        #: What it runs.
        self.invocation: Invocation | None = None
        #: Monotonic time at which it is killed; None while it is idle.
        self.deadline_s: float | None = None
        self.is_ready = False
        self._fate: FunctionError | Cancelled | None = None
        self._started_s = time.monotonic()
        self._init_text = ""
        self._init_ms: float | None = None
        self._used_bytes = 0
        self._cgroup: limits.Cgroup | None = None
        self._spawn()
        try:
            self._load()
        except OSError as error:
            message = f"cannot set up a worker of function {launch.function.name}: {error}"
            self.kill(FunctionError(faults.NOT_STARTED, message))

    # --- start

    def _spawn(self) -> None:
        function = self._launch.function
        with contextlib.ExitStack() as theirs_only, contextlib.ExitStack() as unless_started:
            ours, theirs = socket.socketpair()
            theirs_only.enter_context(theirs)
            unless_started.enter_context(ours)
            reading, writing = os.pipe() if function.logs else (None, os.open(os.devnull, os.O_WRONLY))
            theirs_only.callback(os.close, writing)
            if reading is not None:
                unless_started.callback(os.close, reading)
            self._process = self._start(function, theirs.fileno(), writing)
            self._pid = self._process.pid
            self._exit = os.pidfd_open(self._pid)
            unless_started.pop_all()
        self._channel = Channel(ours, self)
        self._output = Output(reading) if reading is not None else None
        asyncio.get_running_loop().add_reader(self._exit, self._on_exit)

    def _start(self, function: FunctionSpec, channel: int, output: int) -> subprocess.Popen[bytes]:
        lock = self._launch.lock
        descriptors = (channel,) if lock is None else (channel, lock.descriptor)
        arguments = (channel, -1 if lock is None else lock.descriptor, os.getpid())
        return subprocess.Popen(
            [function.interpreter(), "-I", bootstrap.__file__, *map(str, arguments)],
            env=function.variables(self._launch.root),
            cwd=self._launch.root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=descriptors,
            start_new_session=True,
        )

    def _load(self) -> None:
        """Note the process where others must find it, then let it load the function."""
        launch = self._launch
        if launch.lock is not None:
            launch.lock.register(self._pid)
        if launch.cgroups is not None:
            self._cgroup = launch.cgroups.make(launch.function.memory_bytes)
        if self._cgroup is not None:
            self._cgroup.add(self._pid)
        setup = {"handler": launch.function.handler, "root": str(launch.root), "arn": launch.function.arn}
        self.deadline_s = self._started_s + INIT_LIMIT_S
        self._channel.send(bootstrap.SETUP, json.dumps(setup).encode())

    def _become_ready(self) -> None:
        self.is_ready = True
        self.deadline_s = None
        self._init_ms = (time.monotonic() - self._started_s) * 1000
        self._used_bytes = limits.resident_bytes(self._pid)
        self._init_text = self._printed()
        if self._output is not None:
            self._output.is_awaited = False
        self._owner.ready(self)

    # --- invocations

    def begin(self, invocation: Invocation, event: bytes) -> bool:
        """Run it; False when the worker has died meanwhile, and the invocation was not started."""
        timeout_s = self._launch.function.timeout_s
        if not self._channel.send(bootstrap.INVOKE, event, int(timeout_s * 1000), invocation.request_id.encode()):
            self.kill(None)
            return False
        self.invocation = invocation
        if self._output is not None:
            self._output.is_awaited = True
        self._started_s = time.monotonic()
        self.deadline_s = self._started_s + timeout_s
        return True

    def received(self, kind: int, body: bytes, number: int) -> None:
        try:
            self._take(kind, body, number)
        except ValueError:
            self.broken(is_over=False)

    def _take(self, kind: int, body: bytes, number: int) -> None:
        """Act on a frame; ValueError when it makes no sense now."""
        if self.invocation is not None and kind == bootstrap.RETURNED:
            self._finish(Returned(_parsed(body) if self.invocation.wants_body else NOT_READ, number / 1000))
        elif self.invocation is not None and kind in _FAILURES:
            self._finish(Failed(_FAILURES[kind], faults.reported(body), number / 1000))
        elif not self.is_ready and kind == bootstrap.READY:
            self._become_ready()
        elif not self.is_ready and kind == bootstrap.INIT_FAILED:
            self.kill(faults.reported(body))
        else:
            raise ValueError(kind)

    def _finish(self, outcome: Returned | Failed) -> None:
        invocation = self.invocation
        assert invocation is not None
        self.invocation = None
        self.deadline_s = None
        if self._output is not None:
            self._output.is_awaited = False
        if self._launch.sink is not None:
            self._log(self._launch.sink, invocation.request_id, outcome.duration_ms)
        self._owner.ended(self, invocation, outcome)

    def _log(self, sink: logs.LogSink, request_id: str, duration_ms: float, error_type: str | None = None) -> None:
        text = logs.report(
            request_id,
            self._printed(),
            duration_ms,
            memory_mb=self._launch.function.memory_mb,
            used_bytes=self._used_bytes,
            init_text=self._init_text,
            init_ms=self._init_ms,
            error_type=error_type,
        )
        self._init_text, self._init_ms = "", None
        sink.write(request_id, text)

    def _printed(self) -> str:
        return self._output.take() if self._output is not None else ""

    # --- end

    def watch(self, now_s: float) -> None:
        """Hold a busy worker to its limits of time and memory."""
        limit_bytes = self._launch.function.memory_bytes
        if self.deadline_s is not None and now_s >= self.deadline_s:
            self.kill(self._late())
            return
        used_bytes = limits.used_bytes(self._pid, limit_bytes)
        self._used_bytes = max(self._used_bytes, used_bytes)
        if used_bytes > limit_bytes:
            self.kill(faults.over_memory(self._request_id, limit_bytes, used_bytes))

    def _late(self) -> FunctionError:
        if not self.is_ready:
            return faults.init_timed_out(INIT_LIMIT_S)
        return faults.timed_out(self._request_id, self._launch.function.timeout_s)

    @property
    def _request_id(self) -> str:
        return self.invocation.request_id if self.invocation is not None else ""

    def broken(self, *, is_over: bool) -> None:
        self.kill(None if is_over else faults.unreadable(self._request_id))

    def kill(self, fate: FunctionError | Cancelled | None) -> None:
        """End the process with everything it has started; what it ran ends with this fate, else as a crash."""
        self._fate = self._fate or fate
        self.deadline_s = None
        self._channel.stop()
        if self._cgroup is not None:
            self._cgroup.kill()
        for pid in limits.descendants(self._pid):  # those that have left the process group
            _kill(os.kill, pid)
        _kill(os.killpg, self._pid)

    def _on_exit(self) -> None:
        """The process has ended: by itself or because it was killed."""
        if self._fate is None:
            self._channel.read()  # it may have answered before
        _kill(os.killpg, self._pid)
        status = self._process.wait()
        error = self._error(status)
        duration_ms = (time.monotonic() - self._started_s) * 1000
        if self.is_ready:
            self._end_invocation(error, duration_ms)
        else:
            self._end_init(error, duration_ms)

    def _end_invocation(self, error: FunctionError, duration_ms: float) -> None:
        outcome: Outcome | None = None
        if self.invocation is not None:
            kind = FailureKind.TIMED_OUT if error.error_type == faults.TIMED_OUT else FailureKind.CRASHED
            outcome = self._fate if isinstance(self._fate, Cancelled) else Failed(kind, error, duration_ms)
            if self._launch.sink is not None:
                self._log(self._launch.sink, self._request_id, duration_ms, error.error_type)
        self._release()
        self._owner.gone(self, outcome, None)

    def _end_init(self, error: FunctionError, duration_ms: float) -> None:
        printed = self._printed()
        if self._fate is None:
            error = faults.with_last_line(error, printed)
        if self._launch.sink is not None:
            self._launch.sink.write("", logs.init_report(printed, duration_ms, error.error_type))
        self._release()
        self._owner.gone(self, None, error)

    def _error(self, status: int) -> FunctionError:
        if isinstance(self._fate, FunctionError):
            return self._fate
        if self._cgroup is not None and self._cgroup.ran_out():
            return faults.over_memory(self._request_id, self._launch.function.memory_bytes, None)
        return faults.exited(self._request_id, status)

    def _release(self) -> None:
        self._channel.close()
        if self._output is not None:
            self._output.close()
        asyncio.get_running_loop().remove_reader(self._exit)
        os.close(self._exit)
        if self._cgroup is not None:
            self._cgroup.remove()
        if self._launch.lock is not None:
            self._launch.lock.forget(self._pid)


def _parsed(result: bytes) -> object:
    try:
        return orjson.loads(result)
    except ValueError:
        return NOT_JSON


def _kill(how: Callable[[int, int], None], target: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(target, signal.SIGKILL)
