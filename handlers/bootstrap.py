"""One worker: loads a function in the user's own interpreter and runs it, one event at a time.

Started as `python -I bootstrap.py CHANNEL LOCK PARENT` (two inherited descriptors, the second may be -1, and the
daemon's process id). Beside it lie the only other files of ours that run there: tasks.py takes over where several
events run at once, snapshot.py where workers are forked from a process that has loaded the function, json_log.py where
logs are JSON, and snapshot_restore_py.py is for users to import. So they need CPython 3.9 or newer and the standard
library; orjson decodes the events where it is installed. What a function sees is that of the AWS Lambda Python runtime
(AWS Lambda developer guide, "Building Lambda functions with Python"; error types, results and logging as in the
open-source awslambdaric). One extension: `async def` handlers are awaited, on one event loop that lives as long as the
worker.

Frames, both ways: a header of 12 bytes (kind, length of the request id, slot, length of the body, a number), the
request id, the body. The slot names an event while it runs: what comes back carries that of the event it belongs to.
Frames travel on a private socket, so nothing a handler prints can corrupt them, and a forked child drops it.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
import traceback
from decimal import Decimal
from types import CoroutineType, TracebackType
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple, TypeVar, Union

try:
    from orjson import loads as _loads_fast
except ImportError:
    _loads_fast = None  # type: ignore[assignment,unused-ignore]

# --- frames

#: Kind, length of the request id, slot, length of the body, number: see the kinds for what the number is.
HEADER = struct.Struct("!BBHII")

#: Daemon to worker: what to load, as JSON; and one event (number: when it times out, in milliseconds of the system's
#: monotonic clock, modulo 2^32: time that it waits on its way counts).
SETUP, INVOKE = 1, 2
#: Worker to daemon: the function is loaded, or its error; the result of one event, or its error, or an error made of a
#: result that cannot be sent (number of these three: microseconds it took).
READY, INIT_FAILED, RETURNED, RAISED, BAD_RESULT = 3, 4, 5, 6, 7
#: Only where several events run at once. Daemon to worker: cancel an event's task; show that the event loop turns.
#: Worker to daemon: what an event has printed; the event loop turns.
CANCEL, PING, OUTPUT, PONG = 8, 9, 10, 11
#: Only where workers are forked, between the daemon and the process that forks them: what a frame asks for is told by
#: one with the same slot. Daemon to it: fork a worker (with two descriptors: its channel and its output); say how one
#: has ended (number: process id). It to daemon: why it cannot be forked from (lines, in place of READY); the
#: worker (number: process id), or why there is none (text); how that one has ended (number: wait status).
FORK, REAP, UNFIT, FORKED, NOT_FORKED, REAPED = 12, 13, 14, 15, 16, 17
#: Daemon to worker: one event of which more is told than is so for all (number as of INVOKE). The body is the length
#: of what is told (4 bytes), that as a JSON object, and the event.
INVOKE_TOLD = 18
TOLD_LENGTH = struct.Struct("!I")

#: Largest result: 6 MB and what surrounds it (AWS Lambda quotas; the number is in Lambda's own error message).
RESULT_LIMIT_BYTES = 6291556
#: Error messages and traces beyond this are cut, so that an error always fits into a frame.
MESSAGE_LIMIT_CHARS = 32 * 1024
TRACE_LIMIT_LINES = 200
TRACE_LINE_LIMIT_CHARS = 2000

_Bytes = TypeVar("_Bytes", bytes, memoryview)
_BUFFER_BYTES = 64 * 1024
_KEPT_BUFFER_BYTES = 1024 * 1024
_OWN_NAMES = frozenset(("router", "connectors", "handlers", "config"))
_HERE = os.path.dirname(__file__)
_OWN_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_PR_SET_PDEATHSIG = 1
_CO_COROUTINE = 0x80
#: The result of nearly every handler of batches, which needs no encoder.
_ALL_WELL = b'{"batchItemFailures": []}'
#: The tracing header of one invocation, which is not sampled.
_TRACE = b"Root=1-%08x-%s%08x;Parent=%016x;Sampled=0"


def pack(kind: int, body: bytes, number: int = 0, request_id: bytes = b"", slot: int = 0) -> bytes:
    """Make one frame."""
    return HEADER.pack(kind, len(request_id), slot, len(body), number) + request_id + body


class Channel:
    """The worker's end of its socket to the daemon."""

    def __init__(self, descriptor: int) -> None:
        self.socket = socket.socket(fileno=descriptor)
        self.socket.set_inheritable(False)
        # An interpreter that ends closes its sockets early; this one stays open until the exit status is certain.
        self._second = os.dup(descriptor)
        self._buffer = bytearray(_BUFFER_BYTES)
        os.register_at_fork(after_in_child=self.close)

    def receive(self) -> Tuple[int, int, int, str, memoryview]:
        """Wait for one event, or for what to load: kind, slot, number, request id, body (valid until the next call)."""
        if len(self._buffer) > _KEPT_BUFFER_BYTES:
            self._buffer = bytearray(_BUFFER_BYTES)
        size = self._fill(0)
        while size < HEADER.size:
            size = self._fill(size)
        kind, id_bytes, slot, body_bytes, number = HEADER.unpack_from(self._buffer)
        body_at = HEADER.size + id_bytes
        end = body_at + body_bytes
        if end > len(self._buffer):
            self._grow(size, end)
        while size < end:
            size = self._fill(size)
        view = memoryview(self._buffer)
        return kind, slot, number, str(view[HEADER.size : body_at], "utf-8"), view[body_at:end]

    def _grow(self, size: int, end: int) -> None:
        larger = bytearray(end)
        larger[:size] = memoryview(self._buffer)[:size]
        self._buffer = larger

    def _fill(self, size: int) -> int:
        """Read behind the first `size` bytes of the buffer and give the new size."""
        got = self.socket.recv_into(memoryview(self._buffer)[size:] if size else self._buffer)
        if not got:
            leave()
        return size + got

    def send(self, kind: int, body: bytes, number: int = 0, slot: int = 0) -> None:
        try:
            self.socket.sendall(HEADER.pack(kind, 0, slot, len(body), number) + body)
        except OSError:  # the daemon is gone, or this is a forked child that returned from the handler
            os._exit(1)

    @property
    def descriptors(self) -> Tuple[int, int]:
        return self.socket.fileno(), self._second

    def close(self) -> None:
        """Close it, in a forked child. May come again, in the children of that."""
        if self._second >= 0:
            os.close(self.socket.detach())  # close() leaves it open where an event loop watches it
            os.close(self._second)
            self._second = -1


