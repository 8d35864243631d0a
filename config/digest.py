"""What a configuration is, in a few letters: for replicas to see whether they run the same. Pure.

Secrets are left out, as they do not show; so is what may differ from machine to machine: where the file is, the
addresses, the folder of each replica.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from config.settings import Configuration


def digests(configuration: Configuration) -> tuple[str, Mapping[str, str]]:
    """Give what all of it is, and each mapping with its function, by name."""
    folder = configuration.path.parent
    functions = {name: repr(each) for name, each in configuration.functions.items()}
    mappings = {
        each.mapping.name: repr(each) + functions.get(each.mapping.function, "") + repr(configuration.aws)
        for each in configuration.mappings
    }
    fleet = configuration.fleet
    rest = (
        configuration.drain_timeout_s,
        configuration.failures,
        configuration.power_safe,
        configuration.log_level,
        fleet and (fleet.redis, fleet.name, fleet.lease_s),
    )
    whole = "\n".join([*sorted(functions.values()), *(mappings[name] for name in sorted(mappings)), repr(rest)])
    return _digest(whole, folder), {name: _digest(text, folder) for name, text in mappings.items()}


def _digest(text: str, folder: Path) -> str:
    return hashlib.sha256(text.replace(str(folder), ".").encode()).hexdigest()[:12]
