"""LeaveGroup: one member in old versions, several with results of their own in new ones."""

from collections.abc import Callable

import pytest
from support.wire import Client, codes, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, describe_groups
from streamlake.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity

NEWEST = newest(ApiKey.LEAVE_GROUP)


def state(client: Client, group: str) -> str:
    request = describe_groups.DescribeGroupsRequest(groups=(group,))
    return client.newest(ApiKey.DESCRIBE_GROUPS, request).groups[0].group_state


@pytest.mark.parametrize("version", [0, 2])
def test_one_member(client: Client, group: str, version: int) -> None:
    member = client.join_alone(group)

    def leave(group: str, member_id: str) -> int:
        return client.ask(ApiKey.LEAVE_GROUP, version, LeaveGroupRequest(group, member_id)).error_code

    assert leave(group, "nobody") == ErrorCode.UNKNOWN_MEMBER_ID
    assert leave("no-such-group", member.id) == ErrorCode.UNKNOWN_MEMBER_ID
    assert leave("", member.id) == ErrorCode.INVALID_GROUP_ID
    assert leave(group, member.id) == 0
    assert state(client, group) == "Empty"


@pytest.mark.parametrize("version", [3, NEWEST])
def test_several_members(client: Client, group: str, version: int) -> None:
    member = client.join_alone(group, "instance")
    leaving = (MemberIdentity("nobody"), MemberIdentity(member.id, "other"), MemberIdentity("", "instance", "bye"))
    answer = client.ask(ApiKey.LEAVE_GROUP, version, LeaveGroupRequest(group, members=leaving))
    assert answer.error_code == 0
    assert codes(answer.members) == [ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.UNKNOWN_MEMBER_ID, 0]
    assert [(m.member_id, m.group_instance_id) for m in answer.members] == [
        ("nobody", None),
        (member.id, "other"),
        ("", "instance"),
    ]
    assert state(client, group) == "Empty"


def test_an_empty_group_id_and_nobody(client: Client, group: str) -> None:
    refused = client.newest(ApiKey.LEAVE_GROUP, LeaveGroupRequest("", members=(MemberIdentity("a"),)))
    assert (refused.error_code, refused.members) == (ErrorCode.INVALID_GROUP_ID, ())
    nobody = client.newest(ApiKey.LEAVE_GROUP, LeaveGroupRequest(group))
    assert (nobody.error_code, nobody.members) == (0, ())


def test_the_others_rebalance(connect: Callable[[], Client], group: str) -> None:
    client = connect()
    member = client.join(group)
    client.newest(ApiKey.LEAVE_GROUP, LeaveGroupRequest(group, members=(MemberIdentity(member.id),)))
    assert connect().join(group).generation > member.generation
