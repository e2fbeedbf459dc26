"""Fetch sessions (KIP-227): a client names its partitions once, then only what changed.

The broker remembers, per session, each partition's request and what the last answer said of it, and leaves
partitions out of an answer that have nothing new. Sessions are bounded, by number and by what they remember in sum;
the one unused longest goes first, and its client begins anew with a full request.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from streamlake.core.ids import Ids
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, PartitionData

INITIAL_EPOCH, FINAL_EPOCH = 0, -1
SESSIONS_MAX = 1000
PARTITIONS_MAX = 100_000  # remembered, by all sessions together: half a kilobyte each

Key = tuple[str, UUID | None, int]
"""Topic name and id as the request gave them, and the partition."""


@dataclass(slots=True)
class Wanted:
    """A partition as last requested, and what the client was last told."""

    request: FetchPartition
    high_watermark: int = -1
    log_start_offset: int = -1


@dataclass(slots=True)
class Session:
    """What a request asks for. `error` is set if the client must start over; session_id 0 is sessionless."""

    session_id: int = 0
    next_epoch: int = 0
    error: ErrorCode = ErrorCode.NONE
    incremental: bool = False
    wanted: "OrderedDict[Key, Wanted]" = field(default_factory=OrderedDict)


class FetchSessions:
    def __init__(self, ids: Ids, sessions_max: int = SESSIONS_MAX, partitions_max: int = PARTITIONS_MAX) -> None:
        self._ids = ids
        self._sessions_max = sessions_max
        self._partitions_max = partitions_max
        self._partitions = 0
        self._sessions: OrderedDict[int, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def resolve(self, request: FetchRequest) -> Session:
        """The session to answer this request from."""
        epoch = request.session_epoch
        if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            self._forget(request.session_id)
            session = Session(wanted=_all(request))
            if epoch == INITIAL_EPOCH and len(session.wanted) <= self._partitions_max:
                self._remember(session)
            return session
        known = self._sessions.get(request.session_id)
        if known is None:
            return Session(error=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if known.next_epoch != epoch:
            return Session(error=ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        self._sessions.move_to_end(known.session_id)
        known.next_epoch = 1 if epoch == 2**31 - 1 else epoch + 1
        known.incremental = True
        self._update(known, request)
        if not known.wanted:  # nothing is left to remember: as in Kafka, the client begins anew
            self._forget(known.session_id)
            return Session()
        return known

    def _remember(self, session: Session) -> None:
        session.session_id = self._ids.random.randrange(1, 2**31)
        while session.session_id in self._sessions:
            session.session_id = self._ids.random.randrange(1, 2**31)
        session.next_epoch = 1
        self._sessions[session.session_id] = session
        self._partitions += len(session.wanted)
        self._make_room()

    def _forget(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._partitions -= len(session.wanted)

    def _make_room(self) -> None:
        while len(self._sessions) > self._sessions_max or self._partitions > self._partitions_max:
            self._forget(next(iter(self._sessions)))

    def _update(self, session: Session, request: FetchRequest) -> None:
        before = len(session.wanted)
        for topic in request.forgotten_topics_data:
            for index in topic.partitions:
                session.wanted.pop((topic.topic, topic.topic_id, index), None)
        for key, wanted in _all(request).items():
            known = session.wanted.get(key)
            if known is not None:
                known.request = wanted.request
            else:
                session.wanted[key] = wanted
        self._partitions += len(session.wanted) - before
        self._make_room()  # it may forget this very session: answered this once, then the client begins anew


def to_send(session: Session, answers: Iterable[tuple[Key, PartitionData]]) -> list[tuple[Key, PartitionData]]:
    """Which answers an incremental session must carry: data, errors and changed offsets; remembers what was told.

    A partition that had data moves to the back of the line, so that it cannot starve the others.
    """
    kept = []
    for key, answer in answers:
        wanted = session.wanted.get(key)
        has_data = bool(answer.records)
        changed = (
            wanted is None
            or answer.high_watermark != wanted.high_watermark
            or answer.log_start_offset != wanted.log_start_offset
        )
        if has_data or answer.error_code or changed or not session.incremental:
            kept.append((key, answer))
        if wanted is not None:
            # After an error the client must be told again, whatever the offsets.
            known = answer.error_code == ErrorCode.NONE
            wanted.high_watermark = answer.high_watermark if known else -1
            wanted.log_start_offset = answer.log_start_offset if known else -1
            if has_data:
                session.wanted.move_to_end(key)
    return kept


def _all(request: FetchRequest) -> "OrderedDict[Key, Wanted]":
    return OrderedDict(
        ((topic.topic, topic.topic_id, partition.partition), Wanted(partition))
        for topic in request.topics
        for partition in topic.partitions
    )
