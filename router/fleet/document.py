"""What `status` says of a fleet, from what each replica says of itself and what the table has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.core.fleet import Lease, LeaseKey, Replica, part
from router.failures.record import iso_ms

#: A mapping is in the first of these in which it is on some replica.
_WORST_FIRST: Final = (
    "failed", "holding", "retrying", "running", "idle", "starting", "paused", "draining", "stopped",
)  # fmt: skip
_QUEUES: Final = ("sqs:", "s3:")
#: Pseudo-shard of a mapping whose owner moves it.
_MOVING: Final = "@moving"


@dataclass(frozen=True, slots=True)
class Seen:
    """The fleet as one replica sees it, or somebody who has looked at its table twice."""

    fleet: str
    #: Who looks; None = none of the replicas.
    us: str | None
    #: All that are in the table.
    replicas: Mapping[str, Replica]
    #: Those of them that are not heard of.
    dead: frozenset[str]
    leases: Mapping[LeaseKey, Lease]
    #: What each says of itself (`about`).
    abouts: Mapping[str, Mapping[str, Any]]
    #: Since when each was not heard of, seconds; of some it is not known.
    lags_s: Mapping[str, float]
    #: Those that live, and have not answered when they were asked.
    silent: frozenset[str]
    wall_s: float


def fleet_document(seen: Seen, mappings: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Describe a fleet: its replicas, and all leases that are not finished."""
    states = {each["name"]: each["state"] for each in mappings}
    leases = sorted((key, lease) for key, lease in seen.leases.items() if not lease.finished)
    return {
        "name": seen.fleet,
        "replica": seen.us,
        "replicas": [_replica(name, seen) for name in sorted({*seen.replicas, *seen.abouts})],
        "leases": [_lease(key, lease, seen, states) for key, lease in leases],
        "differences": [
            {"what": what, "replicas": dict(values)} for what, values in differences(seen.abouts, seen.replicas).items()
        ],
    }


