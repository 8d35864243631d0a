"""Shows a run of `bench.chaos`: the tables of docs/reliability.md, made from the summary that is kept beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from signal import SIGTERM
from typing import Any, Final

from bench.figures import table

DOCS: Final = Path(__file__).parents[1] / "docs"
SUMMARY: Final = DOCS / "chaos.json"
PAGE: Final = DOCS / "reliability.md"
#: From here on the page is made.
HEADING: Final = "## The last run\n"

#: What a row shows of a source's verdict.
_ROWS: Final = {
    "records sent": lambda verdict: f"{verdict['produced']:,}",
    "succeeded": lambda verdict: f"{verdict['finished']:,}",
    "poison, all of it stored as failed": lambda verdict: f"{verdict['failed']:,}",
    "batches given to the function": lambda verdict: f"{verdict['deliveries']:,}",
    "batches whose worker ended first": lambda verdict: f"{verdict['cut_off']:,}",
    "lost": lambda verdict: _count(verdict, "lost"),
    "out of order in a key": lambda verdict: _count(verdict, "out of order"),
    "handed out by LocalStack past hidden ones of the group": lambda verdict: (
        str(verdict["passed_hidden"]) if verdict.get("passed_hidden") else ""
    ),
    "overlapping in a key": lambda verdict: _count(verdict, "overlap"),
    "succeeded and ran again, explained": lambda verdict: f"{sum(verdict['repeated'].values()):,}",
    "longest time from a batch's end to the trouble that repeated it": lambda verdict: (
        f"{verdict['oldest_repeat_s']:.1f} s"
    ),
    "would have been explained if they had run again": lambda verdict: _share(
        verdict["excusable"], verdict["finished"]
    ),
    "seen to be committed meanwhile": lambda verdict: f"{verdict['committed']:,}" if verdict.get("committed") else "",
    "ran again, not explained or committed before": lambda verdict: _count(verdict, "repeated"),
    "most tries of a poison record alone": lambda verdict: str(verdict["most_attempts"]),
    "other violations": lambda verdict: str(len(verdict["violations"]) - _counted(verdict)),
}
_NAMED: Final = ("lost", "out of order", "overlap", "repeated")


def _count(verdict: Mapping[str, Any], beginning: str) -> str:
    return str(sum(violation.startswith(beginning) for violation in verdict["violations"]))


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _counted(verdict: Mapping[str, Any]) -> int:
    return sum(violation.startswith(_NAMED) for violation in verdict["violations"])


def tables(summary: Mapping[str, Any]) -> str:
    """Show a summary as Markdown."""
    return "\n".join(_parts(summary))


def last_run() -> str:
    """Give the part of the page that is made, out of the summary that is kept."""
    return HEADING + tables(json.loads(SUMMARY.read_text()))


def publish(summary: Mapping[str, Any]) -> None:
    """Keep a summary in the docs, and show it there."""
    SUMMARY.write_text(json.dumps(summary, indent=1) + "\n")
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(HEADING)] + last_run())


def _parts(summary: Mapping[str, Any]) -> Iterator[str]:
    made, events, sources = summary["environment"], summary["events"], summary["sources"]
    machine = made["machine"]
    command = f"python -m bench.chaos --events {summary['asked_events']} --seed {summary['seed']}"
    yield f"`{command}` on {made['date']}, on {machine['cores']} cores of {machine['cpu']}, which the brokers,"
    yield f"LocalStack and Redis shared. Lease {summary['lease_s']:g} s; {summary['rate']:g} records a second a source."
    yield ""
    yield f"**{sum(events.values())} events in {summary['trouble_s']:.0f} s, {_violations(summary)} violations.**"
    settled_s = summary["settled_s"]
    yield (
        "Not everything was over in time afterwards."
        if settled_s is None
        else (f"After the last one all was over in {settled_s:.0f} s.")
    )
    yield ""
    yield table(["", *sources], [[row, *map(show, sources.values())] for row, show in _ROWS.items()])
    yield ""
    yield "### What went wrong"
    yield table(["event", "times", "ran again because of it"], _events(events, sources))
    yield ""
    # One that was told so at once has ended before it had begun.
    drains = [status for statuses in summary["drains"].values() for status in statuses if status != -SIGTERM]
    yield f"Of {len(drains)} drains after SIGTERM {drains.count(0)} ended with status 0. Full disk: {summary['disk']}."
    yield f"Events that found nothing to hit, and are not counted: {summary['skipped']}."
    yield ""
    if _violations(summary):
        yield "### Violations"
        own = [f"{name}: {each}" for name, verdict in sources.items() for each in verdict["violations"]]
        yield from (f"- {each}" for each in [*summary["violations"], *own][:50])
        yield ""


def _violations(summary: Mapping[str, Any]) -> int:
    return len(summary["violations"]) + sum(len(verdict["violations"]) for verdict in summary["sources"].values())


def _events(events: Mapping[str, int], sources: Mapping[str, Any]) -> Iterator[list[str]]:
    for kind, times in events.items():
        repeated = {name: verdict["repeated"].get(kind, 0) for name, verdict in sources.items()}
        yield [kind, str(times), ", ".join(f"{name} {count}" for name, count in repeated.items() if count)]
