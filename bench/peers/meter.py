"""Count records inside a peer's process. Uses the standard library only: it runs in the peers' own environment too."""

import json
import os
import resource
import time


class Meter:
    """Measures from the first records, which are not counted, to the last ones."""

    def __init__(self, records: int) -> None:
        self._records = records
        self._seen = 0
        self._first = 0
        self._began_s = 0.0
        self._began_cpu_s = 0.0

    @property
    def is_over(self) -> bool:
        return self._seen >= self._records

    def add(self, count: int) -> None:
        self._seen += count
        if not self._began_s:
            self._first = self._seen
            self._began_s, self._began_cpu_s = time.monotonic(), time.process_time()

    def report(self) -> None:
        """Print the figures as JSON."""
        measured = {
            "pid": os.getpid(),
            "records": self._seen - self._first,
            "seconds": time.monotonic() - self._began_s,
            "cpu_s": time.process_time() - self._began_cpu_s,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        print(json.dumps(measured), flush=True)
