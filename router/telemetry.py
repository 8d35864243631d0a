"""Every log event, metric and reason code, in one place.

Metrics carry the names of AWS Lambda's event source mapping metrics in snake case, with the prefix `headrace_` and the
mapping as label. They are counted per batch or per page, never per record. Labels are names of the configuration and
codes listed here, so their number is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from router.core.model import Failed, Outcome, Reason, Refused, Returned
from router.durations import Duration, Durations

#: What the levels of the file are in `logging`.
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}

#: Event name -> (level, what it says). Levels: debug = per batch, info = lifecycle, warning = retry or discard,
#: error = a person must act.
EVENTS: Final[dict[str, tuple[str, str]]] = {
    "daemon.started": ("info", "The daemon is up and listens."),
    "daemon.draining": ("info", "Shutdown was asked for; in-flight work ends and is committed."),
    "daemon.stopped": ("info", "Everything is settled and closed."),
    "daemon.forced": ("warning", "A second signal: the daemon stops at once; what was in flight is delivered again."),
    "notification.failed": ("warning", "The service manager (NOTIFY_SOCKET) could not be told how the daemon is."),
    "config.reloaded": ("info", "The configuration was taken up anew; what changed is counted here."),
    "config.refused": (
        "error",
        "The configuration cannot be used, for these mistakes; the former one goes on. Mend the file.",
    ),
    "config.needs_restart": ("warning", "Keys have changed that hold from the next start of the daemon on."),
    "mapping.renamed": ("info", "The mapping has taken over what was kept under the name that it had."),
    "mapping.refused": ("error", "The mapping does not run until somebody decides what is meant; `reason` says how."),
    "mapping.deleted": ("info", "The mapping was deleted through the API, and what was kept of its progress with it."),
    "mapping.changed": ("info", "The mapping begins, ends or goes on by new settings; `keys` changed."),
    "function.changed": ("info", "The function has new workers from now on; those that run end with what they run."),
    "api.failed": ("error", "A bug ended a call of the API, which was answered 500. Please report the trace."),
    "page.failed": ("error", "A bug kept a page from being shown, which was answered 500. Please report the trace."),
    "background.crashed": ("error", "A bug stopped deliveries or replays; they begin anew. Please report the trace."),
    "logs.refused": (
        "warning",
        "CloudWatch Logs does not accept what a function prints; it waits, and is sent again.",
    ),
    "logs.accepted": ("info", "CloudWatch Logs takes what a function prints again."),
    "logs.lost": ("warning", "So much of what a function printed is lost; told once a minute at most."),
    "function.preloaded": ("info", "The function is loaded; its workers are forked from now on."),
    "function.not_forked": (
        "warning",
        "The function left something open that forked workers must not share; each of them is started anew.",
    ),
    "function.preload_lost": ("warning", "The process that forks a function's workers has ended; it is started again."),
    "mapping.started": ("info", "The mapping reached its source and reads."),
    "mapping.waiting": ("warning", "The mapping cannot run; it tries again."),
    "mapping.failed": ("error", "The mapping broke too often and stays down until the daemon is restarted."),
    "mapping.crashed": ("error", "A bug stopped the mapping; it is restarted. Please report the trace."),
    "mapping.drained": ("info", "The mapping has stopped reading; what it did with each shard is in the lines before."),
    "mapping.held": ("error", "The mapping starts nothing new until its failures can be delivered or stored."),
    "mapping.paused": ("info", "An operator paused the mapping; it stays so, over restarts, until it is resumed."),
    "mapping.resumed": ("info", "The mapping goes on after being held or paused."),
    "seek.planned": ("info", "A shard is to go on from another place; `mapping.sought` says that all of them do."),
    "mapping.sought": ("info", "An operator has moved the mapping in its stream; records are skipped or come again."),
    "shard.opened": ("info", "A shard is read behind the given position."),
    "shard.released": ("info", "A shard was given back with its progress committed."),
    "shard.abandoned": ("warning", "A shard was left before its progress could be committed; that is delivered again."),
    "shard.lost": ("warning", "A shard was taken away; its unfinished work is delivered again by its new owner."),
    "fleet.joined": ("info", "The daemon is in the table of its fleet; shards are shared from now on."),
    "fleet.waiting": ("warning", "The shared store cannot be reached to enter the fleet; it is tried again."),
    "fleet.unheard": (
        "warning",
        "The table of leases does not answer; unless it does soon, this replica stops what it does by leases.",
    ),
    "fleet.heard": ("info", "The table of leases answers again."),
    "fleet.mixed": ("warning", "Replicas that live have different versions or files: `headrace status` lists which."),
    "fleet.alike": ("info", "All replicas that live have the same version and file again."),
    "fleet.not_left": ("warning", "The fleet could not be told of the stop; others take over after the lease."),
    "fleet.ousted": ("error", "Another process has the name of this replica; this daemon stops. Name each its own."),
    "lease.lost": ("warning", "A lease could not be renewed, or is another's; what ran of it ended without a trace."),
    "leash.lost": (
        "warning",
        "The process that ends workers when the daemon is stopped has ended; it is started again.",
    ),
    "replica.died": ("warning", "Another replica was not heard of for the length of a lease; others take over."),
    "peer.not_answered": ("warning", "What another replica asked could not be answered; it asks again, or gives up."),
    "shard.finished": ("info", "A shard was read to its end and all of it is settled; its children may be read."),
    "shard.trimmed": ("warning", "The stream has deleted a shard; what was not read of it is lost."),
    "stream.remade": (
        "warning",
        "The stream was deleted and made again under its name; its checkpoints are void, and all of it is read.",
    ),
    "lanes.changed": (
        "info",
        "What was unfinished under another parallelization factor is done; keys have their new lanes.",
    ),
    "position.lost": (
        "warning",
        "The committed position is not in the shard any more; reading goes on at the oldest record.",
    ),
    "position.pinned": (
        "warning",
        "A shard had no committed position: it is new, or its position expired; it starts here.",
    ),
    "position.expired": ("warning", "The committed positions of this mapping are gone; it started anew."),
    "source.not_closed": ("warning", "The source did not close in time; the mapping goes on without waiting for it."),
    "source.failed": ("warning", "The source did not answer; it is asked again."),
    "source.throttled": ("warning", "More is read from the source than it allows; it is asked again soon."),
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
    "window.ended_early": (
        "warning",
        "The state of a tumbling window is over 1 MiB: its final call comes now, and records still to come begin anew.",
    ),
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
    "event.given_up": ("warning", "An asynchronous event has failed for good and is stored; see `headrace failures`."),
    "event.told": ("debug", "A destination or dead-letter queue has accepted what an asynchronous event came to."),
    "event.not_told": (
        "warning",
        "A destination or dead-letter queue did not accept what an asynchronous event came to; it is told again.",
    ),
    "events.adopted": ("info", "What a dead replica had accepted and not finished is run by this one."),
    "failure.adopted": ("info", "What a dead replica was replaying is taken up by this one."),
    "failure.replayed": ("info", "A failed batch was replayed."),
    "failure.replay_refused": ("warning", "A replay could not run."),
    "records.replayed": ("info", "A job over failure records is over; what was refused can be replayed again."),
    "queue.replayed": ("info", "A job over a dead-letter queue is over; what it could not replay is still there."),
    "failure.expired": ("info", "Settled failures older than the retention were removed."),
    "store.upgraded": ("info", "The store was of an older version; as it was, it is kept beside the new one."),
    "store.shrunk": ("info", "Room that the store no longer needs was given back to the file system."),
    "store.failed": ("warning", "The failure store could not be read or written beside a batch; it is tried again."),
    "store.refused": ("error", "The shared store is not used as it is, so nothing moves; mend what the line names."),
    "store.doubted": ("warning", "The shared store may lose what it keeps, or have no room soon; the line says why."),
    "store.mended": ("info", "The shared store has nothing to be mended any more."),
    "function.code_missing": (
        "error",
        "The code of a function of the API is not where it was kept, so it cannot run; the line says why.",
    ),
    "mapping.unfit": (
        "error",
        "A mapping of the API does not fit any more, so it does not run; the line says why.",
    ),
    "catalogue.unknown": (
        "warning",
        "What was made through the API cannot be read from the shared store; the API refuses everything until it can.",
    ),
    "state.lost": (
        "error",
        "What was kept is not in Redis any more; mappings that were begun wait for `mapping accept`.",
    ),
    "log.dropped": ("warning", "Nobody read the log for a while: so many lines are missing here."),
    "library.warned": (
        "warning",
        "A client library logged a warning or an error; what matters of it has an event of ours.",
    ),
}

#: Reason codes of `status`, the API and the metric `headrace_mapping_stuck`: what each means, and what to do.
REASONS: Final[dict[str, tuple[str, str]]] = {
    "SourceUnavailable": (
        "The source cannot be reached or refuses us.",
        "Mend what the sentence names; `headrace check --connect` tries at once. The mapping goes on by itself.",
    ),
    "StateUnavailable": (
        "The state directory cannot be read or written.",
        "Free space, or repair the directory; the mapping goes on by itself.",
    ),
    "SourceChanged": (
        "The file names another source than the one that the mapping's state belongs to.",
        "Put the former source back, or `headrace mapping accept NAME`.",
    ),
    "StateGone": (
        "What was kept of where the mapping is, is not in Redis any more.",
        "Put the former data back, or let the mapping begin anew: `headrace mapping accept NAME`.",
    ),
    "InstanceTaken": (
        "Another process is the same static member of the Kafka group (`group_instance_id`).",
        "Stop one of the two, or give replicas names of their own; then `headrace mapping accept NAME`, or a restart.",
    ),
    "FormerNameRuns": (
        "Another replica still runs the mapping under its former name.",
        "Give that replica the same file: it goes on by itself then.",
    ),
    "RenameConflict": (
        "State is kept under the mapping's name and under its former one.",
        "Delete one of them: `headrace mapping forget NAME`.",
    ),
    "CheckpointUnreadable": (
        "What the store keeps of the mapping's place in its stream cannot be read.",
        "Put a checkpoint there with `headrace checkpoints import`, or begin anew: `headrace mapping accept NAME`.",
    ),
    "CommitFailed": (
        "Progress cannot be committed to the source.",
        "Records go on until the buffers are full, and are repeated after a crash. Look at the broker.",
    ),
    "FailureStoreUnavailable": (
        "A failed batch cannot be stored.",
        "Free space, or repair the state directory; the lane waits until then.",
    ),
    "FailureBacklogFull": (
        "Too many failures wait for their destination, or the failure store is at its cap.",
        "Repair the destination and run `headrace failures deliver`, or replay or drop failures.",
    ),
    "FunctionFailing": (
        "The function fails and its batch is retried.",
        "The sentence has the last error. Mend the function; the batch is tried again, or given up, by its limits.",
    ),
    "FunctionUnavailable": (
        "The function cannot be started, or what runs it elsewhere accepts nothing.",
        "The sentence says why: its interpreter, its module, a throttle, an outage. No attempt is spent.",
    ),
    "Draining": ("The mapping is shutting down.", "Wait."),
    "Paused": (
        "An operator paused the mapping.",
        "`headrace mapping resume NAME` goes on where it was.",
    ),
    "Moving": (
        "An operator moves the mapping to another place in its stream.",
        "Wait: it goes on from there, or stays paused if it was.",
    ),
    "Disabled": ("The mapping is disabled in the file.", "Set `enabled: true`."),
    "Unfit": (
        "A mapping of the API cannot be run as the file is now.",
        "The sentence says why: mend the file, or update or delete the mapping through the API.",
    ),
    "Crashed": (
        "A bug stopped the mapping: it is restarted, or stays down (state `failed`) when it broke too often.",
        "Report the trace of `mapping.crashed`; restart the daemon to try once more.",
    ),
}


#: Why a batch was given up: `reason` of a failure, its failure record, and `headrace_discarded_batch_count`.
DISCARDS: Final[dict[str, str]] = {
    Reason.RETRIES.value: "It failed once more than `maximum_retry_attempts`.",
    Reason.AGE.value: "It was older than `maximum_record_age_in_seconds`.",
    Reason.SIZE.value: "A single record whose event is over 6 MB.",
    Reason.UNFIT.value: "No event can be made of it, such as a message that is no S3 notification.",
    Reason.EVENT_AGE.value: "An asynchronous event was older than its `MaximumEventAgeInSeconds`, or would have been "
    "at its next try.",
    Reason.ZERO_CONCURRENCY.value: "An asynchronous event came to a function whose reserved concurrency is 0.",
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: counters have `_total` behind their name when they are shown."""

    #: counter | gauge | histogram
    kind: str
    labels: tuple[str, ...]
    text: str
    #: The metric of AWS Lambda that it stands for.
    aws: str = ""


