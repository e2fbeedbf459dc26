"""OffsetCommit: who may commit what, and what a LeaveGroup right behind it cannot break."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.wire import Client, Member, Topic, encoded, ends, newest

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.handlers import offset_commit
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, leave_group, offset_fetch
from streamlake.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

NEWEST = newest(ApiKey.OFFSET_COMMIT)


def request(
    group: str,
    topic: str,
    *offsets: int,
    member: str = "",
    generation: int = -1,
    text: str | None = None,
    **fields: Any,
) -> OffsetCommitRequest:
    """One offset for each partition from 0 on."""
    partitions = tuple(OffsetCommitRequestPartition(i, offset, 3, text) for i, offset in enumerate(offsets))
    topics = (OffsetCommitRequestTopic(name=topic, partitions=partitions),)
    return OffsetCommitRequest(group, generation, member, topics=topics, **fields)


def commit(client: Client, asked: OffsetCommitRequest, version: int = NEWEST) -> list[int]:
    (topic,) = client.ask(ApiKey.OFFSET_COMMIT, version, asked).topics
    assert topic.name == asked.topics[0].name
    assert [p.partition_index for p in topic.partitions] == [p.partition_index for p in asked.topics[0].partitions]
    return [p.error_code for p in topic.partitions]


def committed(client: Client, group: str) -> dict[tuple[str, int], tuple[int, int, str]]:
    asked = offset_fetch.OffsetFetchRequest(groups=(offset_fetch.OffsetFetchRequestGroup(group, topics=None),))
    (found,) = client.newest(ApiKey.OFFSET_FETCH, asked).groups
    return {
        (t.name, p.partition_index): (p.committed_offset, p.committed_leader_epoch, p.metadata)
        for t in found.topics
        for p in t.partitions
    }


@pytest.mark.parametrize("version", ends(ApiKey.OFFSET_COMMIT))
def test_of_a_consumer_without_a_group(client: Client, topic: Topic, group: str, version: int) -> None:
    assert commit(client, request(group, topic.name, 42, text="note", retention_time_ms=1), version) == [0]
    assert committed(client, group) == {(topic.name, 0): (42, 3 if version >= 6 else -1, "note")}
    assert commit(client, request(group, topic.name, 7), version) == [0]
    assert committed(client, group) == {(topic.name, 0): (7, 3 if version >= 6 else -1, "")}


@pytest.mark.parametrize("answers", [True, False], ids=["the store answers", "the store is away"])
async def test_a_topic_that_another_broker_has_just_made_is_not_unknown(answers: bool) -> None:
    """The image of this broker is behind: it looks before it says that there is no such topic."""
    stored: list[str] = []
    topics = SimpleNamespace(revision=1, names={"old"})

    async def store(asked: CommitRequest) -> list[GroupError]:
        known = [row.topic in topics.names for row in asked.offsets]
        stored.extend(row.topic for row, is_known in zip(asked.offsets, known, strict=True) if is_known)
        return [GroupError.NONE if is_known else GroupError.UNKNOWN_TOPIC_OR_PARTITION for is_known in known]

    async def catch_up() -> bool:
        if answers:
            topics.names.add("new")
            topics.revision = 2
        return answers

    ctx: Any = SimpleNamespace(offsets=SimpleNamespace(commit=store), topics=topics, catch_up=catch_up)
    partitions = (OffsetCommitRequestPartition(0, 5),)
    asked = tuple(OffsetCommitRequestTopic(name=name, partitions=partitions) for name in ("old", "new", "none"))
    exchange: Any = SimpleNamespace(body=OffsetCommitRequest("g", topics=asked), version=NEWEST)
    answer = await offset_commit.handle(ctx, exchange)
    later = ErrorCode.COORDINATOR_NOT_AVAILABLE
    expected = [0, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION] if answers else [0, later, later]
    assert [topic.partitions[0].error_code for topic in answer.topics] == expected
    assert stored == (["old", "new"] if answers else ["old"])


def test_a_partition_that_does_not_exist_fails_alone(client: Client, group: str) -> None:
    topic = client.create_topic(partitions=2)
    codes = commit(client, request(group, topic.name, 1, 2, 3))
    assert codes == [0, 0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert commit(client, request(group, "nowhere", 1)) == [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    assert sorted(committed(client, group)) == [(topic.name, 0), (topic.name, 1)]


def test_metadata_has_a_limit(client: Client, topic: Topic, group: str) -> None:
    codes = commit(client, request(group, topic.name, 1, text="x" * 5000))
    assert codes == [ErrorCode.OFFSET_METADATA_TOO_LARGE]


@pytest.mark.parametrize("version", ends(ApiKey.OFFSET_COMMIT))
def test_of_members(client: Client, topic: Topic, group: str, version: int) -> None:
    def code(member: Member) -> int:
        asked = request(member.group, topic.name, 5, member=member.id, generation=member.generation)
        return commit(client, asked, version)[0]

    joined = client.join(group)
    assert code(joined) == ErrorCode.REBALANCE_IN_PROGRESS
    client.newest(ApiKey.LEAVE_GROUP, leave(joined))
    member = client.join_alone(group)
    assert code(member) == 0
    assert code(Member(group, "nobody", member.generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert code(Member(group, member.id, member.generation + 1)) == ErrorCode.ILLEGAL_GENERATION
    unknown = ErrorCode.GROUP_ID_NOT_FOUND if version >= 9 else ErrorCode.ILLEGAL_GENERATION
    assert code(Member(f"{group}-never-seen", member.id, 1)) == unknown
    assert commit(client, request(group, topic.name, 5), version) == [ErrorCode.UNKNOWN_MEMBER_ID]


def test_of_a_static_member_that_was_replaced(client: Client, topic: Topic, group: str) -> None:
    member = client.join_alone(group, "instance")
    client.join(group, "instance")
    asked = request(group, topic.name, 5, member=member.id, generation=member.generation, group_instance_id="instance")
    assert commit(client, asked) == [ErrorCode.FENCED_INSTANCE_ID]


def leave(member: Member) -> leave_group.LeaveGroupRequest:
    return leave_group.LeaveGroupRequest(member.group, members=(leave_group.MemberIdentity(member.id),))


def test_a_leave_in_the_same_segment_does_not_overtake_it(client: Client, topic: Topic, group: str) -> None:
    """A closing consumer sends both at once; were the leave first, its last commit would be lost (hazard C15)."""
    for offset in range(1, 6):
        member = client.join_alone(group)
        asked = request(group, topic.name, offset, member=member.id, generation=member.generation)
        client.send(
            encoded(ApiKey.OFFSET_COMMIT, NEWEST, asked, 1)
            + encoded(ApiKey.LEAVE_GROUP, newest(ApiKey.LEAVE_GROUP), leave(member), 2)
        )
        answer = client.answer(ApiKey.OFFSET_COMMIT, NEWEST, 1)
        assert answer.topics[0].partitions[0].error_code == 0
        assert client.answer(ApiKey.LEAVE_GROUP, newest(ApiKey.LEAVE_GROUP), 2).members[0].error_code == 0
        assert committed(client, group)[topic.name, 0][0] == offset


def test_a_request_without_offsets(client: Client, group: str) -> None:
    assert client.newest(ApiKey.OFFSET_COMMIT, OffsetCommitRequest(group)).topics == ()
