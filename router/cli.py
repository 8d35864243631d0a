"""The command `headrace`: reads its arguments, puts the rooms together, and turns errors into one line and a status.

Each command loads what it needs when it runs: `headrace --version` stays quick, and the daemon carries nothing that
only people at a terminal need. That is also why the arguments are read with argparse: typer keeps 20 MB in a process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from router.arguments import Parser, add_command, add_common, add_group, add_selectors, natural, rate, seconds
from router.errors import ConfigError, NotFound, NotRunning, RouterError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from config.settings import Configuration
    from config.watching import Seen
    from connectors.store.reader import SqliteReader
    from connectors.store.sqlite import SqliteStore
    from router.checkpoint_file import Saved
    from router.identity import Holding
    from router.log_pipe import LogPipe
    from router.ports import FailureEntry, Invoker, Places, Selection, Store
    from router.selecting import Options

T = TypeVar("T")

#: Exit statuses (0 = done, 1 = it failed).
USAGE: Final = 2
NOT_RUNNING: Final = 3
INTERRUPTED: Final = 130

ROOMS: Final = ("config", "connectors", "handlers", "router")
#: Between two looks of `status --watch`, seconds, where nothing is said, and at least.
WATCH_INTERVAL_S: Final = 2.0
LEAST_INTERVAL_S: Final = 0.1
DEFAULT_FILE: Final = "headrace.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        require_own_rooms()
        given = make_parser().parse_args(arguments)
        status: int = given.do(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough. What is left in the buffer must not fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (RouterError, BaseExceptionGroup) as error:
        return _explain(error)
    return status


def _explain(error: BaseException) -> int:
    """Tell an operator's error in one line each; what is a bug is raised again."""
    if isinstance(error, BaseExceptionGroup):
        expected, bugs = error.split(RouterError)
        if bugs or expected is None:
            raise error
        return max(_explain(each) for each in expected.exceptions)
    print(f"headrace: {error}", file=sys.stderr)
    statuses = {ConfigError: USAGE, NotRunning: NOT_RUNNING}
    return next((status for kind, status in statuses.items() if isinstance(error, kind)), 1)


def require_own_rooms() -> None:
    """Refuse to run with somebody else's `config` or `handlers` in place of ours. Raises ConfigError."""
    home = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        spec = find_spec(room)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or origin.parent.parent != home:
            found = origin or (spec and spec.submodule_search_locations) or "nothing"
            raise ConfigError(
                f"the package {room!r} of headrace is hidden by {found}; "
                "take that off PYTHONPATH, or install headrace in an environment of its own"
            )


# --- the arguments


