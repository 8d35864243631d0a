"""Kafka as a StreamSource: one topic, read as a member of a consumer group.

Shards are partitions, named as in the event; all are one unit, because the client fetches them together. Kafka commits
the *next* offset, we keep the last finished one: the translation is here and nowhere else. Retry state is the metadata
of the committed offset, so it moves with the partition.

Progress belongs to whoever calls `read`: the client's own position is only a cache, and is moved back when they differ.

aiokafka keeps the membership and one bounded fetch buffer, and reconnects by itself. It says nothing while it cannot:
we notice that fetches are not answered, try a connection ourselves, and raise what that met.

Weak spot: `open` never creates a topic, but the client refreshes what it knows by naming the topic. Where brokers
create topics on demand, one that is deleted while we read it comes back empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from connectors.kafka_client import client_options, diagnose
from connectors.kafka_codec import KafkaCodec, KafkaRecord, chunk_of, shard_name
from connectors.kafka_fetch import Fetch, fast_fetch, plain_fetch, unfit
from connectors.kafka_group import Assigned, Membership
from connectors.kafka_member import Member
from connectors.kafka_offsets import GroupOffsets, starting_offsets
from connectors.settings import KafkaSettings
from router.core.facts import Demand, Progress
from router.core.model import Chunk
from router.errors import DecisionNeeded, LeaseLost, PositionLost, SourceUnavailable
from router.ports import Codec, Opened, ShardChange

#: Longest wait of one read for something to come.
_READ_S: Final = 1.0
#: Records of one read, at most: more at once cost memory and no less CPU (measured on 200 B and 1 KB records).
_READ_COUNT: Final = 500


class KafkaSource:
    """One topic of one cluster. A closed source stays closed: make another."""

    #: Default of the broker's offset.metadata.max.bytes.
    retry_state_limit_bytes = 4096

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        needs_keys: bool = True,
        metadata_max_age_s: float = 30.0,
        grace_s: float = 10.0,
        call_s: float = 10.0,
        plain: bool = False,
        leaves: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepare without I/O.

        Args:
            settings: what to read, as whom.
            needs_keys: fill the keys column (a parallelization factor over 1 needs it).
            metadata_max_age_s: how soon added partitions are noticed.
            grace_s: what there is after the drain bound for ending invocations by force, commit and release.
            call_s: longest time any call but `read` takes; fetches that nobody answers for half of it mean that the
                broker is away (an idle one is answered twice a second).
            plain: read by the client's public interface alone.
            leaves: says at the end whether a static member gives up its place; else it is kept for a session.
        """
        self.codec: Codec = KafkaCodec(settings.bootstrap_servers, settings.event_source, settings.event_source_arn)
        self._settings = settings
        #: May be set at any time.
        self.needs_keys = needs_keys
        self._metadata_max_age_s = metadata_max_age_s
        self._call_s = call_s
        self._group = Membership(settings.drain_s + grace_s)
        self._leaves = leaves
        self._member = Member(settings, lost=self._group.lose, fenced=self._fenced)
        self._options: dict[str, Any] = {}
        self._offsets: GroupOffsets | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._fetch_rows: Fetch | None = None
        #: Offset that the client gives next, by partition of the current assignment.
        self._next: dict[TopicPartition, int] = {}
        #: Latest answer to a fetch (the client's own stamp), and when we saw it change.
        self._answer_ms = 0
        self._answered_s = 0.0
        self._closed = False
        self.identity = f"kafka:{settings.topic} as {settings.consumer_group}"
        self.pinned = False
        self.handicap: str | None = "it was asked for" if plain else None
        #: aiokafka's stop must not be cancelled half-way; where the group or a broker lets it wait, it ends on its own.
        self._stopping: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Reach the cluster, pin starting offsets of a new group, and begin to join it."""
        security = self._settings.security
        self._options = await client_options(self._settings.bootstrap_servers, security, self._settings.client_id)
        offsets = GroupOffsets(self._settings, self._options)
        consumer = self._member.consumer(self._options, self._metadata_max_age_s)
        try:
            async with self._answering("open"):
                self.pinned = await offsets.pin(await offsets.open())
                await consumer.start()
            self._member.attach(consumer)
        except BaseException:
            await offsets.close()
            await consumer.stop()
            raise
        self._offsets, self._consumer = offsets, consumer
        self.handicap = self.handicap or unfit(consumer)
        self._fetch_rows = plain_fetch(consumer) if self.handicap else fast_fetch(consumer)
        consumer.subscribe([self._settings.topic], listener=self._group)

    async def changes(self) -> AsyncIterator[ShardChange]:
        """Yield what the group gives and takes.

        Raises:
            SourceUnavailable: make a new source.
            DecisionNeeded: another process has our place in the group.
        """
        while True:
            wait_s = min(self._call_s, self._member.left_s) if self._group.owned else self._call_s
            try:
                async with asyncio.timeout(wait_s):
                    change = await self._group.next()
            except TimeoutError:
                if not self._group.owned:
                    await self._check_membership()
                elif not self._member.left_s:
                    self._group.lose()
                    self._member.rejoin()
                continue
            if change is None:
                return
            if isinstance(change, Assigned):
                for opened in await self._opened(change.partitions):
                    yield opened
            else:
                yield change

    async def locate(self, shard: str, *, lost: bool) -> int:
        partition = self._partition(shard)
        consumer, offsets = self._open_clients()
        async with self._answering(f"find the start of {shard}"):
            siblings = [
                TopicPartition(partition.topic, number)
                for number in consumer.partitions_for_topic(partition.topic) or {partition.partition}
            ]
            if lost or await offsets.committed(siblings):
                found = await consumer.beginning_offsets([partition])
            else:
                found = await starting_offsets(consumer, [partition], self._settings)
            return int(found[partition]) - 1

    async def read(self, unit: Hashable, demand: Mapping[str, Demand]) -> Sequence[Chunk]:  # noqa: ARG002 - one unit
        consumer, _ = self._open_clients()
        wanted = self._aim(consumer, demand)
        if not wanted:
            return ()
        generation = self._group.generation
        fetched = await self._fetch(consumer, wanted, min(_READ_COUNT, *(wish.limit for wish in demand.values())))
        if generation != self._group.generation:
            # Others may have moved on from where we were asked to read.
            return ()
        chunks = await self._chunks(consumer, wanted, fetched)
        await self._check_answers(consumer, wanted, answered=bool(chunks))
        return chunks

    async def commit(self, done: Mapping[str, Progress]) -> None:
        consumer, _ = self._open_clients()
        owned = self._group.owned
        for shard in done:
            if shard not in owned:
                raise LeaseLost(f"Shard {shard} is no longer ours; what was finished since its last commit runs again.")
        offsets = {
            owned[shard]: OffsetAndMetadata(progress.checkpoint + 1, progress.retry_state)
            for shard, progress in done.items()
        }
        async with self._answering(f"commit {', '.join(done)}"):
            try:
                await consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError) as error:
                self._group.lose()
                group = self._settings.consumer_group
                raise LeaseLost(f"Group {group} rebalanced without us; what was finished runs again.") from error

    async def release(self, shard: str) -> None:
        self._group.release(shard)

    def newest(self, shard: str) -> int | None:
        partition = self._group.owned.get(shard)
        if self._consumer is None or partition not in self._consumer.assignment():
            return None
        end = self._consumer.highwater(partition)
        return None if end is None else int(end) - 1

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._group.end()
        if self._consumer is not None and self._offsets is not None:
            if self._leaves():
                self._member.leave()
            stopping = asyncio.gather(self._consumer.stop(), self._offsets.close(), return_exceptions=True)
            self._stopping = stopping
            await asyncio.wait({stopping}, timeout=self._call_s)

    # --- reading

    def _aim(self, consumer: AIOKafkaConsumer, demand: Mapping[str, Demand]) -> dict[TopicPartition, str]:
        """Choose the partitions to read, and move the client to where they are wanted from."""
        if self._group.revoking:
            return {}
        wanted = {}
        for shard, wish in demand.items():
            partition = self._group.owned.get(shard)
            if partition is None:
                continue
            wanted[partition] = shard
            if self._next.get(partition) != wish.after + 1:
                consumer.seek(partition, wish.after + 1)
                self._next[partition] = wish.after + 1
        return wanted

    async def _fetch(
        self, consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, str], count: int
    ) -> Mapping[TopicPartition, Sequence[KafkaRecord]]:
        assert self._fetch_rows is not None, "it is open"
        try:
            # The client's own time limit does not hold while the group rebalances.
            async with asyncio.timeout(_READ_S + 1):
                return await self._fetch_rows(wanted, count, _READ_S)
        except TimeoutError:
            return {}
        except OffsetOutOfRangeError as error:
            ((partition, offset),) = error.args[0].items()
            raise await self._out_of_range(consumer, partition, offset) from error
        except KafkaError as error:
            # Where the client stands now is not known.
            self._next.clear()
            unavailable = await self._unavailable("read", error)
            if type(error) is KafkaError:
                # The bare base class is how aiokafka tells that its own task for the group has ended.
                self._group.end(unavailable)
            raise unavailable from error

    async def _chunks(
        self,
        consumer: AIOKafkaConsumer,
        wanted: Mapping[TopicPartition, str],
        fetched: Mapping[TopicPartition, Sequence[KafkaRecord]],
    ) -> list[Chunk]:
        """Put what was fetched into chunks; one without records tells of a position that moved past none for us."""
        chunks = []
        for partition, shard in wanted.items():
            rows = fetched.get(partition, ())
            # Behind the last record may be transaction markers, aborted records, or nothing after a compaction.
            position = int(await consumer.position(partition))
            if rows:
                chunks.append(chunk_of(shard, rows, needs_keys=self.needs_keys, through=position - 1))
            elif position != self._next[partition]:
                chunks.append(Chunk(shard, (), (), (), (), (), position - 1))
            self._next[partition] = position
        return chunks

    async def _check_answers(
        self, consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, str], *, answered: bool
    ) -> None:
        """Raise when fetches are sent and nobody answers."""
        now = time.monotonic()
        latest_ms = max(consumer.last_poll_timestamp(partition) or 0 for partition in wanted)
        if answered or latest_ms != self._answer_ms:
            self._answer_ms, self._answered_s = latest_ms, now
        elif now - self._answered_s > self._call_s / 2:
            raise await self._unavailable("read", None)

    async def _out_of_range(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int
    ) -> PositionLost | SourceUnavailable:
        shard = shard_name(*partition)
        async with self._answering(f"read {shard}"):
            first = (await consumer.beginning_offsets([partition]))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
        if first <= offset <= end:
            return SourceUnavailable(f"The broker does not have offset {offset} of {shard} yet; it is catching up.")
        return PositionLost(
            shard,
            f"Offset {offset} of {shard} is not in the log, which holds {first} up to {end} (excluded): "
            "records were deleted, or the topic was created again.",
        )

    # --- the group

    def _fenced(self) -> None:
        settings = self._settings
        self._group.lose()
        self._group.end(
            DecisionNeeded(
                "InstanceTaken",
                f"Another process has joined group {settings.consumer_group} as {settings.group_instance_id} and has "
                "our partitions now; nothing is lost. Stop one of the two, or give replicas names of their own; then "
                f"`headrace mapping accept {settings.mapping}` here joins again.",
            )
        )

    async def _opened(self, partitions: Sequence[TopicPartition]) -> list[Opened]:
        """Look up where the group is. The client's own positions, from the last assignment, count no more."""
        self._next.clear()
        if not partitions:
            return []
        _, offsets = self._open_clients()
        async with self._answering("read the group's offsets"):
            committed = await offsets.committed(partitions)
        opened = []
        for partition in partitions:
            offset, retry_state = committed.get(partition, (None, ""))
            checkpoint = None if offset is None else offset - 1
            opened.append(Opened(shard_name(*partition), self._settings.topic, checkpoint, retry_state))
        return opened

    async def _check_membership(self) -> None:
        """Raise what keeps us from being given shards: nobody else would ask the client for it."""
        consumer, _ = self._open_clients()
        error = None
        try:
            # Raises what happened in the background before it waits for anything.
            async with asyncio.timeout(0):
                await consumer.getmany(timeout_ms=0)
        except TimeoutError:
            pass
        except KafkaError as raised:
            error = raised
        if error is not None or self._topic_is_gone() or await diagnose(self._options):
            raise await self._unavailable(f"join group {self._settings.consumer_group}", error)

    def _topic_is_gone(self) -> bool:
        return self._consumer is not None and not self._consumer.partitions_for_topic(self._settings.topic)

    # --- errors

    def _open_clients(self) -> tuple[AIOKafkaConsumer, GroupOffsets]:
        if self._consumer is None or self._offsets is None:
            raise SourceUnavailable(f"Kafka topic {self._settings.topic} is not open.")
        return self._consumer, self._offsets

    def _partition(self, shard: str) -> TopicPartition:
        topic = self._settings.topic
        return TopicPartition(topic, int(shard.removeprefix(f"{topic}-")))

    @asynccontextmanager
    async def _answering(self, what: str) -> AsyncIterator[None]:
        """Bound what is asked of the cluster, and turn its errors into ours."""
        try:
            async with asyncio.timeout(self._call_s):
                yield
        except (KafkaError, OSError) as error:
            raise await self._unavailable(what, error) from error

    async def _unavailable(self, what: str, error: BaseException | None) -> SourceUnavailable:
        """Find the true reason; the client's own error is the next best."""
        reason = await diagnose(self._options)
        if reason is None:
            if self._topic_is_gone():
                reason = "the topic is not there any more, or we may not see it; create it, or check our permissions"
            elif error is None or isinstance(error, TimeoutError):
                reason = "no answer from the broker that leads it or its group, though others do; look at the cluster"
            else:
                reason = f"{type(error).__name__}: {error}"
        servers = ", ".join(self._settings.bootstrap_servers)
        return SourceUnavailable(f"Cannot {what} (topic {self._settings.topic} at {servers}): {reason}.")
