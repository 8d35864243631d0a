"""Where the state lies, also for those who cannot read the rest of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.document import Node, parse
from config.load import load
from config.mistakes import InvalidConfiguration, Place, Report
from config.reading import Reader
from config.replicas import redis_of
from config.schema import Root
from connectors.settings import AwsSettings, RedisSettings


@dataclass(frozen=True, slots=True)
class Shared:
    """State that replicas share."""

    redis: RedisSettings
    fleet: str
    lease_s: float
    #: Under which the folder of each replica of this machine is.
    local: Path


#: What of a file says where the state is.
_KEYS: Final = ("state", "fleet", "lease", "local", "aws")


def state_of(path: Path, environment: Mapping[str, str], now_s: float) -> Path | Shared:
    """Give the state directory of a configuration, or what replicas share.

    An operator who looks at failures need not have the service's secrets in the environment, and a file that is just
    being edited still says where its state is; so other mistakes in the file do not matter here.

    Raises:
        InvalidConfiguration: not even `state` can be read.
        ConfigError: there is no fit name for a replica.
    """
    try:
        found = load(path, environment, now_s)
    except InvalidConfiguration:
        alone = _state_alone(path, environment, now_s)
        if alone is None:
            raise
        return alone
    if found.fleet is None:
        return found.state_dir
    return Shared(found.fleet.redis, found.fleet.name, found.fleet.lease_s, found.state_dir.parent)


def _lines_of_state(text: str) -> str:
    """Give the lines that say where the state is, of a text that is no YAML as a whole."""
    lines: list[str] = []
    is_meant = False
    for line in text.splitlines():
        if line[:1].strip():
            is_meant = re.match(rf"({'|'.join(_KEYS)})\s*:", line) is not None
        if is_meant:
            lines.append(line)
    return "\n".join(lines)


def _state_alone(path: Path, environment: Mapping[str, str], now_s: float) -> Path | Shared | None:
    report = Report(str(path))
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    node = parse(text, report) or parse(_lines_of_state(text), report)
    if node is None or not isinstance(node.value, dict):
        return None
    mistakes = Report(str(path))
    reader = Reader(mistakes, path.absolute().parent, environment, now_s)
    state = _value("state", node, reader)
    shared = {} if state is None or isinstance(state, Path) else {name: _value(name, node, reader) for name in _KEYS}
    try:
        # Half of what says where the state is may say another place.
        mistakes.settle()
    except InvalidConfiguration:
        return None
    if not shared:
        return reader.base / Path(str(state))
    aws = shared["aws"]
    redis = redis_of(state, AwsSettings(aws.endpoint_url, aws.region) if aws else AwsSettings())
    assert redis is not None, "it is no path"
    return Shared(redis, shared["fleet"], shared["lease"], reader.base / shared["local"])


def _value(name: str, node: Node, reader: Reader) -> Any:
    """Give what a key at top level says, or its default; mistakes are in the reader's report."""
    key = Root.declared()[name]
    assert isinstance(node.value, dict)
    entry = node.value.get(name)
    if entry is None:
        return key.default if name != "aws" else None
    return reader.attempt(key.kind, entry.node, Place(name, entry.line))
