"""Signatures of posted records, against an example of the scheme."""

from __future__ import annotations

import pytest

from connectors.webhook_signature import key_of, signed

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_the_example_of_the_scheme() -> None:
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', key_of(SECRET))
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_key_it_is_named_and_dated() -> None:
    assert signed("f1", 5, b"", None) == {"webhook-id": "f1", "webhook-timestamp": "5"}


def test_any_long_text_is_a_key() -> None:
    assert key_of("text of 24 bytes or more") == b"text of 24 bytes or more"


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_MfKQ9r8GKYqrTwjU", "whsec_***not base64***********"])
def test_what_is_no_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match=r"bytes|[Bb]ase64|padding"):
        key_of(secret)