def make_parser() -> argparse.ArgumentParser:
    """Give the parser of all commands; each sets `do` to the function that carries it out."""
    parser = Parser(prog="headrace", description="Carry streams to AWS-Lambda-style handlers, and keep what fails.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    add_common(parser)
    parser.set_defaults(do=lambda given: show_version() if given.version else show_help(parser))
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    one = add_command(commands, "run", run, "run the service in the foreground; SIGTERM or Ctrl-C drains it")
    one.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the configuration")
    one = add_command(commands, "check", check, "check the configuration")
    one.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the configuration")
    one.add_argument("--diff", action="store_true", help="show what a reload would change in the running daemon")
    one.add_argument("--connect", action="store_true", help="reach every source, destination and handler")
    one.add_argument("--setup", action="store_true", help="make the queues and notifications that sources lack, first")
    one = add_command(commands, "demo", demo, "show it all in a minute, on queues and a bucket that come with it")
    one.add_argument("--kafka", action="store_true", help="on a real Kafka instead; it is started if need be")
    one.add_argument("--keep", action="store_true", help="leave everything in place to look around, until Ctrl-C")
    one = add_command(commands, "invoke", invoke, "run a function once; its result and its log")
    one.add_argument("function", metavar="FUNCTION", help="its name in the file")
    one.add_argument("--event", metavar="FILE", help="the event, JSON; - is standard input, and without it it is {}")
    one = add_command(commands, "logs", logs, "show what a function has printed")
    one.add_argument("function", metavar="FUNCTION", help="its name in the file")
    one.add_argument("-n", "--lines", type=natural, metavar="N", help="the last N lines only")
    one.add_argument("--request", metavar="ID", help="of this request only")
    one.add_argument("-f", "--follow", action="store_true", help="and what it prints from now on, until Ctrl-C")
    one = add_command(commands, "event", event, "print a sample event, such as that of an SQS queue")
    one.add_argument("kind", nargs="?", metavar="KIND", help="which; without it, all kinds are listed")
    one.add_argument("--list", action="store_true", help="list all kinds")
    add_command(commands, "schema", schema, "print the JSON Schema of the configuration, for editors")
    one = add_command(commands, "status", status, "show how every mapping is, and why it does not move")
    one.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")
    one.add_argument("--interval", type=seconds, metavar="TIME", help="between two looks, with --watch; else 2s")
    one.add_argument("--shards", action="store_true", help="every shard too, with --watch")
    _add_mapping(add_group(commands, "mapping", "steer one mapping, and decide what becomes of its state"))
    _add_checkpoints(add_group(commands, "checkpoints", "keep where mappings are in their streams as a file"))
    _add_failures(add_group(commands, "failures", "look at failed batches, replay, deliver or drop them"))
    _add_state(add_group(commands, "state", "the state directory"))
    return parser


def _add_mapping(commands: Any) -> None:
    pausing = add_command(commands, "pause", pause, "start nothing new in a mapping, until it is resumed")
    resuming = add_command(commands, "resume", resume, "let a paused mapping go on where it was")
    draining = add_command(commands, "drain", drain, "pause a mapping, and wait until nothing of it is in flight")
    draining.add_argument("--timeout", type=seconds, metavar="TIME", help="wait so long at most, such as 30s or 5m")
    seeking = add_command(commands, "seek", seek, "look what going on elsewhere in a stream means; --apply does it")
    seeking.add_argument(
        "--to",
        required=True,
        metavar="PLACE",
        help="TRIM_HORIZON, LATEST, a time (2026-05-01T06:00:00Z), how long ago (2h), or the record that comes next",
    )
    seeking.add_argument("--shard", metavar="SHARD", help="this shard only: orders-0; a position needs it")
    seeking.add_argument("--apply", action="store_true", help="do it, once it was shown")
    accepting = add_command(commands, "accept", accept, "let a mapping go on with another source under its name")
    forgetting = add_command(commands, "forget", forget, "delete state and failures of a mapping that is not run")
    for one in (pausing, resuming, draining, seeking, accepting, forgetting):
        one.add_argument("mapping", metavar="NAME", help="the mapping")
    for one in (seeking, forgetting):
        one.add_argument("--yes", action="store_true", help="do not ask")


def _add_checkpoints(commands: Any) -> None:
    exporting = add_command(commands, "export", export_checkpoints, "write where mappings are, as a readable file")
    exporting.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="a file that does not exist yet; else print"
    )
    importing = add_command(commands, "import", import_checkpoints, "let mappings go on where a file says")
    importing.add_argument("saved", type=Path, metavar="FILE", help="what `checkpoints export` wrote")
    importing.add_argument("--yes", action="store_true", help="do not ask")
    for one in (exporting, importing):
        one.add_argument("--mapping", metavar="NAME", help="this mapping only")


def _add_failures(commands: Any) -> None:
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


def _add_state(commands: Any) -> None:
    one = add_command(commands, "backup", backup, "copy the store into one file, also while the service runs")
    one.add_argument("target", type=Path, metavar="TARGET", help="a file that does not exist yet")
    add_command(commands, "compact", compact, "give the room of deleted failures back to the file system")
    one = add_command(commands, "erase", erase, "erase all records of one key from stored failures")
    one.add_argument("--key", required=True, metavar="KEY", help="the record key, message group or object key")
    one.add_argument("--mapping", metavar="NAME", help="of this mapping only")
    one.add_argument("--dry-run", action="store_true", help="only list the failures that hold it")
    one.add_argument("--yes", action="store_true", help="do not ask")
    add_command(commands, "upgrade", upgrade, "bring a store of an older version forward, as the service does at start")


