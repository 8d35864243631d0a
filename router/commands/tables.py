"""What people read: tables and progress bars on a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from router.fleet import tables as fleet_tables

#: Colour of a word that says how something is.
COLOURS: Final = {
    "running": "green",
    "idle": "green",
    "retrying": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "paused": "yellow",
    "holding": "red",
    "failed": "red",
    "stored": "red",
    "delivered": "yellow",
    "not_delivered": "red",
    "replaying": "cyan",
    "replayed": "green",
    "failed_again": "red",
    "refused": "yellow",
    "live": "green",
    "silent": "yellow",
    "dead": "red",
    "ok": "green",
    "FAILED": "red",
}


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows; on a terminal within its width, elsewhere whole."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _plain(columns, cells)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold" if number == 0 else "ellipsis", no_wrap=number == 0)
    for row in cells:
        table.add_row(*map(_coloured, row))
    Console().print(table)


def _coloured(cell: str) -> str:
    colour = COLOURS.get(cell)
    return f"[{colour}]{cell}[/]" if colour else escape(cell)


def _plain(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    lines = [columns, *([cell.replace("\n", " ") for cell in row] for row in cells)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


# --- status


def show_status(document: Mapping[str, Any]) -> None:
    """Print the document of `status --json` for a person."""
    mappings = document["mappings"]
    print(f"headrace {document['version']}: {document['state']}")
    _show_config(document["config"] or {})
    if mappings:
        columns = ("MAPPING", "STATE", "SOURCE", "LAG", "LAG TIME", "IN FLIGHT", "PER SECOND", "LAST RESULT")
        show_table(columns, [_mapping_row(each) for each in mappings])
    for each in mappings:
        if each["reason"]:
            print(f"{each['name']}: {each['reason']['code']}: {each['reason']['message']}")
    fleet = document.get("fleet")
    if fleet:
        fleet_tables.show_replicas(fleet, show_table)
    _show_shards(mappings, fleet)
    idle = [_waiting_row(each["name"], shard) for each in mappings for shard in each.get("waiting", ())]
    idle += fleet_tables.idle(fleet) if fleet else []
    if idle:
        print()
        show_table(("NOBODY WORKS ON", "MAPPING", "OWNER", "SINCE", "WHY"), idle)
    waiting = [_outbox_row(each["name"], each["outbox"]) for each in mappings if _waits(each)]
    if waiting:
        print()
        show_table(("UNDELIVERED", "MAPPING", "DESTINATION", "OLDEST", "NEXT TRY", "LAST ERROR"), waiting)
    _show_functions(document)


def _show_functions(document: Mapping[str, Any]) -> None:
    if document["functions"]:
        print()
        members = ("name", "handler", "workers", "busy", "waiting")
        rows = [tuple(each[member] for member in members) for each in document["functions"]]
        show_table(("FUNCTION", "HANDLER", "WORKERS", "BUSY", "WAITING"), rows)
    for each in document["functions"]:
        if events := each.get("events"):
            wait = "wait" if events["waiting"] > 1 else "waits"
            print(f"{each['name']}: {_events(events['waiting'])} {wait}: {events['reason']}")
    for each in document.get("event_targets", ()):
        why = f": {each['error']}" if each["error"] else ""
        print(f"{each['target']}: is still to be told of {_events(each['waiting'])}{why}")
    for each in document["functions"]:
        if each["snap_start"] and each["snap_start"]["found"]:
            found = ", ".join(each["snap_start"]["found"])
            print(f"{each['name']}: snap_start has no effect, workers are started anew: its module leaves open {found}")


def _events(count: int) -> str:
    return f"{count} asynchronous events" if count > 1 else "1 asynchronous event"


def _show_shards(mappings: Sequence[Mapping[str, Any]], fleet: Mapping[str, Any] | None) -> None:
    columns: Sequence[str] = ("SHARD", "MAPPING", "POSITION", "LAG", "LAG TIME", "IN FLIGHT", "ATTEMPTS", "NEXT TRY")
    rows = [_shard_row(each["name"], shard) for each in mappings for shard in each["shards"]]
    if fleet:
        columns, rows = fleet_tables.with_owners(columns, rows, mappings, fleet)
    if rows:
        print()
        show_table(columns, rows)


def _waiting_row(mapping: str, each: Mapping[str, Any]) -> tuple[object, ...]:
    why = f"ParentsUnfinished: its records come behind those of {', '.join(each['parents'])}"
    return each["shard"], mapping, None, None, why


def _waits(mapping: Mapping[str, Any]) -> bool:
    return mapping["outbox"] is not None and mapping["outbox"]["undelivered"] > 0


def _outbox_row(mapping: str, outbox: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        outbox["undelivered"],
        mapping,
        outbox["destination"],
        outbox["oldest"],
        outbox["next_try"],
        outbox["last_error"],
    )


def _show_config(config: Mapping[str, Any]) -> None:
    """Say what is not as the file has it."""
    refused, keys = config.get("refused"), config.get("needs_restart")
    if refused:
        print(f"The configuration was refused at {refused['at']}; that of {config['loaded_at']} goes on:")
        for mistake in refused["mistakes"]:
            print(f"  {mistake}")
    if keys:
        print(f"Changed in the file, and needs a restart: {', '.join(keys)}")


def show_stored(document: Mapping[str, Any]) -> None:
    """Print what a store knows while no daemon runs."""
    rows = [
        (
            each["name"],
            ", ".join(f"{count} {status}" for status, count in each["failures"].items()),
            each["outbox"]["undelivered"],
        )
        for each in document["mappings"]
    ]
    if rows:
        show_table(("MAPPING", "FAILURES", "UNDELIVERED"), rows)
    else:
        print("No failures are stored.")
    if document.get("fleet"):
        fleet_tables.show_replicas(document["fleet"], show_table)
        fleet_tables.show_leases(document["fleet"], show_table)


def _mapping_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    is_made = each.get("made_by") == "api"  # its name is a UUID, which tells a person nothing
    return (
        f"{each['name']} (api, {each['function']})" if is_made else each["name"],
        each["state"],
        each["source"],
        each["lag_records"],
        duration(each["lag_seconds"]),
        each["in_flight"],
        each["records_per_second"],
        each["last_result"],
    )


def _shard_row(mapping: str, each: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        each["shard"],
        mapping,
        each["position"],
        each["lag_records"],
        duration(each["lag_seconds"]),
        each["in_flight"],
        each["attempts"],
        each["next_try"],
    )


def duration(seconds: float | None) -> str | None:
    """Write a duration for people, in the unit that fits."""
    if seconds is None:
        return None
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


# --- failures


def show_failures(failures: Sequence[Mapping[str, Any]]) -> None:
    """Print what `failures list --json` holds for a person."""
    if not failures:
        print("No failures.")
        return
    columns = ["ID", "STATUS", "MAPPING", "SHARD", "POSITIONS", "RECORDS", "ATTEMPTS", "FAILED AT", "REASON", "ERROR"]
    rows = [_failure_row(each) for each in failures]
    if any(_is_undelivered(each) for each in failures):
        columns.append("DELIVERY")
        rows = [(*row, _delivery(each["delivery"])) for row, each in zip(rows, failures, strict=True)]
    show_table(columns, rows)


def _failure_row(each: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        each["id"],
        each["status"],
        each["mapping"],
        each["shard"],
        positions(each),
        each["batch_size"],
        each["attempts"],
        each["failed_at"],
        each["reason"],
        _error(each),
    )


def _is_undelivered(each: Mapping[str, Any]) -> bool:
    return each["delivery"] is not None and each["delivery"]["state"] == "waiting"


def _delivery(delivery: Mapping[str, Any] | None) -> str | None:
    """Say how far a failure is on its way to its destination."""
    if delivery is None:
        return None
    words = [delivery["state"].replace("_", " ")]
    if delivery["tries"]:
        words.append(f"{delivery['tries']} {'try' if delivery['tries'] == 1 else 'tries'}")
    if delivery["next_try"]:
        words.append(f"next {delivery['next_try']}")
    text = ", ".join(words)
    return f"{text}: {delivery['last_error']}" if delivery["last_error"] else text


def positions(each: Mapping[str, Any]) -> object:
    """Give the positions of a batch: one, or first and last."""
    first, last = each["first_position"], each["last_position"]
    return first if first == last else f"{first}..{last}"


def _error(each: Mapping[str, Any]) -> str | None:
    if each["error_type"] is None:
        return None
    return f"{each['error_type']}: {each['error_message']}"


def show_failure(failure: Mapping[str, Any], event: str | None) -> None:
    """Print one failure whole; `event` is its JSON, None once dropped."""
    shown = {name: value for name, value in failure.items() if name not in ("event", "tries")}
    shown["delivery"] = _delivery(failure["delivery"])
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {'-' if value is None else value}")
    for number, each in enumerate(failure["tries"], 1):
        error = each["error"]
        print(f"\ntry {number}  {each['when']}  {each['records']} records  request {each['request_id']}")
        print(f"  {error['type']}: {error['message']}")
        for line in error["trace"]:
            print("  " + line.rstrip("\n").replace("\n", "\n  "))
    print("\nevent" if event else "\nevent  dropped")
    if event:
        print(event)


def show_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Print messages that wait in a dead-letter queue."""
    rows = [
        (each["id"], each["sent_at"], each["size_bytes"], each["why_not"], each["preview"].replace("\n", " "))
        for each in messages
    ]
    show_table(("ID", "SENT AT", "BYTES", "WOULD NOT RUN", "DATA"), rows)


