"""`headrace invoke`: one invocation as who writes the handler wants it. The workers are handed in.

What the handler prints goes to standard error as it comes, between the lines that Lambda puts around it; its result
goes to standard output, so that both can be redirected. For machines both are members of one document.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol
from uuid import uuid4

import msgspec

from router.core.error_object import error_object
from router.core.literal import refuse_constant
from router.core.model import EVENT_LIMIT_BYTES, Cancelled, Failed, FunctionError, Outcome, Refused, Returned, TooLarge
from router.errors import ConfigError, HandlerUnavailable
from router.ports import Invocation, Invoker

#: What is given without `--event`.
NOTHING: Final = b"{}"
#: The event comes from standard input.
STANDARD_INPUT: Final = "-"
_BOM: Final = b"\xef\xbb\xbf"
_escape_wide: Final = re.compile(r"[^\x00-\x7f]").sub


class Sink(Protocol):
    """Takes the log of ended invocations, as a function's workers give it."""

    @property
    def is_live(self) -> bool: ...

    def write(self, request_id: str, text: str, stream: str = "") -> None: ...


#: Hears what the worker prints as it comes.
Heard = Callable[[bytes], None]
#: Makes the workers of the function, which give their log to the one and what they print to the other.
MakeInvoker = Callable[[Sink, Heard], Invoker]


@dataclass(frozen=True, slots=True)
class Invoked:
    """How the invocation went."""

    request_id: str
    outcome: Returned | Failed | Refused
    #: With the lines that Lambda puts around what the handler prints.
    log: str


# --- before


def known(functions: Iterable[str], name: str, elsewhere: str = "") -> str:
    """Give a function's name. Raises ConfigError: there is no such function; `elsewhere` says what else to do."""
    names = sorted(functions)
    if name not in names:
        there_are = f"there are {', '.join(names)}" if names else "the file has none"
        raise ConfigError(f"there is no function {name!r}; {there_are}{elsewhere}")
    return name


def read_event(source: str | None) -> bytes:
    """Read the event out of a file, or standard input, as it stands there.

    Raises:
        ConfigError: it cannot be read, is no JSON, or larger than a function may be given.
    """
    if source is None:
        return NOTHING
    name = "standard input" if source == STANDARD_INPUT else source
    try:
        text = _read(source)
    except OSError as error:
        raise ConfigError(f"the event cannot be read: {name}: {error.strerror}") from error
    event = text.removeprefix(_BOM)
    if len(event) > EVENT_LIMIT_BYTES:
        raise ConfigError(f"the event in {name} is larger than a function may be given: {EVENT_LIMIT_BYTES} bytes")
    _require_json(name, event)
    return event


def _read(source: str) -> bytes:
    """Read a little more than may be, whatever there is."""
    most = EVENT_LIMIT_BYTES + len(_BOM) + 1
    if source == STANDARD_INPUT:
        return sys.stdin.buffer.read(most)
    with Path(source).open("rb") as file:
        return file.read(most)


