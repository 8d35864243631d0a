"""Medians with their ranges, tables of them, and where raw results go."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.procs import machine

OUT = Path(__file__).parent / "out"

_PACKAGES = ("headrace", "aiokafka", "uvloop", "msgspec", "orjson")


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Write values as median [lowest-highest]."""
    known = list(values)
    if len(known) == 1:
        return f"{known[0]:{form}}"
    return f"{statistics.median(known):{form}} [{min(known):{form}}-{max(known):{form}}]"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Divide figures of the same repeat."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def percentile(values: Iterable[float], percent: float) -> float:
    """Give the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * percent) // 100) - 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table as Markdown."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    written = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([written[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *written[1:]])


def environment() -> dict[str, object]:
    """Describe what the figures hold for."""
    versions = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions}


def keep(name: str, results: Mapping[str, object]) -> Path:
    """Write raw results into bench/out and say where."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps({"environment": environment(), **results}, indent=1))
    return path
