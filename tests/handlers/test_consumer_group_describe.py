"""ConsumerGroupDescribe, and what the classic APIs say of a consumer group."""

import pytest
from handlers.test_consumer_group_heartbeat import beat, joining
from support.wire import Client, Topic, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from streamlake.protocol.messages.delete_groups import DeleteGroupsRequest
from streamlake.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from streamlake.protocol.messages.describe_groups import DescribeGroupsRequest
from streamlake.protocol.messages.list_groups import ListGroupsRequest

KEY, BEAT = ApiKey.CONSUMER_GROUP_DESCRIBE, ApiKey.CONSUMER_GROUP_HEARTBEAT


@pytest.mark.parametrize("version", ends(KEY))
def test_epochs_and_members(client: Client, topic: Topic, group: str, version: int) -> None:
    joined = client.newest(BEAT, joining(group, topic.name, instance_id="i", rack_id="r", subscribed_topic_regex="a.*"))
    (found,) = client.ask(KEY, version, ConsumerGroupDescribeRequest((group,), True)).groups
    assert (found.error_code, found.group_state, found.assignor_name) == (0, "Stable", "uniform")
    assert found.group_epoch == found.assignment_epoch == joined.member_epoch
    assert found.authorized_operations > 0
    (member,) = found.members
    assert (member.member_id, member.instance_id, member.rack_id) == ("m", "i", "r")
    assert (member.member_epoch, member.member_type) == (joined.member_epoch, 1 if version >= 1 else -1)
    assert (member.subscribed_topic_names, member.subscribed_topic_regex) == ((topic.name,), "a.*")
    assert member.client_host.startswith("/")
    assert member.assignment == member.target_assignment
    (assigned,) = member.assignment.topic_partitions
    assert (assigned.topic_id, assigned.topic_name, assigned.partitions[0]) == (topic.id, topic.name, 0)


def test_who_is_none(client: Client, group: str) -> None:
    client.join_alone(group)
    answer = client.newest(KEY, ConsumerGroupDescribeRequest((group, "nowhere", "")))
    codes = [found.error_code for found in answer.groups]
    assert codes == [ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.INVALID_GROUP_ID]
    assert answer.groups[0].error_message == f"there is no consumer group {group}"


def test_a_topic_that_was_deleted_is_left_out(client: Client, topic: Topic, group: str) -> None:
    client.newest(BEAT, joining(group, topic.name))
    client.newest(ApiKey.DELETE_TOPICS, DeleteTopicsRequest(topics=(DeleteTopicState(topic.name),)))
    (found,) = client.newest(KEY, ConsumerGroupDescribeRequest((group,))).groups
    assert found.members[0].assignment.topic_partitions == ()


def test_classic_apis(client: Client, group: str) -> None:
    client.newest(BEAT, joining(group))
    (found,) = client.newest(ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest((group,))).groups
    assert (found.error_code, found.group_state) == (ErrorCode.GROUP_ID_NOT_FOUND, "Dead")
    listed = client.newest(ApiKey.LIST_GROUPS, ListGroupsRequest(types_filter=("consumer",))).groups
    (found,) = [each for each in listed if each.group_id == group]
    assert (found.protocol_type, found.group_state, found.group_type) == ("consumer", "Stable", "consumer")
    deleting = DeleteGroupsRequest((group,))
    assert client.newest(ApiKey.DELETE_GROUPS, deleting).results[0].error_code == ErrorCode.NON_EMPTY_GROUP
    client.newest(BEAT, beat(group, -1))
    assert client.newest(ApiKey.DELETE_GROUPS, deleting).results[0].error_code == 0