def show_version() -> int:
    print(f"headrace {_installed_version()}")
    return 0


def show_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return USAGE


# --- the file


def _file(given: argparse.Namespace) -> Path:
    named: Path | None = getattr(given, "file", None) or given.config
    return named or Path(os.environ.get("HEADRACE_CONFIG") or DEFAULT_FILE)


def _configuration(given: argparse.Namespace) -> Configuration:
    from config.load import load

    return load(_file(given), os.environ, time.time())


def _state_dir(given: argparse.Namespace) -> Path:
    from config.state import state_dir

    return state_dir(_file(given), os.environ, time.time())


def _installed_version() -> str:
    from importlib.metadata import version

    return version("headrace")


def _await(work: Coroutine[Any, Any, T]) -> T:
    import asyncio
    import logging

    # What libraries log they also raise, and a command says things once.
    logging.getLogger().addHandler(logging.NullHandler())
    return asyncio.run(work)


# --- the service


def run(given: argparse.Namespace) -> int:
    from config.load import load

    file = _file(given)
    seen: Seen = {}

    def read(file: Path, seen: Seen) -> Configuration:
        return load(file, os.environ, time.time(), seen)

    configuration = read(file, seen)
    # structlog loads rich where it is installed, for 4 MB that a daemon has no use for.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from router.log_lines import configure
    from router.secrecy import close_memory

    close_memory()
    pipe = configure(configuration.log_level, coloured=sys.stderr.isatty() and not given.json)
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(configuration, pipe, seen, read, file))
    return 0


async def _serve(
    configuration: Configuration, pipe: LogPipe, seen: Seen, read: Callable[[Path, Seen], Configuration], file: Path
) -> None:
    from router.service import build
    from router.telemetry import Log

    daemon = await build(configuration, Log(configuration.log_level), file=file, seen=seen, read=read)
    daemon.log_pipe = pipe
    await daemon.run()


def check(given: argparse.Namespace) -> int:
    from router.findings import checked, invalid

    if given.diff:
        return _check_diff(given)
    try:
        configuration = _configuration(given)
    except ConfigError as error:
        if given.json:
            invalid(str(error).splitlines())
        raise
    checks = None
    if given.connect or given.setup:
        from router.reach import connect_checks

        checks = _await(connect_checks(configuration, setup=given.setup))
    return checked(configuration.path, configuration.notices, checks, as_json=given.json)


def _check_diff(given: argparse.Namespace) -> int:
    """Ask the daemon, which reads the file as it would: with its own environment, and relative to the file."""
    from router import control_client
    from router.findings import different, invalid

    if given.connect or given.setup:
        raise ConfigError("--diff asks the running daemon and reaches nothing: give it without --connect and --setup")
    try:
        changes = control_client.preview(_state_dir(given), _file(given).absolute())
    except ConfigError as error:
        if given.json:
            invalid(str(error).splitlines())
        raise
    return different(changes, as_json=given.json)


def schema(_: argparse.Namespace) -> int:
    import json

    from config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def demo(given: argparse.Namespace) -> int:
    from router.demo_acts import until_interrupted

    if given.kafka:
        from router.demo_kafka import tell
    else:
        from router.demo import tell
    return _await(until_interrupted(tell(keep=given.keep, as_json=given.json)))


def invoke(given: argparse.Namespace) -> int:
    from router import invoke_command as command

    configuration = _configuration(given)
    name = command.known(configuration.functions, given.function)
    content = command.read_event(given.event)
    from config.settings import FunctionSettings
    from router.assembly import make_invoker

    def make(sink: command.Sink, heard: command.Heard) -> Invoker:
        return make_invoker(configuration, name, sink=sink, heard=heard)

    is_ours = isinstance(configuration.functions[name], FunctionSettings)
    show_log = command.LiveLog if is_ours else command.WholeLog
    live = None if given.json else show_log(sys.stderr.buffer)
    return command.show(_await(command.invoke(make, content, live)), as_json=given.json)


