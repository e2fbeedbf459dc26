"""Heartbeats of consumer groups (KIP-848) and their answers: Kafka's fields without Kafka's versions and codes.

A `Place` is one partition: the 16 bytes of its topic's id, and its index. Bytes and not UUIDs: sets of places are
compared and hashed all the time, and bytes do that in C.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from streamlake.coordinator.classic.api import GroupError

Place: TypeAlias = tuple[bytes, int]
Places: TypeAlias = frozenset[Place]
NO_PLACES: Places = frozenset()

JOIN_EPOCH = 0
LEAVE_EPOCH = -1
STATIC_LEAVE_EPOCH = -2  # the instance returns soon, under another member id


class TopicShape(NamedTuple):
    """All that assignments need to know of a topic."""

    id: bytes
    partitions: int


# What there is under a topic's name now.
Shapes: TypeAlias = Callable[[str], TopicShape | None]


@dataclass(frozen=True, slots=True)
class HeartbeatRequest:
    """None means for each field: as before."""

    group_id: str
    member_id: str
    epoch: int
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int | None
    topics: Collection[str] | None  # subscribed by name
    regex: str | None  # subscribed by pattern; empty: no pattern any more
    assignor: str | None
    owned: Places | None

    @property
    def is_full(self) -> bool:
        """It has all that a member is: its client does not know what the coordinator has, or what was answered."""
        subscribed = self.topics is not None or self.regex is not None
        return self.rebalance_timeout_ms is not None and subscribed and self.owned is not None

    @property
    def size_bytes(self) -> int:
        """About what its member takes in memory, without partitions."""
        names = (self.member_id, self.instance_id, self.rack_id, self.client_id, self.regex)
        return sum(map(len, self.topics or ())) + sum(len(name or "") for name in names)


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    error: GroupError
    message: str | None = None
    member_id: str | None = None
    epoch: int = 0
    heartbeat_interval_ms: int = 0
    assignment: Places | None = None  # None: what the member was told last


class GroupState(Enum):
    """Named as in Kafka."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True, slots=True)
class ConsumerMemberDescription:
    member_id: str
    instance_id: str | None
    rack_id: str | None
    epoch: int
    client_id: str
    client_host: str
    topics: tuple[str, ...]
    regex: str | None
    assigned: Places
    target: Places


@dataclass(frozen=True, slots=True)
class ConsumerGroupDescription:
    group_id: str
    state: str  # a GroupState's value
    epoch: int
    assignment_epoch: int
    assignor: str
    members: tuple[ConsumerMemberDescription, ...]


def by_topic(places: Places) -> dict[bytes, list[int]]:
    """Partitions by the ids of their topics, in order."""
    found: dict[bytes, list[int]] = {}
    for topic_id, partition in sorted(places):
        found.setdefault(topic_id, []).append(partition)
    return found
