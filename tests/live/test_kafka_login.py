"""Every way to log in, and what a refusal says: the broker, the user, the true cause, never the password."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from connectors.kafka import KafkaSource
from connectors.settings import Secret, Security
from router.errors import SourceUnavailable
from tests.conformance.stream_source import running
from tests.conftest import KafkaListeners, MakeTopic
from tests.live.kafka_rig import kafka_settings

WRONG = "not-the-password"


def sasl(listeners: KafkaListeners, mechanism: str, *, tls: bool) -> Security:
    return Security(
        protocol="SASL_SSL" if tls else "SASL_PLAINTEXT",
        mechanism=mechanism,
        username=listeners.user,
        password=Secret(listeners.password),
        ca=listeners.tls / "ca.crt" if tls else None,
    )


def own_certificate(listeners: KafkaListeners) -> Security:
    tls = listeners.tls
    return Security(protocol="SSL", ca=tls / "ca.crt", certificate=tls / "client.crt", key=tls / "client.key")


async def opens(address: str, name: str, security: Security) -> None:
    async with running(KafkaSource(kafka_settings(address, name, security=security)), shards=1) as client:
        assert client.opened.keys() == {f"{name}-0"}


def encrypt(key: Path, to: Path, password: str) -> None:
    command = ["openssl", "rsa", "-aes256", "-passout", f"pass:{password}", "-in", str(key), "-out", str(to)]
    subprocess.run(command, check=True, capture_output=True)


async def refusal(address: str, security: Security) -> str:
    source = KafkaSource(kafka_settings(address, "orders", security=security))
    with pytest.raises(SourceUnavailable) as refused:
        await source.open()
    await source.close()
    message = str(refused.value)
    for secret in (security.password, security.key_password):
        assert secret is None or secret.reveal() not in message
    return message


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_user_and_password(
    kafka_listeners: KafkaListeners, topic: MakeTopic, mechanism: str, *, tls: bool
) -> None:
    address = kafka_listeners.sasl_ssl if tls else kafka_listeners.sasl
    await opens(address, await topic(), sasl(kafka_listeners, mechanism, tls=tls))


async def test_tls(kafka_listeners: KafkaListeners, topic: MakeTopic) -> None:
    security = Security(protocol="SSL", ca=kafka_listeners.tls / "ca.crt")
    await opens(kafka_listeners.ssl, await topic(), security)


async def test_a_client_certificate(kafka_listeners: KafkaListeners, topic: MakeTopic) -> None:
    await opens(kafka_listeners.mtls, await topic(), own_certificate(kafka_listeners))


async def test_a_client_certificate_with_an_encrypted_key(
    kafka_listeners: KafkaListeners, topic: MakeTopic, tmp_path: Path
) -> None:
    key = tmp_path / "client.key"
    encrypt(kafka_listeners.tls / "client.key", key, "sesame")
    security = replace(own_certificate(kafka_listeners), key=key, key_password=Secret("sesame"))
    await opens(kafka_listeners.mtls, await topic(), security)
    for wrong in (Secret(WRONG), None):
        message = await refusal(kafka_listeners.mtls, replace(security, key_password=wrong))
        assert f"Cannot use security certificate {security.certificate} with key {key}" in message
        assert "wrong key_password" in message


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_called_that(kafka_listeners: KafkaListeners, mechanism: str) -> None:
    security = replace(sasl(kafka_listeners, mechanism, tls=False), password=Secret(WRONG))
    message = await refusal(kafka_listeners.sasl, security)
    assert (
        f"{kafka_listeners.sasl}: authentication failed for user {kafka_listeners.user} with {mechanism}; "
        "check username, password and mechanism" in message
    )


async def test_an_unknown_user_is_named(kafka_listeners: KafkaListeners) -> None:
    security = replace(sasl(kafka_listeners, "SCRAM-SHA-256", tls=False), username="nobody")
    assert "authentication failed for user nobody" in await refusal(kafka_listeners.sasl, security)


async def test_a_certificate_of_an_unknown_authority(kafka_listeners: KafkaListeners) -> None:
    message = await refusal(kafka_listeners.ssl, Security(protocol="SSL"))
    assert f"{kafka_listeners.ssl}: its certificate is not trusted" in message
    assert "check security ca" in message


async def test_a_missing_client_certificate(kafka_listeners: KafkaListeners) -> None:
    security = Security(protocol="SSL", ca=kafka_listeners.tls / "ca.crt")
    message = await refusal(kafka_listeners.mtls, security)
    assert "TLS failed" in message
    assert "our certificate if it wants one" in message


async def test_tls_to_a_plain_port(kafka_listeners: KafkaListeners) -> None:
    security = Security(protocol="SSL", ca=kafka_listeners.tls / "ca.crt")
    message = await refusal(kafka_listeners.plaintext, security)
    assert f"{kafka_listeners.plaintext}: " in message
    assert "check" in message


async def test_plain_text_to_a_login_port(kafka_listeners: KafkaListeners) -> None:
    message = await refusal(kafka_listeners.sasl, Security())
    assert "security protocol PLAINTEXT fits this port" in message


async def test_a_certificate_file_that_is_not_there(kafka_listeners: KafkaListeners, tmp_path: Path) -> None:
    absent = tmp_path / "ca.crt"
    message = await refusal(kafka_listeners.ssl, Security(protocol="SSL", ca=absent))
    assert message == f"Cannot use security ca {absent}: No such file or directory."


async def test_a_certificate_file_that_is_none(kafka_listeners: KafkaListeners, tmp_path: Path) -> None:
    text = tmp_path / "ca.crt"
    text.write_text("hello")
    message = await refusal(kafka_listeners.ssl, Security(protocol="SSL", ca=text))
    assert f"Cannot use security ca {text}: not a PEM file" in message