def logs(given: argparse.Namespace) -> int:
    from contextlib import closing

    from handlers.log_reader import LogReader
    from handlers.logs import kept_logs, log_file
    from router import logs_command as command

    directory, name = _state_dir(given), given.function
    if name not in kept_logs(directory):
        _explain_no_log(given, kept_logs(directory))
    elif not _is_logged(given):
        command.tell_off(name)
    with closing(LogReader(log_file(directory, name))) as reader:
        wanted = command.Wanted(given.lines, given.request, given.follow)
        return command.show_logs(name, reader.read, wanted, as_json=given.json)


def _explain_no_log(given: argparse.Namespace, kept: Sequence[str]) -> None:
    """Say why there is no log of a function. Raises ConfigError and NotFound where there will be none."""
    from router.invoke_command import known
    from router.logs_command import tell_nothing

    functions = _configuration(given).functions
    name = known({*functions, *kept}, given.function)
    if not functions[name].logs:
        raise NotFound(f"function {name} has logs: off, so nothing that it prints is kept")
    tell_nothing(name)


def _is_logged(given: argparse.Namespace) -> bool:
    """Say whether the log of a function is kept now; one that the file does not have may be."""
    try:
        functions = _configuration(given).functions
    except ConfigError:
        return True
    return given.function not in functions or functions[given.function].logs


def event(given: argparse.Namespace) -> int:
    from router.event_command import show_event, show_kinds

    if given.kind is None:
        show_kinds(as_json=given.json)
    elif given.list:
        raise ConfigError("--list lists all kinds: give a KIND or --list, not both")
    else:
        show_event(given.kind, as_json=given.json)
    return 0


def status(given: argparse.Namespace) -> int:
    from router import control_client, tables
    from router.failure_commands import print_json

    directory = _state_dir(given)
    if given.watch:
        return _watch(given, directory)
    if given.interval is not None or given.shards:
        raise ConfigError("--interval and --shards are of `status --watch`")
    try:
        document = control_client.status(directory)
    except NotRunning:
        document = _stored(directory)
        if given.json:
            print_json(document)
        else:
            tables.show_stored(document)
        raise
    if given.json:
        print_json(document)
    else:
        tables.show_status(document)
    return 0


def _watch(given: argparse.Namespace, directory: Path) -> NoReturn:
    from router import control_client
    from router.watch_command import watch

    interval_s = WATCH_INTERVAL_S if given.interval is None else max(LEAST_INTERVAL_S, given.interval)
    watch(lambda: control_client.status(directory), interval_s, shards=given.shards, as_json=given.json)


def _stored(directory: Path) -> dict[str, Any]:
    from connectors.store.reader import FILE_NAME
    from router.status import stored_document
    from router.stored import look

    if not (directory / FILE_NAME).exists():
        return stored_document(_installed_version(), (), {})
    return stored_document(_installed_version(), *_read(directory, look))


# --- one mapping


def pause(given: argparse.Namespace) -> int:
    from router import control_client, steering_commands
    from router.steering import pause as pause_stored

    done = _steer(given, control_client.pause, lambda store: pause_stored(store, given.mapping, time.time()))
    return steering_commands.show_paused(given.mapping, done, as_json=given.json)


def resume(given: argparse.Namespace) -> int:
    from router import control_client, steering_commands
    from router.steering import resume as resume_stored

    done = _steer(given, control_client.resume, lambda store: resume_stored(store, given.mapping))
    return steering_commands.show_resumed(given.mapping, done, as_json=given.json)


def drain(given: argparse.Namespace) -> int:
    from router import control_client, steering_commands

    done = control_client.drain(_state_dir(given), given.mapping, given.timeout)
    return steering_commands.show_drained(given.mapping, done, as_json=given.json)


def seek(given: argparse.Namespace) -> int:
    from router import control_client, seek_commands
    from router.selecting import wanted

    place = wanted(given.to, time.time())
    _need_yes(given, "seeking skips records or repeats them", needed=given.apply)
    directory = _state_dir(given)

    def carry_out(*, apply: bool) -> dict[str, Any]:
        return control_client.seek(directory, given.mapping, place, given.shard, apply=apply)

    if not given.apply:
        return seek_commands.preview(carry_out(apply=False), as_json=given.json)
    return seek_commands.move([carry_out], _asker(given), as_json=given.json)


