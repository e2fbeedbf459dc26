"""ConsumerGroupHeartbeat on the wire; tests/coordinator/consumer has the machine, tests/clients real clients."""

from dataclasses import dataclass
from typing import Any

import pytest
from support.wire import Client, Topic, ends, newest

from streamlake.protocol.errors import ErrorCode as E
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import offset_commit as oc
from streamlake.protocol.messages import offset_fetch as of
from streamlake.protocol.messages import txn_offset_commit as toc
from streamlake.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest, TopicPartitions
from streamlake.protocol.messages.init_producer_id import InitProducerIdRequest

KEY = ApiKey.CONSUMER_GROUP_HEARTBEAT


def joining(group: str, *topics: str, **fields: Any) -> ConsumerGroupHeartbeatRequest:
    values = {"member_id": "m", "rebalance_timeout_ms": 5_000, "subscribed_topic_names": topics, **fields}
    return ConsumerGroupHeartbeatRequest(group_id=group, **values)


def beat(group: str, epoch: int, **fields: Any) -> ConsumerGroupHeartbeatRequest:
    return ConsumerGroupHeartbeatRequest(group, "m", epoch, **{"topic_partitions": None, **fields})


@pytest.mark.parametrize("version", ends(KEY))
def test_joining_staying_and_leaving(client: Client, topic: Topic, group: str, version: int) -> None:
    joined = client.ask(KEY, version, joining(group, topic.name))
    assert (joined.error_code, joined.member_id, joined.heartbeat_interval_ms) == (0, "m", 5_000)
    (assigned,) = joined.assignment.topic_partitions
    assert (assigned.topic_id, assigned.partitions[0]) == (topic.id, 0)
    stays = client.ask(KEY, version, beat(group, joined.member_epoch, topic_partitions=(assigned_as_owned(assigned),)))
    assert (stays.error_code, stays.member_epoch, stays.assignment) == (0, joined.member_epoch, None)
    left = client.ask(KEY, version, beat(group, -1))
    assert (left.error_code, left.member_id, left.member_epoch) == (0, "m", -1)


def assigned_as_owned(assigned: TopicPartitions) -> TopicPartitions:
    return TopicPartitions(topic_id=assigned.topic_id, partitions=assigned.partitions)


def test_the_coordinator_names_members_of_version_0(client: Client, group: str) -> None:
    assert client.ask(KEY, 0, joining(group, member_id="")).member_id
    refused = client.ask(KEY, 1, joining(group, member_id=""))
    assert (refused.error_code, refused.error_message) == (
        E.INVALID_REQUEST,
        "member_id is empty: choose one, a UUID for example",
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"group_id": ""}, "group_id is empty"),
        ({"instance_id": ""}, "instance_id is empty"),
        ({"rack_id": ""}, "rack_id is empty"),
        ({"rebalance_timeout_ms": -1}, "must send rebalance_timeout_ms"),
        ({"topic_partitions": None}, "must send topic_partitions"),
        ({"topic_partitions": (TopicPartitions(partitions=(0,)),)}, "and have none"),
        ({"topic_partitions": (TopicPartitions(partitions=(0,) * 100_001),)}, "more than 100000 partitions"),
        ({"subscribed_topic_names": None}, "must send subscribed_topic_names or"),
        ({"member_epoch": -2}, "for members with an instance_id"),
        ({"member_epoch": -3}, "less than -2"),
        ({"member_epoch": -1, "member_id": ""}, "member_id is empty"),
    ],
)
def test_requests_that_make_no_sense(client: Client, group: str, fields: dict[str, Any], text: str) -> None:
    values = {"group_id": group, **fields}
    answer = client.newest(KEY, joining(values.pop("group_id"), "t", **values))
    assert answer.error_code == E.INVALID_REQUEST
    assert text in answer.error_message


