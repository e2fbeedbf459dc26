"""DeleteGroups (42): empty groups and their offsets; a group with members stays (NON_EMPTY_GROUP)."""

from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.delete_groups import DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse


async def handle(ctx: Context, exchange: Exchange) -> DeleteGroupsResponse:
    request: DeleteGroupsRequest = exchange.body
    results = await ctx.groups.delete(request.groups_names)
    return DeleteGroupsResponse(
        results=tuple(
            DeletableGroupResult(group_id=group_id, error_code=group_code(error)) for group_id, error in results.items()
        )
    )
