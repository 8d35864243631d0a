"""Writes the parts of the docs anew that are made from the code: `make reference`."""

from __future__ import annotations

from pathlib import Path

from bench import chaos_report
from config.reference import reference
from router.reference import metrics_reference, operations_reference, reasons_reference

DOCS = Path(__file__).parents[2] / "docs"
#: Page -> (the heading from which on it is made, what makes it).
GENERATED = {
    "api.md": ("## Operations that are served\n", operations_reference),
    "configuration.md": ("## Top level\n", reference),
    "metrics.md": ("## Of a mapping\n", metrics_reference),
    "reasons.md": ("## Why a mapping does not move\n", reasons_reference),
    "reliability.md": (chaos_report.HEADING, chaos_report.last_run),
}

if __name__ == "__main__":
    for name, (heading, make) in GENERATED.items():
        page = DOCS / name
        text = page.read_text()
        page.write_text(text[: text.index(heading)] + make())
