"""The service itself, and what is seen of it: `run`, `check`, `status`, `logs` and the other commands of their own."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from router.cli import here
from router.commands.arguments import add_command, natural, seconds
from router.errors import ConfigError, NotFound, NotRunning

if TYPE_CHECKING:
    from config.settings import AnyFunction, Configuration
    from config.watching import Seen
    from router.cli.kept import Kept
    from router.log_pipe import LogPipe
    from router.ports import Invoker

#: Between two looks of `status --watch`, seconds, where nothing is said, and at least.
WATCH_INTERVAL_S: Final = 2.0
LEAST_INTERVAL_S: Final = 0.1


def add_service(commands: Any) -> None:
    """Add the commands that belong to no group."""
    one = add_command(commands, "run", run, "run the service in the foreground; SIGTERM or Ctrl-C drains it")
    one.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the configuration")
    one.add_argument("--listen", metavar="HOST:PORT", help="listen there, and not where the file says")
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


def run(given: argparse.Namespace) -> int:
    from config.contradictions import NEEDS_KEYS
    from config.load import load
    from config.locations import is_loopback

    file = here.file(given)
    seen: Seen = {}

    listen = _listen(given.listen)

    def read(file: Path, seen: Seen) -> Configuration:
        configuration = load(file, os.environ, time.time(), seen, replica=given.replica)
        if given.replica is not None and configuration.fleet is None:
            raise ConfigError("--replica names one of those that share state: redis://..., and the file has none")
        configuration = replace(configuration, **listen)
        if listen and not configuration.api.keys and not is_loopback(configuration.listen_host):
            raise ConfigError(f"--listen: {NEEDS_KEYS}")
        return configuration

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


def _listen(text: str | None) -> dict[str, Any]:
    """Give what `--listen` changes in a configuration. Raises ConfigError."""
    from config.locations import Listen
    from config.mistakes import Unfit, quoted

    if text is None:
        return {}
    try:
        host, port = Listen().parse(text, quoted(text))
    except Unfit as unfit:
        raise ConfigError(f"--listen: {unfit}") from None
    return {"listen_host": host, "listen_port": port}


async def _serve(
    configuration: Configuration, pipe: LogPipe, seen: Seen, read: Callable[[Path, Seen], Configuration], file: Path
) -> None:
    from router.service import build
    from router.telemetry import Log

    daemon = await build(configuration, Log(configuration.log_level), file=file, seen=seen, read=read)
    daemon.log_pipe = pipe
    await daemon.run()


def check(given: argparse.Namespace) -> int:
    from router.commands.findings import checked, invalid

    if given.diff:
        return _check_diff(given)
    try:
        configuration = here.configuration(given)
    except ConfigError as error:
        if given.json:
            invalid(str(error).splitlines())
        raise
    checks = None
    if given.connect or given.setup:
        from router.reach import connect_checks

        checks = here.carry(connect_checks(configuration, setup=given.setup))
    return checked(configuration.path, configuration.notices, checks, as_json=given.json)


def _check_diff(given: argparse.Namespace) -> int:
    """Ask the daemon, which reads the file as it would: with its own environment, and relative to the file."""
    from router.commands import control_client
    from router.commands.findings import different, invalid

    if given.connect or given.setup:
        raise ConfigError("--diff asks the running daemon and reaches nothing: give it without --connect and --setup")
    try:
        changes = control_client.preview(here.kept(given).daemon(), here.file(given).absolute())
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
    from router.demo.acts import until_interrupted

    if given.kafka:
        from router.demo.kafka_story import tell
    else:
        from router.demo.story import tell
    return here.carry(until_interrupted(tell(keep=given.keep, as_json=given.json)))


def invoke(given: argparse.Namespace) -> int:
    from router.commands import invoke as command

    configuration = here.configuration(given)
    name = command.known(
        configuration.functions, given.function, "; functions that were made through the API are invoked through it"
    )
    content = command.read_event(given.event)
    from config.settings import FunctionSettings
    from router.assembly import make_invoker

    def make(sink: command.Sink, heard: command.Heard) -> Invoker:
        return make_invoker(configuration, name, sink=sink, heard=heard)

    is_ours = isinstance(configuration.functions[name], FunctionSettings)
    show_log = command.LiveLog if is_ours else command.WholeLog
    live = None if given.json else show_log(sys.stderr.buffer)
    return command.show(here.carry(command.invoke(make, content, live)), as_json=given.json)


def logs(given: argparse.Namespace) -> int:
    from contextlib import closing

    from handlers.log_reader import LogReader
    from handlers.logs import kept_logs, log_file
    from router.commands import logs as command

    directory, name = here.kept(given).logs(), given.function
    if name not in kept_logs(directory):
        _explain_no_log(given, kept_logs(directory))
    elif elsewhere := _where_now(given):
        command.tell_before(name, elsewhere)
    with closing(LogReader(log_file(directory, name))) as reader:
        wanted = command.Wanted(given.lines, given.request, given.follow)
        return command.show_logs(name, reader.read, wanted, as_json=given.json)


def _explain_no_log(given: argparse.Namespace, kept: Sequence[str]) -> None:
    """Say why there is no log of a function. Raises ConfigError and NotFound where there will be none."""
    from router.commands.invoke import known
    from router.commands.logs import tell_nothing

    configuration = here.configuration(given)
    if given.function not in configuration.functions and configuration.logs == "cloudwatch":
        raise NotFound(
            f"there is no function {given.function!r} in the file, and those made through the API have "
            f"logs: cloudwatch: {_reading(configuration, f'/aws/lambda/{given.function}')}"
        )
    name = known({*configuration.functions, *kept}, given.function)
    settings = configuration.functions[name]
    if not settings.logs:
        raise NotFound(f"function {name} has logs: off, so nothing that it prints is kept")
    if group := _group(settings):
        raise NotFound(f"function {name} has logs: cloudwatch: {_reading(configuration, group)}")
    tell_nothing(name)


def _where_now(given: argparse.Namespace) -> str | None:
    """Say where the log of a function goes that is not kept here any more; None = it is, as far as the file says."""
    try:
        settings = here.configuration(given).functions.get(given.function)
    except ConfigError:
        return None
    if settings is None:
        return None
    group = _group(settings)
    if group:
        return f"logs: cloudwatch (group {group})"
    return None if settings.logs else "logs: off"


def _group(settings: AnyFunction) -> str | None:
    """Give the log group that a function's log goes to; None = none."""
    from config.settings import FunctionSettings

    return settings.group if isinstance(settings, FunctionSettings) and settings.ships_logs else None


