"""The house keeps its own rules: one list of events, packages that ship, links that lead somewhere, examples that
load."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.load import load
from router.telemetry import EVENTS, REASONS

ROOT = Path(__file__).parents[2]
ROOMS = ("config", "connectors", "handlers", "router")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def texts(path: Path) -> Iterator[str]:
    """Give all string literals of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def written_events() -> set[str]:
    """Give what is handed to `Log.write` and to the engine's notes."""
    found: set[str] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("write", "_note")
            ):
                for literal in (each for arg in node.args[:1] for each in ast.walk(arg)):
                    if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                        found.add(literal.value)
    return {event for event in found if re.fullmatch(r"[a-z_]+\.[a-z_]+", event)}


def test_every_event_that_is_written_is_listed() -> None:
    assert written_events() - set(EVENTS) == set()


def test_every_listed_event_is_written_somewhere() -> None:
    said = {text for path in SOURCES if path.name != "telemetry.py" for text in texts(path)}
    assert set(EVENTS) - said == set()


def test_every_listed_reason_is_given_somewhere() -> None:
    said = {text for path in SOURCES if path.name != "telemetry.py" for text in texts(path)}
    assert set(REASONS) - said == set()


def test_every_package_is_shipped() -> None:
    shipped = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.name == "__init__.py"}
    assert shipped == packages


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert [path for path in SOURCES if path.stem in sys.stdlib_module_names] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_runs_in_workers_needs_nothing_newer_than_3_9_and_others_parse(path: Path) -> None:
    in_workers = ("bootstrap.py", "json_log.py", "tasks.py", "snapshot.py", "snapshot_restore_py.py")
    version = (3, 9) if path.name in in_workers else (3, 11)
    ast.parse(path.read_text(), feature_version=version)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    dead = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert dead == []


@pytest.mark.parametrize("example", sorted((ROOT / "config" / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_load(example: Path) -> None:
    found = load(example, {}, now_s=1e9)
    assert found.mappings or found.event_invoke or example.name == "api.yaml", "only that leaves all to the API"
