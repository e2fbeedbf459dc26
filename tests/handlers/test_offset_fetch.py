"""OffsetFetch: what is committed, and -1 for what is not."""

import asyncio
from types import SimpleNamespace

import pytest
from support.wire import Client, newest

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers import offset_fetch as handler
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, offset_commit
from streamlake.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)

NEWEST = newest(ApiKey.OFFSET_FETCH)


@pytest.fixture
def committed(client: Client, group: str) -> str:
    """The name of a topic of three partitions, of which 0 and 2 have offsets 10 and 12."""
    topic = client.create_topic(partitions=3)
    partitions = tuple(offset_commit.OffsetCommitRequestPartition(i, 10 + i, 4, f"m{i}") for i in (0, 2))
    topics = (offset_commit.OffsetCommitRequestTopic(name=topic.name, partitions=partitions),)
    client.newest(ApiKey.OFFSET_COMMIT, offset_commit.OffsetCommitRequest(group, topics=topics))
    return topic.name


@pytest.mark.parametrize("version", [1, 7])
def test_of_one_group(client: Client, group: str, committed: str, version: int) -> None:
    asked = OffsetFetchRequest(group, (OffsetFetchRequestTopic(committed, (0, 1, 7)),), require_stable=True)
    answer = client.ask(ApiKey.OFFSET_FETCH, version, asked)
    (topic,) = answer.topics
    epoch = 4 if version >= 5 else -1
    assert [
        (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.metadata) for p in topic.partitions
    ] == [
        (0, 10, epoch, "m0"),
        (1, -1, -1, ""),
        (7, -1, -1, ""),
    ]
    assert {p.error_code for p in topic.partitions} == {0}


@pytest.mark.parametrize("version", [2, 7])
def test_null_topics_mean_all(client: Client, group: str, committed: str, version: int) -> None:
    (topic,) = client.ask(ApiKey.OFFSET_FETCH, version, OffsetFetchRequest(group, None)).topics
    assert [(p.partition_index, p.committed_offset) for p in topic.partitions] == [(0, 10), (2, 12)]
    assert client.ask(ApiKey.OFFSET_FETCH, version, OffsetFetchRequest(group, ())).topics == ()


@pytest.mark.parametrize("version", [8, NEWEST])
def test_of_several_groups(client: Client, group: str, committed: str, version: int) -> None:
    some = (OffsetFetchRequestTopics(name=committed, partition_indexes=(2, 1)),)
    asked = (
        OffsetFetchRequestGroup(group, topics=some),
        OffsetFetchRequestGroup(group, topics=None),
        OffsetFetchRequestGroup("no-such-group", topics=some),
        OffsetFetchRequestGroup("no-such-group", topics=None),
    )
    answer = client.ask(ApiKey.OFFSET_FETCH, version, OffsetFetchRequest(groups=asked))
    assert [g.group_id for g in answer.groups] == [g.group_id for g in asked]
    found = [[(p.partition_index, p.committed_offset) for t in g.topics for p in t.partitions] for g in answer.groups]
    assert found == [[(2, 12), (1, -1)], [(0, 10), (2, 12)], [(2, -1), (1, -1)], []]
    assert {g.error_code for g in answer.groups} == {0}


@pytest.mark.parametrize("version", [1, 2, 7, NEWEST])
def test_a_store_that_is_away_is_never_taken_for_no_offset(version: int) -> None:
    """A consumer that reads "nothing committed" begins anew; version 1 has no error but those of partitions."""

    class Offsets:
        async def fetch(self, *_: object) -> GroupError:
            return GroupError.COORDINATOR_NOT_AVAILABLE

    asked = OffsetFetchRequest(
        "g", (OffsetFetchRequestTopic("t", (0, 1)),), (OffsetFetchRequestGroup("g", topics=None),)
    )
    exchange = SimpleNamespace(body=asked, version=version)
    answer = asyncio.run(handler.handle(SimpleNamespace(offsets=Offsets()), exchange))
    code = ErrorCode.COORDINATOR_NOT_AVAILABLE
    if version >= 8:
        assert [g.error_code for g in answer.groups] == [code]
    elif version >= 2:
        assert (answer.error_code, answer.topics) == (code, ())
    else:
        (topic,) = answer.topics
        assert [(p.partition_index, p.error_code, p.committed_offset) for p in topic.partitions] == [
            (0, code, -1),
            (1, code, -1),
        ]


@pytest.mark.parametrize("version", [1, 7, 8, NEWEST])
def test_a_partition_twice_is_answered_twice(client: Client, group: str, committed: str, version: int) -> None:
    one = OffsetFetchRequestTopic(committed, (2, 0, 2))
    new = OffsetFetchRequestTopics(committed, partition_indexes=(2, 0, 2))
    asked = OffsetFetchRequest(group, (one,), groups=(OffsetFetchRequestGroup(group, topics=(new,)),))
    answer = client.ask(ApiKey.OFFSET_FETCH, version, asked)
    (topic,) = answer.groups[0].topics if version >= 8 else answer.topics
    assert [(p.partition_index, p.committed_offset) for p in topic.partitions] == [(2, 12), (0, 10), (2, 12)]