def _need_yes(given: argparse.Namespace, why: str, *, needed: bool = True) -> None:
    """Refuse what cannot be asked about and was not agreed to. Raises ConfigError."""
    if needed and not (given.yes or _at_terminal()):
        raise ConfigError(f"{why}: without a terminal to ask at, --yes is needed")


def _steer(
    given: argparse.Namespace,
    ask: Callable[[Path, str], dict[str, Any]],
    write: Callable[[SqliteStore], Awaitable[object]],
) -> dict[str, Any] | None:
    """Have the daemon steer a mapping; None = there is none, and what it will find was written."""
    directory = _state_dir(given)
    try:
        return ask(directory, given.mapping)
    except NotRunning:
        from router.steering import unknown

        names = [each.mapping.name for each in _configuration(given).mappings]
        if given.mapping not in names:
            raise unknown(given.mapping, names) from None
        _write(directory, write)
        return None


def accept(given: argparse.Namespace) -> int:
    from router import control_client, identity, mapping_commands

    directory = _state_dir(given)
    try:
        held, running = control_client.accept(directory, given.mapping), True
    except NotRunning:
        held, running = _as_dict(_write(directory, lambda store: identity.accept(store, given.mapping, {}))), False
    return mapping_commands.accepted(held, running=running, as_json=given.json)


def forget(given: argparse.Namespace) -> int:
    from router import control_client, identity, mapping_commands

    _need_yes(given, "forgetting deletes state and failures")
    directory = _state_dir(given)

    def carry_out(*, only_look: bool) -> dict[str, Any]:
        try:
            return control_client.forget(directory, given.mapping, only_look=only_look)
        except NotRunning:
            return _as_dict(
                _write(directory, lambda store: identity.forget(store, given.mapping, {}, only_look=only_look))
            )

    held = carry_out(only_look=True)
    return mapping_commands.forget(held, lambda: carry_out(only_look=False), _asker(given), as_json=given.json)


def _as_dict(held: Holding) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(held)


# --- checkpoints


def export_checkpoints(given: argparse.Namespace) -> int:
    import msgspec

    from router import control_client, seek_commands
    from router.checkpoint_file import Saved

    try:
        found = msgspec.convert(control_client.export(_state_dir(given), given.mapping), list[Saved])
    except NotRunning:
        found = _export_here(given)
    if not found:
        raise NotFound("no mapping reads a stream: queues have no checkpoints")
    return seek_commands.export(found, given.output, time.time(), as_json=given.json)


def _export_here(given: argparse.Namespace) -> list[Saved]:
    from router.assembly import make_places
    from router.seeking import save

    streams = [each.mapping.name for each in _configuration(given).mappings if make_places(each)]
    makers = {name: _places(given, name) for name in ([given.mapping] if given.mapping else streams)}

    async def work(store: SqliteStore) -> list[Saved]:
        return [await save(store, name, partial(make, store)) for name, make in makers.items()]

    return _write(_state_dir(given), work) if makers else []


def import_checkpoints(given: argparse.Namespace) -> int:
    from router import seek_commands
    from router.checkpoint_file import chosen, from_text

    _need_yes(given, "importing changes where mappings go on")
    try:
        content = given.saved.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {given.saved}: {error.strerror}") from error
    found = chosen(str(given.saved), from_text(str(given.saved), content), given.mapping)
    return seek_commands.move([partial(_import, given, saved) for saved in found], _asker(given), as_json=given.json)


def _import(given: argparse.Namespace, saved: Saved, *, apply: bool) -> dict[str, Any]:
    from contextlib import nullcontext
    from dataclasses import asdict

    from router import control_client
    from router.seeking import Mover

    directory = _state_dir(given)
    try:
        return control_client.restore(directory, saved.mapping, asdict(saved), apply=apply)
    except NotRunning:
        # One that is there and does not answer holds the lock of the store.
        make = _places(given, saved.mapping)
        still = nullcontext if apply else None
        done = _write(directory, lambda store: Mover(store, saved.mapping, partial(make, store)).restore(saved, still))
        return {**done, "state": "stopped"}


