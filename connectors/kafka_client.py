"""How a Kafka cluster is reached: client options made of settings, and the true reason when it is not.

aiokafka reports every failed start as "Unable to bootstrap", and while it runs it reconnects in the background without
telling anyone; the reason is only in its log. So when something does not answer, `diagnose` tries one connection itself
and reads the exception.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from connectors.settings import Pems, Security
from router.errors import SourceUnavailable

#: Longest time one trial connection may take.
_TRIAL_S: Final = 5.0


async def client_options(servers: Sequence[str], security: Security, client_id: str) -> dict[str, Any]:
    """Give what every aiokafka client of this cluster is made with.

    Raises:
        SourceUnavailable: a certificate or key cannot be used, or a secret not be read.
    """
    if security.kept is not None:
        # Most have none, and need not load what reads them.
        from connectors.kafka_secrets import unlocked  # noqa: PLC0415

        security = await unlocked(security, security.kept)
    return {
        "bootstrap_servers": list(servers),
        "client_id": client_id,
        "security_protocol": security.protocol,
        "ssl_context": _ssl_context(security) if security.protocol in ("SSL", "SASL_SSL") else None,
        "sasl_mechanism": security.mechanism or "PLAIN",
        "sasl_plain_username": security.username,
        "sasl_plain_password": None if security.password is None else security.password.reveal(),
    }


async def diagnose(options: Mapping[str, Any]) -> str | None:
    """Say why none of the bootstrap servers lets us in; None when one does."""
    login = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    reasons = await asyncio.gather(*(_trial(server, login) for server in options["bootstrap_servers"]))
    if None in reasons:
        return None
    return "; ".join(reason for reason in reasons if reason is not None)


async def _trial(server: str, login: Mapping[str, Any]) -> str | None:
    host, _, port = server.rpartition(":")
    try:
        async with asyncio.timeout(_TRIAL_S):
            connection: AIOKafkaConnection = await create_conn(host.strip("[]"), int(port), **login)
            try:
                # A port that wants a login answers the greeting and hangs up at the first request; this names no topic.
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
    except (KafkaError, OSError) as error:
        return f"{server}: {_reason(error, login)}"
    return None


def _reason(error: BaseException, login: Mapping[str, Any]) -> str:
    """Say what an exception of a connection means and what to do about it."""
    mechanism = login["sasl_mechanism"]
    match error:
        case KafkaConnectionError(__cause__=BaseException() as cause):
            text = _reason(cause, login)
        case TimeoutError():
            text = f"no answer within {_TRIAL_S:.0f} s; check address, firewall and security protocol"
        case ConnectionRefusedError():
            text = "connection refused; check that the broker runs and listens on this port"
        case socket.gaierror():
            text = "the host name cannot be resolved; check bootstrap_servers"
        case ssl.SSLCertVerificationError(verify_message=message):
            text = f"its certificate is not trusted ({message}); check security ca and the address"
        case ssl.SSLError(reason=code):
            text = f"TLS failed ({code}); check that this port speaks TLS, and our certificate if it wants one"
        case SaslAuthenticationFailed() | AuthenticationFailedError():
            user = login["sasl_plain_username"]
            text = f"authentication failed for user {user} with {mechanism}; check username, password and mechanism"
        case UnsupportedSaslMechanismError() | IllegalSaslStateError():
            text = f"the broker does not offer {mechanism} here; check security mechanism and the port"
        case KafkaConnectionError() | asyncio.IncompleteReadError() | ConnectionError():
            protocol = login["security_protocol"]
            text = f"the broker closed the connection; check that security protocol {protocol} fits this port"
        case _:
            text = f"{type(error).__name__}: {error}"
    return text


def _ssl_context(security: Security) -> ssl.SSLContext:
    pems = security.pems or Pems()
    try:
        context = ssl.create_default_context(cafile=security.ca, cadata=pems.authority)
    except (OSError, ssl.SSLError) as error:
        raise SourceUnavailable(
            f"Cannot use security ca {security.ca or '(a secret)'}: {_file_reason(error)}."
        ) from error
    # Without a password OpenSSL would ask for it on the terminal.
    password = "" if security.key_password is None else security.key_password.reveal()
    try:
        if security.certificate is not None:
            context.load_cert_chain(security.certificate, security.key, password)
        elif pems.certificate is not None:
            _load_texts(context, pems, password)
    except (OSError, ssl.SSLError) as error:
        pair = f"{security.certificate or '(a secret)'} with key {security.key or '(a secret)'}"
        raise SourceUnavailable(f"Cannot use security certificate {pair}: {_file_reason(error)}.") from error
    return context


def _load_texts(context: ssl.SSLContext, pems: Pems, password: str) -> None:
    """Load a certificate and its key, which OpenSSL takes from a file only: one that nobody else may read."""
    assert pems.certificate is not None
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{pems.certificate}\n{pems.key.reveal() if pems.key else ''}\n")
        file.flush()
        context.load_cert_chain(file.name, None, password)


def _file_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "not a PEM file, not a pair, or a wrong key_password"
    return error.strerror or str(error)
