"""DynamoDB Local, for tables and their streams. Its licence lets tests start it, not a product ship it."""

from __future__ import annotations

import http.client
import pathlib

from tests.services.install import fresh_folder, java, maven_jars, run, tool
from tests.services.process import DOWNLOADS, HOST, Server, env_port

VERSION = "3.1.0"
ARTIFACTS = [("software.amazon.dynamodb", "DynamoDBLocal", VERSION)]
MAIN = pathlib.Path(__file__).resolve().parent / "DynamoDBLoopback.java"


def dynamodb_command() -> list[str]:
    """Install it; returns the command that starts it on the loopback address, but for its port."""
    jars = maven_jars(DOWNLOADS / f"dynamodb-{VERSION}", ARTIFACTS, f"downloading DynamoDB Local {VERSION} (48 MB)")
    classes = DOWNLOADS / "dynamodb-loopback"
    with fresh_folder(classes, MAIN.read_text()) as target:
        if target:
            compiler = tool("javac", "install a Java 17 development kit (Debian: openjdk-17-jdk-headless)")
            run(compiler, "-nowarn", "-cp", f"{jars}/*", "-d", target, MAIN)
    # The native library of its database lies among the jars.
    flags = ["-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={jars}"]
    main = ["-cp", f"{classes}:{jars}/*", "DynamoDBLoopback"]
    return [java(), *flags, *main, "-inMemory", "-disableTelemetry"]


class DynamoDb(Server):
    name = "dynamodb"

    def port(self) -> int:
        return env_port("HEADRACE_DYNAMODB_PORT", 28000)

    def ports(self) -> list[int]:
        return [self.port()]

    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port()}"

    def exports(self) -> dict[str, str]:
        return {
            "HEADRACE_TEST_DYNAMODB": self.endpoint(),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def install(self) -> None:
        dynamodb_command()

    def command(self) -> list[str]:
        return [*dynamodb_command(), "-port", str(self.port())]

    def ready(self) -> bool:
        """It answers: what has no signature, with a refusal."""
        connection = http.client.HTTPConnection(HOST, self.port(), timeout=2)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.BAD_REQUEST
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