def _places(given: argparse.Namespace, name: str) -> Callable[[Store], Places]:
    """Give what makes the places of a mapping that no daemon runs. Raises NotFound."""
    from router.assembly import make_places
    from router.seeking import no_places
    from router.steering import unknown

    settings = {each.mapping.name: each for each in _configuration(given).mappings}
    if name not in settings:
        raise unknown(name, list(settings))
    make = make_places(settings[name])
    if make is None:
        raise no_places(name)
    return make


# --- failures


def list_failures(given: argparse.Namespace) -> int:
    from router.selecting import OPEN

    _show_list(given, _options(given), OPEN, given.limit)
    return 0


def _show_list(given: argparse.Namespace, options: Options, statuses: Sequence[str], limit: int | None) -> None:
    from router.failure_commands import show_list

    directory = _state_dir(given)
    wanted, count = _selected(directory, options, statuses)
    entries = chain.from_iterable(_pages(directory, replace(wanted, limit=limit)))
    show_list(entries, count, limit, as_json=given.json)


def show_failure(given: argparse.Namespace) -> int:
    from router.failure_commands import show_one
    from router.selecting import Options

    directory = _state_dir(given)
    wanted, _ = _selected(directory, Options(given.ids), ())
    [entry] = _read(directory, lambda store: store.failures(wanted))
    show_one(entry, _read(directory, lambda store: store.event(entry.batch.id)), as_json=given.json)
    return 0


def replay_failures(given: argparse.Namespace) -> int:
    from router import control_client, failure_commands
    from router.selecting import REPLAYABLE

    if given.again and (given.place or "sqs:").startswith("sqs:"):
        raise ConfigError("--again is for --from FILE or s3://BUCKET/PREFIX: a queue keeps nothing that is settled")
    if given.place is not None:
        return _replay_from(given)
    options = _chosen(given)
    if given.dry_run:
        _show_list(given, options, REPLAYABLE, None)
        return 0
    directory = _state_dir(given)
    control_client.connect(directory, control_client.ANSWER_S).close()
    now_s = time.time()
    wanted, count = _selected(directory, options, REPLAYABLE)
    # What fails again is a failure of later, and not to be replayed by the same job.
    wanted = wanted if wanted.ids else replace(wanted, until_s=min(now_s, wanted.until_s or now_s))
    return failure_commands.replay(
        count,
        lambda: control_client.replay(directory, wanted, _interval_s(given)),
        _asker(given),
        as_json=given.json,
    )


def _replay_from(given: argparse.Namespace) -> int:
    from router import control_client
    from router.selecting import QUEUE, place_of

    place, mapping = place_of(given.place, _options(given), every=given.all)
    directory = _state_dir(given)
    if mapping and place.startswith(QUEUE):
        # Messages of a dead-letter queue are records of a queue mapping; those of streams are only named by records.
        reads = {each["name"]: each["source"] for each in control_client.status(directory)["mappings"]}
        if reads.get(mapping, "").startswith(("sqs:", "s3:")):
            return _replay_queue(given, directory, mapping, place.removeprefix(QUEUE))
    return _replay_records(given, directory, mapping, place)


def _replay_queue(given: argparse.Namespace, directory: Path, mapping: str, queue: str) -> int:
    from router import control_client, failure_commands

    found = control_client.look(directory, mapping, queue, failure_commands.SHOWN if given.dry_run else 0)
    if given.dry_run:
        failure_commands.show_queue(found, as_json=given.json)
        return 0
    return failure_commands.replay_queue(
        found,
        mapping,
        lambda: control_client.replay_queue(directory, mapping, queue, _interval_s(given)),
        _asker(given),
        as_json=given.json,
    )


