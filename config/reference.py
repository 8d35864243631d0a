"""The schema as Markdown, for `docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterator

from config.blocks import EMPTY, REQUIRED, Block, nested
from config.schema import Root


def reference() -> str:
    """Print all keys."""
    return "\n".join(_section(path, block) for path, block in _blocks(Root, ""))


def _blocks(block: type[Block], path: str) -> Iterator[tuple[str, type[Block]]]:
    yield path, block
    for name, declared in block.keys().items():
        for inside, other in nested(declared.kind, f"{path}.{name}".lstrip(".")):
            yield from _blocks(other, inside)


def _section(path: str, block: type[Block]) -> str:
    lines = [f"## {f'`{path}`' if path else 'Top level'}", "", block.__doc__ or "", ""]
    lines += ["| key | takes | default | meaning | rule of |", "|---|---|---|---|---|"]
    for name, declared in block.keys().items():
        default = declared.shown or _default(declared.default)
        cells = (f"`{name}`", declared.kind.allowed, default, declared.meaning, declared.source)
        lines.append(f"| {' | '.join(cells)} |")
    if block.REFUSED:
        lines += ["", f"Refused: {', '.join(f'`{name}`' for name in block.REFUSED)}."]
    return "\n".join([*lines, ""])


def _default(value: object) -> str:
    if value is REQUIRED:
        return "**required**"
    if value is None or value is EMPTY:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
