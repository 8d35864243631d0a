"""Every log event, metric and reason code, in one place.

Metrics carry the names of AWS Lambda's event source mapping metrics in snake case, with the prefix `headrace_` and the
mapping as label. They are counted per batch or per page, never per record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

#: Event name -> (level, what it says). Levels: debug = per batch, info = lifecycle, warning = retry or discard,
#: error = a person must act.
EVENTS: Final[dict[str, tuple[str, str]]] = {
    "daemon.started": ("info", "The daemon is up and listens."),
    "daemon.draining": ("info", "Shutdown was asked for; in-flight work ends and is committed."),
    "daemon.stopped": ("info", "Everything is settled and closed."),
    "daemon.forced": ("warning", "A second signal: the daemon stops at once; what was in flight is delivered again."),
    "notification.failed": ("warning", "The service manager (NOTIFY_SOCKET) could not be told how the daemon is."),
    "background.crashed": ("error", "A bug stopped deliveries or replays; they begin anew. Please report the trace."),
    "mapping.started": ("info", "The mapping reached its source and reads."),
    "mapping.waiting": ("warning", "The mapping cannot run; it tries again."),
    "mapping.failed": ("error", "The mapping broke too often and stays down until the daemon is restarted."),
    "mapping.crashed": ("error", "A bug stopped the mapping; it is restarted. Please report the trace."),
    "mapping.drained": ("info", "The mapping has stopped reading; what it did with each shard is in the lines before."),
    "mapping.held": ("error", "The mapping starts nothing new until its failures can be delivered or stored."),
    "mapping.resumed": ("info", "The mapping runs again after being held."),
    "shard.opened": ("info", "A shard is read behind the given position."),
    "shard.released": ("info", "A shard was given back with its progress committed."),
    "shard.abandoned": ("warning", "A shard was left before its progress could be committed; that is delivered again."),
    "shard.lost": ("warning", "A shard was taken away; its unfinished work is delivered again by its new owner."),
    "position.lost": (
        "warning",
        "The committed position is not in the shard any more; reading goes on at the oldest record.",
    ),
    "position.pinned": (
        "warning",
        "A shard had no committed position: it is new, or its position expired; it starts here.",
    ),
    "position.expired": ("warning", "The committed positions of this mapping are gone; it started anew."),
    "source.failed": ("warning", "The source did not answer; it is asked again."),
    "source.slowed": ("warning", "The source is read in a way that takes more processor time; else all is as it is."),
    "commit.failed": ("warning", "Progress could not be committed; it is tried again."),
    "queue.opened": ("info", "The queue is polled."),
    "queue.left": ("info", "Everything in hand was deleted, or given back to the queue."),
    "queue.abandoned": ("warning", "The queue was left with messages in hand; it shows them again by itself."),
    "message.unfit": ("warning", "No event can be made of a message; it is left to its queue, or given up."),
    "message.not_deleted": ("warning", "A finished message could not be deleted; that is tried again for a while."),
    "lease.not_extended": ("warning", "Messages in hand may be shown again by their queue too early."),
    "retry_state.restored": ("info", "Attempts and halves of unfinished batches were taken up again."),
    "retry_state.voided": ("warning", "Stored retry state does not belong to the committed position and is ignored."),
    "batch.failed": ("warning", "An invocation failed; the batch is tried again or given up."),
    "batch.split": ("warning", "A failed batch goes on in halves."),
    "batch.partly_failed": ("warning", "The function reported some records as failed; only those run again."),
    "batch.refused": ("warning", "The function could not be started; no attempt was spent."),
    "batch.discarded": ("warning", "A batch was given up and stored; see `headrace failures`."),
    "failure.not_stored": (
        "error",
        "A failed batch cannot be stored; its lane waits. Free or repair the state directory.",
    ),
    "failure.delivered": ("info", "A failure record was accepted by its destination."),
    "failure.not_delivered": ("warning", "A destination did not accept a failure record; it is sent again."),
    "failure.replayed": ("info", "A failed batch was replayed."),
    "failure.replay_refused": ("warning", "A replay could not run."),
    "queue.replayed": ("info", "A job over a dead-letter queue is over; what it could not replay is still there."),
    "failure.expired": ("info", "Settled failures older than the retention were removed."),
    "store.upgraded": ("info", "The store was of an older version; as it was, it is kept beside the new one."),
    "store.failed": ("warning", "The failure store could not be read or written beside a batch; it is tried again."),
    "library.warned": (
        "warning",
        "A client library logged a warning or an error; what matters of it has an event of ours.",
    ),
}

#: Reason codes of `status`, the API and the metric `headrace_mapping_stuck`.
REASONS: Final[dict[str, str]] = {
    "SourceUnavailable": "The source cannot be reached or refuses us.",
    "StateUnavailable": "The state directory cannot be read or written.",
    "CommitFailed": "Progress cannot be committed to the source.",
    "FailureStoreUnavailable": "A failed batch cannot be stored.",
    "FailureBacklogFull": "Too many failures wait for their destination, or the failure store is at its cap.",
    "FunctionFailing": "The function fails and its batch is retried.",
    "FunctionUnavailable": "The function cannot be started.",
    "Draining": "The mapping is shutting down.",
    "Disabled": "The mapping is disabled in the file.",
    "Crashed": "A bug stopped the mapping: it is restarted, or stays down (state `failed`) when it broke too often.",
}

_BATCH_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 900)


@dataclass(frozen=True, slots=True)
class MappingMetrics:
    """The counters of one mapping."""

    polled: Counter
    filtered_out: Counter
    invoked: Counter
    failed_invoke: Counter
    invoke_errors: Counter
    dropped: Counter
    committed: Counter
    deleted: Counter
    commit_errors: Counter
    polling_errors: Counter
    delivered: Counter
    delivery_errors: Counter
    discarded: Counter
    duration: Histogram
    slowed: Gauge


class Metrics:
    """All metrics of a daemon, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._of_mappings: list[Counter | Gauge | Histogram] = []
        self._polled = self._counter("polled_event_count", "Records read.")
        self._filtered_out = self._counter("filtered_out_event_count", "Records dropped by filters.")
        self._invoked = self._counter("invoked_event_count", "Records handed to the function; retries count again.")
        self._failed_invoke = self._counter("failed_invoke_event_count", "Records whose invocation failed.")
        self._invoke_errors = self._counter("invoke_error_count", "Failed invocations.")
        self._dropped = self._counter(
            "dropped_event_count", "Records given up that no destination gets; the store keeps them."
        )
        self._committed = self._counter("committed_event_count", "Positions committed.")
        self._deleted = self._counter("deleted_event_count", "Messages deleted from their queue.")
        self._commit_errors = self._counter("commit_error_count", "Commits that failed.")
        self._polling_errors = self._counter("polling_error_count", "Reads that failed.")
        self._delivered = self._counter(
            "on_failure_destination_delivered_event_count", "Records covered by delivered failure records."
        )
        self._delivery_errors = self._counter(
            "on_failure_destination_delivery_error_count", "Deliveries of failure records that were not accepted."
        )
        self._discarded = self._counter("discarded_batch_count", "Batches given up and stored, by reason.", "reason")
        self._duration = Histogram(
            "headrace_invocation_duration_seconds",
            "Time from handing a batch to the function until its end.",
            ("mapping",),
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        )
        self._of_mappings.append(self._duration)
        self._slowed = self._gauge(
            "source_slowed", "1 while the source is read in a way that takes more processor time."
        )
        self.max_offset_lag = self._gauge("max_offset_lag", "Largest lag of a shard, records.")
        self.sum_offset_lag = self._gauge("sum_offset_lag", "Lag over all shards, records.")
        self.lag_seconds = self._gauge("lag_seconds", "Age of the oldest record that is not finished.")
        self.in_flight = self._gauge("in_flight_records", "Records with the function.")
        self.stuck = self._gauge("mapping_stuck", "1 while the mapping does not move for this reason.", "reason")
        self.undelivered = self._gauge("undelivered_failures", "Stored failures that wait for their destination.")

    def of(self, mapping: str) -> MappingMetrics:
        """Give the counters of one mapping, all present from the start."""
        return MappingMetrics(
            polled=self._polled.labels(mapping),
            filtered_out=self._filtered_out.labels(mapping),
            invoked=self._invoked.labels(mapping),
            failed_invoke=self._failed_invoke.labels(mapping),
            invoke_errors=self._invoke_errors.labels(mapping),
            dropped=self._dropped.labels(mapping),
            committed=self._committed.labels(mapping),
            deleted=self._deleted.labels(mapping),
            commit_errors=self._commit_errors.labels(mapping),
            polling_errors=self._polling_errors.labels(mapping),
            delivered=self._delivered.labels(mapping),
            delivery_errors=self._delivery_errors.labels(mapping),
            discarded=self._discarded,
            duration=self._duration.labels(mapping),
            slowed=self._slowed.labels(mapping),
        )

    def forget(self, mapping: str) -> None:
        """Leave out a mapping that is there no more."""
        for metric in self._of_mappings:
            metric.remove_by_labels({"mapping": mapping})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        counter = Counter(f"headrace_{name}", text, ("mapping", *labels), registry=self.registry)
        self._of_mappings.append(counter)
        return counter

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        gauge = Gauge(f"headrace_{name}", text, ("mapping", *labels), registry=self.registry)
        self._of_mappings.append(gauge)
        return gauge


class Log:
    """Writes listed events; fields that say nothing are left out."""

    def __init__(self, **bound: object) -> None:
        self._log = structlog.get_logger().bind(**bound)

    def bind(self, **bound: object) -> Log:
        """Give a log whose every line carries these fields too."""
        log = Log()
        log._log = self._log.bind(**bound)
        return log

    def write(self, event: str, **fields: object) -> None:
        """Write one event at the level it is listed with; an unlisted one is a bug."""
        level, _ = EVENTS[event]
        getattr(self._log, level)(event, **{name: value for name, value in fields.items() if value not in (None, "")})
