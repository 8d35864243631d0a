"""Start and stop the real servers of the tests and the demo.

    services install NAME...     download only; nothing is done twice
    services start   NAME...     install what is missing, start, wait until ready, print the endpoint
    services stop    NAME...     TERM, then KILL
    services kill    NAME...     KILL, as a crash would
    services restart NAME...     stop, start
    services status  [NAME...]   state, pid, memory, endpoint; exit status 1 when a named one is not running
    services env     [NAME...]   export lines for a shell, for those that run
    services wipe    NAME...     stop and delete the data, not the downloads
    services logs    NAME...     path of the log file

NAME is kafka, localstack, localstack-push (one that invokes functions of a Headrace), ministack, dynamodb, redis,
kafka-cluster (kafka-cluster:2 is one broker of it), toxiproxy or all.
Everything listens on 127.0.0.1, runs detached and outlives the caller.

Needed: Java 17 or newer, Maven and openssl for kafka, the first two for kafka-cluster; a Java 17 development kit and
Maven for dynamodb; CPython 3.12 or 3.13 for localstack, and for its Kinesis Node.js 18 or newer with npm, for its
DynamoDB what dynamodb needs; Go for toxiproxy. Where Java or Maven is missing and `docker compose` has a running
engine, kafka is the one of docker-compose.yml, with its plain listener only. redis is the Debian package
redis-server, which root installs where it is missing.

    HEADRACE_SERVICES_HOME       downloads, data, logs, certificates (~/.cache/headrace-services)
    HEADRACE_KAFKA_PORT          PLAINTEXT (29092); the next ones are controller, SASL, SSL, SASL_SSL, mutual TLS
    HEADRACE_KAFKA_HEAP          memory of a broker (-Xms256m -Xmx512m; of the cluster's -Xms128m -Xmx384m)
    HEADRACE_KAFKA_PROPERTIES    more broker settings, separated by ;;
    HEADRACE_KAFKA_CLUSTER_PORT  PLAINTEXT of the first broker (29192), the others' 10 and 20 on; the next ones are
                                 controller and a listener for a proxy, which is to listen 5 after the first
    HEADRACE_LOCALSTACK_PORT     (24566)
    HEADRACE_PUSH_PORT           of localstack-push (25566), and
    HEADRACE_PUSH_TARGET_PORT    of the Headrace whose functions it invokes (25567)
    HEADRACE_LOCALSTACK_LOG      log level (warning)
    HEADRACE_MINISTACK_PORT      (25568)
    HEADRACE_DYNAMODB_PORT       (28000)
    HEADRACE_REDIS_PORT          (26379)
    HEADRACE_TOXIPROXY_PORT      of its HTTP interface (28474)
    HEADRACE_SERVICES_PYTHON     interpreter for localstack, when it is neither on PATH nor in pyenv

Another home and other ports give a second set beside the first.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

from tests.services import compose
from tests.services.dynamodb import DynamoDb
from tests.services.kafka import Kafka
from tests.services.kafka_cluster import NODES, Broker, KafkaCluster
from tests.services.localstack import LocalStack, PushingLocalStack
from tests.services.ministack import Ministack
from tests.services.process import Server, ServiceError, say
from tests.services.redis import Redis
from tests.services.toxiproxy import Toxiproxy

NAMES = ("kafka", "localstack", "localstack-push", "ministack", "dynamodb", "redis", "kafka-cluster", "toxiproxy")
#: Brokers of the cluster by name, which `all` does not mean once more.
BROKERS = {f"kafka-cluster:{node}": node for node in NODES}


SERVERS: dict[str, Callable[[], Server]] = {
    "localstack": LocalStack,
    "localstack-push": PushingLocalStack,
    "ministack": Ministack,
    "dynamodb": DynamoDb,
    "redis": Redis,
    "toxiproxy": Toxiproxy,
    "kafka-cluster": KafkaCluster,
}


def server(name: str) -> Server:
    if name in BROKERS:
        return Broker(BROKERS[name])
    if name in SERVERS:
        return SERVERS[name]()
    return compose.ComposeKafka() if compose.preferred() else Kafka()


def show_status(one: Server) -> None:
    say(f"{one.name:13} {one.status()}")


def show_exports(one: Server) -> None:
    for name, value in one.exports().items() if one.running() else ():
        say(f"export {name}={shlex.quote(value)}")


def show_log(one: Server) -> None:
    say(str(one.log))


ACTIONS: dict[str, Callable[[Server], None]] = {
    "install": lambda one: one.install(),
    "start": lambda one: one.start(),
    "stop": lambda one: one.stop(),
    "kill": lambda one: one.kill(),
    "restart": lambda one: one.restart(),
    "wipe": lambda one: one.wipe(),
    "status": show_status,
    "env": show_exports,
    "logs": show_log,
}


def main(arguments: list[str]) -> int:
    """Run one action on the named servers; the others still get theirs when one fails."""
    if arguments[:1] in (["--help"], ["-h"]):
        say((__doc__ or "").rstrip())
        return 0
    action, *named = arguments or [""]
    names = NAMES if named == ["all"] or (not named and action in ("status", "env")) else tuple(named)
    unknown = [name for name in names if name not in NAMES and name not in BROKERS]
    if action not in ACTIONS or not names or unknown:
        print("usage: services ACTION NAME...; see services --help", file=sys.stderr)
        return 2
    return max(apply(action, server(name), asked=bool(named)) for name in names)


def apply(action: str, one: Server, *, asked: bool) -> int:
    try:
        ACTIONS[action](one)
    except ServiceError as error:
        print(f"{one.name}: error: {error}", file=sys.stderr, flush=True)
        return 1
    return int(action == "status" and asked and not one.running())