# --- life and death


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, and end now if it already has."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        leave()


def leave() -> NoReturn:
    """End with everything this worker has started: nobody listens any more."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


# --- errors, as the function's caller sees them


class Fault(Exception):
    """A failure that the runtime itself reports, under a `Runtime.` name."""

    def __init__(self, error_type: str, message: str, trace: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.trace = list(trace)


def _describe(error: BaseException, request_id: str) -> Dict[str, Any]:
    """Make the error object of an invocation or initialisation."""
    trace = error.trace if isinstance(error, Fault) else _trace_of(error.__traceback__)
    return {
        "errorMessage": _sendable(_text_of(error), MESSAGE_LIMIT_CHARS),
        "errorType": error.error_type if isinstance(error, Fault) else type(error).__name__,
        "requestId": request_id,
        "stackTrace": [_sendable(line, TRACE_LINE_LIMIT_CHARS) for line in trace],
    }


def fault_of(error: BaseException, error_type: str) -> Fault:
    """Make a failure of the runtime's out of an exception of the user's."""
    return Fault(error_type, "{}: {}".format(type(error).__name__, _text_of(error)), _trace_of(error.__traceback__))


def _sendable(text: str, limit_chars: int) -> str:
    """Cut a text, and spell out what UTF-8 cannot hold."""
    return text[:limit_chars].encode("utf-8", "backslashreplace").decode()


def _text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # the user's __str__ may raise anything; the error is reported all the same
        return "<exception str() failed>"
    path = error.path if isinstance(error, ImportError) else None  # the module that lacks a name, as its message has it
    return text.replace(path, shown(path)) if isinstance(path, str) else text


def _trace_of(trace: Optional[TracebackType]) -> List[str]:
    """Format the frames from the first one of the user's on."""
    frames = traceback.extract_tb(trace)
    first = next((index for index, frame in enumerate(frames) if not _is_machinery(frame.filename)), len(frames))
    return format_frames(frames[first:])[:TRACE_LIMIT_LINES]


