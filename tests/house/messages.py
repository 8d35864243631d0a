"""What the program can say to an operator, read from its code: errors with their holes written as an ellipsis."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from router import errors as errors_of_ours

ROOT = Path(__file__).parents[2]
HOLE = "…"
#: Not told to operators as it stands: the demo, filter patterns (mistakes in the file wrap them), what runs in workers.
NOT_OURS = re.compile(
    r"^(router/demo|router/core/(?!filter|seek)|handlers/examples/|handlers/bootstrap|handlers/tasks)"
)
#: How sentences that begin errors are recognised where they are kept: what happened; what to do.
ADVICE = re.compile(r"; [a-z]")
MISTAKE = re.compile(
    r"\b(found|allowed|needed|unknown key|not supported|cannot be|is not|larger than|nested|give a number)\b"
)
#: Where such sentences are kept beside the errors that are raised with them.
KEEPERS = (
    "connectors/",
    "handlers/",
    "router/replay/replay",
    "router/replay/end",
    "router/replay/carrying",
    "router/failures/outbox_lease",
)
#: Errors of this program that nobody but a caller sees.
FOR_PROGRAMS = (errors_of_ours.LeaseLost,)
#: What may be made with a message for people: our errors, and those that become one of them.
ERRORS = {
    name
    for name, kind in vars(errors_of_ours).items()
    if isinstance(kind, type) and issubclass(kind, errors_of_ours.RouterError) and kind not in FOR_PROGRAMS
} | {"ArgumentTypeError", "InvalidConfiguration", "NotThere", "InvalidPattern", "Unfit", "ValueError", "becomes"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for room in ("config", "connectors", "handlers", "router"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not NOT_OURS.match(name):
                yield name, ast.parse(path.read_text())


def text_of(node: ast.AST) -> str | None:
    """Give a literal's text, its values as holes; None for what is no literal."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in parts)
    return None


def made(tree: ast.Module) -> Iterator[str]:
    """Give what errors are made with."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=kind, args=args) if ast.unparse(kind).rpartition(".")[2] in ERRORS:
                yield from filter(None, map(text_of, args))


def kept(tree: ast.Module, sign: re.Pattern[str]) -> Iterator[str]:
    """Give the literals that carry a sign, but those that document code or keys."""
    silent = {id(each) for node in ast.walk(tree) for each in _silent(node)}
    for node in ast.walk(tree):
        text = text_of(node)
        if text and id(node) not in silent and sign.search(text):
            yield text


def _silent(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Constant()):
            yield node.value
        case ast.JoinedStr():
            yield from node.values
        case ast.Call(func=ast.Name(id="takes")):  # what a key is for
            yield from node.args


def errors() -> dict[str, str]:
    """Give the messages of errors and where each is, but for mistakes in the file."""
    found: dict[str, str] = {}
    for name, tree in sources():
        if not name.startswith("config/"):
            told = kept(tree, ADVICE) if name.startswith(KEEPERS) else ()
            found |= {text: name for text in (*made(tree), *told) if len(text.replace(HOLE, "").strip(" :;")) > 2}
    return found


def error_types() -> set[str]:
    """Give the error types that failures and functions' logs may have, beside the names of users' exceptions."""
    return {
        text
        for room in ("connectors", "handlers", "router")
        for path in (ROOT / room).rglob("*.py")
        for text in re.findall(r'"((?:Function|Headrace|Runtime|Sandbox)\.[A-Z]\w+)"', path.read_text())
    }


def mistakes() -> dict[str, str]:
    """Give what is said about the file, and where in the code."""
    found: dict[str, str] = {}
    for name, tree in sources():
        if name.startswith("config/"):
            found |= dict.fromkeys(kept(tree, MISTAKE), name)
    return found


if __name__ == "__main__":
    for each in (errors(), mistakes()):
        for text, name in each.items():
            print(name, repr(text))
