"""Apache Kafka: one KRaft process that is broker and controller, with a listener for every way to log in."""

from __future__ import annotations

import os
import socket

from tests.services.install import certificates, java, maven_jars, run
from tests.services.process import DOWNLOADS, HOME, HOST, Server, env_port, port_open

VERSION = "4.3.1"
ARTIFACTS = [
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
]

#: For PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 on both SASL listeners.
USER, PASSWORD = "headrace", "headrace-secret"

#: Listener -> (offset from the first port, protocol).
LISTENERS = {
    "PLAINTEXT": (0, "PLAINTEXT"),
    "CONTROLLER": (1, "PLAINTEXT"),
    "SASL": (2, "SASL_PLAINTEXT"),
    "SSL": (3, "SSL"),
    "SASLSSL": (4, "SASL_SSL"),
    "MTLS": (5, "SSL"),
}

LOGGING = """status=error
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{ISO8601} %p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.c.ref=c
"""

# Request keys of the Kafka protocol, asked in version 0 with the client id "headrace"
API_VERSIONS, FIND_COORDINATOR = 18, 10


class Kafka(Server):
    name = "kafka"
    ready_timeout_s = 90.0
    stop_timeout_s = 20.0
    heap = "-Xms256m -Xmx512m"

    def address(self, listener: str) -> str:
        return f"{HOST}:{env_port('HEADRACE_KAFKA_PORT', 29092) + LISTENERS[listener][0]}"

    def ports(self) -> list[int]:
        return [int(self.address(listener).rpartition(":")[2]) for listener in LISTENERS]

    def endpoint(self) -> str:
        return "  ".join(f"{name} {self.address(name)}" for name in LISTENERS if name != "CONTROLLER")

    def exports(self) -> dict[str, str]:
        return {
            "HEADRACE_TEST_KAFKA": self.address("PLAINTEXT"),
            "HEADRACE_TEST_KAFKA_SASL": self.address("SASL"),
            "HEADRACE_TEST_KAFKA_SSL": self.address("SSL"),
            "HEADRACE_TEST_KAFKA_SASL_SSL": self.address("SASLSSL"),
            "HEADRACE_TEST_KAFKA_MTLS": self.address("MTLS"),
            "HEADRACE_TEST_KAFKA_USER": USER,
            "HEADRACE_TEST_KAFKA_PASSWORD": PASSWORD,
            "HEADRACE_TEST_KAFKA_TLS": str(HOME / "tls"),
        }

    def install(self) -> None:
        self.java()
        certificates(USER)

    def java(self) -> list[str]:
        jars = maven_jars(DOWNLOADS / f"kafka-{VERSION}", ARTIFACTS, f"downloading Apache Kafka {VERSION} (44 MB)")
        heap = os.environ.get("HEADRACE_KAFKA_HEAP", self.heap).split()
        return [java(), *heap, *self.flags(), "-cp", f"{jars}/*"]

    def flags(self) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        return ["-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.net.preferIPv4Stack=true", logging]

    def command(self) -> list[str]:
        return [*self.java(), "kafka.Kafka", str(self.folder / "server.properties")]

    def prepare(self) -> None:
        settings = self.folder / "server.properties"
        settings.write_text("".join(f"{key}={value}\n" for key, value in self.settings().items()))
        (self.folder / "log4j2.properties").write_text(LOGGING)
        if not (self.data / "meta.properties").exists():
            users = []
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                users += ["--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]"]
            storage = ("format", "-t", "aGVhZHJhY2Utc2VydmljZQ", "-c", settings, "--ignore-formatted")
            run(*self.java(), "kafka.tools.StorageTool", *storage, *users)

    def settings(self) -> dict[str, object]:
        return self.network_settings() | security_settings() | small_settings() | extra_settings()

    def network_settings(self) -> dict[str, object]:
        listeners = {name: f"{name}://{self.address(name)}" for name in LISTENERS}
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(listeners.values()),
            "advertised.listeners": ",".join(uri for name, uri in listeners.items() if name != "CONTROLLER"),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, (_, kind) in LISTENERS.items()),
            "log.dirs": self.data,
        }

    def ready(self) -> bool:
        """It answers, every listener is open, and the offsets topic exists (asking for a coordinator makes it)."""
        return self.answers() and self.has_coordinator()

    def answers(self) -> bool:
        return self.accepts(API_VERSIONS, b"") and all(map(port_open, self.ports()))

    def has_coordinator(self) -> bool:
        return self.accepts(FIND_COORDINATOR, b"\x00\x08headrace")

    def accepts(self, request: int, body: bytes) -> bool:
        """Whether the answer to a request begins with error code 0."""
        message = request.to_bytes(2, "big") + b"\x00\x00" + b"\x00\x00\x00\x01" + b"\x00\x08headrace" + body
        try:
            with socket.create_connection((HOST, self.ports()[0]), timeout=3) as connection:
                connection.sendall(len(message).to_bytes(4, "big") + message)
                head = connection.makefile("rb").read(10)  # length, correlation id, error code
        except OSError:
            return False
        return head[8:] == b"\x00\x00"


def security_settings() -> dict[str, object]:
    tls = HOME / "tls"
    jaas = "org.apache.kafka.common.security"
    settings: dict[str, object] = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": tls / "server.pem",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": tls / "ca.crt",
        "ssl.client.auth": "none",
        "listener.name.mtls.ssl.client.auth": "required",
    }
    for listener in ("sasl", "saslssl"):
        login = f"listener.name.{listener}"
        settings[f"{login}.plain.sasl.jaas.config"] = (
            f'{jaas}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        )
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            settings[f"{login}.{mechanism}.sasl.jaas.config"] = f"{jaas}.scram.ScramLoginModule required;"
    return settings


def small_settings() -> dict[str, object]:
    """One replica, little memory, quick groups (the defaults would make tests of fail-over slow), nothing expires.

    Tests give records the times that they need; with the default retention those of last week would be deleted.
    """
    return {
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "group.consumer.min.session.timeout.ms": 1000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 8 << 20,
        "log.segment.bytes": 256 << 20,
        "log.retention.ms": -1,
    }


def extra_settings() -> dict[str, object]:
    """Broker settings from $HEADRACE_KAFKA_PROPERTIES, `name=value` separated by `;;`."""
    lines = os.environ.get("HEADRACE_KAFKA_PROPERTIES", "").split(";;")
    pairs = (line.strip().partition("=") for line in lines if "=" in line)
    return {name: value for name, _, value in pairs}
