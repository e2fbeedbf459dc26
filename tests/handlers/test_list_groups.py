"""ListGroups, with and without filters."""

from types import SimpleNamespace

import pytest
from support.wire import Client, ends, newest

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.list_groups import handle
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.leave_group import LeaveGroupRequest, MemberIdentity
from streamlake.protocol.messages.list_groups import ListGroupsRequest

NEWEST = newest(ApiKey.LIST_GROUPS)


@pytest.mark.parametrize("version", ends(ApiKey.LIST_GROUPS))
def test_all_groups(client: Client, group: str, version: int) -> None:
    client.join_alone(group)
    answer = client.ask(ApiKey.LIST_GROUPS, version, ListGroupsRequest())
    (found,) = [g for g in answer.groups if g.group_id == group]
    assert (answer.error_code, found.protocol_type) == (0, "consumer")
    assert (found.group_state, found.group_type) == (("Stable", "classic") if version == NEWEST else ("", ""))


def test_filters(client: Client, group: str) -> None:
    stable, empty = f"{group}-stable", f"{group}-empty"
    client.join_alone(stable)
    gone = client.join_alone(empty)
    client.newest(ApiKey.LEAVE_GROUP, LeaveGroupRequest(empty, members=(MemberIdentity(gone.id),)))

    def listed(*states: str, types: tuple[str, ...] = ()) -> set[str]:
        groups = client.newest(ApiKey.LIST_GROUPS, ListGroupsRequest(states, types)).groups
        return {g.group_id for g in groups} & {stable, empty}

    assert listed() == listed("stable", "EMPTY") == listed(types=("Classic",)) == {stable, empty}
    assert listed("Stable") == {stable}
    assert listed("Empty") == {empty}
    assert listed("Dead") == listed(types=("consumer",)) == set()


async def test_a_list_that_is_not_complete_yet_is_none() -> None:
    loading = SimpleNamespace(list=lambda states, types: GroupError.COORDINATOR_LOAD_IN_PROGRESS)
    answer = await handle(SimpleNamespace(groups=loading), SimpleNamespace(body=ListGroupsRequest()))
    assert (answer.error_code, answer.groups) == (ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ())
