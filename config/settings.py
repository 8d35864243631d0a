"""What a configuration comes to: frozen values, fully defaulted, paths absolute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from connectors.settings import AwsSettings, DestinationSettings, Secret, SourceSettings, TargetSettings
from router.core.model import EventSourceMapping


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """One function that workers run."""

    name: str
    #: `module.attribute`; folders by dots or slashes.
    handler: str
    #: Folder or .zip archive.
    code: Path
    #: The user's interpreter: an absolute path, or a name looked up on PATH; None = ours.
    python: str | None
    timeout_s: float
    memory_bytes: int
    #: Workers at most; None = as many as its mappings can use, at most 2 for each CPU.
    reserved_concurrency: int | None
    #: Invocations that one worker runs at once; 1 unless the handler is `async def`.
    concurrency_per_worker: int
    #: Are workers forked from a process that has loaded the function?
    snap_start: bool
    environment: Mapping[str, Secret]
    #: Is what handlers print kept?
    logs: bool
    #: Least level of the handler's own log; None = as the handler sets it.
    log_level: str | None = None


#: Any function: of our own workers, or one that runs elsewhere.
AnyFunction: TypeAlias = FunctionSettings | TargetSettings


@dataclass(frozen=True, slots=True)
class MappingSettings:
    """One event source mapping."""

    mapping: EventSourceMapping
    enabled: bool
    source: SourceSettings
    #: Filter patterns, JSON texts; none = every record passes.
    filters: tuple[str, ...]
    destination: DestinationSettings | None
    #: Least level of lines about it; None = that of the file.
    log_level: str | None = None
    #: The name that the mapping had before; None = it has its first.
    renamed_from: str | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long failed batches are kept."""

    keep_for_s: float
    keep_bytes: int
    #: At `keep_bytes`: remove the oldest failures, or hold what fails.
    drop_oldest: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole file."""

    #: The file itself.
    path: Path
    state_dir: Path
    #: A loopback address or `localhost`.
    listen_host: str
    #: 0 = any free port.
    listen_port: int
    aws: AwsSettings
    functions: Mapping[str, AnyFunction]
    mappings: tuple[MappingSettings, ...]
    drain_timeout_s: float
    failures: Retention
    #: Does what was stored survive a loss of power, and not only the end of the process?
    power_safe: bool
    #: debug, info, warning or error.
    log_level: str
    #: What is right but may surprise, for people.
    notices: tuple[str, ...]
