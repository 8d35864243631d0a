"""Ports for servers that go away and come back: none that the kernel gives to somebody else meanwhile."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 15_000


def quiet_port() -> int:
    """Give a free port below those that outgoing connections are given."""
    end = int(_RANGE.read_text().split()[0])
    while True:
        port = random.randrange(_FIRST, end)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)):
                return port