def _require_json(name: str, event: bytes) -> None:
    if not event.strip():
        raise ConfigError(f"the event in {name} is not JSON: there is nothing in it")
    try:
        json.loads(event.decode(), parse_int=float, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise ConfigError(f"the event in {name} is not JSON: it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the event in {name} is not JSON: line {error.lineno} column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the event in {name} is not JSON: {error}") from error


# --- the invocation


class _Kept:
    """A Sink that keeps the log."""

    is_live = False

    def __init__(self) -> None:
        self.text = ""

    def write(self, request_id: str, text: str, stream: str = "") -> None:  # noqa: ARG002 - there is one request
        self.text += text


class ShownLog(Protocol):
    """Shows the log of one invocation."""

    def began(self, request_id: str) -> None: ...

    def heard(self, piece: bytes) -> None: ...

    def ended(self, log: str) -> None: ...


class WholeLog:
    """Writes the log of a function that runs elsewhere, which comes with its answer."""

    def __init__(self, to: BinaryIO) -> None:
        self._to = to

    def began(self, request_id: str) -> None:
        """Nothing is known yet."""

    def heard(self, piece: bytes) -> None:
        """Nobody hears what it prints."""

    def ended(self, log: str) -> None:
        self._to.write(log.encode(errors="backslashreplace"))
        self._to.flush()


class LiveLog:
    """Writes the log as it comes: bytes, as the handler prints them."""

    def __init__(self, to: BinaryIO) -> None:
        self._to = to
        self._at_line_start = True

    def began(self, request_id: str) -> None:
        self._line(f"START RequestId: {request_id} Version: $LATEST")

    def heard(self, piece: bytes) -> None:
        self._write(piece)
        self._at_line_start = piece.endswith(b"\n")

    def ended(self, log: str) -> None:
        """Write what the whole log has behind what was printed."""
        lines = log.splitlines()[-2:]
        for line in lines[-1:] if lines[-1].startswith("INIT_REPORT ") else lines:
            self._line(line)

    def _line(self, line: str) -> None:
        self._write(f"{'' if self._at_line_start else chr(10)}{line}\n".encode(errors="backslashreplace"))
        self._at_line_start = True

    def _write(self, piece: bytes) -> None:
        self._to.write(piece)
        self._to.flush()


async def invoke(make: MakeInvoker, event: bytes, live: ShownLog | None) -> Invoked:
    """Run the event once; whatever happens, no worker is left.

    Raises:
        BrokenPipeError: who reads the log has seen enough.
        HandlerUnavailable: no worker can be started, or the event is not accepted.
    """
    request_id = str(uuid4())
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def tell(what: Callable[[ShownLog], None]) -> None:
        """Tell the log something. Its reader may be gone, and this is called from inside the workers' machinery."""
        if live is not None and not ended.done():
            try:
                what(live)
            except BrokenPipeError as error:
                ended.set_exception(error)

    def begin() -> bytes:
        tell(lambda log: log.began(request_id))
        return event

    def done(outcome: Outcome) -> None:
        if not ended.done():
            ended.set_result(outcome)

    kept = _Kept()
    invoker = make(kept, lambda piece: tell(lambda log: log.heard(piece)))
    invoker.invoke(Invocation(request_id, event=begin, wants_body=True, done=done, wants_raw=True))
    try:
        outcome = await ended
    finally:
        await invoker.close()
    told = _taken(outcome)
    if live is not None:
        live.ended(kept.text)
    return Invoked(request_id, told, kept.text)


def _taken(outcome: Outcome) -> Returned | Failed | Refused:
    """Give the outcome of an invocation that the function has taken, or could not initialise for."""
    match outcome:
        case Refused(error, initialising=False):
            raise HandlerUnavailable(error.message)
        case TooLarge(size_bytes):  # for a function that takes less than Lambda does, since the size was looked at
            raise HandlerUnavailable(f"the event has {size_bytes} bytes, which is more than the function takes")
        case Cancelled():
            raise AssertionError("nobody cancels it")
        case _:
            return outcome


# --- after


def show(invoked: Invoked, *, as_json: bool) -> int:
    """Print how it went; 1 when the function failed."""
    outcome = invoked.outcome
    if as_json:
        print(_ascii(msgspec.json.encode(_document(invoked)).decode()), flush=True)
    elif isinstance(outcome, Returned):
        _show_result(outcome)
    else:
        _show_error(outcome.error, invoked.log)
    return int(not isinstance(outcome, Returned))


def _document(invoked: Invoked) -> dict[str, object]:
    outcome = invoked.outcome
    payload: object
    if isinstance(outcome, Returned):
        result = _result(outcome)
        payload = result.decode(errors="replace") if _laid_out(result) is None else msgspec.Raw(result)
    else:
        payload = error_object(invoked.request_id, outcome.error, was_run=isinstance(outcome, Failed))
    return {
        "status_code": 200,
        "function_error": None if isinstance(outcome, Returned) else "Unhandled",
        "payload": payload,
        "log": invoked.log,
        "duration_ms": 0.0 if isinstance(outcome, Refused) else round(outcome.duration_ms, 3),
    }


def _show_result(outcome: Returned) -> None:
    result = _result(outcome)
    text = _laid_out(result)
    shown = result.decode(errors="replace") if text is None else text
    shows_all = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    print(shown if shows_all else _ascii(shown), flush=True)
    if text is None:
        print("headrace: the result is not valid JSON: it has NaN, Infinity or half a character in it", file=sys.stderr)


def _show_error(error: FunctionError, log: str) -> None:
    """Print an error, and its trace unless the log has shown it."""
    what = f"{error.error_type}: {error.message}"
    if f"[ERROR] {what}\n" not in log:
        for line in error.trace:
            print(line.rstrip("\n"), file=sys.stderr)
    print(f"headrace: the function failed: {what}", file=sys.stderr)


def _result(outcome: Returned) -> bytes:
    assert isinstance(outcome.body, bytes), "it was wanted raw"
    return outcome.body


def _laid_out(result: bytes) -> str | None:
    """Give a result on lines, every number and text as it is; None when it is not JSON."""
    try:
        return msgspec.json.format(result, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _ascii(text: str) -> str:
    """Spell JSON in ASCII."""
    return _escape_wide(lambda wide: json.dumps(wide[0])[1:-1], text)
