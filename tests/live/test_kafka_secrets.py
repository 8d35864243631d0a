"""Kafka clusters that secrets of Secrets Manager open, as AWS keeps logins and certificates."""

from __future__ import annotations

import json
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aioboto3
import pytest

from connectors.kafka import KafkaSource
from connectors.settings import KeptSecrets, Security
from router.errors import SourceUnavailable
from tests.conftest import KafkaListeners, MakeTopic, give_up
from tests.live.daemon import produce
from tests.live.kafka_rig import kafka_settings
from tests.live.mapping_calls import site
from tests.live.queue_rig import REGION
from tests.live.test_kafka_login import opens

#: Keeps a secret; gives its ARN.
Keep = Callable[[Any], Awaitable[str]]


@pytest.fixture
def secrets_endpoint(aws_endpoint: str) -> str:
    with urllib.request.urlopen(f"{aws_endpoint}/_localstack/health") as answer:
        if json.load(answer)["services"]["secretsmanager"] == "disabled":
            give_up("this LocalStack was started without secretsmanager: restart it")
    return aws_endpoint


@pytest.fixture
async def keep(secrets_endpoint: str) -> AsyncIterator[Keep]:
    made = []
    async with aioboto3.Session().client("secretsmanager", endpoint_url=secrets_endpoint, region_name=REGION) as client:

        async def make(secret: Any) -> str:
            text = secret if isinstance(secret, str) else json.dumps(secret)
            kept = await client.create_secret(Name=f"headrace-test-{uuid.uuid4().hex[:12]}", SecretString=text)
            made.append(kept["ARN"])
            return str(kept["ARN"])

        yield make
        for arn in made:
            await client.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)


def login(listeners: KafkaListeners, **more: str) -> dict[str, str]:
    return {"username": listeners.user, "password": listeners.password, **more}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_user_and_password_over_tls(
    kafka_listeners: KafkaListeners, topic: MakeTopic, secrets_endpoint: str, keep: Keep, mechanism: str
) -> None:
    kept = KeptSecrets(
        secrets_endpoint,
        REGION,
        login=await keep(login(kafka_listeners)),
        authority=await keep({"certificate": (kafka_listeners.tls / "ca.crt").read_text()}),
    )
    await opens(kafka_listeners.sasl_ssl, await topic(), Security("SASL_SSL", mechanism, kept=kept))


async def test_a_secret_may_say_that_there_is_no_tls(
    kafka_listeners: KafkaListeners, topic: MakeTopic, secrets_endpoint: str, keep: Keep
) -> None:
    arn = await keep(login(kafka_listeners, protocol="SASL_PLAINTEXT"))
    security = Security("SASL_SSL", "PLAIN", kept=KeptSecrets(secrets_endpoint, REGION, login=arn))
    await opens(kafka_listeners.sasl, await topic(), security)


async def test_our_own_certificate(
    kafka_listeners: KafkaListeners, topic: MakeTopic, secrets_endpoint: str, keep: Keep
) -> None:
    tls = kafka_listeners.tls
    pair = {"certificate": (tls / "client.crt").read_text(), "privateKey": (tls / "client.key").read_text()}
    kept = KeptSecrets(
        secrets_endpoint,
        REGION,
        certificate=await keep(pair),
        authority=await keep({"certificate": (tls / "ca.crt").read_text()}),
    )
    await opens(kafka_listeners.mtls, await topic(), Security("SSL", kept=kept))


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ({"username": "esm"}, "it has no password"),
        ({"username": "esm", "password": "hush", "protocol": "SSL"}, "its protocol is none of"),
        ("hush, no JSON", "it is no JSON object"),
        (["hush"], "it is no JSON object"),
    ],
)
async def test_a_secret_of_another_form_is_said_and_not_told(
    kafka_listeners: KafkaListeners, secrets_endpoint: str, keep: Keep, secret: Any, text: str
) -> None:
    kept = KeptSecrets(secrets_endpoint, REGION, login=await keep(secret))
    source = KafkaSource(kafka_settings(kafka_listeners.sasl, "orders", security=Security("SASL_SSL", kept=kept)))
    with pytest.raises(SourceUnavailable, match=text) as refused:
        await source.open()
    assert "hush" not in str(refused.value)
    await source.close()


async def test_one_that_is_not_there_is_said(
    kafka_listeners: KafkaListeners, secrets_endpoint: str, keep: Keep
) -> None:
    kept = KeptSecrets(
        secrets_endpoint, REGION, login="arn:aws:secretsmanager:us-east-1:000000000000:secret:none-abcdef"
    )
    source = KafkaSource(kafka_settings(kafka_listeners.sasl, "orders", security=Security("SASL_SSL", kept=kept)))
    with pytest.raises(SourceUnavailable, match="none-abcdef: GetSecretValue: ResourceNotFoundException"):
        await source.open()
    await source.close()


async def test_a_mapping_of_the_api_logs_in(
    tmp_path: Path,
    kafka_listeners: KafkaListeners,
    kafka_bootstrap: str,
    topic: MakeTopic,
    secrets_endpoint: str,
    keep: Keep,
) -> None:
    name = await topic()
    await produce(kafka_bootstrap, name, [("k", b"first")])
    accesses = [
        {"Type": "SASL_SCRAM_512_AUTH", "URI": await keep(login(kafka_listeners))},
        {
            "Type": "SERVER_ROOT_CA_CERTIFICATE",
            "URI": await keep({"certificate": (kafka_listeners.tls / "ca.crt").read_text()}),
        },
    ]
    wrong = [{"Type": "SASL_SCRAM_512_AUTH", "URI": await keep(login(kafka_listeners, password="not-it"))}, accesses[1]]
    members = {
        "SelfManagedEventSource": {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": [kafka_listeners.sasl_ssl]}},
        "Topics": [name],
        "StartingPosition": "TRIM_HORIZON",
    }
    async with site(tmp_path, secrets_endpoint) as at:
        await at.daemon.start()
        uuid = await at.make(**members, SourceAccessConfigurations=wrong)
        await at.until_state(uuid, "Enabled")
        found = await at.client.get_event_source_mapping(UUID=uuid)
        assert found["LastProcessingResult"].startswith("PROBLEM: SASL authentication failed")
        assert found["SourceAccessConfigurations"] == wrong
        changed = await at.client.update_event_source_mapping(UUID=uuid, SourceAccessConfigurations=accesses)
        assert changed["SourceAccessConfigurations"] == accesses
        await at.until_seen("first")
        assert not any(
            "not-it" in json.dumps(line) or kafka_listeners.password in json.dumps(line) for line in at.daemon.lines
        )