_MAPPING: Final = ("mapping",)
_FUNCTION: Final = ("function",)

METRICS: Final[dict[str, Measure]] = {
    # of an event source mapping: what has happened
    "headrace_polled_event_count": Measure("counter", _MAPPING, "Records read.", "PolledEventCount"),
    "headrace_filtered_out_event_count": Measure(
        "counter", _MAPPING, "Records dropped by filters.", "FilteredOutEventCount"
    ),
    "headrace_invoked_event_count": Measure(
        "counter", _MAPPING, "Records handed to the function; retries count again.", "InvokedEventCount"
    ),
    "headrace_failed_invoke_event_count": Measure(
        "counter", _MAPPING, "Records whose invocation failed, or that it reported as failed.", "FailedInvokeEventCount"
    ),
    "headrace_invoke_error_count": Measure(
        "counter", _MAPPING, "Failed invocations; refused and partly failed ones count.", "InvokeErrorCount"
    ),
    "headrace_dropped_event_count": Measure(
        "counter", _MAPPING, "Records given up that no destination gets; the store keeps them.", "DroppedEventCount"
    ),
    "headrace_committed_event_count": Measure(
        "counter", _MAPPING, "Positions committed. Streams only.", "CommittedEventCount"
    ),
    "headrace_deleted_event_count": Measure(
        "counter", _MAPPING, "Messages deleted from their queue. Queues only.", "DeletedEventCount"
    ),
    "headrace_commit_error_count": Measure(
        "counter", _MAPPING, "Commits that failed. Streams only.", "CommitErrorCount"
    ),
    "headrace_polling_error_count": Measure("counter", _MAPPING, "Reads that failed.", "PollingErrorCount"),
    "headrace_on_failure_destination_delivered_event_count": Measure(
        "counter",
        _MAPPING,
        "Records covered by delivered failure records.",
        "OnFailureDestinationDeliveredEventCount",
    ),
    "headrace_on_failure_destination_delivery_error_count": Measure(
        "counter",
        _MAPPING,
        "Deliveries of failure records that were not accepted.",
        "OnFailureDestinationDeliveryErrorCount, DestinationDeliveryFailures",
    ),
    "headrace_discarded_batch_count": Measure(
        "counter", ("mapping", "reason"), "Batches given up and stored, by reason."
    ),
    "headrace_invocation_duration_seconds": Measure(
        "histogram", _MAPPING, "Time from handing a batch to the function until its end, with waiting for a worker."
    ),
    # of an event source mapping: how it is
    "headrace_max_offset_lag": Measure(
        "gauge", _MAPPING, "Largest lag of a shard, records; 0 while it is not known.", "MaxOffsetLag"
    ),
    "headrace_sum_offset_lag": Measure(
        "gauge", _MAPPING, "Lag over all shards, records; 0 while it is not known.", "SumOffsetLag, OffsetLag"
    ),
    "headrace_lag_seconds": Measure(
        "gauge", _MAPPING, "Age of the oldest record that is not finished; 0 while it is not known."
    ),
    "headrace_in_flight_records": Measure("gauge", _MAPPING, "Records with the function."),
    "headrace_mapping_stuck": Measure(
        "gauge", ("mapping", "reason"), "1 while the mapping does not move for this reason; absent else."
    ),
    "headrace_undelivered_failures": Measure("gauge", _MAPPING, "Stored failures that wait for their destination."),
    "headrace_stored_failures": Measure("gauge", ("mapping", "status"), "Failures in the store, by their status."),
    "headrace_source_slowed": Measure(
        "gauge", _MAPPING, "1 while the source is read in a way that takes more processor time."
    ),
    # of a function
    "headrace_function_invocations": Measure(
        "counter", _FUNCTION, "Invocations that ran, successful or not.", "Invocations"
    ),
    "headrace_function_errors": Measure(
        "counter", _FUNCTION, "Invocations that failed: errors, timeouts, crashes.", "Errors"
    ),
    "headrace_function_log_lost_bytes": Measure(
        "counter", _FUNCTION, "Bytes of a function's log that were lost on their way to CloudWatch Logs."
    ),
    "headrace_function_throttles": Measure(
        "counter",
        _FUNCTION,
        "Invocations that the function did not take: throttled, or it cannot be started. They are no errors.",
        "Throttles",
    ),
    "headrace_function_duration_seconds": Measure(
        "histogram", _FUNCTION, "Time in the handler, without its start and without waiting.", "Duration"
    ),
    "headrace_function_concurrent_executions": Measure(
        "gauge", _FUNCTION, "Invocations that run now.", "ConcurrentExecutions"
    ),
    "headrace_function_waiting_invocations": Measure("gauge", _FUNCTION, "Invocations that wait for a worker."),
    "headrace_function_workers": Measure("gauge", _FUNCTION, "Worker processes."),
    "headrace_async_events_accepted": Measure(
        "counter", _FUNCTION, "Asynchronous events that were accepted.", "AsyncEventsReceived"
    ),
    "headrace_async_events_retried": Measure(
        "counter", _FUNCTION, "Asynchronous events that were put off after a try, or for want of room."
    ),
    "headrace_async_events_finished": Measure(
        "counter",
        ("function", "condition"),
        "Asynchronous events that are done with, by how; all but `Success` are what AWS calls dropped.",
        "AsyncEventsDropped",
    ),
    "headrace_async_event_age_seconds": Measure(
        "histogram", _FUNCTION, "Age of asynchronous events at each of their tries.", "AsyncEventAge"
    ),
    "headrace_async_events_waiting": Measure("gauge", _FUNCTION, "Asynchronous events that are to be run."),
    "headrace_async_event_overdue_seconds": Measure(
        "gauge", _FUNCTION, "How long the next asynchronous event to be run has been due; 0 where none is."
    ),
    "headrace_async_deliveries_waiting": Measure(
        "gauge", ("target",), "What asynchronous events came to, and a target has not accepted yet."
    ),
    "headrace_dead_letter_errors": Measure(
        "counter",
        _FUNCTION,
        "Asynchronous events that a dead-letter queue did not accept; each try.",
        "DeadLetterErrors",
    ),
    "headrace_destination_delivery_failures": Measure(
        "counter",
        _FUNCTION,
        "Records of asynchronous events that a destination did not accept; each try.",
        "DestinationDeliveryFailures",
    ),
    # of the daemon
    "headrace_build_info": Measure("gauge", ("version", "python"), "1, with what runs."),
    "headrace_event_loop_lag_seconds": Measure(
        "gauge", (), "Longest time within the last minute for which the daemon's event loop did nothing else."
    ),
    "headrace_store_size_bytes": Measure(
        "gauge", (), "Size of the embedded store on disk, with its log; of a shared one, of the failures in it."
    ),
    "headrace_store_findings": Measure("gauge", ("what",), "1 while this of the shared store should be mended."),
    "headrace_fleet_replicas": Measure("gauge", ("state",), "Replicas of the fleet that live, and that are dead."),
    "headrace_fleet_mixed": Measure("gauge", (), "1 while replicas that live have different versions or files."),
    "headrace_fleet_leases_owned": Measure("gauge", (), "Leases that this replica owns."),
    "headrace_fleet_leases_taken": Measure("counter", (), "Leases that this replica has taken."),
    "headrace_fleet_leases_given": Measure("counter", (), "Leases that this replica has given back."),
    "headrace_fleet_leases_lost": Measure("counter", (), "Leases that this replica has lost, with what ran of them."),
    "headrace_fleet_exchange_duration_seconds": Measure(
        "histogram", ("outcome",), "Time for one exchange with the table of leases, answered or unanswered."
    ),
    "headrace_log_lines_dropped": Measure("counter", (), "Log lines that were lost because nobody read them."),
    "headrace_config_usable": Measure("gauge", (), "0 while the file cannot be used and a former one goes on."),
    "headrace_config_loaded_timestamp_seconds": Measure(
        "gauge", (), "When the configuration that runs was taken up, seconds since the epoch."
    ),
    "headrace_config_needs_restart": Measure(
        "gauge", (), "1 while the file asks for something that only a restart brings."
    ),
    "process_resident_memory_bytes": Measure("gauge", (), "Resident memory of the daemon, without its workers."),
    "process_virtual_memory_bytes": Measure("gauge", (), "Virtual memory of the daemon."),
    "process_cpu_seconds": Measure("counter", (), "Processor time of the daemon, without its workers."),
    "process_start_time_seconds": Measure("gauge", (), "When the daemon started, seconds since the epoch."),
    "process_open_fds": Measure("gauge", (), "Open descriptors of the daemon."),
    "process_max_fds": Measure("gauge", (), "Descriptors that it may open."),
}

