"""What the pages show is right: YAML loads, Python parses, commands are commands, links lead to headings."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from config.load import load
from router.cli import make_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = {
    "kafka": {"kafka": {"bootstrap_servers": ["127.0.0.1:9092"], "topic": "orders"}},
    "kinesis": {"kinesis": {"stream": "clicks"}},
    "tumbling-windows": {"kinesis": {"stream": "clicks"}},
    "dynamodb": {"dynamodb": {"table": "orders"}},
    "sqs": {"sqs": {"queue": "orders"}},
    "fifo": {"sqs": {"queue": "orders.fifo"}},
    "s3": {"s3": {"bucket": "uploads", "queue": "upload-events"}},
}
SECRETS = {"API_KEY": "key", "KAFKA_PASSWORD": "word", "HOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
SECRETS |= dict.fromkeys(("METRICS_TOKEN", "DEPLOY_SECRET", "BUCKETS_SECRET"), "0123456789abcdef")
NOW_S = 1e9


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """Give the fenced blocks in a language, with their place."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if found[1] == language:
            yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[2]


def shown(language: str) -> list[Any]:
    return [pytest.param(page.stem, text, id=place) for page in PAGES for place, text in blocks(page, language)]


def whole(text: str, page: str) -> dict[str, Any]:
    """Make a whole file of a part of one, which may be the inside of a mapping, or of its source."""
    part = YAML(typ="safe").load(io.StringIO(text)) or {}
    if part.keys() & {"kafka", "kinesis", "dynamodb", "sqs", "s3"}:
        part = {"source": part}
    if not part.keys() & {"functions", "event_source_mappings", "state", "listen"}:
        part = {"event_source_mappings": {"orders": part}}
    mappings = part.setdefault("event_source_mappings", {})
    if not mappings:
        mappings["orders"] = {"function": next(iter(part.get("functions", ["orders"])))}
    for mapping in mappings.values():
        mapping.setdefault("function", "orders")
        mapping.setdefault("source", SOURCES.get(page, SOURCES["kafka"]))
    names = {mapping["function"] for mapping in mappings.values()}
    part.setdefault("functions", {name: {"handler": "app.handler", "code": "./functions"} for name in names})
    return dict(part)


def make_files(folder: Path, document: dict[str, Any]) -> None:
    """Make what a file names."""
    for function in document["functions"].values():
        if "code" not in function:
            continue
        (folder / function["code"]).mkdir(parents=True, exist_ok=True)
        if "python" in function:
            (folder / function["python"]).parent.mkdir(parents=True)
            (folder / function["python"]).touch()
    (folder / "ca.pem").touch()


@pytest.mark.parametrize(("page", "block"), shown("yaml"))
def test_files_load(tmp_path: Path, page: str, block: str) -> None:
    document = whole(block, page)
    make_files(tmp_path, document)
    file = tmp_path / "headrace.yaml"
    file.write_text(json.dumps(document))
    assert load(file, SECRETS, NOW_S).mappings


@pytest.mark.parametrize(("page", "block"), shown("python"))
def test_code_parses(page: str, block: str) -> None:
    in_a_function = block.startswith("return ")
    compile(f"def handler():\n    {block}" if in_a_function else block, page, "exec")


def commands() -> list[Any]:
    lines = [(place, line) for page in PAGES for place, text in blocks(page, "") for line in text.splitlines()]
    found = [
        (place, re.match(r"(?:\$ )?(?:.*\| )?(?:\.venv/bin/)?headrace( [^0-9].*)?$", line)) for place, line in lines
    ]
    return [pytest.param(match[1] or "", id=f"{place}:{match[0][:60]}") for place, match in found if match]


@pytest.mark.parametrize("command", commands())
def test_commands_are_commands(command: str) -> None:
    words = shlex.split(re.split(r" 2?>| \| | & | &$", command)[0], comments=True)
    make_parser().parse_args(words)


def headings(page: Path) -> set[str]:
    """Give the anchors of a page, made as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\(([^):]*)#([^)]+)\)", page.read_text())
    dead = [
        f"{file}#{anchor}" for file, anchor in links if anchor not in headings(page.parent / file if file else page)
    ]
    assert dead == []


def test_every_command_has_a_line_on_the_page_of_commands() -> None:
    listed = re.findall(r"^\| `headrace (\w+)", (ROOT / "docs/commands.md").read_text(), re.MULTILINE)
    [commands] = [action for action in make_parser()._actions if action.metavar == "COMMAND"]
    assert sorted(listed) == sorted(commands.choices or ())


def pages_of_the_site() -> list[str]:
    """Give the pages that the navigation of the site names, at any depth."""
    text = (ROOT / "mkdocs.yml").read_text()
    return re.findall(r"([\w-]+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)


def test_every_page_has_its_place_in_the_site() -> None:
    pages = sorted(page.name for page in (ROOT / "docs").glob("*.md"))
    assert sorted(pages_of_the_site()) == pages, "a page of docs/ belongs under `nav:` of mkdocs.yml, once"


def test_the_first_page_leads_to_every_other() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs/index.md").read_text()))
    assert set(pages_of_the_site()) - linked == {"index.md"}
