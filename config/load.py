"""A file, the environment and the files it names, to settings; or every reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from config import contradictions, functions, notices, replicas, schema
from config.assemble import assemble
from config.blocks import BlockOf
from config.document import parse
from config.mistakes import InvalidConfiguration, Mistake, Place, Report, Unfit
from config.paths import require_file
from config.reading import Reader
from config.settings import Configuration
from config.watching import Seen, stamp

#: Largest file that is read.
LIMIT_BYTES: Final = 1024 * 1024


def load(
    path: Path, environment: Mapping[str, str], now_s: float, seen: Seen | None = None, *, replica: str | None = None
) -> Configuration:
    """Read a configuration.

    Nothing is connected to; but code folders, certificates and `${file:}` are looked for.

    Args:
        path: the file; messages name it as it is written here.
        environment: what `${env:NAME}` takes its values from.
        now_s: epoch seconds; a starting position is not later.
        seen: is told of every file that was looked for, also when this raises.
        replica: our name among replicas; None = what the environment says, else the name of the host.

    Raises:
        InvalidConfiguration: with every mistake in the file.
        ConfigError: we have no fit name among replicas.
    """
    seen = {} if seen is None else seen
    seen[path.absolute()] = stamp(path)
    report = Report(str(path))
    node = parse(_text(path), report)
    if node is None or not isinstance(node.value, dict):
        report.settle()
        found = f"found {node.shown() if node else 'nothing'} at top level"
        raise _unreadable(path, f"{found}, allowed a block of keys", node.line if node else None)
    reader = Reader(report, path.absolute().parent, environment, now_s, seen)
    root = functions.resolve(reader.read(BlockOf(schema.Root), node, Place("", node.line)), reader)
    contradictions.find(root, report)
    replicas.find(root, report)
    report.settle()
    notices.find(root, report)
    return assemble(root, path.absolute(), report.notices, partial(replicas.replica_name, replica, environment))


def _text(path: Path) -> str:
    try:
        require_file(path, "the file")
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except Unfit as unfit:
        raise _unreadable(path, str(unfit)) from None
    except OSError as error:
        raise _unreadable(path, f"the file cannot be read: {error.strerror}") from error
    if len(content) > LIMIT_BYTES:
        raise _unreadable(path, f"the file is larger than {LIMIT_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(path, "the text is not UTF-8", content.count(b"\n", 0, error.start) + 1) from None


def _unreadable(path: Path, message: str, line: int | None = None) -> InvalidConfiguration:
    return InvalidConfiguration([Mistake(str(path), line, "", message)])
