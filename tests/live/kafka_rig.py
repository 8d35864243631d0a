"""What live tests of Kafka share."""

from __future__ import annotations

from typing import Any

from connectors.settings import KafkaSettings, Security


def kafka_settings(bootstrap: str, topic: str, **changes: Any) -> KafkaSettings:
    """Settings of a mapping that reads `topic` in a group of the same name, with what is not the default."""
    settings: dict[str, Any] = {
        "mapping": "test",
        "bootstrap_servers": tuple(bootstrap.split(",")),
        "topic": topic,
        "consumer_group": topic,
        "starting_position": "TRIM_HORIZON",
        "starting_timestamp_s": None,
        "drain_s": 30.0,
        "security": Security(),
        "isolation_level": "read_committed",
        "client_id": "headrace-test",
        "group_instance_id": None,
        # Longer than the machine may stand still; who closes does not wait for it.
        "session_timeout_s": 30.0,
        "event_source": "SelfManagedKafka",
    }
    return KafkaSettings(**(settings | changes))