def format_frames(frames: Sequence[traceback.FrameSummary]) -> List[str]:
    """Write frames as a trace of AWS's has them: without the marks of columns that newer interpreters add."""
    return traceback.format_list([(shown(each.filename), each.lineno or 0, each.name, each.line) for each in frames])


class _Root:
    """Where the code of the function lies."""

    #: The folder, with a slash at its end; empty = it is not known yet.
    real = ""
    #: What traces call it: its place on AWS, which tools that read them know, and which is the same on every machine.
    shown = "/var/task/"


def shown(path: str) -> str:
    """Name a file of the function's as traces name it on AWS; any other as it is."""
    return _Root.shown + path[len(_Root.real) :] if _Root.real and path.startswith(_Root.real) else path


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or os.path.dirname(filename) in (
        _HERE,
        os.path.dirname(importlib.__file__),
        _ASYNCIO_FOLDER,
    )


_ASYNCIO_FOLDER = os.path.join(os.path.dirname(os.__file__), "asyncio")


# --- loading the function


class _OwnModules:
    """Keeps our own modules from being imported by users, whose projects may have the same names."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> Optional[importlib.machinery.ModuleSpec]:
        if name not in _OWN_NAMES:
            return None
        places = [place for place in sys.path if os.path.realpath(place) != _OWN_ROOT]
        spec = importlib.machinery.PathFinder.find_spec(name, places)
        if spec is None:
            raise ModuleNotFoundError("No module named {!r}".format(name), name=name)
        return spec


class _Hooks:
    """Provides the module that the Lambda runtimes have for hooks of SnapStart, unless the user brings it along."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> Optional[importlib.machinery.ModuleSpec]:
        return _spec_beside(name, name) if name == "snapshot_restore_py" else None


def _spec_beside(name: str, file: str) -> importlib.machinery.ModuleSpec:
    """Find another file of ours where this one lies: our folder is not on the path."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(name, os.path.join(_HERE, file + ".py"))
    assert spec is not None
    return spec


def _set_up_imports(root: str) -> None:
    """Put the user's code first, then PYTHONPATH (which -I ignores)."""
    extra = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = [root, *extra]
    _Root.real = os.path.join(root, "")
    sys.meta_path.insert(0, _OwnModules)  # type: ignore[arg-type,unused-ignore]
    sys.meta_path.append(_Hooks)  # type: ignore[arg-type,unused-ignore]
    sys.argv[1:] = []


