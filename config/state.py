"""Where the state lies, also for those who cannot read the rest of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from config.document import parse
from config.load import load
from config.mistakes import InvalidConfiguration, Place, Report, Unfit
from config.reading import Reader
from config.schema import Root


def state_dir(path: Path, environment: Mapping[str, str], now_s: float) -> Path:
    """Give the state directory of a configuration.

    An operator who looks at failures need not have the service's secrets in the environment, and a file that is just
    being edited still says where its state is; so other mistakes in the file do not matter here.

    Raises:
        InvalidConfiguration: not even `state` can be read.
    """
    try:
        return load(path, environment, now_s).state_dir
    except InvalidConfiguration:
        found = _state_alone(path, environment, now_s)
        if found is None:
            raise
        return found


def _lines_of_state(text: str) -> str:
    """Give the line that names the state, of a text that is no YAML as a whole; without one, nothing can be said."""
    return "\n".join(line for line in text.splitlines() if line.startswith("state:"))


def _state_alone(path: Path, environment: Mapping[str, str], now_s: float) -> Path | None:
    report = Report(str(path))
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    node = parse(text, report) or parse(_lines_of_state(text), report)
    if node is None or not isinstance(node.value, dict):
        return None
    reader = Reader(report, path.absolute().parent, environment, now_s)
    key, entry = Root.keys()["state"], node.value.get("state")
    if entry is None:
        return reader.base / Path(str(key.default))
    try:
        return Path(str(reader.read(key.kind, entry.node, Place("state", entry.line))))
    except Unfit:
        return None
