"""JoinGroup over the wire: who learns what, in the oldest version and the newest."""

from collections.abc import Callable

import pytest
from support.wire import Client, ends, join_request, newest, sync_request

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.join_group import JoinGroupRequestProtocol

NEWEST = newest(ApiKey.JOIN_GROUP)


def test_version_0_joins_at_once(client: Client, group: str) -> None:
    """No member id first, no rebalance timeout."""
    answer = client.ask(ApiKey.JOIN_GROUP, 0, join_request(group, ""))
    assert (answer.error_code, answer.generation_id, answer.protocol_name) == (0, 1, "range")
    assert answer.leader == answer.member_id
    assert answer.member_id.startswith("tester-")
    assert [(m.member_id, m.metadata) for m in answer.members] == [(answer.member_id, b"topics")]


@pytest.mark.parametrize("version", [4, NEWEST])
def test_from_version_4_a_member_learns_its_id_first(client: Client, group: str, version: int) -> None:
    first = client.ask(ApiKey.JOIN_GROUP, version, join_request(group, ""))
    assert first.error_code == ErrorCode.MEMBER_ID_REQUIRED
    assert (first.generation_id, first.members) == (-1, ())
    assert first.protocol_name == (None if version >= 7 else "")
    answer = client.ask(ApiKey.JOIN_GROUP, version, join_request(group, first.member_id))
    assert (answer.error_code, answer.member_id, answer.leader) == (0, first.member_id, first.member_id)
    assert answer.protocol_type == ("consumer" if version >= 7 else None)
    assert not answer.skip_assignment


def test_two_members_and_one_leader(connect: Callable[[], Client], group: str) -> None:
    leader, follower = connect(), connect()
    one = leader.join_alone(group)
    refused = follower.newest(ApiKey.JOIN_GROUP, join_request(group, ""))
    follower.post(ApiKey.JOIN_GROUP, NEWEST, join_request(group, refused.member_id))
    again = leader.newest(ApiKey.JOIN_GROUP, join_request(group, one.id, reason="a member came"))
    told = follower.answer(ApiKey.JOIN_GROUP, NEWEST)
    assert (again.generation_id, told.generation_id) == (2, 2)
    assert (again.leader, told.leader) == (one.id, one.id)
    assert {m.member_id for m in again.members} == {one.id, refused.member_id}
    assert told.members == ()


def test_a_static_member_comes_back(connect: Callable[[], Client], group: str) -> None:
    client = connect()
    member = client.join_alone(group, "instance-1")
    back = connect().newest(ApiKey.JOIN_GROUP, join_request(group, "", "instance-1"))
    assert (back.error_code, back.generation_id) == (0, member.generation)
    assert back.member_id != member.id
    assert (back.leader, back.skip_assignment) == (back.member_id, True)
    fenced = client.newest(ApiKey.JOIN_GROUP, join_request(group, member.id, "instance-1"))
    assert fenced.error_code == ErrorCode.FENCED_INSTANCE_ID


@pytest.mark.parametrize("version", ends(ApiKey.JOIN_GROUP))
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"group": ""}, ErrorCode.INVALID_GROUP_ID),
        ({"member_id": "nobody"}, ErrorCode.UNKNOWN_MEMBER_ID),
        ({"session_timeout_ms": 0}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"session_timeout_ms": 2_000_000_000}, ErrorCode.INVALID_SESSION_TIMEOUT),
        ({"protocol_type": ""}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
        ({"protocols": ()}, ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ],
)
def test_what_is_refused(client: Client, group: str, version: int, fields: dict, code: ErrorCode) -> None:
    answer = client.ask(ApiKey.JOIN_GROUP, version, join_request(**({"group": group, "member_id": ""} | fields)))
    assert (answer.error_code, answer.generation_id, answer.leader) == (code, -1, "")


def test_a_protocol_that_nobody_else_knows(client: Client, connect: Callable[[], Client], group: str) -> None:
    client.join_alone(group)
    other = (JoinGroupRequestProtocol(name="sticky", metadata=b""),)
    answer = connect().newest(ApiKey.JOIN_GROUP, join_request(group, "", protocols=other))
    assert answer.error_code == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_member_that_goes_silent_is_removed(connect: Callable[[], Client], group: str) -> None:
    client = connect()
    member = client.join(group, timeout_ms=200)
    client.newest(ApiKey.SYNC_GROUP, sync_request(member, {}))
    other = connect()
    refused = other.newest(ApiKey.JOIN_GROUP, join_request(group, ""))
    answer = other.newest(ApiKey.JOIN_GROUP, join_request(group, refused.member_id))
    assert (answer.error_code, answer.leader, len(answer.members)) == (0, refused.member_id, 1)
