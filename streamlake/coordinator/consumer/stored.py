"""A consumer group as it is stored: all that its members were told, or may have been, and what that rests on.

The blob is a MessagePack array, sealed (docs/formats/consumer-group-members.md). Deadlines and requests that wait are
not stored.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.consumer.api import Places, TopicShape
from streamlake.coordinator.consumer.member import Member, MemberState
from streamlake.coordinator.machine import Saved
from streamlake.coordinator.sealed import seal, unseal

CONSUMER = "consumer"
MAGIC = b"SLGC"
VERSION = 1

Ranges = dict[bytes, list[int]]  # topic id → partitions


class _Member(msgspec.Struct, frozen=True, array_like=True):
    member_id: str
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    topics: list[str]
    regex: str | None
    assignor: str | None
    epoch: int
    previous_epoch: int
    state: int
    assigned: Ranges
    revoking: Ranges
    target: Ranges


class _Group(msgspec.Struct, frozen=True, array_like=True):
    assignment_epoch: int
    shapes: dict[str, tuple[bytes, int]]
    matches: dict[str, list[str]]
    members: list[_Member]


@dataclass(frozen=True, slots=True)
class SavedConsumerGroup(Saved):
    assignor: str  # that made the target

    @classmethod
    def of(cls, row: GroupRow) -> "SavedConsumerGroup":
        return cls(CONSUMER, row.generation, row.members, row.protocol or "")

    def row(self, group_id: str, updated_ms: int) -> GroupRow:
        return GroupRow(
            group_id=group_id,
            generation=self.epoch,
            protocol_type=CONSUMER,
            protocol=self.assignor,
            leader=None,
            members=self.blob,
            updated_ms=updated_ms,
            kind=CONSUMER,
        )


@dataclass(frozen=True, slots=True)
class StoredGroup:
    assignment_epoch: int
    shapes: Mapping[str, TopicShape]  # of the topics that the target is for
    matches: Mapping[str, frozenset[str]]  # pattern → names of topics
    members: tuple[Member, ...]


def encode(
    assignment_epoch: int,
    shapes: Mapping[str, TopicShape],
    matches: Mapping[str, frozenset[str]],
    members: Iterable[Member],
) -> bytes:
    stored = _Group(
        assignment_epoch,
        {name: (shape.id, shape.partitions) for name, shape in shapes.items()},
        {regex: sorted(names) for regex, names in matches.items()},
        [_stored(member) for member in members],
    )
    return seal(MAGIC, VERSION, stored)


def decode(blob: bytes) -> StoredGroup:
    """Corrupt if the blob is damaged. Members have no deadlines yet."""
    stored = unseal(blob, MAGIC, VERSION, _Group, "the members of a consumer group")
    return StoredGroup(
        stored.assignment_epoch,
        {name: TopicShape(*shape) for name, shape in stored.shapes.items()},
        {regex: frozenset(names) for regex, names in stored.matches.items()},
        tuple(_member(member) for member in stored.members),
    )


NO_MEMBERS = encode(0, {}, {}, ())


def _stored(member: Member) -> _Member:
    return _Member(
        member.member_id,
        member.instance_id,
        member.rack_id,
        member.client_id,
        member.client_host,
        member.rebalance_timeout_ms,
        sorted(member.topics),
        member.regex,
        member.assignor,
        member.epoch,
        member.previous_epoch,
        int(member.state),
        _by_topic(member.assigned),
        _by_topic(member.revoking),
        _by_topic(member.target),
    )


def _member(stored: _Member) -> Member:
    return Member(
        member_id=stored.member_id,
        instance_id=stored.instance_id,
        rack_id=stored.rack_id,
        client_id=stored.client_id,
        client_host=stored.client_host,
        rebalance_timeout_ms=stored.rebalance_timeout_ms,
        topics=frozenset(stored.topics),
        regex=stored.regex,
        assignor=stored.assignor,
        epoch=stored.epoch,
        previous_epoch=stored.previous_epoch,
        state=MemberState(stored.state),
        assigned=_places(stored.assigned),
        revoking=_places(stored.revoking),
        target=_places(stored.target),
    )


def _by_topic(places: Places) -> Ranges:
    found: Ranges = {}
    for topic, index in sorted(places):
        found.setdefault(topic, []).append(index)
    return found


def _places(ranges: Ranges) -> Places:
    return frozenset((topic, index) for topic, indexes in ranges.items() for index in indexes)
