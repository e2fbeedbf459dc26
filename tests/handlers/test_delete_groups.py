"""DeleteGroups: only those that nobody is in."""

import pytest
from support.wire import Client, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.delete_groups import DeleteGroupsRequest
from streamlake.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity


@pytest.mark.parametrize("version", ends(ApiKey.DELETE_GROUPS))
def test_what_may_be_deleted(client: Client, group: str, version: int) -> None:
    full, empty = f"{group}-full", f"{group}-empty"
    client.join_alone(full)
    gone = client.join_alone(empty)
    client.newest(ApiKey.LEAVE_GROUP, LeaveGroupRequest(empty, members=(MemberIdentity(gone.id),)))

    def delete(*groups: str) -> dict[str, int]:
        results = client.ask(ApiKey.DELETE_GROUPS, version, DeleteGroupsRequest(groups)).results
        return {r.group_id: r.error_code for r in results}

    assert delete(full, empty, "no-such-group", "", empty) == {
        full: ErrorCode.NON_EMPTY_GROUP,
        empty: 0,
        "no-such-group": ErrorCode.GROUP_ID_NOT_FOUND,
        "": ErrorCode.GROUP_ID_NOT_FOUND,
    }
    assert delete(empty) == {empty: ErrorCode.GROUP_ID_NOT_FOUND}