def _replay_records(given: argparse.Namespace, directory: Path, mapping: str | None, place: str) -> int:
    from router import control_client, record_frames, records_command
    from router.record_file import read_file
    from router.selecting import is_file

    file = Path(place) if is_file(place) else None

    def run() -> Iterator[dict[str, Any]]:
        return control_client.replay_records(
            directory,
            place if file is None else f"file:{file.resolve()}",
            mapping,
            _interval_s(given),
            only_look=given.dry_run,
            again=given.again,
            frames=None if file is None else record_frames.write(read_file(file)),
        )

    if file is not None:
        count: int | None = sum(1 for _ in read_file(file))
        control_client.connect(directory, control_client.ANSWER_S).close()
    else:
        count = control_client.count_records(directory, place, mapping)
    if given.dry_run:
        return records_command.look(run, as_json=given.json)
    return records_command.replay(
        place, count, mapping, run, _asker(given), is_file=file is not None, as_json=given.json
    )


def _interval_s(given: argparse.Namespace) -> float:
    return 1 / given.rate if given.rate else 0.0


def deliver_failures(given: argparse.Namespace) -> int:
    from router import control_client, deliver_command, failure_commands
    from router.selecting import DELIVERABLE

    options = _chosen(given)
    directory = _state_dir(given)
    if not given.dry_run:
        control_client.connect(directory, control_client.ANSWER_S).close()
    wanted, _ = _selected(directory, options, DELIVERABLE)
    entries = deliver_command.choose(chain.from_iterable(_pages(directory, wanted)), wanted.ids)
    if given.dry_run:
        failure_commands.show_list(entries, len(entries), None, as_json=given.json)
        return 0
    ids = [entry.batch.id for entry in entries]
    return deliver_command.deliver(ids, lambda: control_client.deliver(directory, ids), as_json=given.json)


def drop_failures(given: argparse.Namespace) -> int:
    from router import failure_commands
    from router.selecting import DROPPABLE

    options = _chosen(given)
    if given.dry_run:
        _show_list(given, options, DROPPABLE, None)
        return 0
    _need_yes(given, "dropping deletes records")
    directory = _state_dir(given)
    wanted, count = _selected(directory, options, DROPPABLE)
    return failure_commands.drop(count, lambda: _drop(directory, wanted), _asker(given), as_json=given.json)


def _drop(directory: Path, wanted: Selection) -> Iterator[tuple[str, bool]]:
    """Drop failures a page at a time; give each with whether it was."""
    from connectors.store.sqlite import SqliteStore
    from router import control_client
    from router.stored import each_done

    done: Iterator[tuple[Sequence[str], Sequence[str]]]
    if _is_served(directory):
        done = ((ids, control_client.drop(directory, ids)) for ids in _ids(directory, wanted))
    else:
        # A daemon that is there but does not answer holds the lock, so this cannot go past it.
        done = each_done(partial(SqliteStore.open, directory), wanted, SqliteStore.drop)
    for ids, dropped in done:
        yield from ((each, each in set(dropped)) for each in ids)


def _is_served(directory: Path) -> bool:
    from router import control_client

    try:
        control_client.connect(directory, control_client.ANSWER_S).close()
    except NotRunning:
        return False
    return True


def _ids(directory: Path, wanted: Selection) -> Iterator[Sequence[str]]:
    for page in _pages(directory, wanted):
        yield [entry.batch.id for entry in page]


def _options(given: argparse.Namespace) -> Options:
    from router.selecting import Options

    return Options(
        given.ids, given.mapping, given.shard, given.key, given.since, given.until, given.error, given.status
    )


def _chosen(given: argparse.Namespace) -> Options:
    """Give the options of a command that changes failures: it must name some. Raises ConfigError."""
    options = _options(given)
    if options.select_nothing and not given.all:
        raise ConfigError("name the failures: an ID, a selector such as --mapping NAME, or --all")
    return options


def _selected(directory: Path, options: Options, statuses: Sequence[str]) -> tuple[Selection, int]:
    """Give what the options select, and how many failures that is. Raises NotFound for an ID that is not there."""
    from router.selecting import selection

    wanted = selection(options, statuses, time.time())
    if wanted.ids:
        found = {entry.batch.id for entry in _read(directory, lambda store: store.failures(wanted))}
        if missing := sorted(set(wanted.ids) - found):
            raise NotFound(f"there is no such failure: {', '.join(missing)}; see `headrace failures list --status all`")
        return wanted, len(found)
    return wanted, _read(directory, lambda store: store.count(wanted))


