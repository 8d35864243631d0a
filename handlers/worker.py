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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import orjson

from handlers import bootstrap, faults, limits, logs
from handlers.channel import Channel
from handlers.function import FunctionSpec
from handlers.output import Output
from handlers.predecessors import WorkerLock
from router.core.model import NOT_JSON, NOT_READ, Cancelled, Failed, FailureKind, FunctionError, Outcome, Returned
from router.ports import Invocation

#: Time that a cancelled task has to end while others run beside it.
CANCEL_PATIENCE_S: Final = 1.0
#: Time in which an event loop that turns shows it.
TURN_PATIENCE_S: Final = 0.25
#: Error type in the log of what ended with its worker through no known fault of its own.
INTERRUPTED: Final = "Headrace.Interrupted"
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


class Run:
    """One invocation that a worker runs."""

    __slots__ = ("cancel_by_s", "invocation", "output", "started_s")

    def __init__(self, invocation: Invocation, started_s: float) -> None:
        self.invocation = invocation
        self.started_s = started_s
        #: What it has printed, where the worker tells invocations apart.
        self.output: list[bytes] = []
        #: Monotonic time by which a cancelled one must have ended; None = it is not cancelled.
        self.cancel_by_s: float | None = None

    @property
    def request_id(self) -> str:
        return self.invocation.request_id


class End(NamedTuple):
    """How an invocation ended with its worker."""

    invocation: Invocation
    outcome: Outcome
    #: Is it one of several of which one must be to blame, and nobody knows which?
    is_suspect: bool


class Owner(Protocol):
    """Who has workers."""

    def ready(self, worker: Worker) -> None:
        """Learn that the function is loaded."""
        ...

    def ended(self, worker: Worker, invocation: Invocation, outcome: Outcome) -> None:
        """Learn that an invocation ended by itself."""
        ...

    def flowing(self, worker: Worker) -> None:
        """Learn that a worker whose channel was clogged can take invocations again."""
        ...

    def gone(self, worker: Worker, ends: Sequence[End], init_error: FunctionError | None) -> None:
        """Learn that the process has ended: with these invocations, or because it could not initialise."""
        ...


