"""How log lines look: JSON on standard error, or coloured for people who watch."""

from __future__ import annotations

import atexit
import logging
import sys
from typing import Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from router.log_pipe import LogPipe
from router.telemetry import LEVELS, Log

#: Shortest time between two lines for the same message of a library.
REPEAT_S: Final = 30.0
#: Messages that are told apart at once.
_DIFFERENT: Final = 1000


def configure(level: str, *, coloured: bool) -> LogPipe:
    """Set how this process logs, also what libraries say; to be called once, before anything logs.

    From then on nothing that is written to standard error waits for who reads it. Gives what carries the lines.
    """
    render: Processor = structlog.dev.ConsoleRenderer() if coloured else _json
    pipe = LogPipe(sys.stderr.fileno(), lambda lines: log.write("log.dropped", lines=lines))
    sys.stderr = pipe  # it has what anybody uses of a text stream
    atexit.register(pipe.finish)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_: _Printer(pipe),
        cache_logger_on_first_use=True,
    )
    log = Log(level)
    # Client libraries log what they also raise, and raise what we log: only their warnings are of use.
    logging.basicConfig(level=max(logging.WARNING, LEVELS[level]), handlers=[_Foreign(log)])
    return pipe


def set_level(log: Log, level: str) -> None:
    """Change how much a log writes, and how much libraries say."""
    log.set_level(level)
    root = logging.getLogger()
    root.setLevel(max(logging.WARNING, LEVELS[level]))
    for handler in root.handlers:
        if isinstance(handler, _Foreign):
            handler.log.set_level(level)


class _Printer:
    """What structlog hands a line to; which level it is of has been decided."""

    def __init__(self, pipe: LogPipe) -> None:
        self._pipe = pipe

    def debug(self, line: str) -> None:
        self._pipe.write(line + "\n")

    info = warning = error = debug


def _json(_: Any, __: str, fields: EventDict) -> str:
    first = {name: fields.pop(name) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode({**first, **fields}, enc_hook=str).decode()


class _Foreign(logging.Handler):
    """Gives log records of libraries the form of ours; what one repeats is written once a while, with a count.

    A client that reconnects says so ten times a second, for as long as its broker is away.
    """

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        #: When each message of a logger was written last, epoch seconds, and how often it has been left out since.
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        what = (record.name, str(record.msg))
        last_s, left_out = self._said.get(what, (0.0, 0))
        if record.created - last_s < REPEAT_S:
            self._said[what] = (last_s, left_out + 1)
            return
        if len(self._said) >= _DIFFERENT:
            self._said.clear()
        self._said[what] = (record.created, 0)
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self.log.write(
            "library.warned", logger=record.name, message=record.getMessage(), left_out=left_out or None, trace=trace
        )
