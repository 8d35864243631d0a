"""Our place in the group: what aiokafka's coordinator does not say for us, or does not hear.

That coordinator asks brokers through its `_client`, which is wrapped here; has its instance id in `_group_instance_id`,
which keeps it from leaving; and watches the topics of `_group_subscription`, of which it last knew
`_metadata_snapshot`. On nothing else of it this leans. What is different:

- A join offers two ways of assigning at once. aiokafka joins once for each, and every join is a rebalance for all.
- A static member's heartbeats carry its instance id. Without it, a member whose id another process has taken only hears
  that it is unknown, joins anew, and takes the id back: both would go on so for ever.
- What is heard at a heartbeat counts at once: who is not known any more has lost its partitions already, whatever else
  the coordinator waits for.
- Every member watches for partitions that are added, and not the leader alone: a static member that returns leads, and
  is not told so.
- It is noted when the group last heard of us, for our own clock: who cannot reach the coordinator for a session has
  lost its partitions, and is the last to be told.

Sources: KIP-345 (static membership), KIP-54 (sticky assignment); Kafka protocol guide, Heartbeat version 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer
from aiokafka.client import ConnectionGroup
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import (
    HeartbeatRequest,
    HeartbeatRequest_v1,
    HeartbeatResponse_v1,
    JoinGroupRequest,
    SyncGroupRequest,
)
from aiokafka.protocol.types import Int32, Schema, String
from aiokafka.structs import TopicPartition

from connectors.settings import KafkaSettings

#: Error code FENCED_INSTANCE_ID, which aiokafka does not know.
_FENCED: Final = 82
#: We count ourselves out this long before the group does, at most, and for this part of a session.
_MARGIN_S: Final = 2.0
_MARGIN_PART: Final = 0.2

#: One fetch of one partition and of all; a larger record still comes, alone. The client's default of 1 MiB costs memory
#: and is no faster.
_PARTITION_FETCH_BYTES: Final = 256 * 1024
_FETCH_BYTES: Final = 8 * 1024 * 1024
#: Longest a member may keep the group waiting: the drain, and room to commit and to join again.
_REBALANCE_ROOM_S: Final = 30.0
_REBALANCE_MIN_S: Final = 60.0
#: A rebalance waits for every member to hear of it at its next heartbeat: this is the longest pause of who heard first.
_HEARTBEAT_MS: Final = 1000
#: aiokafka leaves the group when nobody reads for this long. A mapping that does not read is waiting for its function,
#: which has a timeout of its own, or for a destination; its process shows that it lives by heartbeats. So: never.
_POLL_INTERVAL_MS: Final = 365 * 24 * 3600 * 1000


class Assignor:
    """Assigns partitions so that each stays where it is, if the group can; else in turns.

    A member offers both: a group in which one knows the turns alone, such as a former version of ours, goes by them.
    What aiokafka's own sticky assignor remembers is in its class, and so one for all members of a process.
    """

    name: Final = StickyPartitionAssignor.name

    def __init__(self) -> None:
        self._held: list[TopicPartition] | None = None
        self._held_since = StickyPartitionAssignor.DEFAULT_GENERATION_ID
        self._generation = StickyPartitionAssignor.DEFAULT_GENERATION_ID
        self._chosen = self.name

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Say what we had last, and in which generation of the group."""
        return StickyPartitionAssignor._metadata(topics, self._held, self._held_since)

    def offers(self, topics: Iterable[str]) -> list[tuple[str, bytes]]:
        """Give what we can go by beside stickiness, as a join says it."""
        return [(RoundRobinPartitionAssignor.name, RoundRobinPartitionAssignor.metadata(topics).encode())]

    def joined(self, generation: int, chosen: str) -> None:
        """Note what a join came to."""
        self._generation, self._chosen = generation, chosen

    def assign(
        self, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign, as the leader, by what the group has chosen."""
        assignor = StickyPartitionAssignor if self._chosen == self.name else RoundRobinPartitionAssignor
        return dict(assignor.assign(cluster, members))

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember what we were given."""
        self._held, self._held_since = assignment.partitions(), self._generation


class _HeartbeatResponse3(Response):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    SCHEMA = HeartbeatResponse_v1.SCHEMA


class _HeartbeatRequest3(RequestStruct):  # type: ignore[misc]
    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = _HeartbeatResponse3
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


_AnyHeartbeat: TypeAlias = HeartbeatRequest_v1 | _HeartbeatRequest3


class _StaticHeartbeat(Request[_AnyHeartbeat]):  # type: ignore[misc]
    """A heartbeat with the instance id, where the broker is new enough (2.3) to have static members."""

    API_KEY = 12

    def __init__(self, plain: HeartbeatRequest, instance: str) -> None:
        self._said = (plain._group, plain._generation_id, plain._member_id)
        self._instance = instance

    def build(self, request_struct_class: Any) -> Any:
        more = (self._instance,) if request_struct_class is _HeartbeatRequest3 else ()
        return request_struct_class(*self._said, *more)


class Member:
    """Our member of the group; stands in the place of its coordinator's client."""

    def __init__(self, settings: KafkaSettings, *, lost: Callable[[], None], fenced: Callable[[], None]) -> None:
        """Prepare without I/O.

        Args:
            settings: which group, and as whom.
            lost: called when the group does not know us any more.
            fenced: called when another process has our instance id.
        """
        self.assignor = Assignor()
        self._settings = settings
        session_s = settings.session_timeout_s
        self._session_s = session_s - min(_MARGIN_S, session_s * _MARGIN_PART)
        self._lost = lost
        self._fenced = fenced
        self._coordinator: Any = None
        self._client: Any = None
        #: When we last sent what the group has answered.
        self._heard_s = 0.0

    def consumer(self, options: Mapping[str, Any], metadata_max_age_s: float) -> AIOKafkaConsumer:
        """Make the client that is to be our member; `options` are those of every client of its cluster."""
        settings = self._settings
        session_ms = int(settings.session_timeout_s * 1000)
        return AIOKafkaConsumer(
            **options,
            group_id=settings.consumer_group,
            group_instance_id=settings.group_instance_id,
            isolation_level=settings.isolation_level,
            enable_auto_commit=False,
            auto_offset_reset="none",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=min(_HEARTBEAT_MS, session_ms // 3),
            rebalance_timeout_ms=int(max(_REBALANCE_MIN_S, settings.drain_s + _REBALANCE_ROOM_S) * 1000),
            max_poll_interval_ms=_POLL_INTERVAL_MS,
            metadata_max_age_ms=int(metadata_max_age_s * 1000),
            max_partition_fetch_bytes=_PARTITION_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            partition_assignment_strategy=(self.assignor,),
        )

    def attach(self, consumer: AIOKafkaConsumer) -> None:
        """Stand between a started consumer's coordinator and its client, before it joins."""
        self._coordinator = consumer._coordinator
        self._client = self._coordinator._client
        self._coordinator._client = self

    @property
    def left_s(self) -> float:
        """What is left of our session by our own clock, seconds; 0 = the partitions may be others' already."""
        return max(0.0, self._heard_s + self._session_s - _now_s())

    def rejoin(self) -> None:
        """Have the group assign anew: what it believes to be ours we have given up."""
        self._coordinator.request_rejoin()

    def leave(self) -> None:
        """Have the end of the consumer give up a static member's place too."""
        self._coordinator._group_instance_id = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node: int, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT) -> Any:
        """Send a request of the coordinator, and hear what concerns us in its answer."""
        sent_s = _now_s()
        if isinstance(request, JoinGroupRequest):
            request._group_protocols = [*request._group_protocols, *self.assignor.offers([self._settings.topic])]
        is_heartbeat = isinstance(request, HeartbeatRequest)
        if is_heartbeat and self._settings.group_instance_id:
            request = _StaticHeartbeat(request, self._settings.group_instance_id)
        response = await self._client.send(node, request, group=group)
        code = getattr(response, "error_code", 0)
        if code == _FENCED:
            self._fenced()
        elif is_heartbeat and code in (UnknownMemberIdError.errno, IllegalGenerationError.errno):
            self._lost()
        elif isinstance(request, JoinGroupRequest):
            if code == 0:
                self.assignor.joined(response.generation_id, response.group_protocol)
                response.group_protocol = self.assignor.name
        elif is_heartbeat and code in (0, RebalanceInProgressError.errno):
            self._heard_s = sent_s
        elif isinstance(request, SyncGroupRequest) and code == 0:
            self._heard_s = sent_s
            self._watch()
        return response

    def _watch(self) -> None:
        """Have the group assign anew when partitions are added."""
        coordinator, topic = self._coordinator, self._settings.topic
        if coordinator._group_subscription is None and self._client.cluster.partitions_for_topic(topic):
            coordinator._group_subscription = {topic}
            coordinator._metadata_snapshot = coordinator._get_metadata_snapshot()


def _now_s() -> float:
    """Time that also passes while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
