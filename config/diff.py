"""What one configuration asks to be changed where another one runs. Pure.

A mapping that changed is replaced: it ends what is in flight, then it goes on by its new settings. Settings that it
takes from elsewhere count as its own: the timeout of its function bounds its drain, the `aws` block says where its
queue is. A function that changed gets new workers under mappings that go on; where it runs elsewhere, before or after,
or what it prints goes elsewhere, they are replaced too. What `failures`, `drain_timeout`, `log_level` and `api` say is
taken on at once. The state directory is locked, its store opened and the address taken for the life of a process: they
need a restart.

Values are compared and never told: they may be secrets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, Literal

from config.settings import AnyFunction, Configuration, FunctionSettings, MappingSettings

#: stop: it ends, and its state stays. renew: the function gets new workers.
Action = Literal["start", "stop", "replace", "renew", "unchanged"]

#: How the file calls what settings call otherwise.
_NAMES: Final = {
    "starting_timestamp_s": "starting_position_timestamp",
    "starting_time_ms": "starting_position_timestamp",
    "tumbling_window_s": "tumbling_window_in_seconds",
    "idle_s": "source.poll_interval",
    "busy_s": "source.poll_interval",
    "maximum_record_age_s": "maximum_record_age_in_seconds",
    "bisect": "bisect_batch_on_function_error",
    "report_item_failures": "function_response_types",
    "heartbeat": "visibility_heartbeat",
    "hold_group": "hold_message_group",
    "needed_lease_s": "retry_throttled",
    "by_sequencer": "order",
    "filters": "filter_criteria",
    "backoff": "retry_backoff",
    "memory_bytes": "memory_size",
    "ships_logs": "logs",
    "destination": "destination_config",
    "window_s": "maximum_batching_window_in_seconds",
    "windowed": "maximum_batching_window_in_seconds",
    "function_concurrency": "concurrency of its function",
    "drain_s": "timeout of its function",
    "maximum_concurrency": "scaling_config.maximum_concurrency",
    "rules": "source",
    "fifo": "source",
    "event_invoke": "event_invoke_config",
}
#: Parts of settings that the file does not have as blocks.
_BARE: Final = ("mapping", "polling", "pace", "sqs")
_TAKEN_ON: Final = ("drain_timeout_s", "failures", "log_level", "event_invoke", "api")
_NEED_RESTART: Final = {
    "state_dir": "state",
    "listen_host": "listen",
    "listen_port": "listen",
    "power_safe": "durability",
    "fleet": "fleet",
}
#: What of a fleet the file says elsewhere.
_FLEET: Final = {"redis": "state", "name": "fleet", "lease_s": "lease", "replica": "--replica"}


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one mapping or function."""

    name: str
    action: Action
    #: Why: what changed, as the file calls it.
    keys: tuple[str, ...] = ()
    #: The name that it had before, which is not in use any more.
    renamed_from: str | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """What one configuration changes about another."""

    mappings: tuple[Change, ...]
    functions: tuple[Change, ...]
    #: Other keys that changed and are taken on at once.
    taken_on: tuple[str, ...]
    #: Keys that changed and stay as they are until the daemon is restarted.
    need_restart: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        changes = (*self.mappings, *self.functions)
        return not (self.taken_on or self.need_restart) and all(each.action == "unchanged" for each in changes)


def diff(old: Configuration, new: Configuration) -> Diff:
    """Say what is to be done where `old` runs and `new` is wanted, in the order of the new file, then of the old."""
    functions = _functions(old, new)
    kinds = {each.name for each in functions if each.action == "replace"}
    before, after = _by_name(old), _by_name(new)
    mappings = [_mapping(before.get(name), mapping, old, new, kinds) for name, mapping in after.items()]
    mappings += [Change(name, "stop", (_why_gone(each),)) for name, each in before.items() if name not in after]
    taken_on = tuple(_called(name) for name in _TAKEN_ON if getattr(old, name) != getattr(new, name))
    return Diff(tuple(mappings), tuple(functions), taken_on, tuple(dict.fromkeys(_need_restart(old, new))))


def running(old: Configuration, new: Configuration) -> Configuration:
    """Give what runs after the change: `new`, with what needs a restart as it was."""
    return replace(new, **{name: getattr(old, name) for name in _NEED_RESTART})


