"""ListGroups (16).

Version notes: states can be filtered from version 4 (KIP-518), types from 5 (KIP-848).
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.protocol.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse


async def handle(ctx: Context, exchange: Exchange) -> ListGroupsResponse:
    request: ListGroupsRequest = exchange.body
    listed = ctx.groups.list(request.states_filter, request.types_filter)
    return ListGroupsResponse(
        groups=tuple(
            ListedGroup(
                group_id=g.group_id, protocol_type=g.protocol_type, group_state=g.state, group_type=g.group_type
            )
            for g in listed
        )
    )