def test_refusals(client: Client, topic: Topic, group: str) -> None:
    def code(request: ConsumerGroupHeartbeatRequest) -> int:
        return client.newest(KEY, request).error_code

    assert code(beat(group, 1)) == E.GROUP_ID_NOT_FOUND
    epoch = client.newest(KEY, joining(group, topic.name)).member_epoch
    assert code(beat(group, epoch + 1)) == E.FENCED_MEMBER_EPOCH
    assert code(joining(group, member_id="n", member_epoch=1)) == E.UNKNOWN_MEMBER_ID
    assert code(joining(group, server_assignor="sticky")) == E.UNSUPPORTED_ASSIGNOR
    assert code(joining(group, subscribed_topic_regex="(a")) == E.INVALID_REGULAR_EXPRESSION
    assert code(joining(group, member_id="n", instance_id="i")) == 0
    assert code(joining(group, member_id="o", instance_id="i")) == E.UNRELEASED_INSTANCE_ID
    assert code(joining(group, member_id="o", instance_id="i", member_epoch=1)) == E.FENCED_INSTANCE_ID


def test_a_pattern(client: Client, topic: Topic, group: str) -> None:
    answer = client.newest(KEY, joining(group, subscribed_topic_names=None, subscribed_topic_regex=f"{topic.name}$"))
    assert [assigned.topic_id for assigned in answer.assignment.topic_partitions] == [topic.id]


# --- offsets of members


@dataclass
class Joined:
    group: str
    epoch: int
    topic: str


@pytest.fixture
def joined(client: Client, topic: Topic, group: str) -> Joined:
    return Joined(group, client.newest(KEY, joining(group, topic.name)).member_epoch, topic.name)


def commit(joined: Joined, member: str, epoch: int) -> oc.OffsetCommitRequest:
    rows = (oc.OffsetCommitRequestTopic(joined.topic, partitions=(oc.OffsetCommitRequestPartition(0, 7),)),)
    return oc.OffsetCommitRequest(joined.group, epoch, member, topics=rows)


def test_commits_with_epochs(client: Client, joined: Joined) -> None:
    def code(version: int, member: str, epoch: int) -> int:
        answer = client.ask(ApiKey.OFFSET_COMMIT, version, commit(joined, member, epoch))
        return answer.topics[0].partitions[0].error_code

    assert code(9, "m", joined.epoch) == 0
    assert code(9, "m", joined.epoch - 1) == E.STALE_MEMBER_EPOCH
    assert code(8, "m", joined.epoch - 1) == E.UNSUPPORTED_VERSION
    assert code(9, "n", joined.epoch) == E.UNKNOWN_MEMBER_ID
    assert code(9, "", -1) == E.UNKNOWN_MEMBER_ID


def test_fetches_with_epochs(client: Client, joined: Joined) -> None:
    client.newest(ApiKey.OFFSET_COMMIT, commit(joined, "m", joined.epoch))

    def fetched(member: str | None, epoch: int, group: str = joined.group):
        asked = of.OffsetFetchRequestGroup(group, member, epoch, topics=None)
        (answer,) = client.ask(ApiKey.OFFSET_FETCH, 9, of.OffsetFetchRequest(groups=(asked,))).groups
        return answer

    assert fetched("m", joined.epoch).topics[0].partitions[0].committed_offset == 7
    assert fetched(None, -1).topics[0].partitions[0].committed_offset == 7, "who is no member may ask"
    assert fetched("m", joined.epoch - 1).error_code == E.STALE_MEMBER_EPOCH
    assert fetched("n", joined.epoch).error_code == E.UNKNOWN_MEMBER_ID
    assert fetched("m", 1, "nowhere").error_code == 0


def test_commits_of_transactions_with_epochs(client: Client, joined: Joined) -> None:
    key = f"id of {joined.group}"
    producer = client.newest(ApiKey.INIT_PRODUCER_ID, InitProducerIdRequest(key, 60_000))

    def code(epoch: int) -> int:
        rows = (toc.TxnOffsetCommitRequestTopic(joined.topic, (toc.TxnOffsetCommitRequestPartition(0, 9),)),)
        request = toc.TxnOffsetCommitRequest(
            transactional_id=key,
            group_id=joined.group,
            producer_id=producer.producer_id,
            producer_epoch=producer.producer_epoch,
            generation_id=epoch,
            member_id="m",
            topics=rows,
        )
        answer = client.ask(ApiKey.TXN_OFFSET_COMMIT, newest(ApiKey.TXN_OFFSET_COMMIT), request)
        return answer.topics[0].partitions[0].error_code

    assert code(joined.epoch - 1) == E.ILLEGAL_GENERATION
    assert code(joined.epoch) == 0