def _load(handler: str) -> Callable[[Any, Any], Any]:
    """Import the module of a handler string and give the function it names."""
    module_name, dot, function_name = handler.rpartition(".")
    if not dot or not module_name:
        raise Fault(
            "Runtime.MalformedHandlerName",
            "Bad handler '{}': not enough values to unpack (expected 2, got 1)".format(handler),
        )
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(
            "Runtime.BuiltInModuleConflict",
            "Cannot use built-in module {} as a handler module".format(module_name),
        )
    module = _import(module_name)
    try:
        function: Callable[[Any, Any], Any] = getattr(module, function_name)
    except AttributeError:
        message = "Handler '{}' missing on module '{}'".format(function_name, module_name)
        raise Fault("Runtime.HandlerNotFound", message) from None
    return function


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        message = "Unable to import module '{}': {}".format(module_name, _text_of(error))
        raise Fault("Runtime.ImportModuleError", message, _trace_of(error.__traceback__)) from None
    except SyntaxError as error:
        place = '  File "{}" Line {}\n    {}'.format(shown(str(error.filename)), error.lineno, error.text)
        message = "Syntax error in module '{}': {}".format(module_name, _text_of(error))
        raise Fault("Runtime.UserCodeSyntaxError", message, [place]) from None


# --- what the handler is given


class LambdaContext:
    """The second argument of a handler. What is equal for all invocations of a worker is set on the class."""

    function_name = ""
    function_version = "$LATEST"
    invoked_function_arn = ""
    memory_limit_in_mb = ""
    log_group_name = ""
    log_stream_name = ""
    client_context: "Optional[ClientContext]" = None
    tenant_id = None

    def __init__(self, request_id: str, deadline_ms: int) -> None:
        self.aws_request_id = request_id
        self.identity = CognitoIdentity()
        self._deadline_ms = deadline_ms

    def get_remaining_time_in_millis(self) -> int:
        left_ms = (self._deadline_ms - int(time.monotonic() * 1000)) & 0xFFFFFFFF
        return left_ms if left_ms < 1 << 31 else 0

    def log(self, message: object) -> None:
        sys.stdout.write(str(message))

    def __repr__(self) -> str:
        names = ("aws_request_id", "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb")
        return "LambdaContext([" + ",".join("{}={}".format(name, getattr(self, name)) for name in names) + "])"

    def tell(self, told: Dict[str, Any]) -> None:
        """Take what is told of this invocation alone. Raises whatever a client context of another form brings about."""
        if told.get("arn"):
            self.invoked_function_arn = told["arn"]
        if told.get("client_context"):
            self.client_context = ClientContext(json.loads(told["client_context"]))


class CognitoIdentity:
    """Who called through a mobile SDK: nobody does here."""

    cognito_identity_id = None
    cognito_identity_pool_id = None


class ClientContext:
    """What the caller says of itself; members that it does not say are None."""

    def __init__(self, said: Dict[str, Any]) -> None:
        self.custom = said.get("custom")
        self.env = said.get("env")
        client = said.get("client")
        self.client = None if client is None else Client(client)


class Client:
    """The application that calls."""

    def __init__(self, said: Dict[str, Any]) -> None:
        self.installation_id = said.get("installation_id")
        self.app_title = said.get("app_title")
        self.app_version_name = said.get("app_version_name")
        self.app_version_code = said.get("app_version_code")
        self.app_package_name = said.get("app_package_name")


class _Form(logging.Formatter):
    """The form of a line in the Lambda runtime, with traces as they are there."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls it by
        text = super().formatException(ei)
        return text.replace('File "' + _Root.real, 'File "' + _Root.shown) if _Root.real else text


class Log(logging.Handler):
    """Writes records to standard output in the form of the Lambda runtime."""

    request_id = ""
    #: The module that gives lines of JSON; None = they are text.
    json: Any = None

    def current(self) -> str:
        """Give the id of the request that logs now."""
        return self.request_id

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = self.current()
        try:
            sys.stdout.write(self.format(record))
        except Exception:  # a broken log call must not fail the handler; logging's own rule
            self.handleError(record)


def _set_up_output(log: Log) -> None:
    """Send each finished line out at once, and logging with it."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr,unused-ignore]
    form = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        Log.json = _load_beside("json_log")
    log.setFormatter(_Form(form, "%Y-%m-%dT%H:%M:%S") if Log.json is None else Log.json.Form())
    logging.Formatter.converter = time.gmtime
    root = logging.getLogger()
    root.addHandler(log)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    if isinstance(logging.getLevelName(level), int):
        root.setLevel(level)


