"""ministack, another stand-in for AWS: of the tests those use it that push from its event bus and its S3."""

from __future__ import annotations

import http.client
import pathlib

from tests.services.install import virtual_environment
from tests.services.process import DOWNLOADS, HOST, Server, env_port

HERE = pathlib.Path(__file__).resolve().parent
PYTHON_VERSIONS = ("3.11", "3.12", "3.13")


class Ministack(Server):
    name = "ministack"

    def port(self) -> int:
        return env_port("HEADRACE_MINISTACK_PORT", 25568)

    def ports(self) -> list[int]:
        return [self.port()]

    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {"HEADRACE_TEST_MINISTACK": self.endpoint()}

    def install(self) -> None:
        self.interpreter()

    def interpreter(self) -> str:
        requirements = HERE / "ministack-requirements.txt"
        return virtual_environment(
            DOWNLOADS / "ministack", requirements, PYTHON_VERSIONS, "downloading ministack 1.5.33"
        )

    def command(self) -> list[str]:
        return [self.interpreter(), "-P", str(HERE / "ministack_run.py")]  # -P: this folder is not importable

    def environment(self) -> dict[str, str]:
        return {"GATEWAY_PORT": str(self.port()), "MINISTACK_HOST": HOST, "LOG_LEVEL": "WARNING"}

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=2)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
