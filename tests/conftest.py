"""Fixtures for tests that talk to real servers; `tests/services/services` starts what the environment does not name.

A test that uses one of them is marked `live`. Where the server cannot run the test is skipped with the reason, except
that with CI=true in the environment a missing Kafka is a failure.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shlex
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import settings

from connectors.settings import RedisSettings

SERVICES = pathlib.Path(__file__).parent / "services" / "services"

#: Longest first start: download, unpack, format, start.
START_TIMEOUT_S = 280
TOPIC_TIMEOUT_S = 30

# No test is judged by its time: a busy machine would fail what is right.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")

LIVE_FIXTURES = {
    "kafka_bootstrap",
    "kafka_listeners",
    "topic",
    "aws_endpoint",
    "dynamodb_endpoint",
    "kafka_cluster",
    "toxiproxy",
    "redis_url",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if LIVE_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.live)


class ServiceUnavailable(Exception):
    """A server did not start; the message is the reason."""


def services(action: str, name: str) -> str:
    """Run the script; returns what it printed, raises ServiceUnavailable with the reason."""
    command = [sys.executable, str(SERVICES), action, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(f"{name} did not start in {START_TIMEOUT_S} s") from error
    if done.returncode:
        raise ServiceUnavailable(done.stderr.strip() or f"{name}: exit status {done.returncode}")
    return done.stdout


def service_environment(name: str, variable: str) -> Mapping[str, str]:
    """Where the server answers: the environment if that has the variable, else a server started by the script."""
    if os.environ.get(variable):
        return os.environ
    services("start", name)
    exports = (shlex.split(line)[1].partition("=") for line in services("env", name).splitlines())
    return {key: value for key, _, value in exports}


def give_up(reason: str, *, required: bool = False) -> NoReturn:
    if required and os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka_environment() -> Mapping[str, str]:
    try:
        return service_environment("kafka", "HEADRACE_TEST_KAFKA")
    except ServiceUnavailable as error:
        give_up(f"no Kafka: {error}", required=True)


@pytest.fixture(scope="session")
def kafka_bootstrap(kafka_environment: Mapping[str, str]) -> str:
    """`host:port` of the plain listener of a real Kafka that answers."""
    address = kafka_environment["HEADRACE_TEST_KAFKA"]
    host, _, port = address.split(",")[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        pytest.fail(f"Kafka at {address} (HEADRACE_TEST_KAFKA) does not answer: {error}")
    return address


@dataclass(frozen=True)
class KafkaCluster:
    """Three brokers of which one may be away; topics have three replicas, and two must take a write."""

    #: `host:port` of each, with commas between.
    bootstrap: str
    #: The same where a proxy is to listen: clients that begin there are told these addresses and no others. The proxy
    #: goes on to the port 3 below.
    proxied: str


@pytest.fixture(scope="session")
def kafka_cluster() -> KafkaCluster:
    try:
        values = service_environment("kafka-cluster", "HEADRACE_TEST_KAFKA_CLUSTER")
    except ServiceUnavailable as error:
        give_up(f"no Kafka cluster: {error}")
    return KafkaCluster(values["HEADRACE_TEST_KAFKA_CLUSTER"], values.get("HEADRACE_TEST_KAFKA_CLUSTER_PROXIED", ""))


@pytest.fixture(scope="session")
def toxiproxy() -> str:
    """URL of the HTTP interface of a Toxiproxy."""
    try:
        return service_environment("toxiproxy", "HEADRACE_TEST_TOXIPROXY")["HEADRACE_TEST_TOXIPROXY"]
    except ServiceUnavailable as error:
        give_up(f"no toxiproxy: {error}")


@dataclass(frozen=True)
class KafkaListeners:
    """Addresses of the listeners of one broker, and what logs in there."""

    plaintext: str
    #: SASL_PLAINTEXT, like sasl_ssl with PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
    sasl: str
    ssl: str
    sasl_ssl: str
    #: SSL that demands a client certificate.
    mtls: str
    #: Folder with ca.crt, client.crt and client.key.
    tls: pathlib.Path
    user: str
    password: str


@pytest.fixture(scope="session")
def kafka_listeners(kafka_bootstrap: str, kafka_environment: Mapping[str, str]) -> KafkaListeners:
    try:
        values = {
            name: kafka_environment[f"HEADRACE_TEST_KAFKA_{name.upper()}"]
            for name in ("sasl", "ssl", "sasl_ssl", "mtls", "user", "password")
        }
        tls = pathlib.Path(kafka_environment["HEADRACE_TEST_KAFKA_TLS"])
    except KeyError as missing:
        give_up(f"this Kafka has only its plain listener ({missing} is not set)")
    return KafkaListeners(plaintext=kafka_bootstrap, tls=tls, **values)


class MakeTopic(Protocol):
    async def __call__(self, partitions: int = 1, **configs: str) -> str:
        """Create a topic with a name of its own, wait until it can be written, return the name.

        Settings have their Kafka names with underscores: `cleanup_policy="compact"`.
        """


@pytest.fixture
async def topic(kafka_bootstrap: str) -> AsyncIterator[MakeTopic]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap, request_timeout_ms=TOPIC_TIMEOUT_S * 1000)
    made: list[str] = []

    async def make(partitions: int = 1, **configs: str) -> str:
        name = f"headrace-test-{uuid.uuid4().hex[:12]}"
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        async with asyncio.timeout(TOPIC_TIMEOUT_S):
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=settings)])
            made.append(name)
            while not await has_leaders(admin, name, partitions):
                pass  # every turn is a round trip to the broker
        return name

    try:
        async with asyncio.timeout(TOPIC_TIMEOUT_S):
            await admin.start()
        yield make
    finally:
        async with asyncio.timeout(TOPIC_TIMEOUT_S):
            if made:
                await admin.delete_topics(made)
            await admin.close()


async def has_leaders(admin: AIOKafkaAdminClient, name: str, partitions: int) -> bool:
    [described] = await admin.describe_topics([name])
    led = [
        partition for partition in described["partitions"] if not partition["error_code"] and partition["leader"] >= 0
    ]
    return len(led) == partitions


@pytest.fixture(scope="session")
def aws_endpoint() -> Iterator[str]:
    """URL of a LocalStack that serves SQS; region and keys for it are in the environment while tests run."""
    yield from stand_in("localstack", "HEADRACE_TEST_AWS")


@pytest.fixture(scope="session")
def streams_endpoint(aws_endpoint: str) -> str:
    """The same, if it serves Kinesis and DynamoDB, which need more of the machine."""
    with urllib.request.urlopen(f"{aws_endpoint}/_localstack/health") as answer:
        found = json.load(answer)["services"]
    lacking = [name for name in ("kinesis", "dynamodb") if found[name] == "disabled"]
    if lacking:
        give_up(f"LocalStack runs without {' and '.join(lacking)} here; `tests/services/services --help` says why")
    return aws_endpoint


@pytest.fixture(scope="session")
def dynamodb_endpoint() -> Iterator[str]:
    """URL of a DynamoDB Local; region and keys for it are in the environment while tests run."""
    yield from stand_in("dynamodb", "HEADRACE_TEST_DYNAMODB")


def stand_in(service: str, variable: str) -> Iterator[str]:
    try:
        values = service_environment(service, variable)
    except ServiceUnavailable as error:
        give_up(f"no {service}: {error}")
    with pytest.MonkeyPatch.context() as environment:
        for name, default in (
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            environment.setenv(name, values.get(name, default))
        yield values[variable]


@pytest.fixture(scope="session")
def redis_url() -> str:
    """`redis://` URL of a Redis that all tests share: each has a fleet of its own in it."""
    try:
        return service_environment("redis", "HEADRACE_TEST_REDIS")["HEADRACE_TEST_REDIS"]
    except ServiceUnavailable as error:
        give_up(f"no redis: {error}")


@pytest.fixture(scope="session")
def redis_settings(redis_url: str) -> RedisSettings:
    """The same as settings, without user or password."""
    parts = urllib.parse.urlsplit(redis_url)
    return RedisSettings(False, parts.hostname or "", parts.port or 6379, int(parts.path.strip("/") or 0))


@pytest.fixture
def fleet_name() -> str:
    """A fleet that nobody else has."""
    return f"test-{uuid.uuid4().hex[:12]}"
