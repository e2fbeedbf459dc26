"""DescribeGroups: states, members, and groups that are not there."""

import pytest
from support.wire import Client, newest

from streamlake.handlers import operations
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_groups import DescribedGroup, DescribeGroupsRequest

NEWEST = newest(ApiKey.DESCRIBE_GROUPS)


def describe(client: Client, group: str, version: int = NEWEST) -> DescribedGroup:
    (described,) = client.ask(ApiKey.DESCRIBE_GROUPS, version, DescribeGroupsRequest((group,))).groups
    assert described.group_id == group
    return described


@pytest.mark.parametrize("version", [0, 5, NEWEST])
def test_a_stable_group(client: Client, group: str, version: int) -> None:
    member = client.join_alone(group, "instance")
    found = describe(client, group, version)
    assert (found.error_code, found.group_state, found.protocol_type, found.protocol_data) == (
        0,
        "Stable",
        "consumer",
        "range",
    )
    (described,) = found.members
    assert (described.member_id, described.client_id, described.client_host) == (member.id, "tester", "/127.0.0.1")
    assert (described.member_metadata, described.member_assignment) == (b"topics", b"all")
    assert described.group_instance_id == ("instance" if version >= 4 else None)


def test_a_group_that_waits_for_its_leader(client: Client, group: str) -> None:
    client.join(group)
    found = describe(client, group)
    assert (found.group_state, found.protocol_data, len(found.members)) == ("CompletingRebalance", "", 1)


@pytest.mark.parametrize("version", [0, 5, NEWEST])
def test_a_group_that_does_not_exist(client: Client, version: int) -> None:
    found = describe(client, "no-such-group", version)
    assert (found.group_state, found.members) == ("Dead", ())
    assert found.error_code == (ErrorCode.GROUP_ID_NOT_FOUND if version >= 6 else 0)
    assert (found.error_message is not None) == (version >= 6)


def test_operations_are_told_if_asked_for(client: Client, group: str) -> None:
    client.join_alone(group)
    for version in range(3, NEWEST + 1):
        for asked, told in ((True, operations.GROUP), (False, operations.NOT_ASKED)):
            request = DescribeGroupsRequest((group, "no-such-group"), include_authorized_operations=asked)
            found, missing = client.ask(ApiKey.DESCRIBE_GROUPS, version, request).groups
            assert found.authorized_operations == told
            assert missing.authorized_operations == (operations.NOT_ASKED if missing.error_code else told)
