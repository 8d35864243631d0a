"""Redis as a fleet wants it: it writes to its disk before it answers, and never throws keys away."""

from __future__ import annotations

import os
import pathlib
import shutil
import socket

from tests.services.install import run, step
from tests.services.process import HOST, Server, ServiceError, env_port, lock

PACKAGE = "redis-server"
APT = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")
#: A package's service is not to start by itself where the machine would.
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")


def redis_server() -> str:
    """Give the path of the program; installs the Debian package where that is missing and can be installed."""
    found = shutil.which("redis-server")
    if found:
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        msg = "redis-server is not on PATH: install Redis 7 or newer (Debian: redis-server)"
        raise ServiceError(msg)
    with lock("apt"), step(f"installing the Debian package {PACKAGE}"):
        install_package()
    found = shutil.which("redis-server")
    if not found:
        msg = f"the package {PACKAGE} was installed, and there is no redis-server"
        raise ServiceError(msg)
    return found


def install_package() -> None:
    made = not POLICY.exists()
    if made:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    install = ("env", "DEBIAN_FRONTEND=noninteractive", *APT, "install", "-y", "--no-install-recommends", PACKAGE)
    try:
        try:
            run(*install)
        except ServiceError:
            run(*APT, "update")
            run(*install)
    finally:
        if made:
            POLICY.unlink()


class Redis(Server):
    name = "redis"
    ready_timeout_s = 20.0

    def port(self) -> int:
        return env_port("HEADRACE_REDIS_PORT", 26379)

    def ports(self) -> list[int]:
        return [self.port()]

    def endpoint(self) -> str:
        return f"redis://{HOST}:{self.port()}/0"

    def exports(self) -> dict[str, str]:
        return {"HEADRACE_TEST_REDIS": self.endpoint()}

    def install(self) -> None:
        redis_server()

    def command(self) -> list[str]:
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        place = ["--bind", HOST, "--port", str(self.port()), "--dir", str(self.data), "--daemonize", "no"]
        return [redis_server(), *place, *durable]

    def ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port()), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7).startswith(b"+PONG")
        except OSError:
            return False
