"""The lines that Lambda puts around what a handler prints: as text, or each as an object of JSON.

Sources: AWS Lambda developer guide, "Log and monitor Python Lambda functions" and "Configuring JSON and plain text log
formats"; the objects are those of the Telemetry API ("Lambda Telemetry API Event schema reference").
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson

_TIMED_OUT: Final = "Sandbox.Timedout"


@dataclass(frozen=True, slots=True)
class Ended:
    """What is said of an invocation that has ended."""

    request_id: str
    duration_ms: float
    memory_mb: int
    used_bytes: int
    #: Of the first one of a worker: how long its start took.
    init_ms: float | None
    #: Was the worker forked?
    is_restored: bool
    #: Set when the worker did not survive it.
    error_type: str | None
    #: Why that may be another's fault; empty = it is not.
    interrupted_by: str


class LogForm(Protocol):
    """Gives such lines."""

    def opening(self, request_id: str, version: str) -> str:
        """Give what stands before all that an invocation prints."""
        ...

    def report(self, output: str, ended: Ended) -> str:
        """Give the log of one invocation behind its `opening`; `output` is what it printed."""
        ...

    def init_report(self, output: str, duration_ms: float, error_type: str | None) -> str:
        """Give the log of an initialisation that failed, or (without an error type) of one that is forked from."""
        ...


class _Text:
    def opening(self, request_id: str, version: str) -> str:
        return f"START RequestId: {request_id} Version: {version}\n"

    def report(self, output: str, ended: Ended) -> str:
        end = ""
        if ended.interrupted_by:
            why = f"Ended with its worker, runs again, no attempt is spent: {ended.interrupted_by}"
            end = f"{now()} {ended.request_id} {why}\n\n"
        elif ended.error_type == _TIMED_OUT:
            end = f"{now()} {ended.request_id} Task timed out after {ended.duration_ms / 1000:.2f} seconds\n\n"
        phase = "Restore" if ended.is_restored else "Init"
        init = "" if ended.init_ms is None else f"{phase} Duration: {ended.init_ms:.2f} ms\t"
        return (
            f"{output}{end}END RequestId: {ended.request_id}\n"
            f"REPORT RequestId: {ended.request_id}\tDuration: {ended.duration_ms:.2f} ms\t"
            f"Billed Duration: {math.ceil(ended.duration_ms)} ms\tMemory Size: {ended.memory_mb} MB\t"
            f"Max Memory Used: {ended.used_bytes >> 20} MB\t{init}{_status(ended.error_type)}\n"
        )

    def init_report(self, output: str, duration_ms: float, error_type: str | None) -> str:
        return f"{output}INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: init\t{_status(error_type)}\n"


def _status(error_type: str | None) -> str:
    if error_type is None:
        return ""
    return "Status: timeout\t" if error_type == _TIMED_OUT else f"Status: error\tError Type: {error_type}\t"


class _Json:
    def opening(self, request_id: str, version: str) -> str:
        return _line("platform.start", {"requestId": request_id, "version": version})

    def report(self, output: str, ended: Ended) -> str:
        metrics: dict[str, float] = {
            "durationMs": round(ended.duration_ms, 3),
            "billedDurationMs": math.ceil(ended.duration_ms),
            "memorySizeMB": ended.memory_mb,
            "maxMemoryUsedMB": ended.used_bytes >> 20,
        }
        if ended.init_ms is not None:
            metrics["restoreDurationMs" if ended.is_restored else "initDurationMs"] = round(ended.init_ms, 3)
        record = {"requestId": ended.request_id, "metrics": metrics, **_outcome(ended.error_type)}
        interrupted = {"requestId": ended.request_id, "reason": ended.interrupted_by}
        said = _line("headrace.interrupted", interrupted) if ended.interrupted_by else ""
        return f"{output}{said}{_line('platform.report', record)}"

    def init_report(self, output: str, duration_ms: float, error_type: str | None) -> str:
        metrics = {"durationMs": round(duration_ms, 3)}
        return output + _line("platform.initReport", {"phase": "init", "metrics": metrics, **_outcome(error_type)})


def _line(kind: str, record: dict[str, Any]) -> str:
    return orjson.dumps({"time": now(), "type": kind, "record": record}).decode() + "\n"


def _outcome(error_type: str | None) -> dict[str, str]:
    if error_type is None:
        return {"status": "success"}
    return {"status": "timeout"} if error_type == _TIMED_OUT else {"status": "error", "errorType": error_type}


TEXT: Final[LogForm] = _Text()
JSON: Final[LogForm] = _Json()


def now() -> str:
    """Give the time as logs write it."""
    now_s = time.time()
    return f"{_second(int(now_s))}.{int(now_s * 1000) % 1000:03d}Z"


@lru_cache(maxsize=1)
def _second(now_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s))
