"""The group's committed offsets, and where it starts when there are none.

A partition without a committed offset is one of two things. Either the group has never committed anything for the
topic: then the starting position decides, and it is committed for every partition before the group is joined, so that
LATEST means the same moment after a crash. Or the others have offsets: then the partition was added later, or its
offset expired, and is read from its beginning whatever the starting position says, because nothing may be lost.

Source: AWS Lambda developer guide, "Polling and stream starting positions" of Kafka mappings; it leaves the second
case open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from connectors.settings import KafkaSettings
from router.errors import SourceUnavailable


class GroupOffsets:
    """Looks at a group from outside. Errors are aiokafka's own unless said otherwise."""

    def __init__(self, settings: KafkaSettings, options: Mapping[str, Any]) -> None:
        self._settings = settings
        self._options = options
        self._admin = AIOKafkaAdminClient(**options)

    async def open(self) -> list[TopicPartition]:
        """Connect, and give the partitions of the topic. Never creates it.

        Raises:
            SourceUnavailable: there is no such topic.
        """
        await self._admin.start()
        topic = self._settings.topic
        # A request that names a topic creates it where the broker allows that; one for all topics never does.
        for description in await self._admin.describe_topics():
            if description["topic"] == topic:
                return [TopicPartition(topic, partition["partition"]) for partition in description["partitions"]]
        servers = ", ".join(self._settings.bootstrap_servers)
        raise SourceUnavailable(
            f"Kafka at {servers} has no topic {topic} that we may see: create it, or check name and permissions."
        )

    async def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Give what the group has committed for these partitions; those without are missing.

        Raises:
            SourceUnavailable: the coordinator did not say.
        """
        group = self._settings.consumer_group
        offsets = await self._admin.list_consumer_group_offsets(group, partitions=list(partitions))
        # The answer is empty when the coordinator is still loading the group: not the same as nothing committed.
        if any(partition not in offsets for partition in partitions):
            raise SourceUnavailable(f"The coordinator of group {group} does not know its offsets yet.")
        return {partition: offsets[partition] for partition in partitions if offsets[partition].offset >= 0}

    async def cluster(self) -> str:
        """Give the id that the cluster has for as long as it is there."""
        return str((await self._admin.describe_cluster())["cluster_id"])

    async def pin(self, partitions: Sequence[TopicPartition]) -> bool:
        """Commit starting offsets of a group that has none, unless it has members; say whether it was done."""
        if await self.committed(partitions):
            return False
        consumer = AIOKafkaConsumer(
            **self._options,
            group_id=self._settings.consumer_group,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=self._settings.isolation_level,
        )
        try:
            await consumer.start()
            consumer.assign(partitions)
            offsets = await starting_offsets(consumer, partitions, self._settings)
            await consumer.commit({partition: OffsetAndMetadata(offset, "") for partition, offset in offsets.items()})
        except CommitFailedError:
            # Somebody joined meanwhile, who has pinned them as we would have.
            return False
        finally:
            await consumer.stop()
        return True

    async def close(self) -> None:
        await self._admin.close()


async def starting_offsets(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], settings: KafkaSettings
) -> dict[TopicPartition, int]:
    """Give the offset at the starting position of each partition."""
    match settings.starting_position:
        case "TRIM_HORIZON":
            return dict(await consumer.beginning_offsets(partitions))
        case "LATEST":
            return dict(await consumer.end_offsets(partitions))
    since_ms = round((settings.starting_timestamp_s or 0.0) * 1000)
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
    # No record at or after that time: the next one to come.
    missing = [partition for partition in partitions if found[partition] is None]
    ends: dict[TopicPartition, int] = await consumer.end_offsets(missing)
    return ends | {partition: at.offset for partition, at in found.items() if at is not None}