def flush() -> None:
    """Send out what was printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):  # the handler closed or replaced it
            pass


def report(error: BaseException, request_id: str) -> bytes:
    """Log an error, and give the body of the frame that tells of it."""
    described = _describe(error, request_id)
    try:
        print(_text_line(described) if Log.json is None else Log.json.error_line(described))
    except (AttributeError, OSError, ValueError):  # the handler closed or replaced standard output
        pass
    return json.dumps(described).encode()


def _text_line(described: Dict[str, Any]) -> str:
    lines = ["[ERROR] {errorType}: {errorMessage}".format(**described)]
    if described["stackTrace"]:
        lines.append("Traceback (most recent call last):")
        lines += [line.rstrip("\n") for line in described["stackTrace"]]
    return "\n".join(lines)


# --- events and results


def split_told(body: _Bytes) -> Tuple[Dict[str, Any], _Bytes]:
    """Take apart what is told of an invocation and its event."""
    (size,) = TOLD_LENGTH.unpack_from(body)
    event_at = TOLD_LENGTH.size + size
    told: Dict[str, Any] = json.loads(bytes(body[TOLD_LENGTH.size : event_at]))
    return told, body[event_at:]


def decode(body: Union[bytes, memoryview]) -> Any:
    if _loads_fast is not None:
        try:
            return _loads_fast(body)
        except ValueError:  # stricter than the standard library, which decides
            pass
    try:
        return json.loads(str(body, "utf-8"))
    except ValueError as error:
        raise Fault("Runtime.UnmarshalError", "Unable to unmarshal input: {}".format(error)) from None


class Marshaller:
    """Encodes results: JSON with NaN, and Decimals as numbers written out in full.

    The standard library cannot write a Decimal as it stands, so a mark is written and replaced afterwards.
    """

    def __init__(self) -> None:
        self._mark = os.urandom(8).hex() + ":"
        self._decimals: List[str] = []
        escape = sys.version_info < (3, 12)  # the Lambda runtimes from 3.12 on write other scripts as they are
        self._encode = json.JSONEncoder(ensure_ascii=escape, default=self._other).encode

    def encode(self, result: Any) -> bytes:
        if result is None:
            return b"null"
        if type(result) is dict and len(result) == 1:
            failures = result.get("batchItemFailures")
            if type(failures) is list and not failures:
                return _ALL_WELL
        if isinstance(result, bytes):
            raise _not_marshalled("Object of type bytes is not JSON serializable")
        try:
            body = self._numbers(self._encode(result)).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise _not_marshalled(_text_of(error)) from None
        if len(body) > RESULT_LIMIT_BYTES:
            message = "Response payload size exceeded maximum allowed payload size ({} bytes)."
            raise Fault("Function.ResponseSizeTooLarge", message.format(RESULT_LIMIT_BYTES))
        return body

    def _other(self, value: Any) -> Any:
        if isinstance(value, Decimal):
            self._decimals.append("NaN" if value.is_nan() else str(value))
            return self._mark + str(len(self._decimals) - 1)
        if isinstance(value, bytes):
            return value.decode()
        raise TypeError("Object of type {} is not JSON serializable".format(type(value).__name__))

    def _numbers(self, text: str) -> str:
        if self._decimals:
            parts = text.split('"' + self._mark)
            for index, part in enumerate(parts[1:], 1):
                number, _, rest = part.partition('"')
                parts[index] = self._decimals[int(number)] + rest
            text = "".join(parts)
            self._decimals.clear()
        return text


class Worker:
    """The function, and what stays between its invocations."""

    def __init__(self, setup: Dict[str, Any]) -> None:
        self.log = Log()
        self._name: str = setup["handler"]
        self._loop: Any = None

    def load(self) -> None:
        """Import the function, and what it is run with. What its module raises is not caught."""
        self._handler = _load(self._name)
        if getattr(getattr(self._handler, "__code__", None), "co_flags", 0) & _CO_COROUTINE:
            import asyncio  # noqa: F401

    def serve(self, channel: Channel) -> NoReturn:
        """Answer events until the daemon closes the channel."""
        self._set_up()
        while True:
            kind, slot, number, request_id, body = channel.receive()
            start_ns = time.perf_counter_ns()
            told = None
            if kind == INVOKE_TOLD:
                told, body = split_told(body)
            kind, answer = self._run(request_id, number, body, told)
            flush()
            channel.send(kind, answer, (time.perf_counter_ns() - start_ns) // 1000, slot)

    def _set_up(self) -> None:
        """Make what each worker has of its own."""
        self._marshaller = Marshaller()
        #: Tell apart, in tracing headers, this worker and its invocations.
        self._trace = os.urandom(8).hex().encode()
        self._count = 0
        #: What os.environ shows. Setting a variable there makes the C library keep a copy of every value it ever had:
        #: 150 bytes an invocation, for ever.
        self._variables: Dict[bytes, bytes] = vars(os.environ)["_data"]

    def _run(self, request_id: str, number: int, body: memoryview, told: Optional[Dict[str, Any]]) -> Tuple[int, bytes]:
        """Run one event: the kind of the answer, and its body."""
        kind = RAISED
        try:
            self.log.request_id = request_id
            self._count += 1
            self._variables[b"_X_AMZN_TRACE_ID"] = _TRACE % (int(time.time()), self._trace, self._count, self._count)
            context = LambdaContext(request_id, number)
            if told is not None:
                context.tell(told)
                if told.get("trace_id"):
                    self._variables[b"_X_AMZN_TRACE_ID"] = os.fsencode(told["trace_id"])
            result = self._handler(decode(body), context)
            if isinstance(result, CoroutineType):
                result = self._await(result)
            kind = BAD_RESULT
            return RETURNED, self._marshaller.encode(result)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # whatever a handler raises is its answer
            return kind, report(error, request_id)

    def _await(self, result: Any) -> Any:
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(result)


def _not_marshalled(reason: str) -> Fault:
    return Fault("Runtime.MarshalError", "Unable to marshal response: " + reason)


def _set_up_environment(setup: Dict[str, Any]) -> None:
    os.environ.setdefault("AWS_EXECUTION_ENV", "AWS_Lambda_python{}.{}".format(*sys.version_info[:2]))
    context = LambdaContext
    context.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    context.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
    context.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
    context.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
    context.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
    context.invoked_function_arn = setup["arn"]


def _load_beside(name: str) -> Any:
    """Load another file of ours."""
    import importlib.util

    spec = _spec_beside("headrace_" + name, name)
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def main(channel_descriptor: int, lock_descriptor: int, parent: int) -> None:
    """Load the function that the first frame names, then serve."""
    die_with(parent)
    if lock_descriptor >= 0:  # kept by forked children, which run the user's code, not by programs that they execute
        os.set_inheritable(lock_descriptor, False)
    channel = Channel(channel_descriptor)
    setup = json.loads(bytes(channel.receive()[4]))
    kind = _load_beside("tasks").TaskWorker if setup["concurrency"] > 1 else Worker
    worker: Worker = kind(setup)
    _set_up_output(worker.log)
    _set_up_environment(setup)
    _set_up_imports(setup["root"])
    snapshot = _load_beside("snapshot") if setup["hooks"] else None
    try:
        worker.load()
        if snapshot is not None:
            snapshot.run_before_hooks()
            if setup["forks"]:
                channel = snapshot.fork_workers(channel, lock_descriptor)  # from here on, this is one of the workers
            snapshot.run_after_hooks()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a module or a hook raises is the answer
        body = report(error, "")
        flush()
        channel.send(INIT_FAILED, body)
        os._exit(1)
    flush()
    channel.send(READY, b"")
    worker.serve(channel)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
