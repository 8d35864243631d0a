"""Certificates to serve TLS with."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

#: Certificate and key.
Certificate = tuple[Path, Path]


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate for 127.0.0.1 that vouches for itself, and its key."""
    paths = folder / "server.crt", folder / "server.key"
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-out", str(paths[0]), "-keyout", str(paths[1])),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return paths


def serving(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context
