"""`headrace failures`: looks at failed batches, replays, delivers and drops them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router.cli import here
from router.commands.arguments import add_command, add_selectors, natural, rate
from router.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from router.cli.kept import Kept
    from router.commands.selecting import Options
    from router.ports import FailureEntry, Selection, Store


def add_failures(commands: Any) -> None:
    """Add the commands of the group."""
    listing = add_command(commands, "list", list_failures, "list failed batches that are open, oldest first")
    one = add_command(commands, "show", show_failure, "show one failed batch whole: its records and every try")
    one.add_argument("ids", nargs=1, metavar="ID", help="the failure")
    replaying = add_command(commands, "replay", replay_failures, "run failed batches again, in the running daemon")
    replaying.add_argument("--rate", type=rate, metavar="N", help="batches or messages a second, at most")
    replaying.add_argument(
        "--from",
        dest="place",
        metavar="PLACE",
        help="failure records of streams, in FILE, sqs:QUEUE or s3://BUCKET/PREFIX, whose records are read again; or, "
        "with --mapping of a queue mapping, sqs:QUEUE as its dead-letter queue",
    )
    replaying.add_argument("--again", action="store_true", help="with --from, also what an earlier replay has settled")
    delivering = add_command(commands, "deliver", deliver_failures, "send what waits for its destination now")
    dropping = add_command(commands, "drop", drop_failures, "give failed batches up for good; deletes their records")
    listing.add_argument("--limit", type=natural, metavar="N", help="failures at most; else 100, or all with --json")
    for one in (listing, replaying, delivering, dropping):
        add_selectors(one)
    for one in (replaying, delivering, dropping):
        one.add_argument("--all", action="store_true", help="every failure that is open")
        one.add_argument("--dry-run", action="store_true", help="only list what was selected")
    for one in (replaying, dropping):
        one.add_argument("--yes", action="store_true", help="do not ask")


def list_failures(given: argparse.Namespace) -> int:
    from router.commands.selecting import OPEN

    show_list(given, _options(given), OPEN, given.limit)
    return 0


def show_list(given: argparse.Namespace, options: Options, statuses: Sequence[str], limit: int | None) -> None:
    from router.commands import failures as failure_commands

    kept = here.kept(given)
    wanted, count = selected(kept, options, statuses)
    entries = chain.from_iterable(pages(kept, replace(wanted, limit=limit)))
    failure_commands.show_list(entries, count, limit, as_json=given.json)


def show_failure(given: argparse.Namespace) -> int:
    from router.commands.failures import show_one
    from router.commands.selecting import Options

    kept = here.kept(given)
    wanted, _ = selected(kept, Options(given.ids), ())
    [entry] = here.read(kept, lambda store: store.failures(wanted))
    show_one(entry, here.read(kept, lambda store: store.event(entry.batch.id)), as_json=given.json)
    return 0


def replay_failures(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import failures as failure_commands
    from router.commands.selecting import REPLAYABLE

    if given.again and (given.place or "sqs:").startswith("sqs:"):
        raise ConfigError("--again is for --from FILE or s3://BUCKET/PREFIX: a queue keeps nothing that is settled")
    if given.place is not None:
        return _replay_from(given)
    options = _chosen(given)
    if given.dry_run:
        show_list(given, options, REPLAYABLE, None)
        return 0
    kept = here.kept(given)
    control_client.connect(kept.daemon(), control_client.ANSWER_S).close()
    now_s = time.time()
    wanted, count = selected(kept, options, REPLAYABLE)
    # What fails again is a failure of later, and not to be replayed by the same job.
    wanted = wanted if wanted.ids else replace(wanted, until_s=min(now_s, wanted.until_s or now_s))
    return failure_commands.replay(
        count,
        lambda: control_client.replay(kept.daemon(), wanted, _interval_s(given)),
        here.asker(given),
        as_json=given.json,
    )


def _replay_from(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands.selecting import QUEUE, place_of

    place, mapping = place_of(given.place, _options(given), every=given.all)
    kept = here.kept(given)
    if mapping and place.startswith(QUEUE):
        # Messages of a dead-letter queue are records of a queue mapping; those of streams are only named by records.
        reads = {each["name"]: each["source"] for each in control_client.status(kept.daemon())["mappings"]}
        if reads.get(mapping, "").startswith(("sqs:", "s3:")):
            return _replay_queue(given, kept, mapping, place.removeprefix(QUEUE))
    return _replay_records(given, kept, mapping, place)


def _replay_queue(given: argparse.Namespace, kept: Kept, mapping: str, queue: str) -> int:
    from router.commands import control_client
    from router.commands import failures as failure_commands

    found = control_client.look(kept.daemon(), mapping, queue, failure_commands.SHOWN if given.dry_run else 0)
    if given.dry_run:
        failure_commands.show_queue(found, as_json=given.json)
        return 0
    return failure_commands.replay_queue(
        found,
        mapping,
        lambda: control_client.replay_queue(kept.daemon(), mapping, queue, _interval_s(given)),
        here.asker(given),
        as_json=given.json,
    )


def _replay_records(given: argparse.Namespace, kept: Kept, mapping: str | None, place: str) -> int:
    from router.commands import control_client
    from router.commands import records as records_command
    from router.commands.selecting import is_file
    from router.replay import record_frames
    from router.replay.record_file import read_file

    file = Path(place) if is_file(place) else None

    def run() -> Iterator[dict[str, Any]]:
        return control_client.replay_records(
            kept.daemon(),
            place if file is None else f"file:{file.resolve()}",
            mapping,
            _interval_s(given),
            only_look=given.dry_run,
            again=given.again,
            frames=None if file is None else record_frames.write(read_file(file)),
        )

    if file is not None:
        count: int | None = sum(1 for _ in read_file(file))
        control_client.connect(kept.daemon(), control_client.ANSWER_S).close()
    else:
        count = control_client.count_records(kept.daemon(), place, mapping)
    if given.dry_run:
        return records_command.look(run, count, as_json=given.json)
    return records_command.replay(
        place, count, mapping, run, here.asker(given), is_file=file is not None, as_json=given.json
    )


def _interval_s(given: argparse.Namespace) -> float:
    return 1 / given.rate if given.rate else 0.0


def deliver_failures(given: argparse.Namespace) -> int:
    from router.commands import control_client
    from router.commands import deliver as deliver_command
    from router.commands import failures as failure_commands
    from router.commands.selecting import DELIVERABLE

    options = _chosen(given)
    kept = here.kept(given)
    if not given.dry_run:
        control_client.connect(kept.daemon(), control_client.ANSWER_S).close()
    wanted, _ = selected(kept, options, DELIVERABLE)
    entries = deliver_command.choose(chain.from_iterable(pages(kept, wanted)), wanted.ids)
    if given.dry_run:
        failure_commands.show_list(entries, len(entries), None, as_json=given.json)
        return 0
    ids = [entry.batch.id for entry in entries]
    return deliver_command.deliver(ids, lambda: control_client.deliver(kept.daemon(), ids), as_json=given.json)


def drop_failures(given: argparse.Namespace) -> int:
    from router.commands import failures as failure_commands
    from router.commands.selecting import DROPPABLE

    options = _chosen(given)
    if given.dry_run:
        show_list(given, options, DROPPABLE, None)
        return 0
    here.need_yes(given, "dropping deletes records")
    kept = here.kept(given)
    wanted, count = selected(kept, options, DROPPABLE)
    return failure_commands.drop(count, lambda: _drop(kept, wanted), here.asker(given), as_json=given.json)


def _drop(kept: Kept, wanted: Selection) -> Iterator[tuple[str, bool]]:
    """Drop failures a page at a time; give each with whether it was."""
    from router.commands import control_client
    from router.stored import each_done

    async def drop(store: Store, page: Sequence[str]) -> Sequence[str]:
        return await store.drop(page)

    done: Iterator[tuple[Sequence[str], Sequence[str]]]
    if here.is_served(kept):
        done = ((page, control_client.drop(kept.daemon(), page)) for page in ids(kept, wanted))
    else:
        # A daemon that is there but does not answer holds the lock, so this cannot go past it.
        done = each_done(kept.open, wanted, drop)
    for page, dropped in done:
        yield from ((each, each in set(dropped)) for each in page)


def ids(kept: Kept, wanted: Selection) -> Iterator[Sequence[str]]:
    for page in pages(kept, wanted):
        yield [entry.batch.id for entry in page]


def _options(given: argparse.Namespace) -> Options:
    from router.commands.selecting import Options

    return Options(
        given.ids, given.mapping, given.shard, given.key, given.since, given.until, given.error, given.status
    )


def _chosen(given: argparse.Namespace) -> Options:
    """Give the options of a command that changes failures: it must name some. Raises ConfigError."""
    options = _options(given)
    if options.select_nothing and not given.all:
        raise ConfigError("name the failures: an ID, a selector such as --mapping NAME, or --all")
    return options


def selected(kept: Kept, options: Options, statuses: Sequence[str]) -> tuple[Selection, int]:
    """Give what the options select, and how many failures that is. Raises NotFound for an ID that is not there."""
    from router.commands.selecting import selection

    wanted = selection(options, statuses, time.time())
    if wanted.ids:
        found = {entry.batch.id for entry in here.read(kept, lambda store: store.failures(wanted))}
        if missing := sorted(set(wanted.ids) - found):
            raise NotFound(f"there is no such failure: {', '.join(missing)}; see `headrace failures list --status all`")
        return wanted, len(found)
    return wanted, here.read(kept, lambda store: store.count(wanted))


def pages(kept: Kept, wanted: Selection) -> Iterator[Sequence[FailureEntry]]:
    from router.stored import each_page

    return each_page(kept.open_reader, wanted)
