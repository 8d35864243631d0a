"""What a configuration comes to: frozen values, fully defaulted, paths absolute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from connectors.settings import AwsSettings, DestinationSettings, RedisSettings, Secret, SourceSettings, TargetSettings
from router.core.model import EventSourceMapping


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """One function that workers run."""

    #: `orders`; `orders:3` for its published version 3.
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
    #: In AWS's words ("python3.12"), as it is told to handlers; None = what the interpreter is.
    runtime: str | None = None
    #: Is what handlers print kept in CloudWatch Logs, and not in the state directory?
    ships_logs: bool = False
    #: The log group that handlers are told of; None = it goes by the function's name.
    log_group: str | None = None
    #: text or json.
    log_format: str = "text"
    #: Another one where `code` is to be loaded anew although the rest is the same.
    code_given: str = ""

    @property
    def group(self) -> str:
        """The log group of all versions, wherever logs are kept."""
        return self.log_group or f"/aws/lambda/{self.name.partition(':')[0]}"


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
    #: Was it made through the API? Then its function may be a version or alias (`orders:live`), or be there no more.
    is_made: bool = False


@dataclass(frozen=True, slots=True)
class EventInvokeSettings:
    """How events of a function are treated that are invoked asynchronously; None = it was not said."""

    maximum_retry_attempts: int | None
    maximum_event_age_s: int | None
    #: ARNs; or `sqs:NAME`, `sns:NAME`, `lambda:function:NAME`, `events:event-bus/NAME` and `s3:BUCKET`, of here.
    on_success: str | None
    on_failure: str | None
    #: ARN of a queue or topic.
    dead_letter: str | None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long failed batches are kept."""

    keep_for_s: float
    keep_bytes: int
    #: At `keep_bytes`: remove the oldest failures, or hold what fails.
    drop_oldest: bool


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """The replicas that share their state, and which of them this is."""

    redis: RedisSettings
    #: Keeps fleets in one database apart.
    name: str
    #: Our name; another one for each replica.
    replica: str
    #: So long after a replica was last heard of, others take over what it owned.
    lease_s: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that calls of the API may be signed with."""

    access_key_id: str
    secret_access_key: Secret
    #: The service that holds it ("s3.amazonaws.com"), which may do what policies let it; None = everything.
    service: str | None = None


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How the Lambda API behaves."""

    #: Does it refuse what only AWS's product cannot do?
    strict: bool = True
    #: None = calls need no signature, which is so on loopback only.
    keys: tuple[ApiKey, ...] = ()
    #: Lets metrics be read elsewhere than on loopback; None = they are not served there.
    metrics_token: Secret | None = None
    #: Servers of clusters of Amazon MSK, by their ARNs.
    msk_clusters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole file."""

    #: The file itself.
    path: Path
    #: Of the embedded store; in a fleet, of what belongs to this replica alone: control socket, logs, locks.
    state_dir: Path
    #: A loopback address or `localhost`; any other where there are keys.
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
    #: None = the state is embedded, and this daemon is alone.
    fleet: FleetSettings | None = None
    #: By function; those that say nothing of it are not there.
    event_invoke: Mapping[str, EventInvokeSettings] = field(default_factory=dict)
    api: ApiSettings = ApiSettings()
    #: Of functions that say nothing else, such as those of the API: on, off or cloudwatch.
    logs: str = "on"