_KINDS: Final = {"counter": Counter, "gauge": Gauge, "histogram": Durations}
_BATCH_BUCKETS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30, 120, 900)


@dataclass(frozen=True, slots=True)
class FunctionMetrics:
    """What is counted of one function."""

    invocations: Counter
    errors: Counter
    throttles: Counter
    duration: Duration
    dead_letter_errors: Counter
    destination_failures: Counter

    def ended(self, outcome: Outcome) -> None:
        """Count the end of an invocation; one that was cancelled, or never sent, is none."""
        match outcome:
            case Returned(duration_ms=duration_ms):
                self.invocations.inc()
                self.duration.observe(duration_ms / 1000)
            case Failed(duration_ms=duration_ms):
                self.invocations.inc()
                self.errors.inc()
                self.duration.observe(duration_ms / 1000)
            case Refused():
                self.throttles.inc()


@dataclass(frozen=True, slots=True)
class MappingMetrics:
    """The counters of one mapping, and those of its function by name."""

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
    duration: Duration
    slowed: Gauge
    of_function: Callable[[str], FunctionMetrics]


@dataclass(frozen=True, slots=True)
class AsyncMetrics:
    """What is counted of asynchronous events, by function."""

    accepted: Counter
    retried: Counter
    #: Also by condition.
    finished: Counter
    age: Durations


