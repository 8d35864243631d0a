"""What tables of the code list, as Markdown: metrics, reasons, log events, and the operations of the Lambda API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.api.operations import OPERATIONS, Operation
from router.telemetry import DISCARDS, EVENTS, METRICS, REASONS, Measure


def metrics_reference() -> str:
    """Print all metrics, by what they are of."""
    parts = [
        ("Of a mapping", [each for each in METRICS.items() if "mapping" in each[1].labels]),
        ("Of a function", [each for each in METRICS.items() if "function" in each[1].labels]),
        ("Of the daemon", [each for each in METRICS.items() if not {"mapping", "function"} & set(each[1].labels)]),
    ]
    columns = ("metric", "type", "labels", "meaning", "on AWS")
    return _page((title, columns, [_metric(*each) for each in metrics]) for title, metrics in parts)


def _metric(name: str, measure: Measure) -> Sequence[str]:
    shown = f"{name}_total" if measure.kind == "counter" else name
    return f"`{shown}`", measure.kind, ", ".join(f"`{label}`" for label in measure.labels), measure.text, measure.aws


def reasons_reference() -> str:
    """Print the reason codes, and the log events by their level."""
    stuck = [(f"`{code}`", means, what_to_do) for code, (means, what_to_do) in REASONS.items()]
    discards = [(f"`{code}`", means) for code, means in DISCARDS.items()]
    events = [(f"`{event}`", level, means) for event, (level, means) in EVENTS.items()]
    return _page(
        [
            ("Why a mapping does not move", ("code", "means", "what to do"), stuck),
            ("Why a batch was given up", ("reason", "means"), discards),
            ("Log events", ("event", "level", "says"), events),
        ]
    )


def operations_reference() -> str:
    """Print the operations of the Lambda API that are served."""
    columns = ("operation", "method and path", "body at most")
    return _page([("Operations that are served", columns, map(_operation, OPERATIONS))])


def _operation(each: Operation) -> Sequence[str]:
    most = f"{each.body_bytes >> 20} MB" if each.method in ("POST", "PUT") else ""
    return f"`{each.name}`", f"{each.method} `{each.path}`", most


def _page(sections: Iterable[tuple[str, Sequence[str], Iterable[Sequence[str]]]]) -> str:
    return "\n".join(_section(*each) for each in sections)


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = [columns, ["---"] * len(columns), *rows]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(row)} |" for row in table), ""])