def _pages(directory: Path, wanted: Selection) -> Iterator[Sequence[FailureEntry]]:
    from connectors.store.reader import SqliteReader
    from router.stored import each_page

    return each_page(partial(SqliteReader.open_read_only, directory), wanted)


def _read(directory: Path, question: Callable[[SqliteReader], Awaitable[T]]) -> T:
    """Ask the store, whether a daemon runs on it or not."""
    from connectors.store.reader import SqliteReader

    async def ask() -> T:
        store = await SqliteReader.open_read_only(directory)
        try:
            return await question(store)
        finally:
            await store.close()

    return _await(ask())


def _write(directory: Path, change: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Change the store of a daemon that does not run; one that is there and does not answer holds the lock."""
    from connectors.store.sqlite import SqliteStore

    async def write() -> T:
        store = await SqliteStore.open(directory)
        try:
            return await change(store)
        finally:
            await store.close()

    return _await(write())


def _at_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asker(given: argparse.Namespace) -> Callable[[str], bool]:
    return (lambda _: True) if given.yes or not _at_terminal() else _ask


def _ask(question: str) -> bool:
    try:
        return input(f"{question} [y/N]: ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


# --- state


def backup(given: argparse.Namespace) -> int:
    from connectors.store.reader import back_up
    from router import state_commands

    directory, target = _state_dir(given), given.target
    return state_commands.backup(target, lambda tell: back_up(directory, target, tell), as_json=given.json)


def upgrade(given: argparse.Namespace) -> int:
    from connectors.store import reader, schema, sqlite
    from router import state_commands

    directory = _state_dir(given)
    return state_commands.upgrade(
        reader.version(directory), schema.VERSION, lambda: sqlite.upgrade(directory), as_json=given.json
    )


def compact(given: argparse.Namespace) -> int:
    from connectors.store import compaction, reader
    from router import control_client, state_commands

    directory = _state_dir(given)
    reader.version(directory)  # is there anything?
    return state_commands.compact(
        directory / reader.FILE_NAME,
        lambda: control_client.compact(directory),
        lambda: compaction.rewrite(directory),
        as_json=given.json,
    )


def erase(given: argparse.Namespace) -> int:
    from router import state_commands
    from router.selecting import Options

    options = Options(key=given.key, mapping=given.mapping)
    if given.dry_run:
        _show_list(given, options, (), None)
        return 0
    _need_yes(given, "erasing deletes records")
    directory = _state_dir(given)
    wanted, count = _selected(directory, options, ())
    erasing = _erase_there if _is_served(directory) else _erase_here
    return state_commands.erase(
        given.key, count, directory, lambda: erasing(given, directory, wanted), _asker(given), as_json=given.json
    )


def _erase_there(_: argparse.Namespace, directory: Path, wanted: Selection) -> Iterator[dict[str, Any]]:
    from router import control_client

    assert wanted.key is not None
    for ids in _ids(directory, wanted):
        yield control_client.erase(directory, wanted.key, ids)
    control_client.scrub(directory)


def _erase_here(given: argparse.Namespace, directory: Path, wanted: Selection) -> Iterator[dict[str, Any]]:
    from dataclasses import asdict

    from connectors.store.compaction import rewrite
    from connectors.store.sqlite import SqliteStore
    from router.assembly import codec_of
    from router.erasure import Erased, erase
    from router.stored import each_done

    configuration = _configuration(given)
    key = wanted.key
    assert key is not None

    async def work(store: SqliteStore, ids: Sequence[str]) -> Erased:
        return await erase(store, partial(codec_of, configuration), key, ids)

    for _, erased in each_done(partial(SqliteStore.open, directory), wanted, work):
        yield asdict(erased)
    rewrite(directory)


if __name__ == "__main__":
    sys.exit(main())
