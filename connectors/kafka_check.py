"""Looks at a Kafka source without joining its group or committing anything: can we reach all of it?"""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError

from connectors.kafka_client import client_options, diagnose
from connectors.kafka_offsets import GroupOffsets
from connectors.settings import KafkaSettings
from router.errors import SourceUnavailable

_CHECK_S = 15.0


async def check_kafka(settings: KafkaSettings, function_timeout_s: float) -> str:  # noqa: ARG001 - as all checks
    """Reach brokers, topic and group, and say what was found.

    Raises:
        SourceUnavailable: one of them cannot be reached; the message says which and what to do.
    """
    options = await client_options(settings.bootstrap_servers, settings.security, settings.client_id)
    reason = await diagnose(options)
    if reason:
        raise SourceUnavailable(reason)
    offsets = GroupOffsets(settings, options)
    try:
        async with asyncio.timeout(_CHECK_S):
            partitions = await offsets.open()
            committed = await offsets.committed(partitions)
    except (KafkaError, OSError) as error:
        raise SourceUnavailable(f"group {settings.consumer_group}: {type(error).__name__}: {error}") from error
    finally:
        await offsets.close()
    start = (
        f"{len(committed)} with committed offsets"
        if committed
        else f"new group, starts at {settings.starting_position}"
    )
    return f"topic {settings.topic}: {len(partitions)} partitions; group {settings.consumer_group}: {start}"
