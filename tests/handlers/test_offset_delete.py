"""OffsetDelete: offsets that nobody relies on; a group that reads a topic keeps them."""

from types import SimpleNamespace

from support.subscriptions import subscription
from support.wire import Client, Topic, join_request, newest

from streamlake.handlers import offset_delete
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, offset_commit, offset_fetch
from streamlake.protocol.messages.join_group import JoinGroupRequestProtocol
from streamlake.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)


def request(group: str, *topics: tuple[str, tuple[int, ...]]) -> OffsetDeleteRequest:
    rows = (
        OffsetDeleteRequestTopic(name, tuple(OffsetDeleteRequestPartition(index) for index in indexes))
        for name, indexes in topics
    )
    return OffsetDeleteRequest(group, tuple(rows))


def codes(answer: OffsetDeleteResponse) -> dict[tuple[str, int], int]:
    return {(t.name, p.partition_index): p.error_code for t in answer.topics for p in t.partitions}


def commit(client: Client, group: str, topic: Topic) -> None:
    row = offset_commit.OffsetCommitRequestPartition(0, 5)
    asked = offset_commit.OffsetCommitRequest(
        group, topics=(offset_commit.OffsetCommitRequestTopic(name=topic.name, topic_id=topic.id, partitions=(row,)),)
    )
    (answer,) = client.newest(ApiKey.OFFSET_COMMIT, asked).topics
    assert [p.error_code for p in answer.partitions] == [0]


def committed(client: Client, group: str) -> list[str]:
    groups = (offset_fetch.OffsetFetchRequestGroup(group_id=group, topics=None),)
    (found,) = client.newest(ApiKey.OFFSET_FETCH, offset_fetch.OffsetFetchRequest(groups=groups)).groups
    return [topic.name for topic in found.topics]


def test_what_is_deleted(client: Client, group: str, topic: Topic) -> None:
    other = client.create_topic()
    for each in (topic, other):
        commit(client, group, each)
    asked = request(group, (topic.name, (0, 7, -1, 0)), ("never-there", (0,)), ("", (0,)))
    assert codes(client.newest(ApiKey.OFFSET_DELETE, asked)) == {
        (topic.name, 0): 0,
        (topic.name, 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        (topic.name, -1): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("never-there", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ("", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert committed(client, group) == [other.name]
    assert client.newest(ApiKey.OFFSET_DELETE, request(group)) == OffsetDeleteResponse()


def test_a_group_that_reads_the_topic(client: Client, group: str, topic: Topic) -> None:
    asked = join_request(group, "", protocols=(JoinGroupRequestProtocol("range", subscription(topic.name)),))
    member = client.newest(ApiKey.JOIN_GROUP, asked).member_id
    client.newest(ApiKey.JOIN_GROUP, join_request(group, member, protocols=asked.protocols))
    other = client.create_topic()
    answer = client.newest(ApiKey.OFFSET_DELETE, request(group, (topic.name, (0,)), (other.name, (0,))))
    assert codes(answer) == {(topic.name, 0): ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC, (other.name, 0): 0}


def test_groups_that_are_not_there(client: Client, topic: Topic) -> None:
    for group, code in (("never-there", ErrorCode.GROUP_ID_NOT_FOUND), ("", ErrorCode.INVALID_GROUP_ID)):
        answer = client.newest(ApiKey.OFFSET_DELETE, request(group, (topic.name, (0,))))
        assert answer == OffsetDeleteResponse(error_code=code)


async def test_a_topic_that_another_broker_may_have_made_a_moment_ago() -> None:
    async def catch_up() -> bool:
        return False

    async def delete(group_id: str, partitions: list[tuple[str, int]]) -> tuple[object, list[object]]:
        assert partitions == []
        return offset_delete.GroupError.NONE, []

    topics = SimpleNamespace(get=lambda name: None)
    ctx = SimpleNamespace(topics=topics, catch_up=catch_up, offsets=SimpleNamespace(delete=delete))
    exchange = SimpleNamespace(body=request("g", ("new", (0,))), version=newest(ApiKey.OFFSET_DELETE))
    answer = await offset_delete.handle(ctx, exchange)
    assert codes(answer) == {("new", 0): ErrorCode.COORDINATOR_NOT_AVAILABLE}
