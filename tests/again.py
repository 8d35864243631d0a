"""Judge anew the few tests among real processes and servers that failed in the last run: `python -m tests.again`.

Each is run three times more, by itself, and has to pass each time. What needs no process has no excuse, and neither has
a run that did not end or failed in more than two places. The reason is in docs/decisions.md.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence

LIMIT = 2
TIMES = 3
ROOMS = ("tests/conformance/", "tests/handlers/", "tests/live/")
NOTED = pathlib.Path(".pytest_cache/v/cache/lastfailed")


def refusal(failed: Sequence[str]) -> str | None:
    """Say why a run that failed in these tests is not judged anew, if so; they are named as pytest names them."""
    if not failed:
        return "the last run noted no test that failed: it did not end, or did not begin"
    if len(failed) > LIMIT:
        return f"{len(failed)} tests failed, and that is no accident: at most {LIMIT} are run again"
    if alone := [test for test in failed if not test.startswith(ROOMS)]:
        return f"{alone[0]} depends on no server and no process: a second run would change nothing"
    return None


def judge(failed: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    """Run them as often as is asked; gives the first exit status that is not zero, else zero."""
    return next((status for _ in range(TIMES) if (status := run(failed))), 0)


def pytest_of(tests: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", "-rsfE", *tests], check=False).returncode


def main() -> int:
    """Give the exit status, and say what it is about."""
    failed = list(json.loads(NOTED.read_text())) if NOTED.exists() else []
    if reason := refusal(failed):
        print(f"tests.again: {reason}", file=sys.stderr)
        return 1
    status = judge(failed, pytest_of)
    end = f"failed once and passed {TIMES} times when run again" if status == 0 else "failed again"
    for test in failed:
        print(f"tests.again: {test} {end}; see the run before for what it said, and mend it", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
