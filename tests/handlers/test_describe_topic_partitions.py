"""DescribeTopicPartitions: pages of a few partitions add up to everything, once."""

import pytest
from support.wire import Client

from streamlake.handlers import operations
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    TopicRequest,
)


def ask(
    client: Client, names: list[str], limit: int = 2000, cursor: Cursor | None = None
) -> DescribeTopicPartitionsResponse:
    request = DescribeTopicPartitionsRequest(tuple(map(TopicRequest, names)), limit, cursor)
    return client.newest(ApiKey.DESCRIBE_TOPIC_PARTITIONS, request)


def told(answer: DescribeTopicPartitionsResponse) -> list[tuple[str, int]]:
    return [(t.name, p.partition_index) for t in answer.topics for p in t.partitions]


@pytest.fixture
def names(client: Client) -> list[str]:
    """Three topics of 3, 1 and 2 partitions, by name."""
    return sorted(client.create_topic(count).name for count in (3, 1, 2))


def test_all_at_once(client: Client, names: list[str]) -> None:
    answer = ask(client, names)
    assert [t.name for t in answer.topics] == names
    assert len(told(answer)) == 6
    assert answer.next_cursor is None
    assert {(p.eligible_leader_replicas, p.last_known_elr) for t in answer.topics for p in t.partitions} == {
        ((), ())
    }, "Java's clients stumble over null"
    assert {t.topic_authorized_operations for t in answer.topics} == {operations.TOPIC}
    for topic in answer.topics:
        assert topic.topic_id is not None
        assert {(p.error_code, p.leader_id, p.leader_epoch, p.replica_nodes) for p in topic.partitions} == {
            (0, 0, 0, (0,))
        }


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 0, -1])
def test_pages(client: Client, names: list[str], limit: int) -> None:
    pages = [ask(client, names, limit)]
    while pages[-1].next_cursor is not None:
        pages.append(ask(client, names, limit, pages[-1].next_cursor))
    assert all(len(told(page)) <= max(limit, 1) for page in pages)
    assert [where for page in pages for where in told(page)] == told(ask(client, names))


def test_no_names_mean_all_topics(client: Client, names: list[str]) -> None:
    assert set(names) <= {t.name for t in ask(client, []).topics}


def test_a_cursor_at_a_topic_that_is_gone(client: Client, names: list[str]) -> None:
    gone = names[0] + "-gone"
    answer = ask(client, [*names, gone], cursor=Cursor(gone, 5))
    assert [t.name for t in answer.topics] == sorted(n for n in (*names, gone) if n >= gone)
    assert ask(client, names, cursor=Cursor(names[1], 99)).topics[0].partitions == ()


def test_unknown_topics(client: Client, names: list[str]) -> None:
    answer = ask(client, [*names, "nowhere"])
    (unknown,) = [t for t in answer.topics if t.name == "nowhere"]
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert len(told(answer)) == 6
    assert unknown.topic_authorized_operations == operations.TOPIC
    for name in ("a b", "..", ""):
        (odd,) = ask(client, [name]).topics
        assert odd.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize("cursor", [("at-none-of-them", 0), ("", 0), ("FIRST", -1)])
def test_cursors_that_no_answer_gave(client: Client, names: list[str], cursor: tuple[str, int]) -> None:
    name, index = cursor
    answer = ask(client, names, cursor=Cursor(name.replace("FIRST", names[0]), index))
    assert [(t.name, t.error_code, t.partitions) for t in answer.topics] == [
        (name, ErrorCode.INVALID_REQUEST, ()) for name in names
    ]
