"""SyncGroup over the wire: the leader's assignment reaches everybody."""

from collections.abc import Callable

import pytest
from support.wire import Client, Member, ends, join_request, newest, sync_request

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey

NEWEST = newest(ApiKey.SYNC_GROUP)


@pytest.mark.parametrize("version", ends(ApiKey.SYNC_GROUP))
def test_the_leader_hands_in_and_gets_its_part(client: Client, group: str, version: int) -> None:
    member = client.join(group)
    request = sync_request(member, {member.id: b"all"}, protocol_type="consumer", protocol_name="range")
    answer = client.ask(ApiKey.SYNC_GROUP, version, request)
    assert (answer.error_code, answer.assignment) == (0, b"all")
    assert (answer.protocol_type, answer.protocol_name) == (("consumer", "range") if version >= 5 else (None, None))
    again = client.ask(ApiKey.SYNC_GROUP, version, sync_request(member, {}))
    assert (again.error_code, again.assignment) == (0, b"all"), "a follower of a Stable group gets what it has"


def test_a_follower_waits_for_the_leader(connect: Callable[[], Client], group: str) -> None:
    leader, follower = connect(), connect()
    one = leader.join_alone(group)
    refused = follower.newest(ApiKey.JOIN_GROUP, join_request(group, ""))
    follower.post(ApiKey.JOIN_GROUP, newest(ApiKey.JOIN_GROUP), join_request(group, refused.member_id))
    leader.newest(ApiKey.JOIN_GROUP, join_request(group, one.id))
    generation = follower.answer(ApiKey.JOIN_GROUP, newest(ApiKey.JOIN_GROUP)).generation_id
    one, two = Member(group, one.id, generation), Member(group, refused.member_id, generation)
    follower.post(ApiKey.SYNC_GROUP, NEWEST, sync_request(two, {}))
    assert leader.newest(ApiKey.SYNC_GROUP, sync_request(one, {one.id: b"1", two.id: b"2"})).assignment == b"1"
    assert follower.answer(ApiKey.SYNC_GROUP, NEWEST).assignment == b"2"


@pytest.mark.parametrize("version", ends(ApiKey.SYNC_GROUP))
def test_what_is_refused(client: Client, group: str, version: int) -> None:
    member = client.join(group)

    def code(asked: Member, **fields: str | None) -> int:
        return client.ask(ApiKey.SYNC_GROUP, version, sync_request(asked, {}, **fields)).error_code

    assert code(Member(group, "nobody", member.generation)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert code(Member(group, member.id, member.generation + 1)) == ErrorCode.ILLEGAL_GENERATION
    assert code(Member("no-such-group", member.id, 1)) == ErrorCode.UNKNOWN_MEMBER_ID
    assert code(Member("", member.id, 1)) == ErrorCode.INVALID_GROUP_ID
    if version >= 5:
        assert code(member, protocol_type="connect") == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert code(member, protocol_name="sticky") == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert code(member, protocol_name=None) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert code(member, protocol_type=None) == ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def test_a_static_member_that_was_replaced_is_fenced(connect: Callable[[], Client], group: str) -> None:
    client = connect()
    member = client.join_alone(group, "instance")
    connect().newest(ApiKey.JOIN_GROUP, join_request(group, "", "instance"))
    answer = client.newest(ApiKey.SYNC_GROUP, sync_request(member, {}, "instance"))
    assert answer.error_code == ErrorCode.FENCED_INSTANCE_ID