# --- replay


@contextmanager
def replay_progress(total: int | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Show how a replay of about so many goes (None = not known); what is given must be called with each end."""
    counts: Counter[str] = Counter()
    if not sys.stdout.isatty():
        yield show_end
        return
    columns = (
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns) as progress:
        task = progress.add_task("replay", total=total, counts="")

        def advance(end: Mapping[str, Any]) -> None:
            counts[end["outcome"]] += 1
            if end["outcome"] not in ("replayed", "settled", "later"):
                progress.console.print(_end(end), markup=False, highlight=False)
            expected = None if total is None else max(total, counts.total())
            progress.update(
                task, advance=1, total=expected, counts=", ".join(f"{count} {name}" for name, count in counts.items())
            )

        yield advance


def show_end(end: Mapping[str, Any]) -> None:
    """Print how a replay ended, unless it was none of this job."""
    if end["outcome"] not in ("settled", "later"):
        print(_end(end), flush=True)


def _end(end: Mapping[str, Any]) -> str:
    detail = "; ".join(filter(None, (", ".join(end["new_failures"]), end["reason"])))
    return f"{end.get('where') or end['id']}  {end['outcome']}" + (f": {detail}" if detail else "")


def show_prospects(prospects: Sequence[Mapping[str, Any]]) -> None:
    """Print what replaying failure records would do, a line for each shard of a record."""
    if not prospects:
        return
    columns = ("RECORD", "MAPPING", "SHARD", "FROM", "TO", "FAILED", "WOULD RUN", "NOTE")
    rows = []
    for each in prospects:
        for shard, first, last in each["ranges"] or [(None, None, None)]:
            note = each["why_not"] or each["note"]
            rows.append((each["where"], each["mapping"], shard, first, last, each["records"], _would_run(each), note))
    show_table(columns, rows)


def _would_run(prospect: Mapping[str, Any]) -> str:
    if prospect["is_settled"]:
        return "no: settled"
    if prospect["why_not"]:
        return "no"
    return "its event" if prospect["has_event"] else f"{prospect['held']} read again"


# --- copies


@contextmanager
def bytes_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how far something is; what is given must be called with bytes done and bytes in all."""
    if not sys.stdout.isatty():
        yield lambda _done, _total: None
        return
    with Progress(TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn(), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