@dataclass(frozen=True, slots=True)
class FleetMetrics:
    """What is counted of a fleet by one of its replicas."""

    replicas: Gauge
    mixed: Gauge
    owned: Gauge
    taken: Counter
    given: Counter
    lost: Counter
    duration: Durations

    def exchanged(self, seconds: float, *, answered: bool) -> None:
        """Count the end of an exchange."""
        self.duration.labels("answered" if answered else "unanswered").observe(seconds)


class Metrics:
    """All metrics of a daemon, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        #: Those made here; those of the process come from the client library.
        self._families = {name: self._make(name) for name in METRICS if name.startswith("headrace_")}
        self.max_offset_lag: Gauge = self._families["headrace_max_offset_lag"]
        self.sum_offset_lag: Gauge = self._families["headrace_sum_offset_lag"]
        self.lag_seconds: Gauge = self._families["headrace_lag_seconds"]
        self.in_flight: Gauge = self._families["headrace_in_flight_records"]
        self.stuck: Gauge = self._families["headrace_mapping_stuck"]
        self.undelivered: Gauge = self._families["headrace_undelivered_failures"]
        self.stored_failures: Gauge = self._families["headrace_stored_failures"]
        self.concurrent_executions: Gauge = self._families["headrace_function_concurrent_executions"]
        self.waiting_invocations: Gauge = self._families["headrace_function_waiting_invocations"]
        self.workers: Gauge = self._families["headrace_function_workers"]
        self.events_waiting: Gauge = self._families["headrace_async_events_waiting"]
        self.event_overdue: Gauge = self._families["headrace_async_event_overdue_seconds"]
        self.deliveries_waiting: Gauge = self._families["headrace_async_deliveries_waiting"]
        self.build_info: Gauge = self._families["headrace_build_info"]
        self.event_loop_lag: Gauge = self._families["headrace_event_loop_lag_seconds"]
        self.store_size: Gauge = self._families["headrace_store_size_bytes"]
        self.store_findings: Gauge = self._families["headrace_store_findings"]
        self.function_log_lost: Counter = self._families["headrace_function_log_lost_bytes"]
        self.log_lines_dropped: Counter = self._families["headrace_log_lines_dropped"]
        self.config_usable: Gauge = self._families["headrace_config_usable"]
        self.config_loaded: Gauge = self._families["headrace_config_loaded_timestamp_seconds"]
        self.config_needs_restart: Gauge = self._families["headrace_config_needs_restart"]
        ProcessCollector(registry=self.registry)

    def of(self, mapping: str) -> MappingMetrics:
        """Give the counters of one mapping, all present from the start."""

        def counter(name: str) -> Any:
            return self._families[f"headrace_{name}"].labels(mapping)

        return MappingMetrics(
            polled=counter("polled_event_count"),
            filtered_out=counter("filtered_out_event_count"),
            invoked=counter("invoked_event_count"),
            failed_invoke=counter("failed_invoke_event_count"),
            invoke_errors=counter("invoke_error_count"),
            dropped=counter("dropped_event_count"),
            committed=counter("committed_event_count"),
            deleted=counter("deleted_event_count"),
            commit_errors=counter("commit_error_count"),
            polling_errors=counter("polling_error_count"),
            delivered=counter("on_failure_destination_delivered_event_count"),
            delivery_errors=counter("on_failure_destination_delivery_error_count"),
            discarded=self._families["headrace_discarded_batch_count"],
            duration=self._families["headrace_invocation_duration_seconds"].labels(mapping),
            slowed=self._families["headrace_source_slowed"].labels(mapping),
            of_function=self.of_function,
        )

    def of_fleet(self) -> FleetMetrics:
        """Give what is counted of the fleet."""

        def family(name: str) -> Any:
            return self._families[f"headrace_fleet_{name}"]

        return FleetMetrics(
            replicas=family("replicas"),
            mixed=family("mixed"),
            owned=family("leases_owned"),
            taken=family("leases_taken"),
            given=family("leases_given"),
            lost=family("leases_lost"),
            duration=family("exchange_duration_seconds"),
        )

    def of_events(self) -> AsyncMetrics:
        """Give what is counted of asynchronous events."""
        return AsyncMetrics(
            accepted=self._families["headrace_async_events_accepted"],
            retried=self._families["headrace_async_events_retried"],
            finished=self._families["headrace_async_events_finished"],
            age=self._families["headrace_async_event_age_seconds"],
        )

    def of_function(self, function: str) -> FunctionMetrics:
        """Give the counters of one function, all present from the start."""
        return FunctionMetrics(
            invocations=self._families["headrace_function_invocations"].labels(function),
            errors=self._families["headrace_function_errors"].labels(function),
            throttles=self._families["headrace_function_throttles"].labels(function),
            duration=self._families["headrace_function_duration_seconds"].labels(function),
            dead_letter_errors=self._families["headrace_dead_letter_errors"].labels(function),
            destination_failures=self._families["headrace_destination_delivery_failures"].labels(function),
        )

    def forget(self, mapping: str) -> None:
        """Leave out a mapping that is there no more."""
        self._forget("mapping", mapping)

    def forget_function(self, function: str) -> None:
        """Leave out a function that is there no more."""
        self._forget("function", function)

    def _forget(self, label: str, name: str) -> None:
        for family, metric in self._families.items():
            if label in METRICS[family].labels:
                metric.remove_by_labels({label: name})

    def _make(self, name: str) -> Any:
        measure = METRICS[name]
        options: dict[str, Any] = {"registry": self.registry}
        if measure.kind == "histogram":
            options["buckets"] = _BATCH_BUCKETS
        return _KINDS[measure.kind](name, measure.text, measure.labels, **options)


@dataclass(slots=True)
class _Least:
    """The level from which on logs write that share it."""

    level: int


class Log:
    """Writes listed events from a level on; fields that say nothing are left out."""

    def __init__(self, level: str = "debug", **bound: object) -> None:
        self._log = structlog.get_logger().bind(**bound)
        self._least = _Least(LEVELS[level])

    def bind(self, **bound: object) -> Log:
        """Give a log whose every line carries these fields too."""
        log = Log()
        log._log = self._log.bind(**bound)
        log._least = self._least
        return log

    def set_level(self, level: str) -> None:
        """Write from another level on, here and in all logs that were bound to this one."""
        self._least.level = LEVELS[level]

    def at(self, level: str | None) -> Log:
        """Give a log that writes from another level on; None = this one."""
        if level is None:
            return self
        log = Log(level)
        log._log = self._log
        return log

    def write(self, event: str, **fields: object) -> None:
        """Write one event at the level it is listed with; an unlisted one is a bug."""
        level, _ = EVENTS[event]
        if LEVELS[level] >= self._least.level:
            said = {name: value for name, value in fields.items() if value not in (None, "")}
            getattr(self._log, level)(event, **said)
