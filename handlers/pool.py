"""The workers of one function: as many as are wanted and allowed, each with one invocation at a time, or several.

Invocations wait in the order they came. Workers are started when somebody waits and kept afterwards: another one only
when all are full, for the sake of memory, but what is to be done is spread evenly over those that run, because each has
a processor of its own at best. Nothing on the way of an invocation awaits anything: it is written to a worker with room
at once, and its answer comes with a descriptor's readiness. A function that cannot be started or initialised costs one
waiting invocation per try (as Refused, which spends no attempt), and the tries are spaced out, so that a broken module
keeps no processor busy.

Where the function has become another one, new workers come from a nursery of its own. Those that there are take nothing
more and end with what they run, and with the last of them what they came from; until then they count as workers of the
function, which so keeps its limit.

What may have taken down a worker that ran several (`suspects`) has a line of its own, which goes first: one worker is
kept for it, takes nothing else, and runs as many of them together as each of them may.

Every limit is watched by one timer that runs only while something is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from handlers import faults
from handlers.archive import fingerprint
from handlers.function import FunctionSpec
from handlers.limits import CgroupHome
from handlers.logs import LogSink
from handlers.nursery import Note, Nursery, SnapStart
from handlers.output import Heard
from handlers.predecessors import WorkerLock
from handlers.process import Born, Launch, Unborn
from handlers.scratch import home
from handlers.suspects import Suspects
from handlers.worker import End, Worker
from handlers.zygote import Zygote
from router.core.model import EVENT_LIMIT_BYTES, Cancelled, Failed, FunctionError, Outcome, Refused, TooLarge
from router.ports import Invocation

_WATCH_INTERVAL_S: Final = 0.1
#: A look that comes so much too late says that we stood still: stopped, paused with the machine, without a core.
_STOOD_STILL_S: Final = 1.0
_RETRY_BASE_S: Final = 0.1
_RETRY_CAP_S: Final = 5.0
_CLOSE_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """What a function's workers do now."""

    workers: int
    #: Invocations that run, and that wait.
    busy: int
    waiting: int
    #: Why the function cannot be started or initialised; None once it could.
    error: FunctionError | None
    #: How it stands with forking them; None = not asked for.
    snap_start: SnapStart | None = None


