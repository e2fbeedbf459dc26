"""Heartbeat: alive, fenced, or told to join again."""

from collections.abc import Callable

import pytest
from support.wire import Client, Member, ends, join_request, newest

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.heartbeat import HeartbeatRequest


def beat(client: Client, member: Member, version: int, instance: str | None = None) -> int:
    request = HeartbeatRequest(member.group, member.generation, member.id, instance)
    return client.ask(ApiKey.HEARTBEAT, version, request).error_code


@pytest.mark.parametrize("version", ends(ApiKey.HEARTBEAT))
def test_of_members_and_others(client: Client, group: str, version: int) -> None:
    member = client.join_alone(group)
    assert beat(client, member, version) == 0
    assert beat(client, Member(group, "nobody", 1), version) == ErrorCode.UNKNOWN_MEMBER_ID
    assert beat(client, Member(group, member.id, 2), version) == ErrorCode.ILLEGAL_GENERATION
    assert beat(client, Member("no-such-group", member.id, 1), version) == ErrorCode.UNKNOWN_MEMBER_ID
    assert beat(client, Member("", member.id, 1), version) == ErrorCode.INVALID_GROUP_ID


def test_a_rebalance_is_told(connect: Callable[[], Client], group: str) -> None:
    client, other = connect(), connect()
    member = client.join_alone(group)
    refused = other.newest(ApiKey.JOIN_GROUP, join_request(group, ""))
    other.post(ApiKey.JOIN_GROUP, newest(ApiKey.JOIN_GROUP), join_request(group, refused.member_id))
    while (code := beat(client, member, 4)) == 0:
        pass  # the other connection's request is on its way
    assert code == ErrorCode.REBALANCE_IN_PROGRESS


def test_a_static_member_that_was_replaced_is_fenced(connect: Callable[[], Client], group: str) -> None:
    client = connect()
    member = client.join_alone(group, "instance")
    assert beat(client, member, 4, "instance") == 0
    connect().newest(ApiKey.JOIN_GROUP, join_request(group, "", "instance"))
    assert beat(client, member, 4, "instance") == ErrorCode.FENCED_INSTANCE_ID
