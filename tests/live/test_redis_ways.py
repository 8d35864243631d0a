"""The ways to a Redis: encrypted, with certificates of one's own, and as a node of a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from connectors.settings import RedisSettings
from router.errors import StoreUnavailable
from router.ports import (
    DeleteFailure,
    DeliveryEnded,
    Erasure,
    KeepFailure,
    PutState,
    RenameMapping,
    Selection,
    SetStatus,
    Unclaim,
)
from tests.fakes.failures import entry
from tests.live.own_redis import CLUSTER, OpenStore, OwnRedis
from tests.services.install import certificates
from tests.services.kafka import USER
from tests.services.process import ServiceError


@pytest.fixture
def tls() -> Path:
    """Certificates of an authority of ours: ca, server and client."""
    try:
        return certificates(USER)
    except ServiceError as error:
        pytest.skip(str(error))


def encrypted(server: OwnRedis, tls: Path, *, clients: str) -> RedisSettings:
    files = ("--tls-cert-file", str(tls / "server.crt"), "--tls-key-file", str(tls / "server.key"))
    server.tls = (*files, "--tls-ca-cert-file", str(tls / "ca.crt"), "--tls-auth-clients", clients)
    server.start()
    return replace(server.settings, ca=tls / "ca.crt")


async def test_an_encrypted_redis_is_trusted_by_its_authority(
    own_redis: OwnRedis, open_store: OpenStore, tls: Path
) -> None:
    settings = encrypted(own_redis, tls, clients="no")
    store = await open_store(settings)
    await store.apply([PutState("orders", "x", "1")])
    assert await store.states("orders") == {"x": "1"}
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await open_store(replace(settings, ca=None))
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await open_store(replace(settings, tls=False))


async def test_an_encrypted_redis_that_wants_a_certificate(
    own_redis: OwnRedis, open_store: OpenStore, tls: Path
) -> None:
    settings = encrypted(own_redis, tls, clients="yes")
    with pytest.raises(StoreUnavailable):
        await open_store(settings)
    own = replace(settings, certificate=tls / "client.crt", key=tls / "client.key")
    await (await open_store(own)).apply([PutState("orders", "x", "1")])
    with pytest.raises(StoreUnavailable, match=r"nothing\.pem cannot be used"):
        await open_store(replace(settings, ca=tls / "nothing.pem"))


async def test_a_node_of_a_cluster_takes_every_script(own_redis: OwnRedis, open_store: OpenStore) -> None:
    own_redis.options = (*own_redis.options, *CLUSTER)
    own_redis.start()
    own_redis.become_cluster()
    store = await open_store()
    kept = [entry(f"f{number}", keys=(b"k",), failed_at_s=float(number)) for number in range(4)]
    await store.apply([KeepFailure(each, b"event") for each in kept])
    await store.apply([SetStatus("f0", "failed_again"), DeliveryEnded("f1", None), DeliveryEnded("f2", "away", 5.0)])
    assert await store.claim(["f1", "f2"]) == ["f1", "f2"]
    await store.apply([Unclaim("f1"), PutState("orders", "x", "1"), PutState("orders", "y", "")])
    again = await open_store()
    assert [each.batch.id for each in await again.adopt(None)] == ["f2"]
    await store.apply([RenameMapping("orders", "purchases"), DeleteFailure("f0")])
    assert await store.drop(["f1"]) == ["f1"]
    assert await store.erase([Erasure("f3", 3.0, b"k", None, None)]) == ["f3"]
    assert [each.batch.id for each in await store.failures(Selection(mapping="purchases"))] == ["f1", "f2"]
    assert await store.count(Selection(key=b"k", statuses=("replaying",))) == 1
    assert await store.event("f2") == b"event"
    assert await store.states("purchases") == {"x": "1"}
    assert not await store.accept_loss("purchases")
    assert (await store.look()).findings == []


async def test_a_node_without_the_fleets_slot_names_the_one_that_has_it(
    own_redis: OwnRedis, open_store: OpenStore
) -> None:
    own_redis.options = (*own_redis.options, *CLUSTER, "--cluster-require-full-coverage", "no")
    own_redis.start()
    with pytest.raises(StoreUnavailable, match="its cluster does not serve the slot"):
        await open_store()