def _reading(configuration: Configuration, group: str) -> str:
    endpoint = f" --endpoint-url {configuration.aws.endpoint_url}" if configuration.aws.endpoint_url else ""
    return f"read it with `aws logs tail {group} --follow{endpoint}`"


def event(given: argparse.Namespace) -> int:
    from router.commands.event import show_event, show_kinds

    if given.kind is None:
        show_kinds(as_json=given.json)
    elif given.list:
        raise ConfigError("--list lists all kinds: give a KIND or --list, not both")
    else:
        show_event(given.kind, as_json=given.json)
    return 0


def status(given: argparse.Namespace) -> int:
    from router.commands import control_client, tables
    from router.commands.failures import print_json

    kept = here.kept(given)
    if given.watch:
        return _watch(given, kept)
    if given.interval is not None or given.shards:
        raise ConfigError("--interval and --shards are of `status --watch`")
    try:
        document = control_client.status(kept.daemon())
    except NotRunning:
        document = _stored(kept)
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


def _watch(given: argparse.Namespace, kept: Kept) -> NoReturn:
    from router.commands import control_client
    from router.commands.watch import watch

    interval_s = WATCH_INTERVAL_S if given.interval is None else max(LEAST_INTERVAL_S, given.interval)
    watch(lambda: control_client.status(kept.daemon()), interval_s, shards=given.shards, as_json=given.json)


def _stored(kept: Kept) -> dict[str, Any]:
    from router.status import stored_document
    from router.stored import look

    if not kept.is_there:
        return stored_document(here.installed_version(), (), {})
    document = stored_document(here.installed_version(), *here.read(kept, look))
    return {**document, "fleet": here.carry(kept.fleet())}