class Worker:
    """A live worker process. Raises OSError when it cannot be started."""

    def __init__(self, launch: Launch, owner: Owner) -> None:
        self._launch = launch
        self._owner = owner
        self._timeout_s = launch.function.timeout_s
        self._concurrency = launch.function.concurrency_per_worker
        #: What it runs, oldest first, by the number that frames carry.
        self.running: dict[int, Run] = {}
        self.is_ready = False
        #: Is it being killed?
        self.is_ending = False
        self._last_slot = 0
        self._fate: FunctionError | Cancelled | None = None
        #: Whose fault the fate is, where that is known.
        self._blamed: Run | None = None
        self._cancelled: dict[int, Run] = {}
        #: Monotonic time by which the event loop must show that it turns; None = it was not asked.
        self._turn_by_s: float | None = None
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
        setup = {
            "handler": launch.function.handler,
            "root": str(launch.root),
            "arn": launch.function.arn,
            "concurrency": self._concurrency,
            "logs": launch.function.logs,
        }
        self._channel.send(bootstrap.SETUP, json.dumps(setup).encode())

    def _become_ready(self) -> None:
        self.is_ready = True
        self._init_ms = (time.monotonic() - self._started_s) * 1000
        self._used_bytes = limits.resident_bytes(self._pid)
        self._init_text = self._printed()
        self._expect_output(awaited=False)
        self._owner.ready(self)

    # --- invocations

    @property
    def has_room(self) -> bool:
        """Can it take an invocation now?"""
        is_able = self.is_ready and not self.is_ending and not self._channel.is_clogged
        return is_able and len(self.running) < self._concurrency

    def begin(self, invocation: Invocation, event: bytes) -> bool:
        """Run it; False when the worker has died meanwhile, and the invocation was not started."""
        now_s = time.monotonic()
        number = int((now_s + self._timeout_s) * 1000) & 0xFFFFFFFF
        slot = self._next_slot()
        request_id = invocation.request_id.encode()
        if self.running:
            self._channel.post(bootstrap.INVOKE, event, number, request_id, slot)
        elif self._channel.send(bootstrap.INVOKE, event, number, request_id, slot):
            self._expect_output(awaited=True)
        else:
            self.kill(None)
            return False
        self.running[slot] = Run(invocation, now_s)
        return True

    def _next_slot(self) -> int:
        """Give a number that none of the running has, nor one that ended lately."""
        slot = (self._last_slot + 1) & 0xFFFF
        while slot in self.running:
            slot = (slot + 1) & 0xFFFF
        self._last_slot = slot
        return slot

    def cancel(self, request_id: str) -> None:
        """End it, if it runs here, as Cancelled: its task alone while there are others, else with the process."""
        for slot, run in self.running.items():
            if run.request_id == request_id:
                if len(self.running) == 1:
                    self.kill(Cancelled())
                elif run.cancel_by_s is None:
                    run.cancel_by_s = time.monotonic() + CANCEL_PATIENCE_S
                    self._cancelled[slot] = run
                    self._channel.post(bootstrap.CANCEL, b"", slot=slot)
                return

    def received(self, kind: int, slot: int, body: bytes, number: int) -> None:
        try:
            self._take(kind, self.running.get(slot), slot, body, number)
        except ValueError:
            self.broken(is_over=False)

    def _take(self, kind: int, run: Run | None, slot: int, body: bytes, number: int) -> None:
        """Act on a frame; ValueError when it makes no sense now."""
        if run is not None and run is self._blamed:
            return  # too late
        if run is not None and kind == bootstrap.RETURNED:
            body_wanted = run.invocation.wants_body
            self._finish(slot, run, Returned(_parsed(body) if body_wanted else NOT_READ, number / 1000))
        elif run is not None and kind in _FAILURES:
            self._finish(slot, run, Failed(_FAILURES[kind], faults.reported(body), number / 1000))
        elif self._concurrency > 1 and kind == bootstrap.OUTPUT:
            if run is not None:
                run.output.append(body)
        elif self._concurrency > 1 and kind == bootstrap.PONG:
            self._turns()
        elif not self.is_ready and kind == bootstrap.READY:
            self._become_ready()
        elif not self.is_ready and kind == bootstrap.INIT_FAILED:
            self.kill(faults.reported(body))
        else:
            raise ValueError(kind)

    def _finish(self, slot: int, run: Run, outcome: Returned | Failed) -> None:
        del self.running[slot]
        if not self.running:
            self._expect_output(awaited=False)
        if self._launch.sink is not None:
            self._log(self._launch.sink, run, outcome.duration_ms)
        is_cancelled = self._cancelled.pop(slot, None) is not None
        self._owner.ended(self, run.invocation, Cancelled() if is_cancelled else outcome)

    def flowing(self) -> None:
        self._owner.flowing(self)

    # --- output

    def _log(
        self,
        sink: logs.LogSink,
        run: Run,
        duration_ms: float,
        error_type: str | None = None,
        interrupted_by: str = "",
    ) -> None:
        text = logs.report(
            run.request_id,
            self._output_of(run),
            duration_ms,
            memory_mb=self._launch.function.memory_mb,
            used_bytes=self._used_bytes,
            init_text=self._init_text,
            init_ms=self._init_ms,
            error_type=error_type,
            interrupted_by=interrupted_by,
        )
        self._init_text, self._init_ms = "", None
        sink.write(run.request_id, text)

    def _output_of(self, run: Run) -> str:
        """Give what an invocation has printed; what cannot be attributed stands before the next that ends."""
        if self._concurrency == 1:
            return self._printed()
        if self._output is not None:
            self._init_text += self._output.take_read()
        if not run.output:
            return ""
        text = b"".join(run.output).decode(errors="replace")
        return text if text.endswith("\n") else text + "\n"

    def _expect_output(self, *, awaited: bool) -> None:
        if self._output is not None:
            self._output.is_awaited = awaited

    def _printed(self) -> str:
        return self._output.take() if self._output is not None else ""

    # --- end

    @property
    def due_s(self) -> float | None:
        """Monotonic time at which `watch` has something to do beside looking at the memory; None while it is idle."""
        if self.is_ending:
            return None
        if not self.is_ready:
            return self._started_s + INIT_LIMIT_S
        if not self.running:
            return None
        due_s = max(self._deadline_s(self._oldest), self._turn_by_s or 0.0)
        return min(due_s, self._oldest_cancelled_s) if self._cancelled else due_s

    @property
    def _oldest(self) -> Run:
        return next(iter(self.running.values()))

    @property
    def _oldest_cancelled_s(self) -> float:
        return next(iter(self._cancelled.values())).cancel_by_s or 0.0

    def _deadline_s(self, run: Run) -> float:
        return run.started_s + self._timeout_s

    def watch(self, now_s: float) -> None:
        """Hold a busy worker to its limits of time and memory."""
        if self.due_s is not None and now_s >= self.due_s:
            self._overdue(now_s)
        if self.is_ending:
            return
        limit_bytes = self._launch.function.memory_bytes
        used_bytes = limits.used_bytes(self._pid, limit_bytes)
        self._used_bytes = max(self._used_bytes, used_bytes)
        if used_bytes > limit_bytes:
            sole = self._sole
            self.kill(faults.over_memory(sole.request_id if sole else "", limit_bytes, used_bytes))

    def _overdue(self, now_s: float) -> None:
        if not self.is_ready:
            self.kill(faults.init_timed_out(INIT_LIMIT_S))
        elif self._cancelled and now_s >= self._oldest_cancelled_s:
            self.kill(Cancelled())
        elif self._sole is not None:
            self._time_out(self._sole)
        elif self._turn_by_s is None:
            self._turn_by_s = now_s + TURN_PATIENCE_S
            self._channel.post(bootstrap.PING, b"")
        else:
            self.kill(faults.blocked(self._timeout_s))

    def _turns(self) -> None:
        """Learn that the event loop turns: what is late now had its chance to end."""
        self._turn_by_s = None
        if self.running and not self.is_ending and time.monotonic() >= self._deadline_s(self._oldest):
            self._time_out(self._oldest)

    def _time_out(self, run: Run) -> None:
        self.kill(faults.timed_out(run.request_id, self._timeout_s), blamed=run)

    @property
    def _sole(self) -> Run | None:
        return self._oldest if len(self.running) == 1 else None

    def broken(self, *, is_over: bool) -> None:
        sole = self._sole
        self.kill(None if is_over else faults.unreadable(sole.request_id if sole else ""))

    def kill(self, fate: FunctionError | Cancelled | None, *, blamed: Run | None = None) -> None:
        """End the process with everything it has started.

        What is to blame, or runs alone, ends with this fate, or as a crash without one. Others end as Cancelled.
        """
        if self._fate is None and fate is not None:
            self._fate = fate
            self._blamed = blamed or self._sole
        self.is_ending = True
        self._channel.stop()
        if self._cgroup is not None:
            self._cgroup.kill()
        for pid in limits.descendants(self._pid):  # those that have left the process group
            _kill(os.kill, pid)
        _kill(os.killpg, self._pid)

    def _on_exit(self) -> None:
        """The process has ended: by itself or because it was killed."""
        self.is_ending = True
        if self._fate is None or (self.is_ready and isinstance(self._fate, FunctionError)):
            self._channel.drain()  # what it has answered before counts
        _kill(os.killpg, self._pid)
        status = self._process.wait()
        if self.is_ready:
            self._end_runs(status)
        else:
            self._end_init(self._error(status, ""))

    def _end_runs(self, status: int) -> None:
        blamed = self._sole if self._fate is None else self._blamed
        error = self._error(status, blamed.request_id if blamed else "")
        ends = [self._end(run, error, blamed) for run in self.running.values()]
        self._release()
        self._owner.gone(self, ends, None)

    def _end(self, run: Run, error: FunctionError, blamed: Run | None) -> End:
        duration_ms = (time.monotonic() - run.started_s) * 1000
        is_cancelled = isinstance(self._fate, Cancelled) or run.cancel_by_s is not None
        is_blamed = run is blamed
        if self._launch.sink is not None:
            is_interrupted = not is_blamed and not is_cancelled
            error_type = INTERRUPTED if is_interrupted else error.error_type
            self._log(self._launch.sink, run, duration_ms, error_type, error.message if is_interrupted else "")
        if is_cancelled or not is_blamed:
            return End(run.invocation, Cancelled(), is_suspect=not is_cancelled and blamed is None)
        kind = FailureKind.TIMED_OUT if error.error_type == faults.TIMED_OUT else FailureKind.CRASHED
        return End(run.invocation, Failed(kind, error, duration_ms), is_suspect=False)

    def _end_init(self, error: FunctionError) -> None:
        duration_ms = (time.monotonic() - self._started_s) * 1000
        printed = self._printed()
        if self._fate is None:
            error = faults.with_last_line(error, printed)
        if self._launch.sink is not None:
            self._launch.sink.write("", logs.init_report(printed, duration_ms, error.error_type))
        self._release()
        self._owner.gone(self, (), error)

    def _error(self, status: int, request_id: str) -> FunctionError:
        if isinstance(self._fate, FunctionError):
            return self._fate
        if self._cgroup is not None and self._cgroup.ran_out():
            return faults.over_memory(request_id, self._launch.function.memory_bytes, None)
        return faults.exited(request_id, status)

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
