"""State that replicas share: what contradicts itself about it, and the settings that it comes to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from config.contradictions import need, one_of
from config.fleet import NAME, NAME_ALLOWED, Payloads, Redis, RedisAddress, State, Stated
from config.mistakes import Report, quoted
from config.schema import SHARED, Root
from config.settings import FleetSettings
from connectors.settings import AwsSettings, RedisSettings, S3Destination
from router.errors import ConfigError

#: The variable that names a replica.
VARIABLE: Final = "HEADRACE_REPLICA"
#: What stands for that name in a value.
REPLICA: Final = "{replica}"


def find(root: Root, report: Report) -> None:
    """Report what contradicts itself about the state."""
    if not root.sound("state"):
        return
    _instances(root, report)
    if isinstance(root.state, State):
        _state(root.state, report)
    elif isinstance(root.state, Path):
        for name in SHARED:
            if root.gives(name):
                report.add(
                    root.at(name),
                    "found with a state directory, which one daemon has alone; allowed with state: redis://... only",
                )


def _instances(root: Root, report: Report) -> None:
    """Demand ids of static members that no two replicas have in common."""
    if not root.sound("event_source_mappings"):
        return
    is_shared = not isinstance(root.state, Path)
    for mapping in root.event_source_mappings.values():
        kafka = mapping.source.kafka if mapping.sound("source") else None
        if kafka is None or not kafka.sound("group_instance_id") or kafka.group_instance_id is None:
            continue
        is_own = REPLICA in kafka.group_instance_id
        if is_shared and not is_own:
            report.add(
                kafka.at("group_instance_id"),
                f"found without {REPLICA}, but state is shared: every replica would be the same member, and one "
                f"alone could read; allowed with {REPLICA}, for which each puts its name",
            )
        elif is_own and not is_shared:
            report.add(
                kafka.at("group_instance_id"),
                f"found with {REPLICA} and a state directory, which one daemon has alone; allowed with state: "
                "redis://... only",
            )


def _state(state: State, report: Report) -> None:
    if state.sound("redis"):
        _redis(state.redis, report)
    if state.sound("payloads") and state.payloads is not None:
        one_of(state.payloads, report)
    if state.gives("payloads_over"):
        need(state, "payloads", "payloads_over", report)


def _redis(redis: Redis, report: Report) -> None:
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if redis.gives(name):
            need(redis, other, name, report)
    if not redis.sound("url"):
        return
    for name in ("username", "password"):
        if redis.gives(name) and getattr(redis.url, name) is not None:
            report.add(redis.at(name), f"found beside a {name} in url, allowed one of them")
    if redis.gives("username") and not redis.gives("password") and redis.url.password is None:
        report.add(redis.at("password"), "found nothing, needed with username")
    for name in ("ca", "certificate", "key"):
        if redis.gives(name) and not redis.url.tls:
            report.add(redis.at(name), "found with redis://, allowed with rediss:// only")


def replica_name(given: str | None, environment: Mapping[str, str]) -> str:
    """Give our name among replicas: as given, else that in the environment, else the host's. Raises ConfigError."""
    for name, whose in ((given, "--replica"), (environment.get(VARIABLE) or None, VARIABLE)):
        if name is not None:
            if not NAME.fullmatch(name):
                raise ConfigError(f"{whose}: found {quoted(name)}, allowed {NAME_ALLOWED}")
            return name
    host = socket.gethostname()
    if not NAME.fullmatch(host):
        raise ConfigError(
            f"the host name {quoted(host)} is no name of a replica ({NAME_ALLOWED}): give --replica, or {VARIABLE}"
        )
    return host


def fleet_of(root: Root, aws: AwsSettings, replica: Callable[[], str]) -> FleetSettings | None:
    """Give the fleet of a document without mistakes; None = the state is embedded."""
    redis = redis_of(root.state, aws)
    return FleetSettings(redis, root.fleet, replica(), root.lease) if redis else None


def redis_of(state: Stated, aws: AwsSettings) -> RedisSettings | None:
    """Give the Redis that a sound `state` names; None = it names none."""
    match state:
        case RedisAddress():
            return RedisSettings(
                state.tls, state.host, state.port, state.database, username=state.username, password=state.password
            )
        case State():
            redis, bare = state.redis, redis_of(state.redis.url, aws)
            assert bare is not None
            payloads = _payloads(state.payloads, aws) if state.payloads else None
            return replace(
                bare,
                username=redis.username or bare.username,
                password=redis.password or bare.password,
                ca=redis.ca,
                certificate=redis.certificate,
                key=redis.key,
                payloads_over_bytes=state.payloads_over if payloads else None,
                payloads=payloads,
            )
        case Path():
            return None


def _payloads(payloads: Payloads, aws: AwsSettings) -> S3Destination | Path:
    if payloads.folder is not None:
        return payloads.folder
    bucket = payloads.s3
    assert bucket is not None, "one of them is there"
    return S3Destination(
        bucket.bucket, bucket.prefix, bucket.endpoint_url or aws.endpoint_url, bucket.region or aws.region
    )
