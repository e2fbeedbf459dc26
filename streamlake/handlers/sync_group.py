"""SyncGroup (14): the leader hands in the assignment, every member gets its part.

Version notes: static members from version 3; from 5 on protocol type and name must be there, and are checked.
"""

from streamlake.coordinator.classic.api import SyncRequest
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse


async def handle(ctx: Context, exchange: Exchange) -> SyncGroupResponse:
    request: SyncGroupRequest = exchange.body
    if exchange.version >= 5 and (request.protocol_type is None or request.protocol_name is None):
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    answer = await ctx.groups.sync(
        SyncRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            group_instance_id=request.group_instance_id,
            generation=request.generation_id,
            protocol_type=request.protocol_type,
            protocol=request.protocol_name,
            assignments={a.member_id: bytes(a.assignment) for a in request.assignments},
        )
    )
    return SyncGroupResponse(
        error_code=group_code(answer.error),
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol,
        assignment=answer.assignment,
    )
