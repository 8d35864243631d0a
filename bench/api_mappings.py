"""What event source mappings of the API cost that are disabled: `python -m bench.api_mappings --help`.

A daemon is given thousands of them by CreateEventSourceMapping, each over a queue of its own behind one
`bench.sqs_endpoint`, which knows every queue. Then all pages of ListEventSourceMappings are read in turn on one
connection, before and after a restart; each page is timed, and the resident size of the daemon looked at.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import aiohttp

from bench import procs
from bench.daemon import Headrace
from bench.figures import keep, percentile, spread, table
from bench.queues import Endpoint, headrace, sqs

_PATH = "/2015-03-31/event-source-mappings/"
_QUEUE = "arn:aws:sqs:us-east-1:000000000000:made-{:05d}"
#: Calls at once.
_AT_ONCE = 16
_PAGE = 100
#: From here on every queue was polled in vain, seconds.
_WARM_S = 20.0
#: What a page may take, and the daemon hold.
_PAGE_MS = 50.0
_HELD_MB = 200.0


@dataclass(frozen=True, slots=True)
class Course:
    """What one daemon did and held."""

    #: Before there was anything of the API, with all mappings, and after all pages were read.
    bare_mb: float
    made_mb: float
    listed_mb: float
    peak_mb: float
    create_s: float
    #: Of each page, milliseconds.
    page_ms: Sequence[float]
    #: Until it was ready again, over what it had kept, and what it held then.
    restart_s: float
    restarted_mb: float


async def _make_all(http: aiohttp.ClientSession, url: str, count: int, *, enabled: bool) -> float:
    """Make so many; gives how long it took, seconds."""
    numbers = iter(range(count))
    begun_s = time.monotonic()
    await asyncio.gather(*(_make(http, url, numbers, enabled=enabled) for _ in range(_AT_ONCE)))
    return time.monotonic() - begun_s


async def _make(http: aiohttp.ClientSession, url: str, numbers: Iterator[int], *, enabled: bool) -> None:
    for number in numbers:
        asked = {"EventSourceArn": _QUEUE.format(number), "FunctionName": "bench", "Enabled": enabled}
        async with http.post(f"{url}{_PATH}", json=asked) as answer:
            assert answer.status == 202, await answer.text()


async def _list(http: aiohttp.ClientSession, url: str, page_ms: list[float]) -> int:
    """Read all pages; gives how many mappings were on them."""
    count, marker = 0, ""
    while True:
        asked = {"MaxItems": str(_PAGE), **({"Marker": marker} if marker else {})}
        begun_s = time.perf_counter()
        async with http.get(f"{url}{_PATH}", params=asked) as answer:
            assert answer.status == 200, await answer.text()
            page = await answer.json(content_type=None)
        page_ms.append((time.perf_counter() - begun_s) * 1000)
        count += len(page["EventSourceMappings"])
        marker = page.get("NextMarker") or ""
        if not marker:
            return count


async def run(options: argparse.Namespace) -> Course:
    async with Endpoint(["--messages", "0"]) as endpoint:
        daemon = headrace(endpoint, {"idle": sqs("idle")})
        async with daemon, aiohttp.ClientSession() as http:
            return await _observe(daemon, http, options.mappings)


async def _observe(daemon: Headrace, http: aiohttp.ClientSession, mappings: int) -> Course:
    bare_mb = procs.usage(daemon.pid).rss_mb
    create_s = await _make_all(http, daemon.url, mappings, enabled=False)
    made_mb = procs.usage(daemon.pid).rss_mb
    page_ms: list[float] = []
    assert await _list(http, daemon.url, page_ms) == mappings + 1
    seen = procs.usage(daemon.pid)
    begun_s = time.monotonic()
    await daemon.restart()
    restart_s = time.monotonic() - begun_s
    restarted_mb = procs.usage(daemon.pid).rss_mb
    assert await _list(http, daemon.url, page_ms) == mappings + 1
    return Course(bare_mb, made_mb, seen.rss_mb, seen.peak_rss_mb, create_s, page_ms, restart_s, restarted_mb)


async def run_enabled(options: argparse.Namespace) -> float:
    """Give what one mapping holds that is enabled and has nothing to do, KB."""
    async with Endpoint(["--messages", "0"]) as endpoint:
        daemon = headrace(endpoint, {"idle": sqs("idle")})
        async with daemon, aiohttp.ClientSession() as http:
            before_mb = procs.usage(daemon.pid).rss_mb
            await _make_all(http, daemon.url, options.enabled, enabled=True)
            await asyncio.sleep(_WARM_S)
            held_mb: float = procs.usage(daemon.pid).rss_mb - before_mb
            return held_mb * 1024 / int(options.enabled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mappings", type=int, default=5000)
    parser.add_argument("--enabled", type=int, default=300, help="mappings of the run with enabled ones")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    courses = [asyncio.run(run(options)) for _ in range(options.repeats)]
    enabled_kb = [asyncio.run(run_enabled(options)) for _ in range(options.repeats)]
    pages = [[percentile(course.page_ms, share) for course in courses] for share in (50, 99)]
    made_kb = [(course.made_mb - course.bare_mb) * 1024 / options.mappings for course in courses]
    rows = [
        ["page of 100, median, ms", spread(pages[0], ".1f"), ""],
        ["page of 100, p99, ms", spread(pages[1], ".1f"), f"<= {_PAGE_MS:g}"],
        ["resident without them, MB", spread((course.bare_mb for course in courses), ".0f"), ""],
        ["with them, MB", spread((course.made_mb for course in courses), ".0f"), f"<= {_HELD_MB:g}"],
        ["and all listed, MB", spread((course.listed_mb for course in courses), ".0f"), f"<= {_HELD_MB:g}"],
        ["one disabled mapping, KB", spread(made_kb, ".1f"), ""],
        [f"one enabled mapping, KB (of {options.enabled})", spread(enabled_kb, ".0f"), ""],
        ["after a restart, MB", spread((course.restarted_mb for course in courses), ".0f"), f"<= {_HELD_MB:g}"],
        ["restart until ready, s", spread((course.restart_s for course in courses), ".1f"), ""],
        ["creates per second", spread((options.mappings / course.create_s for course in courses), ".0f"), ""],
    ]
    print(table([f"{options.mappings} disabled mappings", "median [range]", "reach"], rows))
    raw = {"courses": [asdict(course) for course in courses], "enabled_kb": enabled_kb}
    print(keep("api_mappings", raw), file=sys.stderr)


if __name__ == "__main__":
    main()
