"""LocalStack, for SQS, S3, SNS, EventBridge, CloudWatch Logs, Kinesis and DynamoDB.

Kinesis is a program of Node.js that LocalStack starts, DynamoDB one of Java; each is left out where the machine lacks
what it needs. Both start with their first call, which then takes some seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import shutil

from tests.services.dynamodb import dynamodb_command
from tests.services.install import fresh_folder, run, step, virtual_environment
from tests.services.process import DOWNLOADS, HOST, Server, env_port

HERE = pathlib.Path(__file__).resolve().parent

#: LocalStack 4.14 runs on no other.
PYTHON_VERSIONS = ("3.13", "3.12")
#: The one that LocalStack 4.14 asks for.
KINESIS_VERSION = "0.5.2"
#: Programs that a service needs.
NEEDS = {"kinesis": ("node", "npm"), "dynamodb": ("java", "javac", "mvn")}
#: What LocalStack would download by itself at a service's first call.
LIBRARIES = DOWNLOADS / "localstack-libraries"


def available(service: str) -> bool:
    return all(map(shutil.which, NEEDS[service]))


def install_kinesis() -> None:
    with fresh_folder(LIBRARIES / "kinesis-local" / KINESIS_VERSION, KINESIS_VERSION) as target:
        if target:
            with step(f"downloading kinesis-local {KINESIS_VERSION}"):
                package = f"kinesis-local@{KINESIS_VERSION}"
                run("npm", "install", "--no-audit", "--no-fund", "--prefix", target, package)


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
        if available("kinesis"):
            install_kinesis()
        if available("dynamodb"):
            dynamodb_command()

    def interpreter(self) -> str:
        requirements = HERE / "localstack-requirements.txt"
        what = "downloading LocalStack 4.14.0 (220 MB unpacked)"
        return virtual_environment(DOWNLOADS / "localstack", requirements, PYTHON_VERSIONS, what)

    def prepare(self) -> None:
        (self.folder / "tmp").mkdir(exist_ok=True)
        library = self.data / "var" / "lib" / "localstack" / "lib"
        if not library.is_symlink():
            shutil.rmtree(library, ignore_errors=True)
            library.parent.mkdir(parents=True, exist_ok=True)
            LIBRARIES.mkdir(parents=True, exist_ok=True)
            library.symlink_to(LIBRARIES)

    def command(self) -> list[str]:
        return [self.interpreter(), "-P", str(HERE / "localstack_run.py")]  # -P: this folder is not importable

    def environment(self) -> dict[str, str]:
        services = ["sqs", "s3", "sns", "events", "logs", "secretsmanager"]
        environment = self.base_environment()
        if available("kinesis"):
            services.append("kinesis")
            environment |= {
                "KINESIS_MOCK_VERSION": KINESIS_VERSION,
                "KINESIS_MOCK_LOG_LEVEL": "ERROR",
                "KINESIS_LATENCY": "0",  # else each change of a stream waits 0.5 s
                "NODE_OPTIONS": f"--require={HERE / 'loopback.cjs'}",
            }
        if available("dynamodb"):
            services += ["dynamodb", "dynamodbstreams"]
            environment |= {
                "HEADRACE_DYNAMODB_COMMAND": json.dumps(dynamodb_command()),
                # These hand the calls to DynamoDB Local's own streams; the others build streams on top of Kinesis.
                "PROVIDER_OVERRIDE_DYNAMODB": "v2",
                "PROVIDER_OVERRIDE_DYNAMODBSTREAMS": "v2",
            }
        return environment | {"SERVICES": ",".join(services)}

    def base_environment(self) -> dict[str, str]:
        return {
            "GATEWAY_LISTEN": f"{HOST}:{self.port()}",
            "LOCALSTACK_HOST": f"{HOST}:{self.port()}",
            "SQS_ENDPOINT_STRATEGY": "off",  # queue URLs that resolve without DNS, as AWS writes them but for the host
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


class PushingLocalStack(LocalStack):
    """One whose S3, SNS and EventBridge push to functions of a Headrace at a fixed address, as docs/push.md has it."""

    name = "localstack-push"

    def port(self) -> int:
        return env_port("HEADRACE_PUSH_PORT", 25566)

    def target_port(self) -> int:
        return env_port("HEADRACE_PUSH_TARGET_PORT", 25567)

    def exports(self) -> dict[str, str]:
        return {"HEADRACE_TEST_PUSH": self.endpoint(), "HEADRACE_TEST_PUSH_TARGET": str(self.target_port())}

    def prepare(self) -> None:
        super().prepare()
        scripts = self.data / "etc" / "localstack" / "init" / "ready.d"
        scripts.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE.parents[1] / "deploy" / "localstack" / "headrace.py", scripts)

    def environment(self) -> dict[str, str]:
        return self.base_environment() | {
            "SERVICES": "s3,sns,events,lambda,secretsmanager,sts",  # the last two for API destinations
            "HEADRACE_URL": f"http://{HOST}:{self.target_port()}",
            "HEADRACE_ACCESS_KEY_ID": "localstack",
            "HEADRACE_SECRET_ACCESS_KEY": "secret-of-localstack",
            "HEADRACE_SERVICE_KEYS": "s3=buckets:secret-of-the-buckets",
        }

    def ready(self) -> bool:
        return super().ready() and "SUCCESSFUL" in self._asked("/_localstack/init")

    def _asked(self, path: str) -> str:
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()
