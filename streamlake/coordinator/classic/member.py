"""A member of a classic group, and the bytes in which a group's members survive a restart of the broker.

The blob is a MessagePack array with one array per member, sealed (docs/formats/group-members.md).
State of the running broker (deadlines, requests that wait) is not stored.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streamlake.coordinator.classic.api import JoinRequest, MemberDescription
from streamlake.coordinator.sealed import seal, unseal

MAGIC = b"SLGM"
VERSION = 1

Protocols = tuple[tuple[str, bytes], ...]  # (name, metadata), the preferred one first


class StoredMember(msgspec.Struct, frozen=True, array_like=True):
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes


@dataclass(slots=True)
class Member:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes
    deadline_ms: int  # the member is removed if it sends no heartbeat until then
    is_new: bool  # it has not received a generation yet
    join_token: Any = None  # of its JoinGroup request that waits, if any
    sync_token: Any = None  # of its SyncGroup request that waits, if any

    @classmethod
    def joining(cls, request: JoinRequest, member_id: str, token: Any, deadline_ms: int) -> "Member":
        return cls(
            member_id=member_id,
            group_instance_id=request.group_instance_id,
            client_id=request.client_id,
            client_host=request.client_host,
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=_rebalance_timeout_ms(request),
            protocols=request.protocols,
            assignment=b"",
            deadline_ms=deadline_ms,
            is_new=True,
            join_token=token,
        )

    def joins_again(self, request: JoinRequest, token: Any) -> None:
        """Take over what a JoinGroup request changes, except for the protocols, which the roster counts."""
        self.client_id, self.client_host = request.client_id, request.client_host
        self.session_timeout_ms = request.session_timeout_ms
        self.rebalance_timeout_ms = _rebalance_timeout_ms(request)
        self.join_token = token

    def describe(self, protocol: str) -> MemberDescription:
        """`protocol` is empty while no generation is stable: metadata and assignment are then empty, too."""
        return MemberDescription(
            member_id=self.member_id,
            group_instance_id=self.group_instance_id,
            client_id=self.client_id,
            client_host=self.client_host,
            metadata=self.metadata(protocol),
            assignment=self.assignment if protocol else b"",
        )

    @property
    def size_bytes(self) -> int:
        return len(self.assignment) + protocols_size_bytes(self.protocols)

    def metadata(self, protocol: str | None) -> bytes:
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")


def protocols_size_bytes(protocols: Protocols) -> int:
    return sum(len(name) + len(metadata) for name, metadata in protocols)


def _rebalance_timeout_ms(request: JoinRequest) -> int:
    """JoinGroup v0 does not have the field: as in Kafka, it is the session timeout then."""
    return request.session_timeout_ms if request.rebalance_timeout_ms < 0 else request.rebalance_timeout_ms


def encode_members(members: Iterable[Member]) -> bytes:
    stored = [
        StoredMember(
            member_id=m.member_id,
            group_instance_id=m.group_instance_id,
            client_id=m.client_id,
            client_host=m.client_host,
            session_timeout_ms=m.session_timeout_ms,
            rebalance_timeout_ms=m.rebalance_timeout_ms,
            protocols=m.protocols,
            assignment=m.assignment,
        )
        for m in members
    ]
    return seal(MAGIC, VERSION, stored)


def decode_members(blob: bytes, now_ms: int) -> Sequence[Member]:
    """The members, each with its full session timeout from `now_ms` on. Corrupt if the blob is damaged."""
    stored = unseal(blob, MAGIC, VERSION, list[StoredMember], "the members of a group")
    return [
        Member(**msgspec.structs.asdict(member), deadline_ms=now_ms + member.session_timeout_ms, is_new=False)
        for member in stored
    ]
