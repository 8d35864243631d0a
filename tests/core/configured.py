"""A small right configuration, to be made wrong."""

from pathlib import Path

from config.document import Node, parse
from config.load import load
from config.mistakes import InvalidConfiguration, Report
from config.settings import Configuration

NOW_S = 1_700_000_000.0

#: The seventh line is the next one: of the mapping where it is indented by four, else of the top level.
RIGHT = """\
functions:
  f: {handler: app.handle, code: .}
event_source_mappings:
  m:
    function: f
    source: {kafka: {bootstrap_servers: "127.0.0.1:9092", topic: orders}}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "headrace.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def configuration(folder: Path, text: str, **environment: str) -> Configuration:
    return load(written(folder, text), environment, NOW_S)


def mistakes(folder: Path, text: str | bytes, **environment: str) -> list[str]:
    """Give the lines of the error, each without the folder; none if the configuration is right."""
    try:
        load(written(folder, text), environment, NOW_S)
    except InvalidConfiguration as error:
        return str(error).replace(f"{folder}/", "").splitlines()
    return []


def with_source(keys: str) -> str:
    """The right configuration with more keys of the Kafka source, in line 6."""
    return RIGHT.replace("topic: orders", f"topic: orders, {keys}")


def plain(text: str) -> object:
    """Give what a document holds as JSON would have it."""
    node = parse(text, Report("headrace.yaml"))
    assert node is not None
    return _plain(node)


def _plain(node: Node) -> object:
    match node.value:
        case dict():
            return {name: _plain(entry.node) for name, entry in node.value.items()}
        case tuple():
            return [_plain(item) for item in node.value]
        case _:
            return node.value
