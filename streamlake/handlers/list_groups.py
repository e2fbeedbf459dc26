"""ListGroups (16): the groups that this broker coordinates. Clients ask all brokers.

Version notes: states can be filtered from version 4 (KIP-518), types from 5 (KIP-848).
"""

from streamlake.coordinator.classic.api import GroupError
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse


async def handle(ctx: Context, exchange: Exchange) -> ListGroupsResponse:
    request: ListGroupsRequest = exchange.body
    listed = ctx.groups.list(request.states_filter, request.types_filter)
    if isinstance(listed, GroupError):
        return ListGroupsResponse(error_code=group_code(listed))
    return ListGroupsResponse(
        groups=tuple(
            ListedGroup(
                group_id=g.group_id, protocol_type=g.protocol_type, group_state=g.state, group_type=g.group_type
            )
            for g in listed
        )
    )
