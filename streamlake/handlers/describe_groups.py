"""DescribeGroups (15): state, protocol and members.

Behavior: classic groups only, as in Kafka; ConsumerGroupDescribe has the others, and clients ask it first.
Version notes: a group that does not exist is "Dead" without an error until version 5, GROUP_ID_NOT_FOUND from 6.
"""

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers import operations
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)


async def handle(ctx: Context, exchange: Exchange) -> DescribeGroupsResponse:
    request: DescribeGroupsRequest = exchange.body
    allowed = operations.GROUP if request.include_authorized_operations else operations.NOT_ASKED
    return DescribeGroupsResponse(groups=tuple(_describe(ctx, exchange.version, g, allowed) for g in request.groups))


def _describe(ctx: Context, version: int, group_id: str, allowed: int) -> DescribedGroup:
    group = ctx.groups.describe(group_id)
    if group is GroupError.GROUP_ID_NOT_FOUND:
        if version < 6:
            return DescribedGroup(group_id=group_id, group_state="Dead", authorized_operations=allowed)
        text = f"there is no classic group {group_id}"
        code = ErrorCode.GROUP_ID_NOT_FOUND
        return DescribedGroup(group_id=group_id, group_state="Dead", error_code=code, error_message=text)
    if isinstance(group, GroupError):
        return DescribedGroup(group_id=group_id, error_code=group_code(group), authorized_operations=allowed)
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=tuple(
            DescribedGroupMember(
                member_id=m.member_id,
                group_instance_id=m.group_instance_id,
                client_id=m.client_id,
                client_host=f"/{m.client_host}",  # so Kafka writes addresses, and so its tools show them
                member_metadata=m.metadata,
                member_assignment=m.assignment,
            )
            for m in group.members
        ),
        authorized_operations=allowed,
    )
