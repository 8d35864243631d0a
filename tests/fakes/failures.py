"""Stored failures to test with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.core.model import FailedBatch, FunctionError, Reason, Try
from router.ports import FailureEntry

EVENT = b'{"eventSource":"SelfManagedKafka","records":{"orders-0":[]}}'


def failed_batch(failure_id: str = "f1", **changes: Any) -> FailedBatch:
    """A batch of three records whose function raised four times."""
    values: dict[str, Any] = {
        "id": failure_id,
        "mapping": "orders",
        "function": "worker",
        "shard": "orders-0",
        "reason": Reason.RETRIES,
        "first_position": 15,
        "last_position": 17,
        "batch_size": 3,
        "attempts": 4,
        "request_id": "c0ffee00-1111-4222-8333-444455556666",
        "error": FunctionError("ValueError", "no total", ("  File a.py",)),
        "responded": True,
        "function_error": "Unhandled",
        "first_time_ms": 1767225600015,
        "last_time_ms": 1767225600016,
        "failed_at_s": 1767225670.021,
        "tries": (Try(1767225660.5, "c0ffee00", 3, FunctionError("ValueError", "no total", ("  File a.py",))),),
    }
    return FailedBatch(**{**values, **changes})


def entry(
    failure_id: str = "f1",
    *,
    destination: str | None = "sqs:orders-dlq",
    keys: tuple[bytes, ...] = (),
    event: bytes = EVENT,
    batch_info: Mapping[str, object] | None = None,
    **changes: Any,
) -> FailureEntry:
    """A failure as it is handed to the store; `changes` are fields of its batch."""
    info = {"KafkaBatchInfo": {"batchSize": 3}} if batch_info is None else batch_info
    return FailureEntry(failed_batch(failure_id, **changes), "stored", destination, info, keys, len(event))
