"""One worker as the daemon sees it: a process that runs invocations.

Nothing here waits. A worker tells its owner that it is ready, has ended an invocation, has room again, or is gone. What
ends it early (time, memory, a cancelled invocation) is noted as its fate and the whole process group is killed; what it
ran ends once the process has, so that nothing of it overlaps with what comes next.

Where it runs several invocations, only the one that is to blame ends as Failed; all others end as Cancelled, not as
Refused: they are to run again at once, without backoff and without news for the operator. To blame is what was alone,
or what is late while the event loop turns, which the loop has to show then. Where the loop does not turn, the memory is
too much or the process crashes, nobody knows, and all are told as suspects.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import orjson

from handlers import bootstrap, faults, limits, logs, results
from handlers.log_forms import Ended
from handlers.output import LIMIT_BYTES
from handlers.process import INIT_LIMIT_S, Born, Launch, Process, Unborn
from router.core.model import Cancelled, Failed, FailureKind, FunctionError, Outcome, Returned
from router.ports import Invocation, Told

#: Time that a cancelled task has to end while others run beside it.
CANCEL_PATIENCE_S: Final = 1.0
#: Time in which an event loop that turns shows it.
TURN_PATIENCE_S: Final = 0.25
#: How often a sink that takes pieces has what was printed.
SHOW_INTERVAL_S: Final = 1.0
#: Error type in the log of what ended with its worker through no known fault of its own.
INTERRUPTED: Final = "Headrace.Interrupted"
_FAILURES: Final = {bootstrap.RAISED: FailureKind.RAISED, bootstrap.BAD_RESULT: FailureKind.BAD_RESPONSE}
_ERRORS: Final = (*_FAILURES, bootstrap.INIT_FAILED)


#: An invocation, and when it began (monotonic). A tuple, because one is made for each.
Run = tuple[Invocation, float]


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

    def gone(self, worker: Worker, ends: Sequence[End], unborn: Unborn | None) -> None:
        """Learn that the process has ended: with these invocations, or because it could not initialise."""
        ...


class Worker:
    """A live worker process, which is being initialised at first."""

    def __init__(self, launch: Launch, born: Born, owner: Owner) -> None:
        self._launch = launch
        self._owner = owner
        self._timeout_s = launch.function.timeout_s
        self._concurrency = launch.function.concurrency_per_worker
        self._is_forked = born.is_forked
        self._init_limit_s = INIT_LIMIT_S if born.is_forked else launch.import_limit_s
        #: What it runs, oldest first, by the number that frames carry.
        self.running: dict[int, Run] = {}
        self.is_ready = False
        #: Is it being killed?
        self.is_ending = False
        self._last_slot = 0
        self._fate: FunctionError | Cancelled | None = None
        #: Slot of the invocation whose fault that is, where it is known.
        self._blamed: int | None = None
        #: What each has printed, where the worker tells them apart.
        self._outputs: dict[int, list[bytes]] = {}
        #: What of the log of each its sink has already, where somebody else wants it whole.
        self._shown: dict[int, str] = {}
        self._show_s = 0.0
        self._stream = born.stream
        #: Monotonic time by which each that was cancelled must have ended, oldest first.
        self._cancelled: dict[int, float] = {}
        #: Monotonic time by which the event loop must show that it turns; None = it was not asked.
        self._turn_by_s: float | None = None
        self._init_text = ""
        self._init_ms: float | None = None
        self._used_bytes = 0
        self._process = Process(launch, born, self)
        self._channel = self._process.channel
        self._output = self._process.output
        try:
            self._process.load(launch.restoring(born) if born.is_forked else launch.setup(forks=False))
        except OSError as error:
            self.kill(faults.not_set_up(launch.function.name, error))

    def _become_ready(self) -> None:
        self.is_ready = True
        self._init_ms = (time.monotonic() - self._process.started_s) * 1000
        self._used_bytes = limits.resident_bytes(self._process.pid)
        self._init_text = self._process.printed()
        if self._output is not None:
            self._output.is_awaited = False
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
        slot = (self._last_slot + 1) & 0xFFFF  # what ended lately may still print: its number is not taken at once
        request_id = invocation.request_id.encode()
        kind = bootstrap.INVOKE
        if invocation.told is not None:
            kind, event = bootstrap.INVOKE_TOLD, _with_told(invocation.told, event)
        if self.running:
            while slot in self.running:
                slot = (slot + 1) & 0xFFFF
            self._channel.post(kind, event, number, request_id, slot)
        elif not self._channel.send(kind, event, number, request_id, slot):
            self.kill(None)
            return False
        elif self._output is not None:
            self._output.is_awaited = True
            if self._output.is_paused:
                self._output.resume()
        self._last_slot = slot
        self.running[slot] = (invocation, now_s)
        return True

    def cancel(self, request_id: str) -> None:
        """End it, if it runs here, as Cancelled: its task alone while there are others, else with the process."""
        for slot, (invocation, _) in self.running.items():
            if invocation.request_id == request_id:
                if len(self.running) == 1:
                    self.kill(Cancelled())
                elif slot not in self._cancelled:
                    self._cancelled[slot] = time.monotonic() + CANCEL_PATIENCE_S
                    self._channel.post(bootstrap.CANCEL, b"", slot=slot)
                return

    def received(self, kind: int, slot: int, body: bytes, number: int) -> None:
        run = self.running.get(slot)
        if run is not None and kind == bootstrap.RETURNED:
            self._finish(slot, run[0], Returned(results.read(run[0], body), number / 1000))
            return
        try:
            error = faults.reported(body) if kind in _ERRORS else None
        except ValueError:
            self.broken(is_over=False)
            return
        if run is not None and error is not None and kind in _FAILURES:
            self._finish(slot, run[0], Failed(_FAILURES[kind], error, number / 1000))
        elif not self.is_ready and kind == bootstrap.READY:
            self._become_ready()
        elif not self.is_ready and kind == bootstrap.INIT_FAILED:
            self.kill(error)
        elif self._concurrency > 1 and kind == bootstrap.OUTPUT:
            if run is not None:
                self._outputs.setdefault(slot, []).append(body)
            if self._launch.heard is not None:
                self._launch.heard(body)
        elif self._concurrency > 1 and kind == bootstrap.PONG:
            self._turns()
        else:
            self.broken(is_over=False)

    def _finish(self, slot: int, invocation: Invocation, outcome: Returned | Failed) -> None:
        if slot == self._blamed:  # too late
            return
        del self.running[slot]
        if not self.running and self._output is not None:
            self._output.is_awaited = False
        if self._output is not None:
            self._log(slot, invocation, outcome.duration_ms)
        if self._cancelled and self._cancelled.pop(slot, 0.0):
            self._owner.ended(self, invocation, Cancelled())
        else:
            self._owner.ended(self, invocation, outcome)

    def flowing(self) -> None:
        self._owner.flowing(self)

    # --- output

    def _log(
        self,
        slot: int,
        invocation: Invocation,
        duration_ms: float,
        error_type: str | None = None,
        interrupted_by: str = "",
    ) -> None:
        printed = self._process.printed() if self._concurrency == 1 else self._printed_by(slot)
        sink = self._launch.sink
        if sink is None and invocation.log is None:
            return
        shown = self._shown.pop(slot, None)
        text = self._opening(invocation.request_id) if shown is None else ""
        ended = Ended(
            invocation.request_id,
            duration_ms,
            self._launch.function.memory_mb,
            self._used_bytes,
            self._init_ms,
            self._is_forked,
            error_type,
            interrupted_by,
        )
        text += self._launch.form.report(printed, ended)
        self._init_ms = None
        if sink is not None:
            sink.write(invocation.request_id, text, self._stream)
        if invocation.log is not None:
            invocation.log((shown or "") + text)

    def _opening(self, request_id: str) -> str:
        text, self._init_text = self._init_text, ""
        return text + self._launch.form.opening(request_id, self._launch.function.version)

    def _show(self, sink: logs.LogSink) -> None:
        """Let a sink that takes pieces have the lines that were printed until now."""
        for slot, (invocation, _) in self.running.items():
            text = "" if slot in self._shown else self._opening(invocation.request_id)
            text += self._process.printed_lines() if self._concurrency == 1 else self._lines_by(slot)
            if text:
                sink.write(invocation.request_id, text, self._stream)
            before = self._shown.get(slot, "")
            self._shown[slot] = before if invocation.log is None else (before + text)[-LIMIT_BYTES:]

    def _lines_by(self, slot: int) -> str:
        """Give the whole lines that one of several has printed."""
        printed = b"".join(self._outputs.pop(slot, ()))
        end = printed.rfind(b"\n") + 1
        if end < len(printed):
            self._outputs[slot] = [printed[end:]]
        return printed[:end].decode(errors="replace")

    def _printed_by(self, slot: int) -> str:
        """Give what one of several has printed; what cannot be attributed stands before the next that ends."""
        if self._output is not None:
            self._init_text += self._output.take_read()
        pieces = self._outputs.pop(slot, None)
        if pieces is None:
            return ""
        text = b"".join(pieces).decode(errors="replace")
        return text if text.endswith("\n") else text + "\n"

    # --- end

    @property
    def due_s(self) -> float | None:
        """Monotonic time at which `watch` has something to do beside looking at the memory; None while it is idle."""
        if self.is_ending:
            return None
        if not self.is_ready:
            return self._process.started_s + self._init_limit_s
        if not self.running:
            return None
        due_s = max(self._deadline_s(self._oldest), self._turn_by_s or 0.0)
        return min(due_s, *self._cancelled.values()) if self._cancelled else due_s

    @property
    def _oldest(self) -> int:
        return next(iter(self.running))

    @property
    def _sole(self) -> int | None:
        return self._oldest if len(self.running) == 1 else None

    def _request_id(self, slot: int | None) -> str:
        return "" if slot is None else self.running[slot][0].request_id

    def _deadline_s(self, slot: int) -> float:
        return self.running[slot][1] + self._timeout_s

    def postpone(self, by_s: float) -> None:
        """Give what runs so much longer."""
        self.running.update({slot: (run, began_s + by_s) for slot, (run, began_s) in self.running.items()})
        self._cancelled.update({slot: end_s + by_s for slot, end_s in self._cancelled.items()})

    def _is_due(self, now_s: float) -> bool:
        return self.due_s is not None and now_s >= self.due_s

    def watch(self, now_s: float) -> None:
        """Hold a busy worker to its limits of time and memory."""
        sink = self._launch.sink
        if sink is not None and sink.is_live and now_s >= self._show_s:
            self._show_s = now_s + SHOW_INTERVAL_S
            self._show(sink)
        if self._is_due(now_s):
            self._channel.drain()  # what it has answered before counts, though nobody has read it yet
        if self._is_due(now_s):
            self._overdue(now_s)
        if self.is_ending:
            return
        limit_bytes = self._launch.function.memory_bytes
        used_bytes = limits.used_bytes(self._process.pid, limit_bytes)
        self._used_bytes = max(self._used_bytes, used_bytes)
        if used_bytes > limit_bytes:
            self.kill(faults.over_memory(self._request_id(self._sole), limit_bytes, used_bytes))

    def _overdue(self, now_s: float) -> None:
        if not self.is_ready:
            self.kill(faults.init_timed_out(self._init_limit_s, is_restored=self._is_forked))
        elif any(by_s <= now_s for by_s in self._cancelled.values()):
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

    def _time_out(self, slot: int) -> None:
        self.kill(faults.timed_out(self._request_id(slot), self._timeout_s), blamed=slot)

    def broken(self, *, is_over: bool) -> None:
        self.kill(None if is_over else faults.unreadable(self._request_id(self._sole)))

    def kill(self, fate: FunctionError | Cancelled | None, *, blamed: int | None = None) -> None:
        """End the process with everything it has started.

        What is to blame (a slot), or runs alone, ends with this fate, or as a crash without one. All else ends as
        Cancelled.
        """
        if self._fate is None and fate is not None:
            self._fate = fate
            self._blamed = self._sole if blamed is None else blamed
        self.is_ending = True
        self._process.kill()

    def ending(self) -> None:
        self.is_ending = True
        if self._fate is None or (self.is_ready and isinstance(self._fate, FunctionError)):
            self._channel.drain()  # what it has answered before counts

    def ended(self, status: int | None) -> None:
        # It was killed with the process that it was forked from, or by our leash, because we were not there in time.
        if self._fate is None and (status is None or self._process.is_leashed):
            self._fate = Cancelled()
        if self.is_ready:
            self._end_runs(status)
        else:
            self._end_init(status)

    def _end_runs(self, status: int | None) -> None:
        if self._fate is None:
            self._blamed = self._sole
        error = self._error(status, self._request_id(self._blamed))
        ends = [self._end(slot, invocation, began_s, error) for slot, (invocation, began_s) in self.running.items()]
        self._process.release()
        self._owner.gone(self, ends, None)

    def _end(self, slot: int, invocation: Invocation, began_s: float, error: FunctionError) -> End:
        duration_ms = (time.monotonic() - began_s) * 1000
        is_cancelled = isinstance(self._fate, Cancelled) or slot in self._cancelled
        is_interrupted = not is_cancelled and slot != self._blamed
        if self._output is not None:
            error_type, reason = (INTERRUPTED, error.message) if is_interrupted else (error.error_type, "")
            self._log(slot, invocation, duration_ms, error_type, reason)
        if is_cancelled or is_interrupted:
            return End(invocation, Cancelled(), is_suspect=is_interrupted and self._blamed is None)
        kind = FailureKind.TIMED_OUT if error.error_type == faults.TIMED_OUT else FailureKind.CRASHED
        return End(invocation, Failed(kind, error, duration_ms), is_suspect=False)

    def _end_init(self, status: int | None) -> None:
        fate = self._fate if isinstance(self._fate, FunctionError) else None
        unborn = self._process.failed_init(fate, status)
        self._process.release()
        self._owner.gone(self, (), None if isinstance(self._fate, Cancelled) else unborn)

    def _error(self, status: int | None, request_id: str) -> FunctionError:
        return self._fate if isinstance(self._fate, FunctionError) else self._process.error(status, request_id)


def _with_told(told: Told, event: bytes) -> bytes:
    """Put what is told of an invocation before its event."""
    text = orjson.dumps(told)
    return b"".join((bootstrap.TOLD_LENGTH.pack(len(text)), text, event))
