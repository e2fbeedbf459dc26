"""TxnOffsetCommit: offsets that are committed with a transaction, or not at all."""

from collections.abc import Callable

import pytest
from support.txn_client import TxnClient
from support.wire import Client, Topic

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.delete_groups import DeleteGroupsRequest
from streamlake.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)

E = ErrorCode


def committed(client: Client, group: str, topic: Topic | None, stable: bool = False) -> list[tuple[int, int]]:
    """Offset and error code of the partitions."""
    topics = None if topic is None else (OffsetFetchRequestTopics(name=topic.name, partition_indexes=(0,)),)
    asked = OffsetFetchRequestGroup(group_id=group, topics=topics)
    request = OffsetFetchRequest(groups=(asked,), require_stable=stable)
    (found,) = client.newest(ApiKey.OFFSET_FETCH, request).groups
    return [(p.committed_offset, p.error_code) for t in found.topics for p in t.partitions]


@pytest.mark.parametrize("version", [0, 4])
@pytest.mark.parametrize("commit", [True, False])
def test_they_are_committed_with_it(txn: TxnClient, topic: Topic, group: str, version: int, commit: bool) -> None:
    client = txn.client
    assert txn.add_offsets(group) == 0
    assert txn.commit_offsets(group, topic, 5, version) == 0
    for which in (topic, None):
        assert committed(client, group, which, stable=True) == [(-1, E.UNSTABLE_OFFSET_COMMIT)]
    assert committed(client, group, topic) == [(-1, 0)]
    (deleted,) = client.newest(ApiKey.DELETE_GROUPS, DeleteGroupsRequest((group,))).results
    assert deleted.error_code == E.NON_EMPTY_GROUP
    assert txn.end(commit) == 0
    for stable in (True, False):
        assert committed(client, group, topic, stable) == [(5 if commit else -1, 0)]
    (deleted,) = client.newest(ApiKey.DELETE_GROUPS, DeleteGroupsRequest((group,))).results
    assert deleted.error_code == 0


def test_from_version_5_it_needs_nothing_before(txn: TxnClient, topic: Topic, group: str) -> None:
    assert txn.commit_offsets(group, topic, 5, 5) == 0
    assert txn.described().transaction_state == "Ongoing"
    assert (txn.end(True, 5), txn.epoch) == (0, 1)
    assert committed(txn.client, group, topic, stable=True) == [(5, 0)]


def test_only_into_an_open_transaction(txn: TxnClient, topic: Topic, group: str) -> None:
    assert txn.commit_offsets(group, topic, 5) == E.INVALID_TXN_STATE
    assert txn.add(topic, 0) == [0]
    assert txn.commit_offsets(group, topic, 5) == E.INVALID_TXN_STATE, "it is not told of the group"
    assert txn.add_offsets(group) == 0
    txn.epoch = 3
    assert txn.commit_offsets(group, topic, 5) == E.INVALID_PRODUCER_EPOCH
    assert txn.commit_offsets(group, topic, 5, 5) == E.INVALID_PRODUCER_EPOCH
    txn.id += 1_000_000
    assert txn.commit_offsets(group, topic, 5) == E.INVALID_PRODUCER_ID_MAPPING
    txn.key = ""
    assert txn.commit_offsets(group, topic, 5) == E.INVALID_REQUEST


def test_only_by_members(txn: TxnClient, connect: Callable[[], Client], topic: Topic, group: str) -> None:
    """KIP-447: a consumer that lost its partitions cannot commit for them."""
    member = connect().join_alone(group)
    assert txn.add_offsets(group) == 0
    ours = {"member_id": member.id, "generation_id": member.generation}
    assert txn.commit_offsets(group, topic, 5, 4, **ours) == 0
    assert txn.commit_offsets(group, topic, 5, 4, **(ours | {"member_id": "other"})) == E.UNKNOWN_MEMBER_ID
    older = {"generation_id": member.generation - 1}
    assert txn.commit_offsets(group, topic, 5, 4, **(ours | older)) == E.ILLEGAL_GENERATION
    assert txn.commit_offsets(group, topic, 6, 2) == 0, "older clients know the name of the group only"
    assert txn.end() == 0
    assert committed(txn.client, group, topic) == [(6, 0)]


def test_what_is_not_there(txn: TxnClient, topic: Topic, group: str) -> None:
    assert txn.add_offsets(group) == 0
    assert txn.commit_offsets(group, Topic("no-such-topic", topic.id), 5) == E.UNKNOWN_TOPIC_OR_PARTITION
    lost = {"member_id": "m", "generation_id": 3}
    assert txn.commit_offsets(group, topic, 5, 4, **lost) == E.ILLEGAL_GENERATION
