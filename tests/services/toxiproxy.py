"""Toxiproxy, a TCP proxy that is told over HTTP to cut, delay or slow what goes through it."""

from __future__ import annotations

import http.client
import os

from tests.services.install import fresh_folder, run, step, tool
from tests.services.process import DOWNLOADS, HOST, Server, env_port

VERSION = "v2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"


class Toxiproxy(Server):
    name = "toxiproxy"

    def port(self) -> int:
        return env_port("HEADRACE_TOXIPROXY_PORT", 28474)

    def ports(self) -> list[int]:
        return [self.port()]

    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {"HEADRACE_TEST_TOXIPROXY": self.endpoint()}

    def install(self) -> None:
        self.program()

    def program(self) -> str:
        folder = DOWNLOADS / "toxiproxy"
        with fresh_folder(folder, MODULE) as target:
            if target:
                go = tool("go", "install Go 1.23 or newer (https://go.dev/dl), which builds toxiproxy from its module")
                settings = {"GOBIN": str(target), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
                with step(f"building toxiproxy {VERSION}"):
                    run(go, "install", MODULE, environment=os.environ | settings)
        return str(folder / "server")

    def environment(self) -> dict[str, str]:
        return {"LOG_LEVEL": "warn"}

    def command(self) -> list[str]:
        return [self.program(), "-host", HOST, "-port", str(self.port())]

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=2)
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
