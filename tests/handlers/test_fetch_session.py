"""Fetch sessions without a server: eviction, limits, and who is told what."""

from uuid import UUID

from streamlake.core.ids import Ids
from streamlake.handlers.fetch_session import FetchSessions, Session, to_send
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, PartitionData

TOPIC = UUID(int=1)


def request(*indexes: int, session: Session | None = None, **fields) -> FetchRequest:
    partitions = tuple(FetchPartition(partition=i) for i in indexes)
    topics = (FetchTopic(topic_id=TOPIC, partitions=partitions),) if indexes else ()
    known = {"session_id": session.session_id, "session_epoch": session.next_epoch} if session else {"session_epoch": 0}
    return FetchRequest(topics=topics, **(known | fields))


def answers(session: Session, **fields) -> list[int]:
    """Which partitions an answer with the same facts for all of them carries."""
    same = [(key, PartitionData(partition_index=key[2], **fields)) for key in session.wanted]
    return [answer.partition_index for _, answer in to_send(session, same)]


def test_the_session_unused_longest_goes_first() -> None:
    sessions = FetchSessions(Ids(1), sessions_max=2)
    first, second = sessions.resolve(request(0)), sessions.resolve(request(0))
    sessions.resolve(request(session=first))
    sessions.resolve(request(0))
    assert len(sessions) == 2
    assert sessions.resolve(request(session=first)).error == ErrorCode.NONE
    assert sessions.resolve(request(session=second)).error == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_sessionless_requests_are_not_remembered() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0, session_epoch=-1))
    assert (session.session_id, session.incremental, len(session.wanted), len(sessions)) == (0, False, 1, 0)


def test_a_request_of_too_many_partitions_is_served_without_a_session() -> None:
    sessions = FetchSessions(Ids(1), partitions_max=2)
    assert sessions.resolve(request(0, 1, 2)).session_id == 0
    session = sessions.resolve(request(0, 1))
    assert session.session_id > 0
    grown = sessions.resolve(request(2, session=session))
    assert len(grown.wanted) == 3, "answered in full: a partition that is left out would never be read"
    assert sessions.resolve(request(session=grown)).error == ErrorCode.FETCH_SESSION_ID_NOT_FOUND


def test_all_sessions_together_remember_no_more_than_the_limit() -> None:
    """Else a thousand sessions of 100,000 partitions each take tens of gigabytes."""
    sessions = FetchSessions(Ids(1), partitions_max=5)
    first, second = sessions.resolve(request(0, 1)), sessions.resolve(request(0, 1))
    third = sessions.resolve(request(0))
    assert len(sessions) == 3
    forgotten = (ForgottenTopic(topic_id=TOPIC, partitions=(0,)),)
    sessions.resolve(request(session=second, forgotten_topics_data=forgotten))
    sessions.resolve(request(1, session=third))
    assert len(sessions) == 3, "five again: what was forgotten made room"
    sessions.resolve(request(2, session=third))
    assert sessions.resolve(request(session=first)).error == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert sessions.resolve(request(session=second)).error == ErrorCode.NONE
    sessions.resolve(request(session=second, session_epoch=-1))
    sessions.resolve(request(0, 1))
    assert len(sessions) == 2, "a session that its client has closed counts no more"


def test_the_epoch_wraps_to_1() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0))
    session.next_epoch = 2**31 - 1
    assert sessions.resolve(request(session=session)) is session
    assert session.next_epoch == 1


def test_forgotten_partitions_are_gone_and_others_stay() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0, 1))
    forgotten = (ForgottenTopic(topic_id=TOPIC, partitions=(0, 7)),)
    sessions.resolve(request(2, session=session, forgotten_topics_data=forgotten))
    assert [key[2] for key in session.wanted] == [1, 2]


def test_only_changes_are_told() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0, 1))
    assert answers(session, high_watermark=5, log_start_offset=0) == [0, 1], "the first answer is complete"
    sessions.resolve(request(session=session))
    assert answers(session, high_watermark=5, log_start_offset=0) == []
    assert answers(session, high_watermark=6, log_start_offset=0) == [0, 1]
    assert answers(session, high_watermark=6, log_start_offset=1) == [0, 1]
    assert answers(session, high_watermark=6, log_start_offset=1) == []


def test_after_an_error_the_offsets_are_told_again() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0))
    sessions.resolve(request(session=session))
    assert answers(session, high_watermark=5, log_start_offset=0) == [0]
    assert answers(session, error_code=3, high_watermark=-1, log_start_offset=-1) == [0]
    assert answers(session, error_code=3, high_watermark=-1, log_start_offset=-1) == [0]
    assert answers(session, high_watermark=5, log_start_offset=0) == [0]


def test_who_had_data_waits_at_the_end_of_the_line() -> None:
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0, 1, 2))
    first, *_ = session.wanted
    to_send(session, [(first, PartitionData(partition_index=0, records=b"data"))])
    assert [key[2] for key in session.wanted] == [1, 2, 0]


def test_a_session_without_partitions_ends() -> None:
    """As in Kafka; the client sees the id 0 and begins anew."""
    sessions = FetchSessions(Ids(1))
    session = sessions.resolve(request(0))
    forgotten = (ForgottenTopic(topic_id=TOPIC, partitions=(0,)),)
    ended = sessions.resolve(request(session=session, forgotten_topics_data=forgotten))
    assert (ended.session_id, ended.error, len(ended.wanted), len(sessions)) == (0, ErrorCode.NONE, 0, 0)
    assert sessions.resolve(request(session=session)).error == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
