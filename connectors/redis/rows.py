"""What the lease table and the store both know of Redis: how keys of a fleet are named, and the shape of a lease.

The leases of a fleet are one hash. Its field is a JSON array of mapping and shard, its value a JSON array of token,
owner, heir, load, since_ms and finished. The table writes them; the store compares tokens with them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from router.core.fleet import Lease, LeaseKey

#: Last part of the name of the hash of leases.
LEASES: Final = "leases"


def fleet_key(fleet: str, *parts: str) -> str:
    """Name a key of a fleet. What stands in braces decides the slot of a Redis Cluster: a fleet has one."""
    return ":".join(("headrace", f"{{{fleet}}}", *parts))


def lease_field(key: LeaseKey) -> str:
    return msgspec.json.encode((key.mapping, key.shard)).decode()


def lease_key(field: str | bytes) -> LeaseKey:
    """Read a field back."""
    return LeaseKey(*msgspec.json.decode(field, type=tuple[str, str]))


def lease_value(lease: Lease) -> bytes:
    return msgspec.json.encode(tuple(lease))


def lease(value: str | bytes) -> Lease:
    """Read a value back."""
    return msgspec.json.decode(value, type=Lease)
