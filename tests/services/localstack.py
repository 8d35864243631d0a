"""LocalStack, for SQS, and for S3 and SNS, which send to its queues."""

from __future__ import annotations

import http.client
import os
import pathlib

from tests.services.install import virtual_environment
from tests.services.process import DOWNLOADS, HOST, Server, env_port

HERE = pathlib.Path(__file__).resolve().parent

#: LocalStack 4.14 runs on no other.
PYTHON_VERSIONS = ("3.13", "3.12")


class LocalStack(Server):
    name = "localstack"
    ready_timeout_s = 120.0

    def port(self) -> int:
        return env_port("HEADRACE_LOCALSTACK_PORT", 24566)

    def ports(self) -> list[int]:
        return [self.port()]

    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {
            "HEADRACE_TEST_AWS": self.endpoint(),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def install(self) -> None:
        self.interpreter()

    def interpreter(self) -> str:
        requirements = HERE / "localstack-requirements.txt"
        what = "downloading LocalStack 4.14.0 (220 MB unpacked)"
        return virtual_environment(DOWNLOADS / "localstack", requirements, PYTHON_VERSIONS, what)

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        return [self.interpreter(), "-P", str(HERE / "localstack_run.py")]  # -P: this folder is not importable

    def environment(self) -> dict[str, str]:
        return {
            "GATEWAY_LISTEN": f"{HOST}:{self.port()}",
            "LOCALSTACK_HOST": f"{HOST}:{self.port()}",
            "SERVICES": "sqs,s3,sns",
            "SQS_ENDPOINT_STRATEGY": "path",  # queue URLs that resolve without DNS
            "GATEWAY_WORKER_COUNT": "100",  # every long poll holds one; the default is 10
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "OVERRIDE_IN_DOCKER": "0",  # else it takes some hosts for a container and writes to /var/lib
            "FILESYSTEM_ROOT": str(self.data),
            "HEADRACE_LOCALSTACK_TMP": str(self.folder / "tmp"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "LS_LOG": os.environ.get("HEADRACE_LOCALSTACK_LOG", "warning"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=2)
        try:
            connection.request("GET", "/_localstack/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
