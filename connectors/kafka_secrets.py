"""Logins and certificates of Kafka clusters that AWS Secrets Manager keeps, or what stands in for it.

Forms of the secrets: AWS Lambda developer guide, "Configuring cluster authentication methods" of Kafka. One member is
ours: `protocol`, for a cluster that is logged in to without TLS. They are read anew for each connection, so that one
that was changed holds from the next on, and are kept nowhere.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from connectors.aws import aws_errors, service_client
from connectors.settings import KeptSecrets, Pems, Secret, Security
from router.errors import SourceUnavailable

_PROTOCOLS: Final = ("SASL_SSL", "SASL_PLAINTEXT")


async def unlocked(security: Security, kept: KeptSecrets) -> Security:
    """Put what is kept into its place.

    Raises:
        SourceUnavailable: a secret cannot be read, or is not of its form; the message does not tell what is in it.
    """
    opened = security
    if kept.login:
        opened = _with_login(opened, kept.login, await _read(kept, kept.login))
    pems = Pems()
    if kept.authority:
        pems = replace(pems, authority=_text(kept.authority, await _read(kept, kept.authority), "certificate"))
    if kept.certificate:
        secret = await _read(kept, kept.certificate)
        pems = replace(
            pems,
            certificate=_text(kept.certificate, secret, "certificate"),
            key=Secret(_text(kept.certificate, secret, "privateKey")),
        )
        password = secret.get("privateKeyPassword")
        opened = replace(opened, key_password=Secret(str(password)) if password else None)
    return replace(opened, pems=pems, kept=None)


def _with_login(security: Security, name: str, secret: dict[str, Any]) -> Security:
    protocol = secret.get("protocol", security.protocol)
    if protocol not in _PROTOCOLS:
        raise SourceUnavailable(f"secret {name}: its protocol is none of {' and '.join(_PROTOCOLS)}; correct it")
    username, password = _text(name, secret, "username"), _text(name, secret, "password")
    return replace(security, protocol=protocol, username=username, password=Secret(password))


def _text(name: str, secret: dict[str, Any], member: str) -> str:
    text = secret.get(member)
    if not isinstance(text, str) or not text:
        raise SourceUnavailable(f"secret {name}: it has no {member}; put one there")
    return text


async def _read(kept: KeptSecrets, name: str) -> dict[str, Any]:
    what = f"secret {name}"
    with aws_errors(SourceUnavailable, what):
        async with service_client("secretsmanager", kept.endpoint_url, kept.region) as client:
            text = (await client.get_secret_value(SecretId=name)).get("SecretString", "")
    try:
        secret = json.loads(text)
    except ValueError:
        secret = None
    if not isinstance(secret, dict):
        # Neither what it holds nor where reading it ended is told.
        raise SourceUnavailable(f"{what}: it is no JSON object; put one there")
    return secret
