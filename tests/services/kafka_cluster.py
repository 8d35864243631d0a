"""Three brokers of one cluster, for what one broker cannot show: the loss of one of them.

Topics have three replicas of which two must take a write, so one broker may be killed at any time:
`services kill kafka-cluster:2`, and `services start kafka-cluster` brings it back.
"""

from __future__ import annotations

import contextlib
import time

from tests.services.kafka import Kafka, extra_settings, small_settings
from tests.services.process import HOST, Server, ServiceError, env_port, lock, say

NODES = (1, 2, 3)
COORDINATOR_TIMEOUT_S = 60.0

#: Listener -> (port after the node's first one, the one that clients are told). PROXIED is for a proxy between us and
#: the broker: clients go on to the address that a broker advertises, so it advertises the proxy's.
LISTENERS = {"PLAINTEXT": (0, 0), "CONTROLLER": (1, 1), "PROXIED": (2, 5)}


class Broker(Kafka):
    """One of the three."""

    stop_timeout_s = 5.0  # the last two have no quorum left to leave properly
    heap = "-Xms128m -Xmx384m"

    def __init__(self, node: int) -> None:
        self.node = node
        self.name = f"kafka-cluster-{node}"  # of its folder
        super().__init__()
        self.name = f"kafka-cluster:{node}"

    def address(self, listener: str) -> str:
        return node_address(self.node, LISTENERS[listener][0])

    def ports(self) -> list[int]:
        return [int(self.address(listener).rpartition(":")[2]) for listener in LISTENERS]

    def endpoint(self) -> str:
        return self.address("PLAINTEXT")

    def exports(self) -> dict[str, str]:
        return {}

    def install(self) -> None:
        self.java()

    def flags(self) -> list[str]:
        return [*super().flags(), "-XX:TieredStopAtLevel=1"]  # three at once: less time for compiling

    def settings(self) -> dict[str, object]:
        own = self.network_settings() | small_settings() | cluster_settings()
        return own | extra_settings()

    def network_settings(self) -> dict[str, object]:
        quorum = (f"{node}@{node_address(node, LISTENERS['CONTROLLER'][0])}" for node in NODES)
        told = {name: node_address(self.node, offset) for name, (_, offset) in LISTENERS.items()}
        advertised = (f"{name}://{address}" for name, address in told.items() if name != "CONTROLLER")
        return {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": ",".join(quorum),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": ",".join(f"{name}://{self.address(name)}" for name in LISTENERS),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in LISTENERS),
            "log.dirs": self.data,
        }

    def ready(self) -> bool:
        return self.answers()


def node_address(node: int, offset: int) -> str:
    return f"{HOST}:{env_port('HEADRACE_KAFKA_CLUSTER_PORT', 29192) + 10 * (node - 1) + offset}"


def cluster_settings() -> dict[str, object]:
    """Three replicas of everything, and a dead broker noticed after 3 s."""
    return {
        "default.replication.factor": 3,
        "min.insync.replicas": 2,
        "offsets.topic.replication.factor": 3,
        "transaction.state.log.replication.factor": 3,
        "transaction.state.log.min.isr": 2,
        "share.coordinator.state.topic.replication.factor": 3,
        "share.coordinator.state.topic.min.isr": 2,
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "controller.quorum.election.timeout.ms": 500,
        "controller.quorum.fetch.timeout.ms": 1000,
    }


class KafkaCluster(Server):
    """All three; what it does it does to each."""

    name = "kafka-cluster"

    def __init__(self) -> None:
        super().__init__()
        self.nodes = [Broker(node) for node in NODES]

    def ports(self) -> list[int]:
        return [port for node in self.nodes for port in node.ports()]

    def endpoint(self) -> str:
        return ",".join(node.endpoint() for node in self.nodes)

    def exports(self) -> dict[str, str]:
        proxied = (node_address(node, LISTENERS["PROXIED"][1]) for node in NODES)
        return {
            "HEADRACE_TEST_KAFKA_CLUSTER": self.endpoint(),
            "HEADRACE_TEST_KAFKA_CLUSTER_PROXIED": ",".join(proxied),
        }

    def install(self) -> None:
        self.nodes[0].install()

    def start(self) -> None:
        """Start those that do not run side by side: a quorum needs two, and the offsets topic all three."""
        with lock(self.name), contextlib.ExitStack() as locks:
            for node in self.nodes:
                locks.enter_context(lock(node.name))
            absent = [node for node in self.nodes if not (node.pid() and node.ready())]
            if not absent:
                say(f"{self.name}: already running, {self.endpoint()}")
                return
            for node in absent:
                node.clear()
            began = time.monotonic()
            processes = [(node, node.spawn()) for node in absent]
            for node, process in processes:
                node.await_ready(process)
            self.await_coordinator()
            say(f"{self.name}: ready in {time.monotonic() - began:.1f} s, {self.endpoint()}")

    def await_coordinator(self) -> None:
        deadline = time.monotonic() + COORDINATOR_TIMEOUT_S
        while not self.nodes[0].has_coordinator():
            if time.monotonic() > deadline:
                msg = f"no group coordinator after {COORDINATOR_TIMEOUT_S:.0f} s; see {self.nodes[0].log}"
                raise ServiceError(msg)
            time.sleep(0.1)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def wipe(self) -> None:
        for node in self.nodes:
            node.wipe()

    def running(self) -> bool:
        return any(node.running() for node in self.nodes)

    def status(self) -> str:
        return "  ".join(f"{node.node}: {node.status()}" for node in self.nodes)