class Pool:
    """An Invoker (router.ports) for one function.

    To be made and used on the event loop's thread, which must last as long as the workers: the kernel ties their lives
    to the thread that started them.
    """

    def __init__(
        self,
        function: FunctionSpec,
        *,
        state: Path,
        scratch: Path | None = None,
        lock: WorkerLock | None = None,
        sink: LogSink | None = None,
        cgroups: CgroupHome | None = None,
        heard: Heard | None = None,
        note: Note | None = None,
    ) -> None:
        self._function = function
        self._shares = function.concurrency_per_worker > 1
        self._state = state
        self._note = note or _forget
        #: Has the log of an invocation been asked for?
        self._tells_logs = False
        self._make_launch: Callable[[FunctionSpec, Path], Launch] = lambda function, root: Launch(
            function, root, scratch or home(state), lock, sink if function.logs else None, self._reads, cgroups, heard
        )
        self._nursery = self._new_nursery()
        #: Those that the workers came from which are outdated.
        self._former: list[Nursery] = []
        self._loop = asyncio.get_running_loop()
        self._workers: set[Worker] = set()
        #: Those that were started with what the function was before.
        self._outdated: set[Worker] = set()
        #: Those that can take what waits.
        self._open: list[Worker] = []
        self._waiting: deque[Invocation] = deque()
        self._suspects = Suspects()
        self._waiting_suspects: deque[Invocation] = deque()
        #: The worker that runs suspects and nothing else.
        self._kept: Worker | None = None
        self._watching: asyncio.TimerHandle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._retry_s = 0.0
        self._failures = 0
        self._error: FunctionError | None = None
        self._is_closed = False
        self._all_gone = asyncio.Event()

    # --- what the port asks for

    def invoke(self, invocation: Invocation) -> None:
        if self._is_closed:
            self._end(invocation, Cancelled())
            return
        if invocation.log is not None and not self._reads:
            self._tells_logs = True
            self.renew(self._function)
        is_suspect = invocation.request_id in self._suspects.companies
        (self._waiting_suspects if is_suspect else self._waiting).append(invocation)
        self._assign()

    def cancel(self, request_id: str, *, waiting_only: bool) -> None:
        for line in (self._waiting, self._waiting_suspects):
            for invocation in line:
                if invocation.request_id == request_id:
                    line.remove(invocation)
                    self._end(invocation, Cancelled())
                    return
        if not waiting_only:
            for worker in self._workers:
                worker.cancel(request_id)

    def renew(self, function: FunctionSpec) -> None:
        """Go on with a function that has changed, or whose code has; nothing that runs or waits ends by it."""
        self._function = function
        self._shares = function.concurrency_per_worker > 1
        self._failures = 0
        self._retry_s = 0.0
        self._error = None
        self._outdated |= self._workers
        self._open.clear()
        self._kept = None
        self._former.append(self._nursery)
        self._nursery.family = _Former(self)
        self._nursery = self._new_nursery()
        for worker in list(self._workers):
            if not worker.running:
                worker.kill(Cancelled())
        self._close_former()
        self._assign()

    def resize(self, function: FunctionSpec) -> None:
        """Go on with a function that has changed in nothing but how many workers it has, at most."""
        self._function = function
        surplus = len(self._current) - function.concurrency
        for worker in [each for each in self._open if not each.running][: max(0, surplus)]:
            self._open.remove(worker)
            worker.kill(Cancelled())
        self._assign()

    async def renew_if_changed(self) -> bool:
        """Go on with the code as it is now, if it is not what workers were started with; says whether it is."""
        before = self._nursery.code
        if before is None or before == await self._loop.run_in_executor(None, fingerprint, self._function.code):
            return False
        self.renew(self._function)
        return True

    def outdate(self, worker: Worker) -> None:
        """End a worker that was asked for before the function became another one."""
        self._workers.add(worker)
        self._outdated.add(worker)
        worker.kill(Cancelled())

    def hurry(self) -> None:
        """Try at once again what could not be started or initialised: somebody waits for the answer."""
        if self._retry_s:
            self._retry_s = 0.0
            self._assign()

    async def close(self) -> None:
        """Kill all workers and wait until they are gone; what waits or runs ends as Cancelled. May come twice."""
        self._is_closed = True
        for timer in (self._watching, self._retrying):
            if timer is not None:
                timer.cancel()
        for line in (self._waiting, self._waiting_suspects):
            while line:
                self._end(line.popleft(), Cancelled())
        for worker in self._workers:
            worker.kill(Cancelled())
        for nursery in (self._nursery, *self._former):
            nursery.close()
        if not self._is_empty:
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):  # one that the kernel cannot end: it runs no code any more
                async with asyncio.timeout(_CLOSE_PATIENCE_S):
                    await self._all_gone.wait()

    @property
    def status(self) -> PoolStatus:
        busy = sum(len(worker.running) for worker in self._workers)
        waiting = len(self._waiting) + len(self._waiting_suspects)
        return PoolStatus(len(self._workers), busy, waiting, self._error, self._nursery.snap_start)

    @property
    def _reads(self) -> bool:
        """Is what workers print read? Where no logs are kept, from the first invocation on whose log is wanted."""
        return self._function.logs or self._tells_logs

    @property
    def _is_empty(self) -> bool:
        return not self._workers and all(each.zygote is None for each in (self._nursery, *self._former))

    @property
    def _current(self) -> set[Worker]:
        return self._workers - self._outdated if self._outdated else self._workers

    # --- handing out

    def _assign(self) -> None:
        """Give what waits to who is free."""
        if self._waiting_suspects:
            self._assign_suspects()
        while self._waiting and self._open:
            self._start(self._waiting.popleft(), self._pick() if self._shares else self._open.pop())
        if (self._waiting or self._waiting_suspects) and not self._is_closed:
            self._grow()

    def _pick(self) -> Worker:
        """Take the worker that has least to do."""
        if len(self._open) == 1:
            return self._open.pop()
        worker = min(self._open, key=_load)
        self._open.remove(worker)
        return worker

    def _assign_suspects(self) -> None:
        """Give suspects to the worker that is kept for them, as many as may run together."""
        if self._kept is None:
            self._kept = self._choose_kept()
        kept = self._kept
        while kept is not None and kept.has_room and self._waiting_suspects:
            ids = (self._waiting_suspects[0].request_id, *(running.request_id for running, _ in kept.running.values()))
            companies = self._suspects.companies
            if len(kept.running) >= min((companies[each] for each in ids if each in companies), default=1):
                return
            self._start(self._waiting_suspects.popleft(), kept)

    def _choose_kept(self) -> Worker | None:
        """Take a worker out of the others' line: an empty one, a new one where one may be started, or one that empties.

        None = wait for the new one.
        """
        able = [worker for worker in self._current if worker.is_ready and not worker.is_ending]
        least = min(able, key=_load, default=None)
        if least is None or (least.running and self._may_grow):
            return None
        if least in self._open:
            self._open.remove(least)
        return least

    def _start(self, invocation: Invocation, worker: Worker) -> None:
        """Begin it on a worker with room, which goes back to the line if it has more."""
        try:
            event = invocation.event()
        except Exception:  # noqa: BLE001  a batch that cannot be encoded is split, like one that is too large
            self._end(invocation, TooLarge(0))
            self._reopen(worker)
            return
        if len(event) > EVENT_LIMIT_BYTES:
            self._end(invocation, TooLarge(len(event)))
        elif worker.begin(invocation, event):
            if self._watching is None:
                self._watch_soon()
            if not self._shares:
                return
        else:
            (self._waiting_suspects if worker is self._kept else self._waiting).appendleft(invocation)
        self._reopen(worker)

    def _reopen(self, worker: Worker) -> None:
        """Put a worker that has room into the line; one that is outdated ends when it has nothing to do."""
        if worker in self._outdated:
            if not worker.running:
                worker.kill(Cancelled())
            return
        if worker is self._kept:
            if self._waiting_suspects or worker.running:
                return
            self._kept = None
        if worker.has_room and worker not in self._open:
            self._open.append(worker)

    def _end(self, invocation: Invocation, outcome: Outcome) -> None:
        """End an invocation that no worker has taken, not from inside the call that brought it."""
        self._loop.call_soon(invocation.done, outcome)

    # --- what workers tell

    def ready(self, worker: Worker) -> None:
        self._failures = 0
        self._retry_s = 0.0
        self._error = None
        self.flowing(worker)

    def flowing(self, worker: Worker) -> None:
        self._reopen(worker)
        self._assign()

    def ended(self, worker: Worker, invocation: Invocation, outcome: Outcome) -> None:
        if self._shares or worker in self._outdated:
            if not isinstance(outcome, Cancelled):
                self._suspects.clear(invocation.request_id)
            self._reopen(worker)
        else:
            self._open.append(worker)
        if self._waiting or self._waiting_suspects:
            self._assign()
        invocation.done(outcome)

    def gone(self, worker: Worker, ends: Sequence[End], unborn: Unborn | None) -> None:
        self._workers.discard(worker)
        is_outdated = worker in self._outdated
        self._outdated.discard(worker)
        with contextlib.suppress(ValueError):
            self._open.remove(worker)
        if self._kept is worker:
            self._kept = None
        if unborn is not None and not is_outdated:
            self._refuse(unborn)
        if self._shares:
            self._note_suspects(ends)
        self.changed()
        for invocation, outcome, _ in ends:
            invocation.done(outcome)

    def _note_suspects(self, ends: Sequence[End]) -> None:
        self._suspects.suspect([invocation.request_id for invocation, _, is_suspect in ends if is_suspect])
        for invocation, outcome, _ in ends:
            if isinstance(outcome, Failed):
                self._suspects.blame(invocation.request_id)

    # --- starting workers

    @property
    def _may_grow(self) -> bool:
        return len(self._workers) + self._nursery.awaited < self._function.concurrency

    def _grow(self) -> None:
        """Start a worker if one more is wanted and allowed, and it is time."""
        self._watch_soon()
        if not self._may_grow:
            return
        starting = sum(not worker.is_ready for worker in self._current) + self._nursery.awaited
        room = starting * self._function.concurrency_per_worker
        if self._waiting_suspects and self._kept is None:
            room -= self._function.concurrency_per_worker  # one will be kept for them
        if room >= len(self._waiting):
            return
        wait_s = self._retry_s - time.monotonic()
        if wait_s > 0:
            if self._retrying is None:
                self._retrying = self._loop.call_later(wait_s, self._retry)
        elif self._nursery.is_ready:
            self._nursery.start()
            self._loop.call_soon(self._assign)  # perhaps one more

    def _new_nursery(self) -> Nursery:
        function = self._function
        return Nursery(function, self, self._state, lambda root: self._make_launch(function, root), self._note)

    def _close_former(self) -> None:
        """End what outdated workers came from, once there is none of them."""
        if not self._outdated:
            for nursery in self._former:
                nursery.close()
            self._former = [nursery for nursery in self._former if nursery.zygote is not None]

    def _retry(self) -> None:
        self._retrying = None
        self._assign()

    def born(self, launch: Launch, born: Born) -> None:
        self._workers.add(Worker(launch, born, self))
        self._watch_soon()

    def failed(self, unborn: Unborn) -> None:
        self._refuse(unborn)
        self._loop.call_soon(self.changed)

    def changed(self) -> None:
        self._close_former()
        if self._is_empty:
            self._all_gone.set()
        self._assign()

    def _refuse(self, unborn: Unborn) -> None:
        """End one waiting invocation, and wait longer before the next try."""
        self._error = unborn.error
        self._retry_s = time.monotonic() + min(_RETRY_BASE_S * 2**self._failures, _RETRY_CAP_S)
        self._failures = min(self._failures + 1, 16)
        line = self._waiting_suspects or self._waiting
        if line:
            invocation = line.popleft()
            if invocation.log is not None:
                invocation.log(unborn.log)
            self._end(invocation, Refused(unborn.error, initialising=unborn.error.error_type != faults.NOT_STARTED))

    # --- limits

    def _watch_soon(self) -> None:
        if self._watching is None:
            self._watch_in(min(_WATCH_INTERVAL_S, self._function.timeout_s))

    def _watch_in(self, delay_s: float) -> None:
        self._watching = self._loop.call_later(delay_s, self._watch, time.monotonic() + delay_s)

    def _watch(self, planned_s: float) -> None:
        self._watching = None
        now_s = time.monotonic()
        late_s = now_s - planned_s
        if late_s >= _STOOD_STILL_S:  # the functions may have stood still with us: no fault of theirs
            for worker in self._workers:
                worker.postpone(late_s)
        watched: list[Worker | Zygote] = [*self._workers]
        watched += [each.zygote for each in (self._nursery, *self._former) if each.zygote is not None]
        for process in watched:
            if process.due_s is not None:
                process.watch(now_s)
        due_s = [process.due_s for process in watched if process.due_s is not None]
        if due_s:
            self._watch_in(min(_WATCH_INTERVAL_S, max(0.0, min(due_s) - now_s)))


class _Former:
    """Hears what a nursery tells that the pool has left behind."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def born(self, launch: Launch, born: Born) -> None:
        self._pool.outdate(Worker(launch, born, self._pool))

    def failed(self, unborn: Unborn) -> None:  # noqa: ARG002 - of what is left behind
        self._pool.changed()

    def changed(self) -> None:
        self._pool.changed()


def _forget(event: str, **fields: object) -> None:
    """Nobody keeps a log."""


def _load(worker: Worker) -> int:
    return len(worker.running)
