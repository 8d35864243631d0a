"""Takes the configuration up anew: when a signal asks for it, and when a file that it was made of has changed.

The files are looked at twice a second instead of being watched by the kernel: that costs one stat each, sees through
the links by which Kubernetes exchanges a volume and editors a file, and works on network file systems, where changes by
others raise no event. A file that still changes between two looks is being written, and left alone until it is still.

A file that cannot be used changes nothing: the former one goes on, and what is wrong is in the log, in the status and
in a metric until one can be used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from router.errors import ConfigError
from router.failures.record import iso_ms
from router.ports import WallClock
from router.telemetry import Log, Metrics

C = TypeVar("C")

#: Between two looks at the files.
LOOK_S: Final = 0.5
#: Longest time for which reading a file keeps the event loop from going on: Python's own 5 ms, at every step of every
#: record, would be felt for as long as a large file takes.
_SWITCH_S: Final = 0.0005
_USUAL_SWITCH_S: Final = sys.getswitchinterval()


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a configuration that was taken on has changed."""

    #: Mappings, by what became of them: start, stop, replace.
    counts: Mapping[str, int]
    #: Functions that have new workers.
    renewed: Sequence[str]
    #: Keys that changed and are taken on at once.
    taken_on: Sequence[str]
    #: Keys that changed and hold from the next start of the daemon on.
    need_restart: Sequence[str]


@contextlib.contextmanager
def gently() -> Iterator[None]:
    """Let a thread that has much to do give way to the others sooner."""
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_SWITCH_S)


class Reloader(Generic[C]):
    """Keeps what runs at what the files say."""

    def __init__(
        self,
        path: Path,
        seen: Mapping[Path, Hashable],
        *,
        read: Callable[[dict[Path, Any]], C],
        look: Callable[[Mapping[Path, Any]], Mapping[Path, Hashable]],
        adopt: Callable[[C, bool], Coroutine[Any, Any, Adopted]],
        log: Log,
        metrics: Metrics,
        wall: WallClock,
        look_s: float = LOOK_S,
    ) -> None:
        """Make it, over a configuration that was read and runs.

        Args:
            path: the configuration, for people.
            seen: the files that it was made of, as they were then.
            read: reads it, in a thread, and notes the files; raises ConfigError.
            look: looks at files again, in a thread.
            adopt: changes what runs; with True, also where only code has changed. Raises ConfigError.
            log: is told of every reload.
            metrics: likewise.
            wall: for the times of reloads.
            look_s: between two looks.
        """
        self._path = path
        self._seen = seen
        self._read = read
        self._look = look
        self._adopt = adopt
        self._log = log
        self._metrics = metrics
        self._wall = wall
        self._look_s = look_s
        self._asked = asyncio.Event()
        self._loaded_s = wall()
        self._mistakes: tuple[str, ...] = ()
        self._refused_s = 0.0
        self._need_restart: Sequence[str] = ()
        self._tell_metrics()

    def ask(self) -> None:
        """Have the configuration taken up anew, soon; asked again before it began, it is done once."""
        self._asked.set()

    def status(self) -> dict[str, Any]:
        """Give the member `config` of the status."""
        refused = {"at": iso_ms(self._refused_s), "mistakes": list(self._mistakes)} if self._mistakes else None
        return {
            "file": str(self._path),
            "loaded_at": iso_ms(self._loaded_s),
            "refused": refused,
            "needs_restart": list(self._need_restart),
        }

    async def run(self) -> None:
        """Follow the files and what is asked until cancelled."""
        while True:
            await self._change()
            by_hand = self._asked.is_set()
            self._asked.clear()
            await self._reload(by_hand=by_hand)

    async def _change(self) -> None:
        """Wait until it is asked for, or files have changed and are still again."""
        before: Mapping[Path, Hashable] | None = None
        while not self._asked.is_set():
            now = await asyncio.to_thread(self._look, self._seen)
            if now != self._seen and now == before:
                return
            before = now
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._asked.wait()

    async def _reload(self, *, by_hand: bool) -> None:
        seen: dict[Path, Hashable] = {}
        try:
            with gently():
                configuration = await asyncio.to_thread(self._read, seen)
            adopted = await self._adopt(configuration, by_hand)
        except ConfigError as error:
            # A file that cannot be read names not all that it needs: those of the former go on being looked at.
            self._seen = {**await asyncio.to_thread(self._look, self._seen), **seen}
            self._mistakes, self._refused_s = tuple(str(error).splitlines()), self._wall()
            self._log.write("config.refused", file=str(self._path), mistakes=self._mistakes)
        else:
            self._seen = seen
            self._loaded_s, self._mistakes = self._wall(), ()
            self._tell(adopted)
        self._tell_metrics()

    def _tell(self, adopted: Adopted) -> None:
        self._log.write(
            "config.reloaded",
            file=str(self._path),
            **adopted.counts,
            renewed=adopted.renewed or None,
            taken_on=adopted.taken_on or None,
        )
        if adopted.need_restart and adopted.need_restart != self._need_restart:
            self._log.write("config.needs_restart", keys=adopted.need_restart)
        self._need_restart = adopted.need_restart

    def _tell_metrics(self) -> None:
        self._metrics.config_usable.set(not self._mistakes)
        self._metrics.config_loaded.set(self._loaded_s)
        self._metrics.config_needs_restart.set(bool(self._need_restart))
