"""The schema as Markdown, for `docs/configuration.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from config.aws_forms import AccessConfigurations, Inside, Several
from config.blocks import EMPTY, REQUIRED, Block, BlockOf, ListOf, MapOf, TextOrBlock
from config.mistakes import listed
from config.reading import Kind
from config.schema import Root
from config.spelling import names_of


def reference() -> str:
    """Print all keys."""
    return "\n".join(_section(path, block) for path, block in _blocks(Root, ""))


def _blocks(block: type[Block], path: str) -> Iterator[tuple[str, type[Block]]]:
    yield path, block
    kinds = {name: declared.kind for name, declared in block.declared().items()}
    kinds |= {name: form.kind for name, form in block.FORMS.items()}
    for name, kind in kinds.items():
        for inside, other in _nested(kind, f"{path}.{name}".lstrip(".")):
            yield from _blocks(other, inside)


def _nested(kind: Kind[Any], path: str) -> Iterator[tuple[str, type[Block]]]:
    """Give the blocks that a kind holds, each with the path at which it stands."""
    match kind:
        case BlockOf():
            yield path, kind.block
        case TextOrBlock():
            yield path, kind.block.block
        case MapOf():
            yield from _nested(kind.kind, f"{path}.NAME")
        case ListOf():
            yield from _nested(kind.kind, f"{path}[]")
        case Inside() | Several():
            yield from _nested(kind.block, path)
        case AccessConfigurations():
            yield from _nested(kind.items, path)


def _section(path: str, block: type[Block]) -> str:
    lines = [f"## {f'`{path}`' if path else 'Top level'}", "", block.__doc__ or "", ""]
    lines += ["| key | takes | default | meaning | rule of |", "|---|---|---|---|---|"]
    for name, declared in block.declared().items():
        default = declared.shown or _default(declared.default)
        meaning = declared.meaning
        if declared.only:
            names = declared.only.sources if declared.only.within else [f"`{name}`" for name in declared.only.sources]
            meaning += f" With {listed(names)} only."
        lines.append(_row(f"`{name}`", declared.kind.allowed, default, meaning, declared.source))
    if spellings := [each for name, key in block.declared().items() for each in names_of(name, key.aws)]:
        lines += ["", f"AWS's spellings: {_list(spellings)}."]
    if block.FORMS:
        lines += ["", "| AWS's form | takes | is | meaning |", "|---|---|---|---|"]
        lines += [
            _row(f"`{name}`", form.kind.allowed, _list(form.paths), form.meaning) for name, form in block.FORMS.items()
        ]
    if block.IDLE:
        lines += ["", f"Taken, and without effect: {_list(block.IDLE)}."]
    if block.REFUSED:
        lines += ["", f"Refused: {_list(block.REFUSED)}."]
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _default(value: object) -> str:
    if value is REQUIRED:
        return "**required**"
    if value is None or value is EMPTY:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
