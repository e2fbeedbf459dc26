"""DeleteTopics: by name and by id, and what is left afterwards."""

from uuid import UUID

import pytest
from support.raw_kafka import batch
from support.wire import Client, Topic, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, create_topics
from streamlake.protocol.messages.delete_topics import DeletableTopicResult, DeleteTopicsRequest, DeleteTopicState

NEWEST = newest(ApiKey.DELETE_TOPICS)
BROKER, SET, DELETE = 4, 0, 1


def delete(client: Client, *states: DeleteTopicState) -> list[DeletableTopicResult]:
    return list(client.ask(ApiKey.DELETE_TOPICS, NEWEST, DeleteTopicsRequest(topics=states)).responses)


@pytest.mark.parametrize("version", [1, 5])
def test_by_name_in_old_versions(client: Client, topic: Topic, version: int) -> None:
    request = DeleteTopicsRequest(topic_names=(topic.name, "nowhere"))
    gone, unknown = client.ask(ApiKey.DELETE_TOPICS, version, request).responses
    assert (gone.name, gone.error_code) == (topic.name, 0)
    assert (unknown.name, unknown.error_code) == ("nowhere", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)


def test_by_name_or_id(client: Client) -> None:
    topics = [client.create_topic() for _ in range(2)]
    results = delete(
        client,
        DeleteTopicState(name=topics[0].name),
        DeleteTopicState(topic_id=topics[1].id),
        DeleteTopicState(name="nowhere"),
        DeleteTopicState(topic_id=UUID(int=3)),
        DeleteTopicState(name="a", topic_id=UUID(int=3)),
        DeleteTopicState(),
    )
    assert [r.error_code for r in results] == [
        0,
        0,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.INVALID_REQUEST,
    ]
    assert [(r.name, r.topic_id) for r in results[:2]] == [(t.name, t.id) for t in topics]
    assert all(r.error_message for r in results[2:])


def test_a_topic_twice_in_one_request_stays(client: Client, topic: Topic) -> None:
    other = client.create_topic()
    by_name, by_id = DeleteTopicState(name=topic.name), DeleteTopicState(topic_id=topic.id)
    for twice in ((by_name, by_name), (by_id, by_id), (by_name, by_id), (by_id, by_name)):
        (refused,) = delete(client, *twice)
        assert (refused.error_code, refused.name or topic.name) == (ErrorCode.INVALID_REQUEST, topic.name)
        assert "this request" in refused.error_message
    assert client.append(topic, batch([b"v"])) == [0]
    results = delete(client, by_name, by_name, DeleteTopicState(name=other.name))
    assert {r.name: r.error_code for r in results} == {topic.name: ErrorCode.INVALID_REQUEST, other.name: 0}
    for version in (1, 5):
        request = DeleteTopicsRequest(topic_names=(topic.name, topic.name))
        (refused,) = client.ask(ApiKey.DELETE_TOPICS, version, request).responses
        assert refused.error_code == ErrorCode.INVALID_REQUEST
    assert client.append(topic, batch([b"v"])) == [1]


def test_a_topic_that_is_made_again_is_empty_and_another(client: Client, topic: Topic) -> None:
    client.append(topic, batch([b"v"] * 3))
    delete(client, DeleteTopicState(name=topic.name))
    assert client.produce(topic.name, batch([b"v"])).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    wanted = create_topics.CreatableTopic(name=topic.name, num_partitions=1, replication_factor=1)
    (again,) = client.newest(ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=(wanted,))).topics
    assert again.topic_id != topic.id
    assert client.append(topic, batch([b"v"])) == [0]


def test_a_broker_that_does_not_allow_it(strict_client: Client) -> None:
    client, topic = strict_client, strict_client.create_topic()
    (result,) = delete(client, DeleteTopicState(name=topic.name))
    assert result.error_code == ErrorCode.TOPIC_DELETION_DISABLED
    assert "delete.topic.enable" in result.error_message
    (result,) = client.ask(ApiKey.DELETE_TOPICS, 2, DeleteTopicsRequest(topic_names=(topic.name,))).responses
    assert result.error_code == ErrorCode.INVALID_REQUEST, "the code is newer than this version"
    assert client.append(topic, batch([b"v"])) == [0]