def _need_restart(old: Configuration, new: Configuration) -> Iterator[str]:
    for name, key in _NEED_RESTART.items():
        if getattr(old, name) == getattr(new, name):
            continue
        if name == "fleet" and old.fleet and new.fleet:
            for field, called in _FLEET.items():
                if getattr(old.fleet, field) != getattr(new.fleet, field):
                    yield called
        elif name == "fleet" or (old.fleet is None) != (new.fleet is None):
            yield "state"
        else:
            yield "local" if name == "state_dir" and new.fleet else key


def _why_gone(mapping: MappingSettings) -> str:
    return "disabled or deleted through the API" if mapping.is_made else "not in the file any more"


def _by_name(configuration: Configuration) -> Mapping[str, MappingSettings]:
    return {each.mapping.name: each for each in configuration.mappings}


def _functions(old: Configuration, new: Configuration) -> list[Change]:
    used = {each.mapping.function for each in new.mappings}
    were = {each.mapping.function for each in old.mappings}
    # What the `aws` block says is in the workers' environment.
    shared = tuple(_paths(old.aws, new.aws, "aws"))
    changes = []
    for name, function in new.functions.items():
        if name in used:
            changes.append(_function(name, old.functions.get(name) if name in were else None, function, shared))
    left = [name for name in old.functions if name in were - used]
    return changes + [Change(name, "stop", ("no mapping uses it any more",)) for name in left]


def function_change(name: str, before: AnyFunction, old: Configuration, new: Configuration) -> Change:
    """Say what becomes of a function whose workers were made by these settings, whether mappings use it or not."""
    after = new.functions.get(name)
    if after is None:
        return Change(name, "stop")
    return _function(name, before, after, tuple(_paths(old.aws, new.aws, "aws")))


def _function(name: str, before: AnyFunction | None, after: AnyFunction, shared: tuple[str, ...]) -> Change:
    if before is None:
        return Change(name, "start")
    if isinstance(before, FunctionSettings) and isinstance(after, FunctionSettings):
        keys = tuple(dict.fromkeys((*_paths(before, after, ""), *shared)))
        action: Action = "replace" if _ships_elsewhere(before, after, keys, shared) else "renew"
        return Change(name, action if keys else "unchanged", keys)
    keys = tuple(_paths(before, after, "")) if type(before) is type(after) else ("its kind",)
    return Change(name, "replace" if keys else "unchanged", keys)


def _ships_elsewhere(
    before: FunctionSettings, after: FunctionSettings, keys: Collection[str], shared: Collection[str]
) -> bool:
    """Say whether what the function prints goes elsewhere from now on: that is the same for all of its workers."""
    is_moved = bool(shared) or "log_group" in keys
    return before.ships_logs != after.ships_logs or (after.ships_logs and is_moved)


def _mapping(
    before: MappingSettings | None, after: MappingSettings, old: Configuration, new: Configuration, kinds: set[str]
) -> Change:
    name, function = after.mapping.name, after.mapping.function
    if before is None:
        return Change(name, "start", renamed_from=after.renamed_from)
    is_same = before is after or before == after
    if is_same and not after.destination and not kinds:  # there may be thousands
        return Change(name, "unchanged")
    keys = [] if is_same else list(_paths(replace(before, renamed_from=after.renamed_from), after, ""))
    if after.destination:  # its records name the function by its ARN
        keys += [f"aws.{name}" for name in ("region", "account_id") if getattr(old.aws, name) != getattr(new.aws, name)]
    if function in kinds:
        keys.append(f"functions.{function}")
    return Change(name, "replace" if keys else "unchanged", tuple(dict.fromkeys(keys)))


def _paths(old: Any, new: Any, path: str) -> Iterator[str]:
    """Name what differs between two values of settings, as deep as they are of one kind."""
    if old == new:
        return
    if is_dataclass(old) and type(old) is type(new):
        for field in fields(old):
            yield from _paths(getattr(old, field.name), getattr(new, field.name), _below(path, field.name))
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _paths(old.get(name), new.get(name), f"{path}.{name}")
    else:
        yield path


def _below(path: str, field: str) -> str:
    if field in _BARE:
        return path
    called = _called(field)
    # These are of the mapping or its function, also where settings of a source have them.
    return called if not path or field in ("window_s", "windowed", "drain_s") else f"{path}.{called}"


def _called(field: str) -> str:
    return _NAMES.get(field) or field.removesuffix("_s").removesuffix("_bytes")
