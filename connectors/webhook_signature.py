"""How what is posted to an endpoint is signed: pure, no clock.

The scheme is that of Standard Webhooks (standardwebhooks.com, "Signature scheme"), so that receivers can verify it with
any library that knows it: HMAC-SHA256 over the id, the time of this attempt and the body, in three headers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

#: What begins a secret that is written in Base64, as the scheme has it.
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - no secret
#: Shortest secret, bytes, by the scheme.
SECRET_BYTES: Final = 24


def key_of(secret: str) -> bytes:
    """Give the key that a secret stands for: `whsec_` and Base64, or any other text as it is.

    Raises:
        ValueError: what follows `whsec_` is no Base64, or the key is shorter than SECRET_BYTES.
    """
    if secret.startswith(SECRET_PREFIX):
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    else:
        key = secret.encode()
    if len(key) < SECRET_BYTES:
        raise ValueError(f"a secret has at least {SECRET_BYTES} bytes")
    return key


def signed(message_id: str, epoch_s: int, body: bytes, key: bytes | None) -> Mapping[str, str]:
    """Give the headers of a message; without a key it is only named and dated."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(epoch_s)}
    if key is not None:
        digest = hmac.new(key, f"{message_id}.{epoch_s}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
