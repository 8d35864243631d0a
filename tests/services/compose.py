"""Kafka from docker-compose.yml, for machines with a container engine and without Java or Maven."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from tests.services.install import run, step
from tests.services.kafka import Kafka
from tests.services.process import say

FILE = pathlib.Path(__file__).resolve().parents[2] / "docker-compose.yml"


def succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def preferred() -> bool:
    """Whether Kafka can run in a container here and cannot run as a process."""
    if shutil.which("java") and shutil.which("mvn"):
        return False
    return succeeds("docker", "compose", "version") and succeeds("docker", "info")


class ComposeKafka(Kafka):
    """The same broker with its plain listener only."""

    def compose(self, *arguments: str) -> tuple[str, ...]:
        return ("docker", "compose", "-f", str(FILE), *arguments)

    def ports(self) -> list[int]:
        return super().ports()[:1]

    def endpoint(self) -> str:
        return f"{self.address('PLAINTEXT')} (container)"

    def exports(self) -> dict[str, str]:
        return {"HEADRACE_TEST_KAFKA": self.address("PLAINTEXT")}

    def install(self) -> None:
        with step("pulling the Kafka image"):
            run(*self.compose("pull", "-q", "kafka"))

    def running(self) -> bool:
        return self.ready()

    def start(self) -> None:
        run(*self.compose("up", "-d", "--wait", "kafka"))
        say(f"{self.name}: ready, {self.endpoint()}")

    def stop(self) -> None:
        run(*self.compose("stop", "kafka"))
        say(f"{self.name}: stopped")

    def kill(self) -> None:
        run(*self.compose("kill", "kafka"))
        say(f"{self.name}: killed")

    def wipe(self) -> None:
        run(*self.compose("rm", "-s", "-f", "-v", "kafka"))
        say(f"{self.name}: data deleted")

    def status(self) -> str:
        return f"ready, {self.endpoint()}" if self.ready() else "stopped"