def differences(abouts: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Say in what replicas differ that should be the same everywhere, and what each has: version, file, mappings."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        about = abouts.get(name)
        if about is None:
            continue
        found.setdefault("version", {})[name] = about["version"]
        found.setdefault("file", {})[name] = about["file"]
        for mapping, each in about["mappings"].items():
            found.setdefault(f"mapping {mapping}", {})[name] = each["digest"]
    told = {name for name in names if name in abouts}
    for what, values in found.items():
        if what.startswith("mapping "):
            values.update(dict.fromkeys(told - values.keys(), "none"))
    return {what: dict(sorted(values.items())) for what, values in found.items() if len(set(values.values())) > 1}


def _replica(name: str, seen: Seen) -> dict[str, Any]:
    row, about = seen.replicas.get(name), seen.abouts.get(name, {})
    owned = sum(lease.owner == name and not key.shard.startswith("@") for key, lease in seen.leases.items())
    return {
        "name": name,
        "state": _state(name, row, seen),
        "version": about.get("version"),
        "since": about.get("started"),
        "host": about.get("host"),
        "state_dir": about.get("state_dir"),
        "load": None if row is None else round(row.load, 3),
        "last_heard_seconds": None if name not in seen.lags_s else round(seen.lags_s[name], 1),
        "shards": owned + sum(len(each.get("shards", ())) for each in about.get("mappings", {}).values()),
    }


def _state(name: str, row: Replica | None, seen: Seen) -> str:
    if row is None or name in seen.dead:
        return "dead"
    if name in seen.silent:
        return "silent"
    return "draining" if row.draining else "live"


def _lease(key: LeaseKey, lease: Lease, seen: Seen, states: Mapping[str, str]) -> dict[str, Any]:
    why = why_idle(key, lease, seen, states)
    return {
        "mapping": key.mapping,
        "shard": key.shard,
        "owner": lease.owner or None,
        "since": iso_ms(lease.since_ms / 1000),
        "load": round(lease.load, 3),
        "reason": why and {"code": why[0], "message": why[1]},
    }


def why_idle(key: LeaseKey, lease: Lease, seen: Seen, states: Mapping[str, str]) -> tuple[str, str] | None:
    """Say by code and sentence why nobody works on what is leased; None = somebody does."""
    if lease.owner in seen.replicas and lease.owner not in seen.dead:
        return None
    moving = seen.leases.get(LeaseKey(key.mapping, _MOVING))
    if moving and moving.owner:
        return "Moving", f"replica {moving.owner} changes where the mapping goes on"
    if states.get(key.mapping) == "paused":
        return "Paused", f"the mapping is paused: `headrace mapping resume {key.mapping}` goes on"
    return _opening(key, lease, seen)


def _opening(key: LeaseKey, lease: Lease, seen: Seen) -> tuple[str, str]:
    """Say who is to take it."""
    runners = [name for name, each in seen.replicas.items() if part(key) in each.runs and name not in seen.dead]
    if not runners:
        return "NobodyRuns", "no replica that lives runs this mapping now: look at its state and reason"
    if lease.owner:
        return "OwnerDead", f"replica {lease.owner} is not heard of; another takes over"
    if lease.heir in runners:
        return "HandedOver", f"replica {lease.heir} is about to take it"
    return "Free", f"it is about to be taken by one of {', '.join(sorted(runners))}"


# --- mappings


def merged(documents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Say of all replicas together what the document of each says of its mappings; the first one's order counts."""
    names = dict.fromkeys(each["name"] for document in documents.values() for each in document["mappings"])
    return [
        _mapping({
            replica: each
            for replica, document in documents.items()
            for each in document["mappings"]
            if each["name"] == name
        })
        for name in names
    ]  # fmt: skip


def functions(documents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add up what the functions' workers of all replicas do."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents.values():
        for each in document["functions"]:
            known = found.get(each["name"])
            if known is None:
                found[each["name"]] = dict(each)
            else:
                for count in ("workers", "busy", "waiting"):
                    known[count] += each[count]
                known["events"] = _events(known.get("events"), each.get("events"))
    return list(found.values())


def event_targets(documents: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Add up what targets of asynchronous events are still to be told by all replicas."""
    found: dict[str, dict[str, Any]] = {}
    for each in (target for document in documents.values() for target in document.get("event_targets", ())):
        known = found.setdefault(each["target"], {**each, "waiting": 0})
        known["waiting"] += each["waiting"]
        known["overdue_seconds"] = max(known["overdue_seconds"], each["overdue_seconds"])
        known["error"] = known["error"] or each["error"]
    return list(found.values())


def _events(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, Any] | None:
    """Add up the events that wait with two replicas; the reason is that of the one where they wait for longer."""
    if one is None or other is None:
        return one or other
    late = max(one, other, key=lambda each: float(each["overdue_seconds"]))
    return {**late, "waiting": one["waiting"] + other["waiting"]}


def _mapping(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    states = {replica: each["state"] for replica, each in parts.items()}
    replica = min(states, key=lambda name: _WORST_FIRST.index(states[name]))
    worst = parts[replica]
    reason = worst["reason"]
    if reason and len({each["state"] for each in parts.values()}) > 1:
        reason = {**reason, "message": f"on replica {replica}: {reason['message']}"}
    return {
        **worst,
        "reason": reason,
        "lag_records": _lag(parts.values(), is_queue=(worst["source"] or "").startswith(_QUEUES)),
        "lag_seconds": max((lag for each in parts.values() if (lag := each["lag_seconds"]) is not None), default=None),
        "in_flight": sum(each["in_flight"] for each in parts.values()),
        "records_per_second": round(sum(each["records_per_second"] for each in parts.values()), 1),
        "shards": [{**shard, "replica": name} for name, each in parts.items() for shard in each["shards"]],
        "outbox": max((each["outbox"] for each in parts.values() if each["outbox"]), key=_undelivered, default=None),
        "waiting": max((each["waiting"] for each in parts.values()), key=len),
        "states": states,
    }


def _undelivered(outbox: Mapping[str, Any]) -> int:
    return int(outbox["undelivered"] or 0)


def _lag(parts: Iterable[Mapping[str, Any]], *, is_queue: bool) -> int | None:
    """Add up the lag of the shards of each; a queue is the same one for all."""
    lags = [each["lag_records"] for each in parts if each["state"] in ("running", "idle", "retrying")]
    known = [lag for lag in lags if lag is not None]
    if is_queue:
        return max(known, default=None)
    return sum(known) if known and len(known) == len(lags) else None
