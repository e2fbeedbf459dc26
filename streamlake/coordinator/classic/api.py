"""Requests to classic groups and their answers: Kafka's fields without Kafka's versions and codes.

Handlers translate: `GroupError` has the names of Kafka's error codes, and the codec omits fields that an old version
does not have. Times are in milliseconds. Metadata and assignments are opaque bytes of the clients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from streamlake.core.errors import Closed, Fenced, StreamLakeError


class GroupError(Enum):
    """Named as in Kafka's list of error codes."""

    NONE = auto()
    COORDINATOR_LOAD_IN_PROGRESS = auto()
    COORDINATOR_NOT_AVAILABLE = auto()
    FENCED_INSTANCE_ID = auto()
    FENCED_MEMBER_EPOCH = auto()
    GROUP_ID_NOT_FOUND = auto()
    GROUP_MAX_SIZE_REACHED = auto()
    GROUP_SUBSCRIBED_TO_TOPIC = auto()
    ILLEGAL_GENERATION = auto()
    INCONSISTENT_GROUP_PROTOCOL = auto()
    INVALID_GROUP_ID = auto()
    INVALID_REGULAR_EXPRESSION = auto()
    INVALID_REQUEST = auto()
    INVALID_SESSION_TIMEOUT = auto()
    MEMBER_ID_REQUIRED = auto()
    NON_EMPTY_GROUP = auto()
    NOT_COORDINATOR = auto()
    OFFSET_METADATA_TOO_LARGE = auto()
    REBALANCE_IN_PROGRESS = auto()
    STALE_MEMBER_EPOCH = auto()
    UNKNOWN_MEMBER_ID = auto()
    UNKNOWN_TOPIC_OR_PARTITION = auto()
    UNRELEASED_INSTANCE_ID = auto()
    UNSUPPORTED_ASSIGNOR = auto()


@dataclass(frozen=True, slots=True)
class JoinRequest:
    group_id: str
    member_id: str  # empty: a new member
    group_instance_id: str | None  # static membership (KIP-345)
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]  # (name, metadata), the preferred one first
    require_known_member_id: bool  # JoinGroup v4 and newer (KIP-394)
    supports_skip_assignment: bool  # JoinGroup v9 and newer (KIP-814)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class JoinedMember:
    member_id: str
    group_instance_id: str | None
    metadata: bytes  # for the protocol that the group selected


@dataclass(frozen=True, slots=True)
class JoinAnswer:
    error: GroupError
    member_id: str
    generation: int = -1
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    members: tuple[JoinedMember, ...] = ()  # for the leader only


@dataclass(frozen=True, slots=True)
class SyncRequest:
    group_id: str
    member_id: str
    group_instance_id: str | None
    generation: int
    protocol_type: str | None  # None: a version without the field
    protocol: str | None
    assignments: Mapping[str, bytes]  # by member id; from the leader only


@dataclass(frozen=True, slots=True)
class SyncAnswer:
    error: GroupError
    protocol_type: str | None = None
    protocol: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True)
class LeavingMember:
    member_id: str  # may be empty if there is an instance id
    group_instance_id: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class MemberDescription:
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class GroupDescription:
    group_id: str
    state: str  # a State's value
    protocol_type: str
    protocol: str  # empty while no generation is stable
    members: tuple[MemberDescription, ...]


@dataclass(frozen=True, slots=True)
class GroupListing:
    group_id: str
    protocol_type: str
    state: str  # a State's value
    group_type: str = "classic"


class State(Enum):
    """Named as in Kafka."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


def store_error(error: StreamLakeError) -> GroupError:
    """A broker that is fenced, or has lost the group's slot, is no longer its coordinator; all other errors are
    transient, and clients retry."""
    return GroupError.NOT_COORDINATOR if isinstance(error, Fenced | Closed) else GroupError.COORDINATOR_NOT_AVAILABLE
